"""How fast the cuDNN backend is on the first GPU of this machine: run.py [--rounds N] [--batch N]... [--size N] [--out FILE]

Contestants take turns, round by round: ours, torch with cuDNN in bf16 and channels last, the same compiled, TensorRT (trtexec, and onnx in
the interpreter, for its graph). What is not there is named in the table. Each figure is the median of all samples and their range, and a
share of the bound that `unetctl plan` computes from the device's data sheet, where --device-props describes it (for the GPUs of
tests/gpu/devices found by name). A layer's are shares of what this very device did at best, and of its roofline by that (docs/gpu.md says how to
read them). Results as JSON in build/bench/gpu.json.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", "build"))
BUILD = BUILD if BUILD.is_absolute() else TOP / BUILD
FLOORS_MS = {8: 1.03, 32: 4.12}  # of the 31M-parameter network on an H100, by arithmetic
PARAMETERS = ["--base", "--depth", "--channels", "--classes"]
LIMIT_S = 580


class Missing(Exception):
    """A contestant that is not here; why."""


def lines_of(command, limit_s=LIMIT_S):
    """The JSON lines of a program. What a contestant says of its absence becomes Missing."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=limit_s, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode:
        raise Missing((done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1])
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


# ---- contestants ----

def ours(args, weights, first):
    command = [BUILD / "bench/gpu_forward", weights, "--size", args.size, "--runs", args.runs, "--cache", args.cache]
    for batch in args.batch:
        command += ["--batch", batch]
    return lines_of(command + (["--layers"] if first else []))


def torch(args, weights, compiled=False):
    command = [args.torch_python, TOP / "bench/gpu/torch_gpu.py", weights, "--size", args.size, "--runs", args.runs]
    for batch in args.batch:
        command += ["--batch", batch]
    return lines_of(command + (["--compile"] if compiled else []))


