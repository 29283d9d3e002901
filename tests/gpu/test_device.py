"""Whole servers on the GPUs of this machine; run by tests/gpu/on_device.sh, with whatever driver is found there."""
import os
import time

import numpy
import pytest
import requests

from test_gpu_double import GOLDENS, config, labels_of, predict

pytestmark = pytest.mark.skipif("UNETSERVE_TEST_DEVICE" not in os.environ, reason="for make test-gpu")


@pytest.mark.parametrize("model", ["milesial_transposed", "milesial_bilinear", "mateuszbuda"])
def test_labels_are_the_reference_s(start_server, model):
    channels = numpy.load(GOLDENS / f"{model}.input.npy").shape[-3]
    gpu = start_server(config=config(model, devices="cuda", max_batch_size=8), listen=None)
    cpu = start_server(config=config(model, devices="cpu", backend="reference"), listen=None)
    assert "on cudnn in" in gpu.log_text()
    random = numpy.random.default_rng(7)
    same = total = 0
    for count in (1, 5, 8, 1, 1):
        tile = random.uniform(0, 10000, (count, channels, 32, 48)).astype(numpy.float32)
        got, want = labels_of(predict(gpu, tile)), labels_of(predict(cpu, tile))
        same += int((got == want).sum())
        total += got.size
    assert same >= 0.97 * total, (same, total)
    gpu.stop()
    cpu.stop()


def test_each_gpu_is_watched(start_server):
    server = start_server(config=config("milesial_transposed", devices="cuda"), listen=None)
    end = time.monotonic() + 60
    while "unetserve_gpu_memory_total_bytes" not in requests.get(server.url + "/metrics", timeout=30).text:
        assert time.monotonic() < end
        time.sleep(0.1)
    server.stop()
