"""What precision int8 computes, in PyTorch, from nothing but a model directory. Written after workers/backends/quantise.h and
docs/quantisation.md, not after the C code, so that the one can be held against the other.

For networks of the milesial family with transposed convolutions (bench/peers/torch_unet.py has the same in float), and ranges for all but
the first and the last convolution.
"""
import json

import numpy as np
import torch
from torch.nn import functional
from weights import read_safetensors, widths

TOP_CODE, TOP_WEIGHT = 255, 127


class Value:
    """What a layer puts out: channels x height x width of codes, each channel with a scale, a zero and a mean (of code - zero)."""

    def __init__(self, codes, scale, zero, mean):
        self.codes, self.scale, self.zero, self.mean = codes, scale, zero, mean

    def pooled(self, mean):
        return Value(functional.max_pool2d(self.codes[None], 2)[0], self.scale, self.zero, mean / self.scale)

    def beside(self, other):
        return Value(*(torch.cat(pair) for pair in zip((self.codes, self.scale, self.zero, self.mean),
                                                       (other.codes, other.scale, other.zero, other.mean))))


class Range:
    """An entry of quantization.json: float32 scales and zeros of a layer's channels, and their means as numbers."""

    def __init__(self, entry, relu):
        low, high, mean = torch.tensor(entry["channels"], dtype=torch.float32).T
        seen = high - low > 0
        low, high = (torch.where(seen, own, torch.tensor(entry[key], dtype=torch.float32)) for own, key in ((low, "low"), (high, "high")))
        low = torch.zeros_like(low) if relu else low
        self.scale = torch.clamp(high - low, min=0) / TOP_CODE
        self.scale = torch.where(self.scale > 1e-30, self.scale, torch.ones_like(self.scale))
        self.steps = 1 / self.scale
        self.zero, self.mean = torch.round(-low / self.scale), mean

    def value(self, codes):
        return Value(torch.clamp(torch.round(codes), 0, TOP_CODE), self.scale, self.zero, self.mean * self.steps)


def round_kernels(exact):
    """Integers of outputs x inputs x taps: nearest ones, then turned until the remainders of each kernel sum to half of one at most."""
    whole = np.rint(exact)
    rest = exact - whole
    total = rest.sum(2)
    for output, entry in zip(*np.nonzero(np.abs(total) > 0.5)):
        sign = np.sign(total[output, entry])
        while abs(total[output, entry]) > 0.5:
            gain = np.where(np.abs(whole[output, entry] + sign) <= TOP_WEIGHT, rest[output, entry] * sign, -np.inf)
            tap = int(np.argmax(gain))
            if gain[tap] == -np.inf:
                break
            whole[output, entry, tap] += sign
            rest[output, entry, tap] -= sign
            total[output, entry] -= sign
    return whole, total


