"""The weights that every peer serves, and the network that they belong to, without the peers' own loaders: numpy only."""
import json
import struct

import numpy as np

SCALE = 10000.0


def read_safetensors(path):
    """{name: float32 array}."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
        data = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] == "F32":
            begin, end = entry["data_offsets"]
            tensors[name] = np.frombuffer(data[begin:end], "<f4").reshape(entry["shape"])
    return tensors


def preprocess(tile):
    """Digital numbers to what the network takes, as the tutorial does it."""
    return np.clip(tile.astype(np.float32) / np.float32(SCALE), 0, 1)


def widths(tensors):
    """(bands, base width, depth, classes)."""
    base, bands = tensors["inc.double_conv.0.weight"].shape[:2]
    depth = sum(name.endswith(".up.weight") for name in tensors)
    return bands, base, depth, tensors["outc.conv.weight"].shape[0]
