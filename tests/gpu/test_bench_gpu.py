"""make bench-gpu, dry: on the double of a GPU, with a tiny network. Its figures mean nothing; that all of it runs does."""
import json
import os
import pathlib
import subprocess
import sys

from test_gpu_double import BUILD, ROOT, environment


def bench(tmp_path, env, *more):
    return subprocess.run([sys.executable, ROOT / "bench/gpu/run.py", "--rounds", "2", "--runs", "2", "--batch", "1", "--batch", "2", "--size", "16",
                           "--base", "8", "--depth", "2", "--channels", "3", "--classes", "4", "--clients", "2", "--seconds", "0.5",
                           "--out", tmp_path / "gpu.json", *more], capture_output=True, text=True, timeout=600, check=False,
                          env={**os.environ, "BUILD": str(BUILD), **env})


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
    assert {"copy_in", "copy_out", "peak_memory", "device"} <= {entry["figure"] for entry in entries}
    http, = document["results"]["ours over HTTP"]
    assert list(http["statuses"]) == ["200"] and len(http["right_per_s"]) == 2
    assert set(document["bounds_ms"]) == {"1", "2"} and all(bound > 0 for bound in document["bounds_ms"].values())
    # Contestants that are not here are named, with why.
    assert "TensorRT" in document["missing"] and "TensorRT: not measured: " in done.stdout


def test_without_a_device_it_is_said(tmp_path):
    done = bench(tmp_path, environment(GPUDOUBLE_DEVICE="/nonexistent"))
    assert done.returncode == 69 and "finds no device" in done.stderr and not pathlib.Path(tmp_path / "gpu.json").exists()
