"""The UNet under LitServe: litserve_unet.py tutorial|tuned-json|tuned-npy WEIGHTS PORT

tutorial: as the tutorial writes it (torch eager in float32, lists through pydantic). tuned-json: the same bodies, by orjson on both ways, bf16,
channels last, compiled. tuned-npy: an npy file by multipart, since LitServe reads any other body as JSON; npy back.
"""
import io
import os
import sys
from typing import Dict, List

import litserve as ls
import numpy as np
import orjson
import torch
import torch_unet
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.requests import Request

KIND, WEIGHTS, PORT = sys.argv[1:4]
THREADS = len(os.sched_getaffinity(0))


class ImageRequest(BaseModel):
    image: List[List[List[float]]]


class MaskResponse(BaseModel):
    output: List[List[int]]


class Tutorial(ls.LitAPI):
    def setup(self, device):
        self.model = torch_unet.load(WEIGHTS).to(device)
        self.device = device

    def decode_request(self, request: ImageRequest):
        return np.array(request.image, dtype=np.float32)

    def predict(self, x):
        x = torch.from_numpy(x / 10000.0).float().clip(min=0.0, max=1.0).to(self.device)
        with torch.no_grad():
            mask = torch.argmax(self.model(x.unsqueeze(0)), dim=1)
        return {"output": mask.cpu().numpy()[0, ...].tolist()}

    def encode_response(self, output: Dict) -> MaskResponse:
        return MaskResponse(output=output["output"])


class Tuned(ls.LitAPI):
    def setup(self, device):
        torch.set_num_threads(THREADS)
        example = torch.zeros(1, 12, 256, 256).contiguous(memory_format=torch.channels_last)
        self.model, about = torch_unet.tuned(WEIGHTS, example)
        print(about, flush=True)

    def decode_request(self, request):
        if KIND == "tuned-npy":
            return np.load(io.BytesIO(request["image"].file.read()))
        return np.array(request["image"], dtype=np.float32)

    def predict(self, x):
        x = torch.from_numpy(x.astype(np.float32)).mul_(1 / 10000.0).clamp_(0, 1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            x = x.unsqueeze(0).contiguous(memory_format=torch.channels_last)
            return torch.argmax(self.model(x), dim=1)[0].to(torch.uint8).numpy()

    def encode_response(self, mask):
        if KIND == "tuned-npy":
            buffer = io.BytesIO()
            np.save(buffer, mask)
            return Response(buffer.getvalue(), media_type="application/x-npy")
        return Response(orjson.dumps({"output": mask}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


async def read_json(self):
    return orjson.loads(await self.body())


def main():
    if KIND == "tuned-json":
        Request.json = read_json
    api = Tutorial() if KIND == "tutorial" else Tuned()
    everybody = {"allow_origins": ["*"], "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
    server = ls.LitServer(api, accelerator="cpu", timeout=300, middlewares=[(CORSMiddleware, everybody)])
    server.run(host="127.0.0.1", port=int(PORT), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
