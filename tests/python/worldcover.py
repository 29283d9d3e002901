"""A land-cover server as one writes it for LitServe with torch: a typed image, weights from a file, CORS, devices."""

import sys
from typing import Dict, List

import numpy as np
import torch
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel as PydanticBaseModel

import unetserve.litserve as ls


class BaseModel(PydanticBaseModel):
    class Config:
        arbitrary_types_allowed = True


class Scene(BaseModel):
    image: List[List[List[float]]]


class Cover(BaseModel):
    output: List[List[int]]


class WorldCover(ls.LitAPI):
    def setup(self, device):
        self.device = device
        self.model = torch.Module().to(device)
        self.model.load_state_dict(torch.load(sys.argv[1], weights_only=True, map_location="cpu"))
        self.model.eval()

    def decode_request(self, request: Scene):
        return np.array(request.image, dtype=np.float32)

    def predict(self, x):
        scaled = torch.from_numpy(x / 10000.0).float().clip(min=0.0, max=1.0).to(self.device)
        with torch.no_grad():
            logits = self.model(scaled.unsqueeze(0))
        return {"output": torch.argmax(logits, dim=1).cpu().numpy()[0, ...].tolist()}

    def encode_response(self, output: Dict) -> Cover:
        return Cover(output=output["output"])


if __name__ == "__main__":
    cors = (CORSMiddleware, {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]})
    ls.LitServer(WorldCover(), accelerator="auto", middlewares=[cors], devices=3).run(host="127.0.0.1", port=0)
