"""Write a UNet of the milesial family with random weights as safetensors: random_unet.py OUT [--base 64] [--depth 4] [--channels 12] [--classes 11]

The weights mean nothing; the sizes are those of the usual 31M-parameter network, so that speed can be measured without torch.
"""
import argparse
import json
import struct

import numpy as np


def tensors(base, depth, channels, classes, rng):
    def conv(name, out, cin, kernel):
        scale = (2.0 / (cin * kernel * kernel)) ** 0.5
        yield name, rng.standard_normal((out, cin, kernel, kernel), dtype=np.float32) * np.float32(scale)

    def norm(name, width):
        yield name + ".weight", np.ones(width, np.float32)
        yield name + ".bias", np.zeros(width, np.float32)
        yield name + ".running_mean", np.zeros(width, np.float32)
        yield name + ".running_var", np.ones(width, np.float32)

    def double(prefix, cin, out):
        yield from conv(f"{prefix}.double_conv.0.weight", out, cin, 3)
        yield from norm(f"{prefix}.double_conv.1", out)
        yield from conv(f"{prefix}.double_conv.3.weight", out, out, 3)
        yield from norm(f"{prefix}.double_conv.4", out)

    yield from double("inc", channels, base)
    for i in range(1, depth + 1):
        yield from double(f"down{i}.maxpool_conv.1", base << (i - 1), base << i)
    for i in range(1, depth + 1):
        wide = base << (depth - i + 1)
        scale = np.float32((1.0 / wide) ** 0.5)
        yield f"up{i}.up.weight", rng.standard_normal((wide, wide // 2, 2, 2), dtype=np.float32) * scale
        yield f"up{i}.up.bias", np.zeros(wide // 2, np.float32)
        yield from double(f"up{i}.conv", wide, wide // 2)
    yield from conv("outc.conv.weight", classes, base, 1)
    yield "outc.conv.bias", np.zeros(classes, np.float32)


def write_safetensors(path, named):
    header, blobs, at = {}, [], 0
    for name, value in named:
        data = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(blobs)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--base", type=int, default=64)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--channels", type=int, default=12)
    parser.add_argument("--classes", type=int, default=11)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    write_safetensors(args.out, tensors(args.base, args.depth, args.channels, args.classes, rng))


if __name__ == "__main__":
    main()
