"""The UNet, npy in and out, or x^2 + x^3 under mosec: mosec_server.py unet|tiny, with BENCH_WEIGHTS, and mosec's own options after it"""
import io
import os
import sys

from mosec import Server, Worker

KIND = os.environ.get("BENCH_MOSEC") or sys.argv.pop(1)
os.environ["BENCH_MOSEC"] = KIND  # its workers begin anew, with its own arguments


class Simple(Worker):
    def forward(self, data):
        x = float(data["input"])
        return {"output": x**2 + x**3}


class UNet(Worker):
    def __init__(self):
        import torch
        import torch_unet
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        example = torch.zeros(1, 12, 256, 256).contiguous(memory_format=torch.channels_last)
        self.torch = torch
        self.model, _ = torch_unet.tuned(os.environ["BENCH_WEIGHTS"], example)

    def deserialize(self, data):
        import numpy as np
        return np.load(io.BytesIO(data))

    def forward(self, data):
        torch = self.torch
        import numpy as np
        x = torch.from_numpy(data.astype(np.float32)).mul_(1 / 10000.0).clamp_(0, 1)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            x = x.unsqueeze(0).contiguous(memory_format=torch.channels_last)
            return torch.argmax(self.model(x), dim=1)[0].to(torch.uint8).numpy()

    def serialize(self, data):
        import numpy as np
        buffer = io.BytesIO()
        np.save(buffer, data)
        return buffer.getvalue()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Simple if KIND == "tiny" else UNet, num=1, timeout=60)
    server.run()
