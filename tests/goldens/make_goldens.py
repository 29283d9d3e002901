"""Makes the goldens beside this file: python make_goldens.py [DIRECTORY] (needs torch; the results are committed).

Each golden is a tiny network of one family with random weights and random batch-norm statistics: NAME.safetensors or NAME.pth,
NAME.input.npy (uint16 digital numbers; x / 10000 clipped to [0, 1] is what the network sees) and NAME.logits.npy (torch's
float32 output, before any sigmoid). A network here is a function that asks a Params object for its layers by name, so that the
names of a state dict and the arithmetic stand side by side.
"""
import collections
import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


class Params:
    """Creates parameters at their first use and computes with them."""

    def __init__(self, seed, dtype=torch.float32):
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = dtype
        self.state = collections.OrderedDict()

    def normal(self, shape, scale):
        return torch.randn(shape, generator=self.generator) * scale

    def get(self, name, make):
        if name not in self.state:
            self.state[name] = make().to(self.dtype)
        return self.state[name].float()

    def conv(self, x, name, out, kernel=3, bias=False, stride=1):
        shape = (out, x.shape[1], kernel, kernel)
        scale = (2.0 / (shape[1] * kernel * kernel)) ** 0.5
        weight = self.get(name + ".weight", lambda: self.normal(shape, scale))
        offset = self.get(name + ".bias", lambda: self.normal((out,), 0.2)) if bias else None
        return F.conv2d(x, weight, offset, stride=stride, padding=kernel // 2)

    def up(self, x, name, out):
        shape = (x.shape[1], out, 2, 2)
        weight = self.get(name + ".weight", lambda: self.normal(shape, (1.0 / shape[0]) ** 0.5))
        return F.conv_transpose2d(
            x, weight, self.get(name + ".bias", lambda: self.normal((out,), 0.2)), stride=2)

    def norm(self, x, name):
        c = x.shape[1]
        uniform = lambda low, high: low + (high - low) * torch.rand(c, generator=self.generator)
        weight = self.get(name + ".weight", lambda: uniform(0.6, 1.4))
        bias = self.get(name + ".bias", lambda: self.normal((c,), 0.3))
        mean = self.get(name + ".running_mean", lambda: self.normal((c,), 0.4))
        var = self.get(name + ".running_var", lambda: uniform(0.4, 2.0))
        self.state.setdefault(name + ".num_batches_tracked", torch.tensor(4000))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


def indexed(p, x, prefix, middle, out, bias=False, norm=True, places=(0, 1, 3, 4)):
    """conv, norm, relu, conv, norm, relu inside a Sequential; places are the indices of the four that have weights."""
    for width, conv, bn in ((middle, places[0], places[1]), (out, places[2], places[3])):
        x = p.conv(x, f"{prefix}.{conv}", width, bias=bias)
        if norm:
            x = p.norm(x, f"{prefix}.{bn}")
        x = F.relu(x)
    return x


def milesial(p, x, classes, base, depth, bilinear=False, **block):
    factor = 2 if bilinear else 1
    skips = [indexed(p, x, "inc.double_conv", base, base, **block)]
    for n in range(1, depth + 1):
        width = (base << n) // (factor if n == depth else 1)
        y = F.max_pool2d(skips[-1], 2)
        skips.append(indexed(p, y, f"down{n}.maxpool_conv.1.double_conv", width, width, **block))
    y = skips.pop()
    for n in range(1, depth + 1):
        skip = skips.pop()
        if bilinear:
            y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        else:
            y = p.up(y, f"up{n}.up", y.shape[1] // 2)
        dy, dx = skip.shape[2] - y.shape[2], skip.shape[3] - y.shape[3]
        y = torch.cat([skip, F.pad(y, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])], 1)
        width = base << (depth - n)
        middle, out = (y.shape[1] // 2, width // (factor if n < depth else 1)) if bilinear else (width, width)
        y = indexed(p, y, f"up{n}.conv.double_conv", middle, out, **block)
    return p.conv(y, "outc.conv", classes, kernel=1, bias=True)


def mateuszbuda(p, x, classes, base, depth):
    def block(y, outer, inner, width):
        for i in (1, 2):
            y = F.relu(p.norm(p.conv(y, f"{outer}.{inner}conv{i}", width), f"{outer}.{inner}norm{i}"))
        return y
    skips = []
    for n in range(1, depth + 1):
        skips.append(block(x, f"encoder{n}", f"enc{n}", base << (n - 1)))
        x = F.max_pool2d(skips[-1], 2)
    x = block(x, "bottleneck", "bottleneck", base << depth)
    for n in range(depth, 0, -1):
        x = torch.cat([p.up(x, f"upconv{n}", base << (n - 1)), skips[n - 1]], 1)
        x = block(x, f"decoder{n}", f"dec{n}", base << (n - 1))
    return p.conv(x, "conv", classes, kernel=1, bias=True)


def aladdinpersson(p, x, classes, widths):
    skips = []
    for n, width in enumerate(widths):
        skips.append(indexed(p, x, f"downs.{n}.conv", width, width))
        x = F.max_pool2d(skips[-1], 2)
    x = indexed(p, x, "bottleneck.conv", 2 * widths[-1], 2 * widths[-1])
    for n, width in enumerate(reversed(widths)):
        x = torch.cat([skips.pop(), p.up(x, f"ups.{2 * n}", width)], 1)
        x = indexed(p, x, f"ups.{2 * n + 1}.conv", width, width)
    x = p.conv(x, "final_conv", classes, kernel=1, bias=True)
    order = sorted(p.state, key=lambda k: ["ups", "downs", "bottleneck", "final_conv"].index(k.split(".")[0]))
    p.state = collections.OrderedDict((k, p.state[k]) for k in order)
    return x


def zhoudaxia(p, x, classes, base, depth):
    skips = []
    for n in range(1, depth + 1):
        skips.append(indexed(p, x, f"conv{n}", base << (n - 1), base << (n - 1), bias=True))
        x = F.max_pool2d(skips[-1], 2)
    x = indexed(p, x, "bottleneck", base << depth, base << depth, bias=True)
    for n in range(depth + 1, 2 * depth + 1):
        width = base << (2 * depth - n)
        x = torch.cat([p.up(x, f"up_conv{n}", width), skips.pop()], 1)
        x = indexed(p, x, f"conv{n}", width, width, bias=True)
    return p.conv(x, f"conv{2 * depth + 1}", classes, kernel=1, bias=True)


def numbered(p, x, classes, widths, bottom, head, nested=False, upwards=False, norm=True):
    """encN, a bottom, upN, decN and a head; decoders count down to dec1, or upwards from it."""
    def block(y, name, width):
        if nested:
            for i in range(2):
                y = F.relu(p.norm(p.conv(y, f"{name}.{i}.0", width, bias=True), f"{name}.{i}.1"))
            return y
        places = (0, 1, 3, 4) if norm else (0, 0, 2, 2)
        return indexed(p, y, name, width, width, bias=True, norm=norm, places=places)
    skips = []
    for n, width in enumerate(widths, 1):
        skips.append(block(x, f"enc{n}", width))
        x = F.max_pool2d(skips[-1], 2)
    x = block(x, bottom, 2 * widths[-1])
    for i, width in enumerate(reversed(widths), 1):
        n = i if upwards else len(widths) + 1 - i
        x = torch.cat([p.up(x, f"up{n}", width), skips.pop()], 1)
        x = block(x, f"dec{n}", width)
    return p.conv(x, head, classes, kernel=1, bias=True)


def fepegar(p, x, classes, base, depth):
    """Only the first convolution has a bias and no norm; up steps keep their channels."""
    def block(y, prefix, width, first=False):
        for i in (1, 2):
            bare = first and i == 1
            y = p.conv(y, f"{prefix}.conv{i}.conv_layer", width, bias=bare)
            y = F.relu(y if bare else p.norm(y, f"{prefix}.conv{i}.norm_layer"))
        return y
    skips = []
    for n in range(depth):
        skips.append(block(x, f"encoder.encoding_blocks.{n}", base << n, first=n == 0))
        x = F.max_pool2d(skips[-1], 2)
    x = block(x, "bottom_block", base << depth)
    for n in range(depth):
        prefix = f"decoder.decoding_blocks.{n}"
        x = torch.cat([skips.pop(), p.up(x, f"{prefix}.upsample", x.shape[1])], 1)
        x = block(x, prefix, base << (depth - 1 - n))
    return p.conv(x, "classifier.conv_layer", classes, kernel=1, bias=True)


def smp(p, x, classes, widths, blocks, decoder):
    """A residual encoder: widths of the stem and of layer1..4, blocks in each of the four; widths of the five decoder blocks."""
    def residual(y, prefix, width, stride):
        out = F.relu(p.norm(p.conv(y, f"{prefix}.conv1", width, stride=stride), f"{prefix}.bn1"))
        out = p.norm(p.conv(out, f"{prefix}.conv2", width), f"{prefix}.bn2")
        if stride != 1 or y.shape[1] != width:
            y = p.norm(p.conv(y, f"{prefix}.downsample.0", width, kernel=1, stride=stride), f"{prefix}.downsample.1")
        return F.relu(out + y)
    features = [F.relu(p.norm(p.conv(x, "encoder.conv1", widths[0], kernel=7, stride=2), "encoder.bn1"))]
    x = F.max_pool2d(features[0], 3, stride=2, padding=1)
    for n in range(1, 5):
        for j in range(blocks[n - 1]):
            x = residual(x, f"encoder.layer{n}.{j}", widths[n], 2 if n > 1 and j == 0 else 1)
        features.append(x)
    features.pop()
    for n, width in enumerate(decoder):
        x = F.interpolate(x, scale_factor=2, mode="nearest")
        if features:
            x = torch.cat([x, features.pop()], 1)
        for i in (1, 2):
            x = F.relu(p.norm(p.conv(x, f"decoder.blocks.{n}.conv{i}.0", width), f"decoder.blocks.{n}.conv{i}.1"))
    return p.conv(x, "segmentation_head.0", classes, bias=True)


def save_safetensors(path, state):
    """Entries sorted as the usual writer sorts them: wide types first, then by name."""
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for key in sorted(state, key=lambda k: (-state[k].element_size(), k)):
        tensor = state[key].contiguous()
        blob = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[key] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def as_model_state(state):
    """A state dict as a module returns it: with the _metadata attribute, which a pickle sets by BUILD."""
    out = collections.OrderedDict(state)
    out._metadata = collections.OrderedDict([("", {"version": 1})])
    return out


def in_one_storage(state):
    """All float tensors as slices of one storage, so that offsets matter."""
    keys = [k for k, v in state.items() if v.is_floating_point()]
    flat = torch.cat([state[k].reshape(-1) for k in keys])
    out, at = dict(state), 0
    for k in keys:
        out[k] = flat[at:at + state[k].numel()].view(state[k].shape)
        at += state[k].numel()
    return out


def transposed_memory(state):
    """4-D tensors in channels_last memory: same values, other strides."""
    return {k: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v for k, v in state.items()}


def wrap_trainer(state):
    """A trainer's checkpoint: DataParallel's prefix, optimizer state and counters beside the weights."""
    weight = next(iter(state.values()))
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros_like(weight)}},
                 "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}
    return {"epoch": 12, "loss": 0.25, "optimizer_state_dict": optimizer,
            "model_state_dict": as_model_state({"module." + k: v for k, v in state.items()})}


