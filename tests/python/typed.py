"""The same with a request and a response that pydantic knows."""

from typing import Dict

from fastapi import HTTPException
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel

import unetserve.litserve as ls


class Number(BaseModel):
    input: float


class Answer(BaseModel):
    output: float


class SumOfPowers(ls.LitAPI):
    def setup(self, device):
        self.square = lambda x: x**2
        self.cube = lambda x: x**3

    def decode_request(self, request: Number):
        return request.input

    def predict(self, x: float):
        if x == 13:
            raise HTTPException(418, "thirteen brings bad luck")
        return {"output": self.square(x) + self.cube(x)}

    def encode_response(self, output: Dict) -> Answer:
        return Answer(output=output["output"])


if __name__ == "__main__":
    cors = (CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]})
    server = ls.LitServer(SumOfPowers(), accelerator="auto", middlewares=[cors])
    server.run(host="127.0.0.1", port=0)
