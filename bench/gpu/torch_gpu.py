"""The same network in torch with cuDNN, bf16 and channels last, on the first GPU: torch_gpu.py WEIGHTS --size N --runs N --batch N... [--compile]

Prints the JSON lines of gpu_forward.c: "graph" is the pass alone, "forward" has the copies of uint16 tiles in and of labels out. Exit
status 69: there is no torch, or it sees no GPU.
"""
import argparse
import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peers"))

REPEATS = 20


def timed(torch, work, runs, repeats):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    samples = []
    for _ in range(runs):
        begin = time.perf_counter()
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - begin) * 1e3 / repeats)
    return samples


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("weights")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--batch", type=int, action="append", required=True)
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    try:
        import torch
        import torch_unet
    except ImportError as error:
        print(f"torch_gpu: {error}", file=sys.stderr)
        return 69
    if not torch.cuda.is_available():
        print("torch_gpu: this torch sees no GPU", file=sys.stderr)
        return 69
    torch.backends.cudnn.benchmark = True
    model = torch_unet.load(args.weights).to("cuda", torch.bfloat16, memory_format=torch.channels_last)
    channels = next(model.parameters()).shape[1]
    run = torch.compile(model, mode="max-autotune") if args.compile else model
    with torch.inference_mode():
        for batch in args.batch:
            tiles = torch.randint(0, 10000, (batch, channels, args.size, args.size), dtype=torch.int32).to(torch.uint16).pin_memory()
            labels = torch.empty((batch, args.size, args.size), dtype=torch.uint8).pin_memory()

            def ready(tiles=tiles):
                x = tiles.to("cuda", non_blocking=True).to(torch.float32)
                return (x / 10000).clamp_(0, 1).to(torch.bfloat16, memory_format=torch.channels_last)

            example = ready()

            def forward(labels=labels):
                labels.copy_(run(ready()).argmax(1).to(torch.uint8), non_blocking=True)
                torch.cuda.synchronize()

            print(json.dumps({"figure": "graph", "batch": batch, "ms": timed(torch, lambda: run(example), args.runs, REPEATS)}))
            print(json.dumps({"figure": "forward", "batch": batch, "ms": timed(torch, forward, args.runs, 1)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