def wrap_parameters(state):
    return {"state_dict": {"model.net." + k: torch.nn.Parameter(v, requires_grad=v.is_floating_point())
                           if v.is_floating_point() else v for k, v in state.items()}, "mask_values": [0, 1]}


# name, seed, dtype, network, input channels, height, width, and how a .pth is arranged (None: safetensors)
CASES = [
    ("milesial_transposed", 1, torch.float32, lambda p, x: milesial(p, x, 5, 4, 3), 3, 37, 45, None),
    ("milesial_deep", 2, torch.float32, lambda p, x: milesial(p, x, 7, 2, 4), 12, 33, 31, None),
    ("milesial_bilinear", 3, torch.float32, lambda p, x: milesial(p, x, 3, 4, 3, bilinear=True), 4, 30, 23, None),
    ("milesial_no_norm", 4, torch.float32,
     lambda p, x: milesial(p, x, 2, 4, 2, bias=True, norm=False, places=(0, 0, 2, 2)), 2, 21, 18, None),
    ("mateuszbuda", 5, torch.float32, lambda p, x: mateuszbuda(p, x, 1, 3, 3), 3, 32, 40, None),
    ("aladdinpersson", 6, torch.float32, lambda p, x: aladdinpersson(p, x, 4, [4, 6, 10]), 3, 24, 32, None),
    ("zhoudaxia233", 17, torch.float32, lambda p, x: zhoudaxia(p, x, 3, 3, 3), 1, 32, 24, None),
    ("plain", 8, torch.float32, lambda p, x: numbered(p, x, 6, [4, 8], "bottom", "head"), 5, 28, 20, None),
    ("plain_upwards", 9, torch.float32, lambda p, x: numbered(p, x, 2, [5, 7, 9], "bottom", "head", upwards=True, norm=False), 2, 24, 16, None),
    ("cbr", 10, torch.float32, lambda p, x: numbered(p, x, 4, [4, 8], "enc3", "final"), 3, 20, 24, None),
    ("cbr_nested", 11, torch.float32, lambda p, x: numbered(p, x, 3, [4, 6, 8], "bottleneck", "final", nested=True), 3, 24, 24, None),
    ("fepegar", 26, torch.float32, lambda p, x: fepegar(p, x, 4, 4, 2), 3, 24, 28, None),
    ("smp", 36, torch.float32, lambda p, x: smp(p, x, 3, [4, 4, 6, 8, 10], [1, 2, 1, 1], [9, 7, 6, 5, 4]), 4, 64, 32, None),
    ("milesial_checkpoint", 12, torch.float16, lambda p, x: milesial(p, x, 5, 3, 3, places=(0, 1, 4, 5)), 3, 35, 27, wrap_trainer),
    ("mateuszbuda_bf16", 13, torch.bfloat16, lambda p, x: mateuszbuda(p, x, 3, 4, 2), 3, 16, 24,
     lambda s: wrap_parameters(transposed_memory(s))),
    ("zhoudaxia233_views", 14, torch.float64, lambda p, x: zhoudaxia(p, x, 2, 3, 2), 2, 16, 16, in_one_storage),
    ("cbr_compiled", 25, torch.float32, lambda p, x: numbered(p, x, 2, [4, 6], "bottleneck", "final", nested=True), 2, 16, 12,
     lambda s: {"model": as_model_state({"_orig_mod.module." + k: v for k, v in s.items()})}),
]