class Integers:
    """A convolution of codes: outputs x inputs x taps."""

    def __init__(self, weights, bias, value):
        scaled = (weights * value.scale[None, :, None].numpy()).astype(np.float32)
        largest = np.abs(scaled).max((1, 2))
        step = np.where(largest > 1e-30, largest / np.float32(TOP_WEIGHT), 1).astype(np.float32)
        self.whole, rest = round_kernels((scaled / step[:, None, None]).astype(np.float64))
        self.step = torch.from_numpy(step)
        self.bias = torch.from_numpy((bias / step + rest @ value.mean.double().numpy()).astype(np.float32))

    def sums(self, value, kernel):
        """float64, in which they are exact; the zeros of codes are what is padded with."""
        outputs, inputs, _ = self.whole.shape
        centred = (value.codes - value.zero[:, None, None]).double()[None]
        weights = torch.from_numpy(self.whole.reshape(outputs, inputs, kernel, kernel))
        return functional.conv2d(centred, weights, padding=kernel // 2)[0]

    def numbers(self, value, kernel):
        return (self.sums(value, kernel).float() + self.bias[:, None, None]) * self.step[:, None, None]


def fold(tensors, conv, norm):
    """Weights and bias of a convolution and the batch norm behind it."""
    gamma, beta, mean, var = (tensors[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var"))
    factor = gamma / np.sqrt(var + 1e-5)
    return (tensors[f"{conv}.weight"] * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)


class Simulation:
    """The network of a model directory in int8. bf16: the ends run in bf16, as on processors that have it; else in float32."""

    def __init__(self, weights, ranges, bf16):
        self.tensors = read_safetensors(weights)
        self.depth = widths(self.tensors)[2]
        self.entries = {entry["name"]: entry for entry in json.loads(ranges.read_text())["layers"]}
        self.bf16 = bf16
        kept = [name for name, entry in self.entries.items() if entry.get("float") and name != "outc.conv"]
        if kept:
            raise ValueError(f"{ranges}: layers that are kept in float are not simulated: {', '.join(kept)}")
        self.made = {}

    def narrow(self, numbers):
        return numbers.to(torch.bfloat16).float() if self.bf16 else numbers

    def float_conv(self, x, weights, bias, padding):
        return functional.conv2d(self.narrow(x)[None], self.narrow(torch.tensor(weights)), torch.tensor(bias), padding=padding)[0]

    def integers(self, name, weights, bias, value):
        if name not in self.made:  # the same for every tile
            self.made[name] = Integers(weights, bias, value)
        return self.made[name]

    def code(self, name, numbers, relu):
        found = Range(self.entries[name], relu)
        return found.value(numbers * found.steps[:, None, None] + found.zero[:, None, None])

    def conv_numbers(self, name, norm, value):
        weights, bias = fold(self.tensors, name, norm)
        return self.integers(name, weights.reshape(*weights.shape[:2], -1), bias, value).numbers(value, 3)

    def double(self, prefix, value):
        for conv, norm in ((0, 1), (3, 4)):
            name = f"{prefix}.double_conv.{conv}"
            value = self.code(name, self.conv_numbers(name, f"{prefix}.double_conv.{norm}", value), True)
        return value

    def first(self, image):
        x = torch.relu(self.float_conv(image, *fold(self.tensors, "inc.double_conv.0", "inc.double_conv.1"), 1))
        value = self.code("inc.double_conv.0", self.narrow(x), True)
        return self.code("inc.double_conv.3", self.conv_numbers("inc.double_conv.3", "inc.double_conv.4", value), True)

    def up(self, name, value):
        weights, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        channels = weights.shape[1]
        turned = weights.transpose(2, 3, 1, 0).reshape(4 * channels, -1, 1)  # [dy][dx][channel] by input
        numbers = self.integers(name, turned, np.tile(bias, 4), value).numbers(value, 1)
        height, width = numbers.shape[1:]
        spread = numbers.reshape(2, 2, channels, height, width).permute(2, 3, 0, 4, 1).reshape(channels, 2 * height, 2 * width)
        return self.code(name, spread, False)

    def pooled(self, value):
        names = [entry for entry in self.entries.values() if entry["layer"] == self.layer]
        mean = torch.tensor(names[0]["channels"], dtype=torch.float32)[:, 2] if names else value.mean * value.scale
        return value.pooled(mean)

    def logits(self, image):
        """image: bands x height x width of float32, as the network takes it."""
        skips = [self.first(image)]
        for i in range(1, self.depth + 1):
            self.layer = 3 * i - 1  # two convolutions, then a pooling, each time
            skips.append(self.double(f"down{i}.maxpool_conv.1", self.pooled(skips[-1])))
        value = skips.pop()
        for i in range(1, self.depth + 1):
            joined = skips.pop().beside(self.up(f"up{i}.up", value))
            if i < self.depth:
                value = self.double(f"up{i}.conv", joined)
        name = f"up{self.depth}.conv.double_conv"
        value = self.code(f"{name}.0", self.conv_numbers(f"{name}.0", f"{name}.1", joined), True)
        x = torch.relu(self.conv_numbers(f"{name}.3", f"{name}.4", value))
        return self.float_conv(x, self.tensors["outc.conv.weight"], self.tensors["outc.conv.bias"], 0)
