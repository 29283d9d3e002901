"""The tutorial's x^2 + x^3."""

import unetserve.litserve as ls


class SumOfPowers(ls.LitAPI):
    def setup(self, device):
        self.square = lambda x: x**2
        self.cube = lambda x: x**3

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return {"output": self.square(x) + self.cube(x)}

    def encode_response(self, output):
        return {"output": output["output"]}


if __name__ == "__main__":
    server = ls.LitServer(SumOfPowers(), accelerator="auto")
    server.run(host="127.0.0.1", port=0)
