"""Measures unetserve beside its peers, in one run, as ratios. Started by `make bench`; bench/README.md says how to read it.

    run.py [--quick] [--only forward,requests,tiny,cold,scale,batch] [--no-peers]

Prints tables, compares ratios with bench/baseline.json, and writes build/bench/results.json with every sample and build/bench/*.svg.
"""
import argparse
import json
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import time

import numpy as np

import batch_section
import cold_section
import environment
import forward_section
import ratios
import scale_section
import tiny_section
import unet_section
from plan import FULL, QUICK
from servers import BUILD, OUT, TOP, Unetserve

SECTIONS = ("forward", "requests", "tiny", "cold", "scale", "batch")
LARGE, SMALL = "31M parameters", "demonstration model"
DEMO = TOP / "packaging/models/s2-worldcover"
THREADS = len(os.sched_getaffinity(0))
FLAGS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")


def machine():
    text = pathlib.Path("/proc/cpuinfo").read_text()
    flags = re.search(r"^flags\s*:(.*)$", text, re.M)[1].split()
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.M)[1]
    commit = subprocess.run(["git", "-C", TOP, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    return {"cpu": name, "cores": THREADS, "isa": " ".join(flag for flag in FLAGS if flag in flags), "kernel": platform.release(),
            "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30), "python": platform.python_version(),
            "load_before": os.getloadavg()[0], "commit": commit, "when": time.strftime("%Y-%m-%d", time.gmtime())}


def versions():
    if environment.python() is None:
        return {}
    done = subprocess.run([environment.python(), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"], capture_output=True,
                          text=True, check=False)
    wanted = {line.split("==")[0].lower() for line in environment.wishes() + environment.TORCH}
    return {entry["name"]: entry["version"] for entry in json.loads(done.stdout or "[]") if entry["name"].lower() in wanted}


def networks(plan):
    """[(name, what unetserve serves, weights for peers, random weights?)]; the tile lies in OUT."""
    large = OUT / "random-31m.safetensors"
    if not large.exists():
        subprocess.run([sys.executable, TOP / "bench/random_unet.py", large], check=True)
    subprocess.run([BUILD / "demo/make-scene", TOP / "tests/goldens/spectra.json", OUT / "tile.npy", OUT / "truth.npy", "7"], check=True,
                   stdout=subprocess.DEVNULL)
    return [(LARGE, large, large, True), (SMALL, DEMO, DEMO / "s2-worldcover-b16.safetensors", False)]


def reference_labels(model):
    """Labels in float32, by unetserve; every peer in float32 is compared with them, so that they are nobody's alone."""
    ask = unet_section.asks(np.load(OUT / "tile.npy"), None)["npy"]()
    ask.right = lambda body: None
    server = Unetserve(model, section="precision = f32")
    try:
        ask.learn(server)
    finally:
        server.stop()
    (OUT / "reference.npy").write_bytes(ask.expected)
    return np.load(OUT / "reference.npy")


class Run:
    def __init__(self, plan, only):
        self.plan, self.only = plan, only
        self.results = {"machine": machine(), "versions": versions(), "quick": plan.quick, "trouble": {}, "sections_s": {}}

    def section(self, name, work):
        """One section; what goes wrong in it is told and kept, and the others go on."""
        if name not in self.only:
            return
        begun = time.monotonic()
        try:
            work()
        except (RuntimeError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            self.results["trouble"][name] = f"{type(error).__name__}: {error}"
            print(f"\n{name}: not measured to its end: {error}", flush=True)
        times = self.results["sections_s"]
        times[name] = times.get(name, 0) + time.monotonic() - begun
        sys.stdout.flush()
        (OUT / "results.json").write_text(json.dumps(self.results, indent=1))

    def both_networks(self):
        trouble = self.results["trouble"]
        self.results["peak"] = forward_section.peaks(THREADS)
        self.precisions = [peak["precision"] for peak in self.results["peak"]]
        for name, model, weights, random in networks(self.plan):
            reference = reference_labels(model)

            def forward():
                found = forward_section.measure(self.plan, model, weights, reference, random, self.precisions, THREADS, trouble)
                self.results.setdefault("forward", {})[name] = found
                forward_section.show(name, found)

            def requests():
                found = unet_section.measure(self.plan, model, weights, reference, not random, trouble)
                self.results.setdefault("requests", {})[name] = found
                unet_section.show(name, found)

            self.section("forward", forward)
            self.section("requests", requests)

    def others(self):
        def tiny():
            self.results["tiny"] = tiny_section.measure(self.plan, self.results["trouble"])
            tiny_section.show(self.results["tiny"])

        def cold():
            self.results["cold"] = cold_section.measure(self.plan, OUT / "random-31m.safetensors")
            cold_section.show(self.results["cold"])

        def scale():
            large = self.results.get("forward", {}).get(LARGE, {})
            served = ratios.counterpart("auto", large)
            forward_ms = ratios.best(served) if served is not None else 100.0
            self.results["scale"] = scale_section.measure(self.plan, DEMO, forward_ms)
            scale_section.show(self.results["scale"])

        def batch():
            small = (SMALL, DEMO, 8)
            chosen = [small] if self.plan.quick else [(LARGE, OUT / "random-31m.safetensors", 1), small]
            precisions = [peak["precision"] for peak in forward_section.peaks(THREADS) if peak["precision"] != "f32"] or ["f32"]
            self.results["batch"] = batch_section.measure(self.plan, chosen, precisions, THREADS)
            batch_section.show(self.results["batch"])

        self.section("tiny", tiny)
        self.section("cold", cold)
        self.section("scale", scale)
        self.section("batch", batch)


def draw():
    if environment.python() is None:
        return
    done = subprocess.run([environment.python(), TOP / "bench/plots.py", OUT / "results.json", OUT], capture_output=True, text=True,
                          env=environment.variables(), check=False)
    print(done.stdout.strip() if done.returncode == 0 else f"no plots: {done.stderr.strip().splitlines()[-1]}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(SECTIONS))
    parser.add_argument("--no-peers", action="store_true")
    options = parser.parse_args()
    os.environ["no_proxy"] = "*"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped on the way out
    OUT.mkdir(parents=True, exist_ok=True)
    missing = environment.ensure() if not options.no_peers else []
    if options.no_peers:
        environment.python = lambda: None
    run = Run(QUICK if options.quick else FULL, options.only.split(","))
    run.results["trouble"] |= {f"install {name}": "could not be installed" for name in missing}
    about = run.results["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, {about['isa']}; load before: {about['load_before']:.1f}")
    if about["load_before"] > 0.5 * about["cores"]:
        print("others use this machine: milliseconds mean little, ratios something")
    if {"forward", "requests"} & set(run.only):
        run.both_networks()
    elif {"cold", "batch"} & set(run.only):
        networks(run.plan)
    run.others()
    for name, why in run.results["trouble"].items():
        print(f"not there: {name}: {why.splitlines()[0] if why else ''}")
    run.results["ratios"] = {name: value for name, (value, _) in ratios.ratios(run.results).items()}
    (OUT / "results.json").write_text(json.dumps(run.results, indent=1))
    draw()
    worse = ratios.report(run.results)
    print(f"\nevery sample: {os.path.relpath(OUT / 'results.json')}; {sum(run.results['sections_s'].values()):.0f} s")
    return 1 if worse and options.quick else 0


if __name__ == "__main__":
    sys.exit(main())
