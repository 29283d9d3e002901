"""A worker on a processor that has nothing newer than SSE 4.2: no code may need more than CPUID offers.

`make unit-qemu` runs the unit tests on it."""

import os
import platform
import shutil
import subprocess

import numpy
import pytest

from conftest import BUILD, CHECKOUT, SLOW, WAIT_S, unhurried

GOLDENS = CHECKOUT / "tests" / "goldens"
EMULATOR = ["qemu-x86_64", "-cpu", "Nehalem"]

pytestmark = [
    pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates one x86-64 processor on another"),
    pytest.mark.skipif(not shutil.which(EMULATOR[0]), reason="qemu-user is not installed"),
    pytest.mark.skipif(SLOW, reason="sanitizers and the emulator do not go together"),
]

# 256-bit vectors, which a Nehalem does not have.
AVX = r"""
#include <immintrin.h>
__attribute__((target("avx"))) int main(void)
{
    volatile float one = 1;
    return (int)_mm256_cvtss_f32(_mm256_add_ps(_mm256_set1_ps(one), _mm256_set1_ps(one))) - 2;
}
"""


@pytest.fixture
def old_build(tmp_path):
    """The build's programs, but the worker runs on the emulated processor."""
    build = tmp_path / "build"
    build.mkdir()
    for name in ("unetserve", "unetserve-gateway", "unetserve-broker", "unetserve-auth", "unetserve-gpu"):
        shutil.copy2(BUILD / name, build / name)
    worker = build / "unetserve-worker"
    worker.write_text(f'#!/bin/sh\nexec {" ".join(EMULATOR)} "{BUILD}/unetserve-worker" "$@"\n')
    worker.chmod(0o755)
    return build


def test_the_emulated_processor_is_an_old_one(tmp_path):
    (tmp_path / "avx.c").write_text(AVX)
    subprocess.run(["cc", "-O1", "-o", tmp_path / "avx", tmp_path / "avx.c"], check=True, timeout=WAIT_S)
    done = subprocess.run([*EMULATOR, tmp_path / "avx"], capture_output=True, timeout=WAIT_S, cwd=tmp_path)
    assert done.returncode == -4, done
    assert b"Illegal instruction" in done.stderr


def test_a_tile_is_served(start_server, old_build, demo_model, scene):
    server = start_server(config=unhurried(demo_model), build=old_build)
    programs = [os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in server.children()]
    assert programs.count(EMULATOR[0]) >= 1 and "unetserve-worker" not in programs
    answer = server.directory / "answer.npy"
    subprocess.run([BUILD / "unetctl", "predict", GOLDENS / "scene_96x112.input.npy", "-o", answer,
                    "--url", server.url, "--timeout", "3600000"], check=True, timeout=WAIT_S)
    labels = numpy.load(answer)
    assert labels.shape == scene.shape[1:]
    # Such a processor computes in float32: these are torch's labels.
    assert (labels == numpy.load(GOLDENS / "scene_96x112.logits.npy").argmax(0)).mean() >= 0.9999
    server.stop()


def test_unetctl_reads_a_model(demo_model):
    done = subprocess.run([*EMULATOR, BUILD / "unetctl", "inspect", demo_model], capture_output=True, text=True,
                          timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    assert "milesial" in done.stdout