def make_case(out, name, seed, dtype, network, channels, height, width, arrange):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 9000, (channels, (height + 3) // 4, (width + 3) // 4))
    image = coarse.repeat(4, 1).repeat(4, 2)[:, :height, :width] + rng.integers(0, 2500, (channels, height, width))
    image = image.astype(np.uint16)
    params = Params(seed, dtype)
    with torch.no_grad():
        x = torch.from_numpy((image.astype(np.float32) / 10000).clip(0, 1))[None]
        logits = network(params, x)[0].numpy()
    np.save(out / f"{name}.input.npy", image)
    np.save(out / f"{name}.logits.npy", logits)
    if arrange is None:
        save_safetensors(out / f"{name}.safetensors", params.state)
    else:
        torch.save(arrange(params.state), out / f"{name}.pth")
    labels = logits.argmax(0) if logits.shape[0] > 1 else (logits[0] > 0)
    print(f"{name}: {logits.shape}, largest {abs(logits).max():.3f}, classes seen {len(np.unique(labels))}")


def make_ops(out):
    """One operation each, for what no golden network uses yet."""
    p = Params(99)
    x = p.normal((1, 3, 9, 13), 1.0)
    y = p.normal((1, 3, 9, 13), 1.0)
    ops = collections.OrderedDict(input=x, other=y)
    ops["conv7"] = F.relu(p.conv(x, "weights7", 4, kernel=7, bias=True, stride=2))
    ops["conv5"] = p.conv(x, "weights5", 2, kernel=5, bias=True)
    ops["pool3"] = F.max_pool2d(x, 3, stride=2, padding=1)
    ops["pool2"] = F.max_pool2d(x, 2)
    ops["nearest"] = F.interpolate(x, scale_factor=2, mode="nearest")
    ops["bilinear"] = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    ops["aligned"] = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    ops["add"] = F.relu(x + y)
    ops["up"] = p.up(x, "weights_up", 2)
    ops["concat"] = torch.cat([y, x], 1)
    ops["fit_larger"] = F.pad(x, [1, 2, 1, 2])
    ops["fit_smaller"] = F.pad(x, [-2, -1, -2, -1])
    ops.update(p.state)
    save_safetensors(out / "ops.safetensors", {k: v.detach() for k, v in ops.items()})


class Whole(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inc = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x):
        return self.inc(x)


def make_refused(out):
    """Files that hold a program or an older format: they must be refused by name."""
    model = Whole()
    torch.save(model, out / "refused_module.pth")
    torch.save(model.state_dict(), out / "refused_legacy.pth", _use_new_zipfile_serialization=False)
    torch.jit.script(model).save(str(out / "refused_torchscript.pth"))


if __name__ == "__main__":
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    torch.manual_seed(0)
    for case in CASES:
        make_case(directory, *case)
    make_ops(directory)
    make_refused(directory)