def tensorrt(args, weights):
    program = shutil.which("trtexec")
    if not program:
        raise Missing("trtexec is not in PATH")
    found = []
    with tempfile.TemporaryDirectory() as directory:
        graph = pathlib.Path(directory) / "unet.onnx"
        lines_of([args.torch_python, TOP / "bench/peers/onnx_unet.py", weights, graph])
        for batch in args.batch:
            done = subprocess.run([program, f"--onnx={graph}", "--bf16", f"--shapes=tile:{batch}x{args.channels}x{args.size}x{args.size}",
                                   "--iterations=50", "--useCudaGraph"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
            times = re.search(r"GPU Compute Time: min = ([\d.]+) ms, max = ([\d.]+) ms, mean = [\d.]+ ms, median = ([\d.]+) ms", done.stdout)
            if not times:
                raise Missing("trtexec: " + (done.stdout + done.stderr).strip()[-200:])
            found.append({"figure": "graph", "batch": batch, "ms": [float(times[i]) for i in (1, 3, 2)]})
    return found


# ---- whole requests ----

@contextlib.contextmanager
def serving(args, weights, directory):
    config = pathlib.Path(directory) / "bench.conf"
    config.write_text(f"[server]\nlisten = 127.0.0.1:0\ncache_dir = {args.cache}\n[model m]\npath = {weights}\ndevices = cuda\nmax_batch_size = 8\n"
                      f"tile = {args.size}\n")
    process = subprocess.Popen([BUILD / "unetserve", "--config", config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "XDG_RUNTIME_DIR": str(directory)}, start_new_session=True)
    try:
        end = time.monotonic() + 240
        while not select.select([process.stdout], [], [], 1)[0] and time.monotonic() < end:
            pass
        line = process.stdout.readline() if time.monotonic() < end else ""
        if "ready on" not in line:
            process.kill()
            raise Missing("the server did not start: " + process.stderr.read()[-300:])
        yield line.split("ready on ")[1].strip()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def requests(args, weights):
    """Tiles a second over HTTP by clients at once. Labels are not compared: batches of other sizes may be rounded otherwise."""
    found = []
    with tempfile.TemporaryDirectory() as directory, serving(args, weights, directory) as url:
        body = pathlib.Path(directory) / "tile"
        body.write_bytes(bytes(i * 37 % 251 for i in range(args.channels * args.size * args.size * 2)))
        for clients in args.clients:
            done = subprocess.run([BUILD / "bench/load", url + "/predict", "--clients", str(clients), "--seconds", str(args.seconds), "--timeout", "100", "--body", body,
                                   "--header", "Content-Type: application/octet-stream", "--header", "Accept: application/x-npy",
                                   "--header", f"X-Unetserve-Shape: {args.channels},{args.size},{args.size}",
                                   "--header", "X-Unetserve-Dtype: uint16"], capture_output=True, text=True, timeout=args.seconds + 120, check=False)
            if done.returncode:
                raise Missing("load: " + (done.stderr or done.stdout).strip()[-300:])
            report = json.loads(done.stdout.splitlines()[-1])
            found.append({"figure": "http", "clients": clients, "statuses": report["statuses"], "right_per_s": [report["right_per_s"]],
                          "latency_ms": report["latency_ms"]})
    return found


# ---- putting together ----

def key_of(line):
    return tuple((name, line[name]) for name in ("figure", "batch", "layer", "step", "clients") if name in line)


def collect(results, contestant, lines):
    for line in lines:
        entry = results.setdefault(contestant, {}).setdefault(json.dumps(dict(key_of(line))), {**line, "ms": [], "right_per_s": []})
        for samples in ("ms", "right_per_s"):
            entry[samples] += line.get(samples, [])


def play(args, weights):
    results, missing = {}, {}
    contestants = {"ours": None, "torch": lambda: torch(args, weights), "torch.compile": lambda: torch(args, weights, True),
                   "TensorRT": lambda: tensorrt(args, weights), "ours over HTTP": lambda: requests(args, weights)}
    for turn in range(args.rounds):
        for name, run in contestants.items():
            if name in missing:
                continue
            try:
                collect(results, name, run() if run else ours(args, weights, turn == 0))
            except Missing as error:
                missing[name] = str(error)
    return results, missing


def bounds(args, weights, props):
    """{batch: least ms by the data sheet}"""
    found = {}
    for batch in args.batch if props else []:
        with contextlib.suppress(Missing):
            done = subprocess.run([BUILD / "unetctl", "plan", weights, "--device-props", props, "--batch", str(batch), "--size",
                                   f"{args.size}x{args.size}", "--json"], capture_output=True, text=True, timeout=LIMIT_S, check=False)
            if done.returncode == 0:
                found[batch] = json.loads(done.stdout)["bound_us"] / 1e3
    return found


def props_of(name):
    for words, file in (("H100", "h100"), ("A100", "a100"), ("B200", "b200"), ("4090", "rtx4090"), ("T4", "t4")):
        if re.search(rf"\b{words}\b", name):
            return TOP / "tests/gpu/devices" / f"{file}.json"
    return None


def told(samples, unit):
    return f"{statistics.median(samples):.3f} {unit} ({min(samples):.3f} to {max(samples):.3f})"


def peaks_of(entries):
    """What the device did at best, in the network's type: operations and bytes a second."""
    found = {entry["figure"]: entry for entry in entries if entry["figure"].startswith("peak_")}
    return {"flop_per_s": found["peak_arithmetic"]["flop"] / min(found["peak_arithmetic"]["ms"]) * 1e3,
            "bytes_per_s": found["peak_memory"]["bytes"] / min(found["peak_memory"]["ms"]) * 1e3}


def roofline_ms(layer, peaks):
    """The least that a layer takes on a device that reaches its peaks: as long as its arithmetic, or its bytes, whichever takes longer; which."""
    arithmetic, memory = layer["flop"] / peaks["flop_per_s"] * 1e3, layer["bytes"] / peaks["bytes_per_s"] * 1e3
    return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")


def layer_told(layer, peaks):
    median = statistics.median(layer["ms"])
    flop, moved = layer["flop"] / median * 1e3, layer["bytes"] / median * 1e3
    least, what = roofline_ms(layer, peaks)
    words = f", {moved / 1e9:.1f} GB/s ({moved / peaks['bytes_per_s']:.0%} of the peak), {least / median:.0%} of the roofline ({what})"
    return (f", {flop / 1e12:.2f} TFLOP/s ({flop / peaks['flop_per_s']:.0%} of the peak)" if layer["flop"] else "") + words


def layers_roofline_ms(entries, batch, peaks):
    """All layers of a batch, one after the other; 0 where they were not measured."""
    return sum(roofline_ms(entry, peaks)[0] for entry in entries if entry["figure"] == "layer" and entry["batch"] == batch)


def table(document):
    device = document["device"]
    peaks = document["peaks"]
    yield f"{device['name']}, {device['type']}, cuDNN {device['cudnn']}" + ("; A DOUBLE: these figures mean nothing" if document["dry"] else "")
    yield f"peaks as measured: {peaks['flop_per_s'] / 1e12:.2f} TFLOP/s in {device['type']}, {peaks['bytes_per_s'] / 1e9:.1f} GB/s"
    for contestant, entries in document["results"].items():
        for entry in entries:
            if entry["figure"] == "device":
                continue
            words = [contestant, *(f"{name} {value}" if name != "figure" else value for name, value in key_of(entry))]
            if entry["figure"] == "http":
                yield f"{', '.join(words)}: {told(entry['right_per_s'], 'tiles/s')}"
                continue
            line = f"{', '.join(words)}: {told(entry['ms'], 'ms')}"
            median = statistics.median(entry["ms"])
            bound = document["bounds_ms"].get(str(entry.get("batch")))
            if bound and entry["figure"] in ("graph", "forward"):
                line += f", {bound / median:.0%} of the data sheet's bound"
            if entry["figure"] in ("copy_in", "copy_out", "peak_memory"):
                line += f", {entry['bytes'] / median / 1e6:.1f} GB/s"
            floor = document["floors_ms"].get(str(entry.get("batch")))
            if floor and entry["figure"] in ("graph", "forward"):
                line += f", {median / floor:.2f} of the floor of {floor} ms"
            if entry["figure"] == "peak_arithmetic":
                line += f", {entry['flop'] / median / 1e9:.2f} TFLOP/s"
            if entry["figure"] == "layer":
                line += layer_told(entry, peaks)
            least = layers_roofline_ms(entries, entry.get("batch"), peaks) if entry["figure"] == "graph" else 0
            if least:
                line += f", {least / median:.0%} of its layers' rooflines together"
            yield line
    for contestant, why in document["missing"].items():
        yield f"{contestant}: not measured: {why}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--clients", type=int, action="append")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--size", type=int, default=256)
    for name, value in zip(PARAMETERS, (64, 4, 12, 11)):
        parser.add_argument(name, type=int, default=value)
    parser.add_argument("--device-props", type=pathlib.Path)
    parser.add_argument("--torch-python", default=os.environ.get("TORCH_PYTHON", sys.executable))
    parser.add_argument("--out", type=pathlib.Path, default=TOP / "build/bench/gpu.json")
    args = parser.parse_args()
    args.batch = args.batch or [1, 2, 4, 8, 16, 32]
    args.clients = args.clients or [1, 16, 64]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    weights = args.out.parent / "gpu_unet.safetensors"
    args.cache = args.out.parent.resolve() / "gpu_cache"
    args.cache.mkdir(mode=0o700, exist_ok=True)
    sizes = [word for name in PARAMETERS for word in (name, str(getattr(args, name[2:])))]
    subprocess.run([sys.executable, TOP / "bench/random_unet.py", weights, *sizes], check=True)
    results, missing = play(args, weights)
    if "ours" in missing:
        print(f"bench-gpu: {missing['ours']}", file=sys.stderr)
        return 69
    device = next(entry for entry in results["ours"].values() if entry["figure"] == "device")
    usual = [getattr(args, name[2:]) for name in PARAMETERS] + [args.size] == [64, 4, 12, 11, 256]
    document = {"device": device, "dry": device["name"].startswith("double of"), "arguments": {k: str(v) for k, v in vars(args).items()},
                "bounds_ms": {str(k): v for k, v in bounds(args, weights, args.device_props or props_of(device["name"])).items()},
                "floors_ms": {str(k): v for k, v in FLOORS_MS.items()} if usual and "H100" in device["name"] else {},
                "peaks": peaks_of(results["ours"].values()),
                "results": {name: list(entries.values()) for name, entries in results.items()}, "missing": missing}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    print("\n".join(table(document)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
