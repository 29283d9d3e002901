"""Packed weights live once: one worker packs and writes them, the others map its file, and so does the next server."""

import io
import os
import pathlib
import re
import signal

import pytest
import requests
from conftest import WAIT_S, process_alive, wait_until

CONFIG = """
[server]
{server}

[model land-cover]
path = {path}
workers = {workers}
threads = 1
"""


def configuration(path, workers, cache_dir=None):
    server = f"cache_dir = {cache_dir}" if cache_dir else ""
    return CONFIG.format(path=path, workers=workers, server=server)


def mapped_files(pid):
    """{path: permissions} of the files of packed weights that a process has mapped."""
    lines = pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(None, 5)[5]: line.split()[1] for line in lines if "/packed-" in line}


def answer(server, scene):
    reply = requests.post(server.url + "/predict", data=npy(scene), timeout=WAIT_S,
                          headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy"})
    assert reply.status_code == 200, reply.text
    return reply.content


def npy(array):
    numpy = pytest.importorskip("numpy")
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


def said(server, what):
    return [line for line in server.log_text().splitlines() if what in line]


def test_one_worker_packs_and_all_map(start_server, demo_model, scene, tmp_path):
    cache = tmp_path / "cache"
    server = start_server(config=configuration(demo_model, 3, cache))
    wait_until(lambda: len(said(server, "model set up")) == 3, WAIT_S, "the third worker")
    assert len(said(server, "packed weights written")) == 1
    assert len(said(server, "packed weights mapped")) == 3
    (packed,) = cache.iterdir()
    assert packed.stat().st_mode & 0o777 == 0o600
    for pid in server.role("worker"):
        assert mapped_files(pid) == {str(packed): "r--s"}
    first = answer(server, scene)

    # A worker that comes later packs nothing, and answers the same.
    killed = server.role("worker")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(process_alive(pid) for pid in killed), WAIT_S, "the workers' end")
    wait_until(lambda: len(said(server, "model set up")) == 6, WAIT_S, "their successors")
    assert answer(server, scene) == first
    server.stop()
    assert list(cache.iterdir()) == [packed]

    # Nor does the next server.
    server = start_server(config=configuration(demo_model, 1, cache))
    assert not said(server, "packed weights written")
    assert len(said(server, "packed weights mapped")) == 1
    assert answer(server, scene) == first
    server.stop()


def test_without_cache_dir_they_live_in_the_run_directory(start_server, demo_model):
    server = start_server(config=configuration(demo_model, 2))
    wait_until(lambda: len(said(server, "model set up")) == 2, WAIT_S, "the second worker")
    files = {path for pid in server.role("worker") for path in mapped_files(pid)}
    assert len(files) == 1
    assert files.pop().startswith(str(server.run_root))
    server.stop()  # asserts that the run directory is gone


def test_a_damaged_file_is_replaced(start_server, demo_model, scene, tmp_path):
    cache = tmp_path / "cache"
    server = start_server(config=configuration(demo_model, 1, cache))
    first = answer(server, scene)
    server.stop()
    (packed,) = cache.iterdir()
    whole = packed.read_bytes()
    packed.write_bytes(whole[:100000] + bytes([whole[100000] ^ 1]) + whole[100001:])
    server = start_server(config=configuration(demo_model, 1, cache))
    assert len(said(server, "damaged weights")) == 1
    assert len(said(server, "packed weights written")) == 1
    assert answer(server, scene) == first
    server.stop()
    assert packed.read_bytes() == whole


def test_no_cache_no_harm(start_server, demo_model, scene, tmp_path):
    """A cache_dir that cannot be used costs one line in the log."""
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    server = start_server(config=configuration(demo_model, 1, blocked))
    assert len(said(server, "cache_dir")) == 1
    assert not said(server, "packed weights mapped")
    assert len(answer(server, scene)) > 96 * 112
    server.stop()


def test_new_weights_are_another_file(start_server, demo_model, scene, tmp_path):
    """SIGHUP with other weights under the same name: they are packed anew, and the answers are theirs."""
    model = tmp_path / "model"
    model.mkdir()
    for name in ("model.json", "s2-worldcover-b16.safetensors"):
        (model / name).write_bytes((demo_model / name).read_bytes())
    cache = tmp_path / "cache"
    server = start_server(config=configuration(model, 1, cache))
    first = answer(server, scene)
    (packed,) = cache.iterdir()
    weights = bytearray((model / "s2-worldcover-b16.safetensors").read_bytes())
    # The first class's bias becomes so large that it wins everywhere.
    header = int.from_bytes(weights[:8], "little")
    entry = re.search(rb'"([^"]*outc[^"]*bias)":\{[^}]*"data_offsets":\[(\d+),', weights[8:8 + header].replace(b" ", b""))
    assert entry
    at = 8 + header + int(entry.group(2))
    weights[at:at + 4] = b"\x00\x00\xc8\x42"  # 100.0
    fresh = tmp_path / "fresh"
    fresh.write_bytes(weights)
    fresh.rename(model / "s2-worldcover-b16.safetensors")
    server.send(signal.SIGHUP)
    wait_until(lambda: answer(server, scene) != first, WAIT_S, "the new weights' answers")
    assert set(answer(server, scene)[-96 * 112:]) == {0}
    assert len(said(server, "packed weights written")) == 2
    assert len(list(cache.iterdir())) == 2 and packed.exists()
    server.stop()
