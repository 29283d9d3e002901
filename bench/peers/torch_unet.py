"""The same network in PyTorch, with the names of the milesial family."""
import torch
from torch import nn
from weights import read_safetensors, widths


class DoubleConv(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True))

    def forward(self, x):
        return self.double_conv(x)


class Down(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(before, after))

    def forward(self, x):
        return self.maxpool_conv(x)


class Up(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.up = nn.ConvTranspose2d(before, before // 2, 2, stride=2)
        self.conv = DoubleConv(before, after)

    def forward(self, x, skip):
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class Out(nn.Module):
    def __init__(self, before, classes):
        super().__init__()
        self.conv = nn.Conv2d(before, classes, 1)

    def forward(self, x):
        return self.conv(x)


class UNet(nn.Module):
    def __init__(self, bands, base, depth, classes):
        super().__init__()
        self.depth = depth
        self.inc = DoubleConv(bands, base)
        for i in range(1, depth + 1):
            setattr(self, f"down{i}", Down(base << (i - 1), base << i))
            setattr(self, f"up{i}", Up(base << (depth - i + 1), base << (depth - i)))
        self.outc = Out(base, classes)

    def forward(self, x):
        skips = [self.inc(x)]
        for i in range(1, self.depth + 1):
            skips.append(getattr(self, f"down{i}")(skips[-1]))
        x = skips.pop()
        for i in range(1, self.depth + 1):
            x = getattr(self, f"up{i}")(x, skips.pop())
        return self.outc(x)


def load(path):
    tensors = read_safetensors(path)
    model = UNet(*widths(tensors))
    state = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"{path}: not this network: {missing} {unexpected}")
    return model.eval()


def tuned(path, example):
    """As fast as torch gets it here: bf16, channels last, compiled with its weights frozen; else the same without compiling."""
    model = load(path).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        try:
            import torch._inductor.config as inductor
            inductor.freezing = True
            compiled = torch.compile(model)
            compiled(example)
            return compiled, "bf16, channels last, torch.compile with freezing"
        except Exception as error:  # whatever the compiler lacks on this machine
            print(f"torch.compile failed, going on without: {error}", flush=True)
            return model, "bf16, channels last"
