"""The tutorial's ten items. LitServe 0.2.10 gives encode_response each output as a list of one."""

import asyncio

import unetserve.litserve as ls


class Ten(ls.LitAPI):
    def setup(self, device):
        self.device_name = device

    async def decode_request(self, request):
        return request["input"]

    async def predict(self, x):
        if x == 13:
            raise ls.HTTPException(418, "thirteen brings bad luck")
        for i in range(10 if x < 100 else 1000000):
            await asyncio.sleep(0)
            if x == 5 and i == 3:
                raise ValueError("five goes no further than three")
            yield {"output": (x + i) ** 2 + (x + i) ** 3}

    async def encode_response(self, output):
        output = output[0]
        yield {"output": output["output"], "rest": "." * 1000} if output["output"] > 1e6 else output


if __name__ == "__main__":
    ls.LitServer(Ten(enable_async=True), stream=True).run(host="127.0.0.1", port=0)
