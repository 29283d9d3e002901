"""tests/gpu/on_device.sh: what it says and how it ends, with programs that only pretend, and on a machine without a GPU."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GPU = {"uuid": "GPU-1", "index": "0", "name": "NVIDIA H100 80GB HBM3", "memory_bytes": 1, "numa_node": 0, "cpus": [0]}
LAYERS = [{"figure": "layer", "step": "conv", "engine": engine} for engine in (41, 10)]


@pytest.fixture
def pretend(tmp_path):
    """A build of programs that say what they are told and end as they are told; runs the script on it."""
    build = tmp_path / "build"

    def program(name, text, status=0):
        path = build / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\necho \"$(basename $0) $*\" >>{tmp_path}/calls\n{text}\nexit {status}\n")
        path.chmod(0o755)

    listed = json.dumps({"driver": "580", "error": "", "devices": [GPU]}, separators=(",", ":"))
    plan = json.dumps({"layers": [{"engine": "41"}, {"engine": "12"}]})
    program("unetctl", f"case $1 in plan) echo '{plan}' ;; *) echo '{listed}' ;; esac")
    program("gpu/test_kernels", "echo fine")
    program("gpu/test_convs", "echo fine")
    program("gpu/test_networks", "echo fine")
    for name in ("gpu/test_gpu", "gpu/test_copies", "gpu/test_tuning"):
        program(name, "echo fine")
    program("bench/gpu_forward", "".join(f"echo '{json.dumps(line)}'\n" for line in LAYERS))
    program("python", '[ "$1" != -m ] && exec /usr/bin/python3 "$@"')

    def run(sanitizer=True, **changes):
        for name, (text, status) in changes.items():
            program(name.replace("__", "/"), text, status)
        if sanitizer:
            program("bin/compute-sanitizer", 'shift 4; exec "$@"')
        done = subprocess.run([ROOT / "tests/gpu/on_device.sh"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
                              env={**os.environ, "UNETSERVE_BUILD": str(build), "PYTHON": str(build / "python"), "CUDA": "/nonexistent", "BASE": "4",
                                   "PATH": f"{build / 'bin'}:/usr/bin:/bin"})
        lines = [line for line in done.stdout.splitlines() if not line.startswith("{")]
        return done.returncode, lines, (tmp_path / "calls").read_text() if (tmp_path / "calls").exists() else ""
    return run


def test_every_check_is_a_line(pretend):
    status, lines, calls = pretend()
    assert status == 0 and [line.split()[0] for line in lines] == ["ok"] * 17 + ["told"], lines
    assert lines[-1].endswith("1 of 2 convolutions run on the engine that is planned without a device")
    for tool in ("memcheck", "racecheck", "synccheck", "initcheck"):
        assert f"compute-sanitizer --tool {tool} --error-exitcode 9" in calls


def test_what_fails_is_named_and_the_rest_goes_on(pretend):
    status, lines, _ = pretend(gpu__test_gpu=("echo labels differ", 3))
    assert status == 1 and len(lines) == 18
    failed = [line for line in lines if line.startswith("FAIL")]
    assert len(failed) == 3 and "status 3" in failed[0] and failed[0].endswith("labels differ") and "/backend.log" in failed[0]


def test_without_the_sanitizer_its_checks_are_skipped(pretend):
    status, lines, _ = pretend(sanitizer=False)
    assert status == 0 and [line.split()[0] for line in lines] == ["ok"] * 7 + ["skip"] * 10 + ["told"]
    assert all("compute-sanitizer is neither" in line for line in lines[7:17])


@pytest.mark.parametrize("text, status, sentence", [
    ("echo unetctl: NVML is missing >&2", 69, "unetctl: NVML is missing"),
    ("echo '{\"driver\":\"580\",\"error\":\"\",\"devices\":[]}'", 0, "the driver shows none")])
def test_without_a_gpu_it_ends_with_a_sentence(pretend, text, status, sentence):
    code, lines, calls = pretend(unetctl=(text, status))
    assert code == 77 and lines == [f"test-gpu: there is no GPU here to test on: {sentence}"]
    assert "test_kernels" not in calls
