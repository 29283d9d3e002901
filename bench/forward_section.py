"""Bare forward passes: unetserve's against the machine's measured peak, and those of peers, the same weights and tile, in turns."""
import json
import shutil
import subprocess
import sys

import numpy as np

import environment
from plan import told
from servers import BUILD, OUT, TOP

# Labels that equal those of float32, at least: what rounding to bf16 leaves alone. Random weights have more near ties than trained ones.
LEAST_EQUAL = {"f32": 0.9995, "bf16 trained": 0.995, "bf16 random": 0.98, "int8 trained": 0.97, "int8 random": 0.8}
ENGINES = {"torch-f32": "f32", "torch-bf16": "bf16", "torch-tuned": "bf16", "openvino-bf16": "bf16", "openvino-f32": "f32",
           "onnxruntime-f32": "f32", "openvino-int8": "int8"}
CALIBRATION_SEEDS = (101, 102, 103, 104, 105, 106)
QUICK_ENGINES = ("torch-f32", "openvino-bf16", "onnxruntime-f32")


def peaks(threads):
    done = subprocess.run([BUILD / "bench/forward", "--peak", "--threads", str(threads)], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Engine:
    """A peer that waits for its turns in a process of its own; it sleeps meanwhile."""

    def __init__(self, kind, weights, tile, labels, calibration):
        self.kind, self.labels = kind, labels
        self.process = subprocess.Popen([environment.python(), TOP / "bench/peers/forward.py", kind, weights, tile, labels, *calibration],
                                        text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                        env=environment.variables())

    def ready(self):
        self.about = json.loads(self.line())
        return np.load(self.labels)

    def line(self):
        while line := self.process.stdout.readline():
            if line.startswith(("{", "[")):
                return line
        raise RuntimeError(f"{self.kind} ended with {self.process.wait(30)}")

    def run(self, count):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.stdout.close()


def start_engines(names, weights, calibration, trouble):
    engines = []
    for kind in names:
        try:
            engine = Engine(kind, weights, OUT / "tile.npy", OUT / f"labels-{kind}.npy", calibration)
            engines.append(engine)
            engine.found = engine.ready()
        except (RuntimeError, OSError, ValueError) as error:
            trouble[f"forward {kind}"] = str(error)
            print(f"  left out: {kind}: {error}", flush=True)
            engines.pop().stop()
    return engines


def own_forward(model, precision, runs, threads, convolution="direct"):
    done = subprocess.run([BUILD / "bench/forward", "--model", model, "--threads", str(threads), "--runs", str(runs), "--precision", precision,
                           "--convolution", convolution], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[0])


def check_labels(engine, reference, random):
    equal = float((engine.found == reference).mean())
    kind = ENGINES[engine.kind]
    least = LEAST_EQUAL[kind if kind == "f32" else f"{kind} {'random' if random else 'trained'}"]
    if equal < least:
        raise RuntimeError(f"{engine.kind}: {equal:.4%} of its labels are those of float32, expected {least:.2%}: its figures would mean nothing")
    return equal


def calibration_tiles():
    """The tiles that choose the ranges of int8, ours and NNCF's: invented scenes, and not the tile that is measured."""
    paths = [OUT / f"calibration-{seed}.npy" for seed in CALIBRATION_SEEDS]
    for seed, path in zip(CALIBRATION_SEEDS, paths):
        subprocess.run([BUILD / "demo/make-scene", TOP / "tests/goldens/spectra.json", path, OUT / "calibration-truth.npy", str(seed)], check=True,
                       stdout=subprocess.DEVNULL)
    return paths


def calibrated(model, calibration, random):
    """(a model directory with ranges by those tiles, the share of the measured tile's labels that int8 leaves alone)."""
    directory = OUT / f"int8-{'random' if random else 'trained'}"
    shutil.rmtree(directory, ignore_errors=True)
    bare = OUT / "bare-model"  # the demonstration model's own ranges come from other tiles
    shutil.rmtree(bare, ignore_errors=True)
    if model.is_dir():
        shutil.copytree(model, bare, ignore=lambda _, names: [name for name in names if name.startswith("quantization")])
    done = subprocess.run([BUILD / "unetctl", "calibrate", bare if model.is_dir() else model, *calibration, "--check", OUT / "tile.npy", "-o", directory,
                           "--json"], check=True, capture_output=True, text=True)
    return directory, 1 - json.loads(done.stdout)["checked"]["mean"]


def measure(plan, model, weights, reference, random, precisions, threads, trouble):
    """{engine: {rounds: [[ms, ...], ...], ...}} for one network; unetserve's are called unetserve-PRECISION, and f32 with Winograd's convolutions
    unetserve-f32-winograd."""
    names = [] if environment.python() is None else QUICK_ENGINES if plan.quick else ENGINES
    calibration = calibration_tiles()
    engines = start_engines([kind for kind in names if ENGINES[kind] != "int8" or "int8" in precisions], weights, calibration, trouble)
    own = {f"unetserve-{precision}": (precision, "direct") for precision in precisions}
    if "f32" in precisions:
        own["unetserve-f32-winograd"] = ("f32", "winograd")
    found = {engine: {"rounds": [], "share_of_peak": []} for engine in own}
    served = dict.fromkeys(precisions, model)
    try:
        for engine in engines:
            found[engine.kind] = dict(engine.about, rounds=[], labels_equal=check_labels(engine, reference, random))
        if "int8" in precisions:
            served["int8"], found["unetserve-int8"]["labels_equal"] = calibrated(model, calibration, random)
        for _ in range(plan.rounds):
            for engine, (precision, convolution) in own.items():
                sample = own_forward(served[precision], precision, plan.forward_runs, threads, convolution)
                entry = found[engine]
                entry["rounds"].append(sample["samples_ms"])
                entry["share_of_peak"].append(sample["share_of_peak"])
                entry.update(gflop=sample["gflop"], parameters=sample["parameters"], peak_isa=sample["peak_isa"])
            for engine in engines:
                found[engine.kind]["rounds"].append(engine.run(plan.tutorial_runs if engine.kind == "torch-f32" else plan.forward_runs))
    finally:
        for engine in engines:
            engine.stop()
    return found


def show(name, found, out=sys.stdout):
    print(f"\nforward pass, {name}", file=out)
    for engine, entry in sorted(found.items(), key=lambda item: min(map(min, item[1]["rounds"]))):
        samples = [min(group) for group in entry["rounds"]]
        more = f"  {max(entry['share_of_peak']):.2f} of the measured {entry['peak_isa']} peak" if entry.get("share_of_peak") else ""
        if "version" in entry:
            more += f"  {entry['version'].split('-')[0]}"
        if "labels_equal" in entry:
            more += f", {100 * entry['labels_equal']:.2f} % of the labels as in float32"
        print(f"  {engine:18} {told(samples):32}{more}", file=out)
