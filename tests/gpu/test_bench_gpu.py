"""make bench-gpu, dry: on the double of a GPU, with a tiny network. Its figures mean nothing; that all of it runs does."""
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

from test_gpu_double import BUILD, ROOT, environment


def bench(tmp_path, env, *more):
    return subprocess.run([sys.executable, ROOT / "bench/gpu/run.py", "--rounds", "2", "--runs", "2", "--batch", "1", "--batch", "2", "--size", "16",
                           "--base", "8", "--depth", "2", "--channels", "3", "--classes", "4", "--clients", "2", "--seconds", "0.5",
                           "--out", tmp_path / "gpu.json", *more], capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, "BUILD": str(BUILD), **env})


def expect_peaks(document, entries, text):
    """Each layer is told as a share of what was measured at best."""
    peaks = {entry["figure"]: entry for entry in entries if entry["figure"].startswith("peak_")}
    assert all(len(peaks[name]["ms"]) == 4 for name in ("peak_arithmetic", "peak_memory"))
    assert document["peaks"] == {"flop_per_s": peaks["peak_arithmetic"]["flop"] / min(peaks["peak_arithmetic"]["ms"]) * 1e3,
                                 "bytes_per_s": peaks["peak_memory"]["bytes"] / min(peaks["peak_memory"]["ms"]) * 1e3}
    assert peaks["peak_arithmetic"]["flop"] == 2 * 64 * 16 * 128 * 128 and peaks["peak_memory"]["bytes"] == 2 * 4 * 196608
    layers = [line for line in text.splitlines() if ", layer " in line]
    assert layers and all(re.search(r"GB/s \(\d+% of the peak\), \d+% of the roofline \((arithmetic|memory)\)$", line) for line in layers)
    assert all(("TFLOP/s (" in line) == (", step conv" in line) for line in layers)
    assert sum("of its layers' rooflines together" in line for line in text.splitlines()) == 1


def test_a_layer_is_held_against_the_nearer_of_two_peaks():
    spec = importlib.util.spec_from_file_location("bench_gpu_run", ROOT / "bench/gpu/run.py")
    run = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run)
    peaks = {"flop_per_s": 100e12, "bytes_per_s": 1e12}
    busy = {"figure": "layer", "batch": 8, "flop": 50e9, "bytes": 100e6, "ms": [1.0, 9.0, 0.5]}  # 0.5 ms of arithmetic, 0.1 ms of memory
    idle = {"figure": "layer", "batch": 8, "flop": 0, "bytes": 250e6, "ms": [1.0]}
    assert run.layer_told(busy, peaks) == ", 50.00 TFLOP/s (50% of the peak), 100.0 GB/s (10% of the peak), 50% of the roofline (arithmetic)"
    assert run.layer_told(idle, peaks) == ", 250.0 GB/s (25% of the peak), 25% of the roofline (memory)"
    assert run.layers_roofline_ms([busy, idle, {**busy, "batch": 1}, {"figure": "graph", "batch": 8}], 8, peaks) == 0.75


def test_every_figure_is_measured_by_rounds(tmp_path):
    done = bench(tmp_path, environment())
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert document["dry"] and "A DOUBLE" in done.stdout and document["floors_ms"] == {}
    entries = document["results"]["ours"]
    for figure, batches in (("graph", {1, 2}), ("forward", {1, 2})):
        found = [entry for entry in entries if entry["figure"] == figure]
        assert {entry["batch"] for entry in found} == batches
        assert all(len(entry["ms"]) == 4 and min(entry["ms"]) > 0 for entry in found)
    assert sum(entry["figure"] == "layer" and entry["step"] == "conv" for entry in entries) == 13
    assert {"copy_in", "copy_out", "device"} <= {entry["figure"] for entry in entries}
    expect_peaks(document, entries, done.stdout)
    http, = document["results"]["ours over HTTP"]
    assert list(http["statuses"]) == ["200"] and len(http["right_per_s"]) == 2
    assert set(document["bounds_ms"]) == {"1", "2"} and all(bound > 0 for bound in document["bounds_ms"].values())
    # Contestants that are not here are named, with why.
    assert "TensorRT" in document["missing"] and "TensorRT: not measured: " in done.stdout


def test_without_a_device_it_is_said(tmp_path):
    done = bench(tmp_path, environment(GPUDOUBLE_DEVICE="/nonexistent"))
    assert done.returncode == 69 and "finds no device" in done.stderr and not pathlib.Path(tmp_path / "gpu.json").exists()
