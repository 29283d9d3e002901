"""A stream from plain generators: encode_response gets the generator."""

import unetserve.litserve as ls


class Count(ls.LitAPI):
    def setup(self, device):
        self.left = 0

    def decode_request(self, request):
        if request["to"] < 0:
            raise ls.HTTPException(422, "to must not be negative")
        return request["to"]

    def predict(self, x):
        try:
            for i in range(x):
                yield i
        finally:
            self.left += 1

    def encode_response(self, output):
        for i in output:
            yield {"i": i, "left": self.left}


if __name__ == "__main__":
    ls.LitServer(Count(), stream=True).run(host="127.0.0.1", port=0)
