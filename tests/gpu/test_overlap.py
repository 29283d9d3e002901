"""Two batches on a device at once, in whole servers on the double of a GPU: nobody's job is lost or mixed up, whatever ends meanwhile."""
import concurrent.futures
import os
import re
import signal
import struct

import numpy
import pytest
import requests
from conftest import process_alive, wait_until
from metrics_text import Metrics
from test_gpu_double import DOUBLE, GOLDENS, config, environment, labels_of, predict


class Control:
    """The double's device under a running worker: held, so that nothing on it ends, or failing."""

    def __init__(self):
        self.path = DOUBLE / "control"
        self.path.write_bytes(bytes(8))

    def set(self, hold=0, code=0):
        # In one write each, code first: who is let go finds it.
        fd = os.open(self.path, os.O_WRONLY)
        os.pwrite(fd, struct.pack("i", code), 4)
        os.pwrite(fd, struct.pack("i", hold), 0)
        os.close(fd)


MODEL = "milesial_transposed"


def random_tiles(count):
    channels = numpy.load(GOLDENS / f"{MODEL}.input.npy").shape[-3]
    return [numpy.random.default_rng(30 + i).uniform(0, 10000, (channels, 32, 32)).astype(numpy.float32) for i in range(count)]


def metric(server, name, **labels):
    return Metrics(requests.get(server.url + "/metrics", timeout=60).text).sum(name, **labels)


def overlapped(server):
    return metric(server, "model_overlapped_batches_total")


@pytest.fixture
def held(start_server):
    """A server whose batches are one tile each, and a device that is held with two of them on it: the server, its device, what the tiles'
    labels are, and the requests, all accepted."""
    control = Control()
    # Nobody's patience ends while the test holds the device.
    text = config(MODEL, devices="cuda", workers=1, max_batch_size=1, timeout_ms=3600000, run_timeout_ms=3600000)
    server = start_server(config=text.replace("[model m]", "drain_timeout_ms = 3600000\n[model m]"), listen=None,
                          env=environment(GPUDOUBLE_CONTROL=str(control.path)))
    tiles = random_tiles(4)
    labels = [labels_of(predict(server, tile)) for tile in tiles]
    assert len({one.tobytes() for one in labels}) == len(tiles)  # who got another one's would be seen
    before = overlapped(server)
    with concurrent.futures.ThreadPoolExecutor(len(tiles)) as pool:
        control.set(hold=1)
        asked = [pool.submit(predict, server, tile) for tile in tiles]
        try:
            wait_until(lambda: overlapped(server) == before + 1, 120)
            yield server, control, labels, asked
        finally:
            control.set()
    if server.process.poll() is None:
        server.stop()


def expect_all(asked, labels):
    for answer, want in zip(asked, labels):
        assert (labels_of(answer.result(timeout=600)) == want).all()


def test_a_second_batch_is_put_on_the_device_behind_the_first(held):
    server, control, labels, asked = held
    assert not any(answer.done() for answer in asked)
    control.set()
    expect_all(asked, labels)


def test_a_deadline_passes_behind_two_batches_on_the_device(held):
    server, control, labels, asked = held
    tile = random_tiles(1)[0]
    late = requests.post(server.url + "/predict", data=tile.tobytes(), timeout=600, headers={
        "Content-Type": "application/octet-stream", "X-Unetserve-Shape": ",".join(map(str, tile.shape)),
        "X-Unetserve-Dtype": "float32", "X-Unetserve-Timeout-Ms": "50"})
    assert late.status_code in (503, 504), late.text
    assert not any(answer.done() for answer in asked)
    control.set()
    expect_all(asked, labels)


def test_a_worker_killed_with_two_batches_on_its_device_loses_none(held):
    server, control, labels, asked = held
    os.kill(server.role("worker")[0], signal.SIGKILL)
    control.set()
    expect_all(asked, labels)


@pytest.mark.parametrize("code, reason, status", [(700, "fault", 83), (214, "ecc", 80)])
def test_a_device_that_fails_under_two_batches_loses_none(held, code, reason, status):
    server, control, labels, asked = held
    control.set(code=code)
    wait_until(lambda: "a GPU failed under its worker" in server.log_text(), 120)
    control.set()
    expect_all(asked, labels)
    log = server.log_text()
    assert "job failed" not in log
    assert re.search(rf"the model's device has failed.* reason={reason}\b", log) and re.search(rf"process ended.* status={status}\b", log)
    assert metric(server, "gpu_failures_total", reason=reason) >= 1


def test_a_worker_told_to_end_with_two_batches_on_its_device_ends_them(held):
    server, control, labels, asked = held
    worker = server.role("worker")[0]
    os.kill(worker, signal.SIGTERM)
    control.set()
    expect_all(asked, labels)
    wait_until(lambda: worker not in server.role("worker"), 120)
    assert "job lost its worker" not in server.log_text()


def test_orphans_end_what_is_on_their_device(held):
    server, control, labels, asked = held
    children = server.children()
    server.process.kill()
    server.process.wait()
    control.set()
    expect_all(asked, labels)
    wait_until(lambda: not any(map(process_alive, children)), 300)


def test_a_device_that_hangs_under_two_batches_is_noticed(start_server):
    """By the worker's tick, though its loop turns: a sixth of run_timeout_ms."""
    control = Control()
    server = start_server(config=config(MODEL, devices="cuda", workers=1, max_batch_size=1, timeout_ms=3600000, run_timeout_ms=120000),
                          listen=None, env=environment(GPUDOUBLE_CONTROL=str(control.path)))
    [tile] = random_tiles(1)
    want = labels_of(predict(server, tile))
    worker = server.role("worker")[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        control.set(hold=1)
        asked = pool.submit(predict, server, tile)
        try:
            wait_until(lambda: worker not in server.role("worker"), 300)
        finally:
            control.set()
        assert (labels_of(asked.result(timeout=600)) == want).all()
    assert "hung=yes" in server.log_text()
    server.stop()
