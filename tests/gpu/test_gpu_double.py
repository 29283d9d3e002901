"""The cuDNN backend on a double of a GPU (tests/gpu/double/double.h): its own tests with streams taking turns and with
streams as late as can be, then whole servers on it, through HTTP, against the reference backend."""
import os
import pathlib
import re
import shutil
import subprocess

import numpy
import pytest
import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
DOUBLE = ROOT / "build" / "gpu" / "double"
GOLDENS = ROOT / "tests" / "goldens"


def environment(device="h100", **more):
    # Where a sandboxed worker may read it: beside the libraries.
    shutil.copy(ROOT / "tests" / "gpu" / "devices" / f"{device}.json", DOUBLE)
    return {"LD_LIBRARY_PATH": str(DOUBLE), "GPUDOUBLE_DEVICE": str(DOUBLE / f"{device}.json"), **more}


def run_alone(program, **more):
    done = subprocess.run([BUILD / "gpu" / program], cwd=ROOT, capture_output=True, text=True, timeout=600,
                          env={**os.environ, **environment(**more)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("order", ["mixed", "late"])
@pytest.mark.parametrize("program", ["test_gpu", "test_copies", "test_tuning", "test_failures"])
def test_backend_agrees_with_the_reference(program, order):
    run_alone(program, GPUDOUBLE_ORDER=order)


def test_made_up_networks_and_sequences_agree_with_the_reference():
    run_alone("test_networks", GPUDOUBLE_ORDER="late")


@pytest.mark.parametrize("device", ["h100", "t4"])
@pytest.mark.parametrize("program", ["test_kernels", "test_convs"])
def test_kernels_and_plans_alone_do_what_plain_loops_do(program, device):
    run_alone(program, device=device, GPUDOUBLE_ORDER="late" if device == "t4" else "mixed")


def config(model, **keys):
    keys = {"tile": 32, **keys}  # what plans are timed for at the start: a small one
    lines = "\n".join(f"{key} = {value}" for key, value in keys.items())
    return f"[server]\nlisten = 127.0.0.1:0\n[model m]\npath = {GOLDENS / model}.safetensors\n{lines}\n"


def predict(server, tile, route="/predict"):
    return requests.post(server.url + route, data=tile.tobytes(), timeout=600, headers={
        "Content-Type": "application/octet-stream", "Accept": "application/x-npy",
        "X-Unetserve-Shape": ",".join(map(str, tile.shape)), "X-Unetserve-Dtype": str(tile.dtype)})


def labels_of(answer):
    assert answer.status_code == 200, answer.text
    return numpy.frombuffer(answer.content[-answer_bytes(answer):], numpy.uint8)


def answer_bytes(answer):
    # After npy's header, which ends with a newline.
    return len(answer.content) - answer.content.index(b"\n") - 1


@pytest.mark.parametrize("device, kind", [("h100", "bf16"), ("t4", "f16")])
def test_labels_through_http_are_the_reference_s(start_server, device, kind):
    model = "milesial_transposed"
    channels = numpy.load(GOLDENS / f"{model}.input.npy").shape[-3]
    gpu = start_server(config=config(model, devices="cuda", max_batch_size=8), listen=None, env=environment(device))
    cpu = start_server(config=config(model, devices="cpu", backend="reference"), listen=None)
    assert f"on cudnn in {kind}" in gpu.log_text()
    random = numpy.random.default_rng(5)
    same = total = 0
    for shape in [(channels, 33, 40), (2, channels, 24, 31), (5, channels, 24, 31), (8, channels, 24, 31),
                  (channels, 33, 40), (channels, 33, 40)]:
        tile = random.uniform(0, 10000, shape).astype(numpy.float32)
        got, want = labels_of(predict(gpu, tile)), labels_of(predict(cpu, tile))
        assert got.shape == want.shape
        same += int((got == want).sum())
        total += got.size
    assert same >= 0.97 * total, (same, total)
    gpu.stop()
    cpu.stop()


def told(server, call):
    """How often the worker, the last to end, called that, by the double's word."""
    counts = re.findall(rf"gpu double: {call} was called (\d+) times", server.log_text())
    assert counts, server.log_text()[-2000:]
    return int(counts[-1])


def test_bodies_go_from_their_slots_to_the_device(start_server):
    """No page-locked memory in between, in a worker whose input areas are mapped for reading only."""
    model = "milesial_transposed"
    channels = numpy.load(GOLDENS / f"{model}.input.npy").shape[-3]
    tile = numpy.random.default_rng(6).uniform(0, 10000, (channels, 64, 48)).astype(numpy.float32)
    answers = []
    for wish in ["yes", "no"]:
        server = start_server(config=config(model, devices="cuda"), listen=None, env=environment(
            GPUDOUBLE_READ_ONLY=wish, GPUDOUBLE_TELL="cuMemAllocHost,cuMemHostRegister,cuMemHostUnregister"))
        answers += [labels_of(predict(server, tile)) for _ in range(3)]
        server.stop()
        locks = told(server, "cuMemHostRegister")
        assert told(server, "cuMemAllocHost") == (0 if wish == "yes" else 2)  # one a lane
        assert locks >= (2 if wish == "yes" else 1) and told(server, "cuMemHostUnregister") == locks
        assert ("are not page-locked" in server.log_text()) == (wish == "no")
    assert all((answer == answers[0]).all() for answer in answers)


def test_plans_are_timed_at_the_first_start_only(start_server, tmp_path):
    """The next server reads the engines from cache_dir; one on another device measures for itself."""
    model = "milesial_transposed"
    channels = numpy.load(GOLDENS / f"{model}.input.npy").shape[-3]
    tile = numpy.random.default_rng(7).uniform(0, 10000, (channels, 32, 32)).astype(numpy.float32)
    text = config(model, devices="cuda").replace("[model m]", f"cache_dir = {tmp_path}/cache\n[model m]")
    times = []
    answers = []
    for device in ["h100", "h100", "a100", "h100"]:
        server = start_server(config=text, listen=None,
                              env=environment(device, GPUDOUBLE_TELL="cuEventElapsedTime"))
        answers.append(labels_of(predict(server, tile)))
        server.stop()
        times.append(told(server, "cuEventElapsedTime"))
        assert ("timed in" in server.log_text()) == (times[-1] > 0)
        assert ("read from" in server.log_text()) == (times[-1] == 0)
    assert times[0] > 100 and times[1] == 0 and times[2] > 100 and times[3] == 0
    assert (answers[1] == answers[0]).all() and (answers[3] == answers[0]).all()
    assert len(list((tmp_path / "cache").glob("packed-*"))) == 2


def test_nothing_is_timed_where_the_configuration_says_so(start_server, tmp_path):
    """But what was timed before counts."""
    model = "milesial_transposed"
    for timing, said in [("off", "none are to be timed"), ("on", "timed in"), ("off", "read from")]:
        text = config(model, devices="cuda", engine_timing=timing).replace("[model m]", f"cache_dir = {tmp_path}/cache\n[model m]")
        server = start_server(config=text, listen=None, env=environment(GPUDOUBLE_TELL="cuEventElapsedTime"))
        server.stop()
        assert said in server.log_text() and (told(server, "cuEventElapsedTime") > 0) == (timing == "on")


def test_without_a_device_it_is_said(start_server):
    broken = environment(GPUDOUBLE_DEVICE="/nonexistent")
    done = subprocess.run([BUILD / "unetserve", "--model", GOLDENS / "plain.safetensors", "--device", "cuda", "--check"],
                          capture_output=True, text=True, timeout=600, env={**os.environ, **broken})
    assert done.returncode == 69 and "finds no device" in done.stderr
