"""The tutorial's UNet as far as its server sees it: a typed image, numbers, labels. The network is two lines of numpy."""

from typing import Dict, List

import numpy as np
from pydantic import BaseModel

import unetserve.litserve as ls


class Image(BaseModel):
    image: List[List[List[float]]]


class Mask(BaseModel):
    output: List[List[int]]


class LandCover(ls.LitAPI):
    def setup(self, device):
        rng = np.random.default_rng(7)
        self.weights = rng.normal(size=(11, 12)).astype(np.float32)
        self.device_name = device

    def decode_request(self, request: Image):
        return np.array(request.image, dtype=np.float32)

    def predict(self, x):
        x = np.clip(x / 10000.0, 0.0, 1.0)
        logits = np.einsum("kc,chw->khw", self.weights, x)
        return {"output": logits.argmax(axis=0).tolist()}

    def encode_response(self, output: Dict) -> Mask:
        return Mask(output=output["output"])


if __name__ == "__main__":
    ls.LitServer(LandCover(), accelerator="auto", devices=3).run(host="127.0.0.1", port=0)
