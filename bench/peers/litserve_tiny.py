"""x^2 + x^3 under LitServe, as the tutorial writes it, with its types: litserve_tiny.py PORT"""
import sys
from typing import Dict

import litserve as ls
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel


class NumberRequest(BaseModel):
    input: float


class NumberResponse(BaseModel):
    output: float


class Simple(ls.LitAPI):
    def setup(self, device):
        self.model1 = lambda x: x**2
        self.model2 = lambda x: x**3

    def decode_request(self, request: NumberRequest):
        return request.input

    def predict(self, x):
        return {"output": self.model1(x) + self.model2(x)}

    def encode_response(self, output: Dict) -> NumberResponse:
        return NumberResponse(output=output["output"])


def main():
    everybody = {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
    server = ls.LitServer(Simple(), accelerator="cpu", middlewares=[(CORSMiddleware, everybody)])
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
