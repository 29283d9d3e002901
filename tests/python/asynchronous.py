"""The tutorial's coroutines. Twenty requests meet before any of them is answered."""

import asyncio

import unetserve.litserve as ls


class Meeting(ls.LitAPI):
    def setup(self, device):
        self.there = 0
        self.all_there = None

    async def decode_request(self, request):
        return request["input"]

    async def predict(self, x):
        if x == 13:
            raise ls.HTTPException(418, "thirteen brings bad luck")
        if isinstance(x, str):
            await asyncio.sleep(3600)
        self.all_there = self.all_there or asyncio.Event()
        self.there += 1
        if self.there >= 20:
            self.all_there.set()
        await self.all_there.wait()
        return {"output": x**2 + x**3}

    async def encode_response(self, output):
        return output


if __name__ == "__main__":
    ls.LitServer(Meeting(enable_async=True)).run(host="127.0.0.1", port=0)
