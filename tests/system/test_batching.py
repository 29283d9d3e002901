"""Requests that are put together: which ones, when they wait for each other, and when they do not.

Windows are a minute long, so that whoever is answered while somebody waits was not held; who ran with whom is read from the
histogram of batches.
"""

import concurrent.futures
import io
import os
import signal
import socket
import time

import numpy
import pytest
import requests

from conftest import BUILD, wait_until
from metrics_text import Metrics
from protocol_client import Client

WAIT_S = 50  # less than a window
WINDOW_MS = 60000


@pytest.fixture
def batching_server(start_server, demo_model):
    """One worker; plugin: batched or poison, or the demonstration UNet."""

    def start(plugin=None, wait="always", size=4, window_ms=WINDOW_MS):
        paths = {None: demo_model, "batched": BUILD / "models" / "batched.so",
                 "poison": BUILD / "tests" / "models" / "poison.so"}
        return start_server(config=f"[server]\nheader_timeout_ms = 86400000\n[model m]\npath = {paths[plugin]}\nroute = /predict\n"
                                   f"max_batch_size = {size}\nbatch_timeout_ms = {window_ms}\n"
                                   f"batch_wait = {wait}\ntimeout_ms = 86400000\nrun_timeout_ms = 3600000\nprecision = f32\n")

    return start


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(16) as executor:
        yield executor


def post(server, document, headers=None):
    return requests.post(server.url + "/predict", json=document, headers=headers, timeout=WAIT_S)


def post_text(server, text):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json"})


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}


def post_tile(server, tile):
    return requests.post(server.url + "/predict", data=npy(tile), headers=NPY, timeout=WAIT_S)


def slots(server):
    with Client(server) as client:
        head, body = client.status()
        assert head["status"] == 200
        return requests.models.complexjson.loads(body)["slots"]


def wait_slots(server, **counts):
    """Until so many slots are in each of these states: wait_slots(server, READY=2)."""
    wait_until(lambda: all(slots(server)[state] == count for state, count in counts.items()), WAIT_S,
               f"slots {counts}")


def runs(server):
    """How often the model ran, and on how many tiles in all."""
    page = Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)
    return page.value("batch_tiles_count", model="m"), page.value("batch_tiles_sum", model="m")


# ---- batch_wait = always -------------------------------------------------------------------------


def test_a_full_batch_runs_at_once_and_in_one_go(batching_server, pool):
    server = batching_server("batched", size=8)
    answers = list(pool.map(lambda i: post(server, {"input": [i, 0.5]}), range(8)))
    assert [answer.json() for answer in answers] == [{"output": [float(i * i), 0.25]}
                                                     for i in range(8)]
    assert runs(server) == (1, 8)
    server.stop()


def test_a_lone_request_goes_when_its_window_ends(batching_server):
    server = batching_server("batched", window_ms=20.5)
    assert post(server, {"input": 3.0}).json() == {"output": 9.0}
    assert runs(server) == (1, 1)
    server.stop()


def test_only_equal_shapes_run_together(batching_server, pool, scene):
    server = batching_server(size=3)
    sent = []

    def send(tile):
        sent.append(pool.submit(post_tile, server, tile))
        return sent[-1]

    small, wide = scene[:, :32, :32], scene[:, :32, :48]
    first = [send(small), send(wide), send(small)]
    wait_slots(server, READY=3)
    first.append(send(small))
    for answer in (first[0], first[2], first[3]):
        assert numpy.load(io.BytesIO(answer.result().content)).shape == (32, 32)
    assert runs(server) == (1, 3)
    assert slots(server)["READY"] == 1 and not first[1].done()
    for answer in (send(wide), send(wide), first[1]):
        assert numpy.load(io.BytesIO(answer.result().content)).shape == (32, 48)
    assert runs(server) == (2, 6)
    server.stop()


def test_who_has_not_the_time_takes_the_others_along(batching_server, pool):
    """A request whose deadline comes before the window's end is not held."""
    server = batching_server("batched")
    held = pool.submit(post, server, {"input": 2.0})
    wait_slots(server, READY=1)
    hurried = post(server, {"input": 3.0}, {"X-Unetserve-Timeout-Ms": "45000"})
    assert hurried.json() == {"output": 9.0}
    assert held.result().json() == {"output": 4.0}
    assert runs(server) == (1, 2)
    server.stop()


def test_the_window_outlives_the_broker(batching_server, pool):
    server = batching_server("batched")
    held = [pool.submit(post, server, {"input": 2.0}) for _ in range(3)]
    wait_slots(server, READY=3)
    victim = server.role("broker")[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: server.role("broker") not in ([], [victim]), WAIT_S, "another broker")
    held.append(pool.submit(post, server, {"input": 2.0}))
    assert [answer.result().json() for answer in held] == [{"output": 4.0}] * 4
    assert runs(server) == (1, 4)
    server.stop()


def test_a_reload_changes_the_window(batching_server, pool):
    server = batching_server("batched")
    held = pool.submit(post, server, {"input": 2.0})
    wait_slots(server, READY=1)
    path = server.directory / "unetserve.conf"
    path.write_text(path.read_text().replace(f"batch_timeout_ms = {WINDOW_MS}\n",
                                             "batch_timeout_ms = 0\n"))
    server.send(signal.SIGHUP)
    assert held.result().json() == {"output": 4.0}
    assert post(server, {"input": 3.0}).json() == {"output": 9.0}
    server.stop()


@pytest.mark.parametrize("plugin, size", [("batched", 2), (None, 2), (None, 7)])
def test_a_reload_changes_the_largest_batch(batching_server, pool, plugin, size):
    """It is part of what a worker publishes: the new generation's, though the files are the same."""
    server = batching_server(plugin)
    path = server.directory / "unetserve.conf"
    path.write_text(path.read_text().replace("max_batch_size = 4\n", f"max_batch_size = {size}\n"))
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text() or "not reloaded" in server.log_text(), WAIT_S, "the reload's end")
    assert "not reloaded" not in server.log_text()
    tile = numpy.zeros((12, 16, 16), numpy.float32)
    ask = (lambda: post_tile(server, tile)) if plugin is None else (lambda: post(server, {"input": 2.0}))
    assert [answer.result().status_code for answer in [pool.submit(ask) for _ in range(size)]] == [200] * size
    assert runs(server) == (1, size)
    server.stop()


def test_the_number_that_goes_together_is_learned(start_server, demo_model, scene):
    """With `auto` each run tells something; whatever it comes to, labels stay what they are."""
    server = start_server(config=f"[model m]\npath = {demo_model}\nroute = /predict\nmax_batch_size = auto\nprecision = f32\n")
    tiles = numpy.stack([numpy.roll(scene[:, :32, :32], i, axis=1) for i in range(8)])
    alone = [numpy.load(io.BytesIO(post_tile(server, tile).content)) for tile in tiles]
    for _ in range(100):
        together = numpy.load(io.BytesIO(post_tile(server, tiles).content))
        assert (together == numpy.stack(alone)).all()
        if "tiles of 32 x 32 run together from now on" in server.log_text():
            break
    assert "tiles of 32 x 32 run together from now on" in server.log_text()
    assert post_tile(server, numpy.concatenate([tiles, tiles[:1]])).status_code == 422
    server.stop()


# ---- one bad item --------------------------------------------------------------------------------


@pytest.mark.parametrize("bad, tiles", [
    ("x", 3),    # refused as it is read: the others run without it
    (1e200, 4),  # refused by the model, after it ran
])
def test_a_refused_item_is_refused_alone(batching_server, pool, bad, tiles):
    server = batching_server("batched")
    answers = list(pool.map(lambda value: post(server, {"input": value}), [1.0, bad, 2.0, 3.0]))
    assert [answer.status_code for answer in answers] == [200, 422, 200, 200]
    assert [answers[i].json()["output"] for i in (0, 2, 3)] == [1.0, 4.0, 9.0]
    assert runs(server) == (1, tiles)
    server.stop()


def test_an_item_that_makes_its_batch_fail_fails_alone(batching_server, pool):
    server = batching_server("poison")
    answers = list(pool.map(lambda text: post_text(server, text), ["a", "b", "fail", "c"]))
    assert [answer.status_code for answer in answers] == [200, 200, 500, 200]
    assert [answers[i].text for i in (0, 1, 3)] == ["a", "b", "c"]
    assert runs(server) == (5, 8)  # together, then one by one
    server.stop()


# ---- batch_wait = receiving ----------------------------------------------------------------------


class Upload:
    """A body that comes as slowly as we like."""

    def __init__(self, server, tile):
        self.body = npy(tile)
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)
        self.socket.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                            b"Accept: application/x-npy\r\nContent-Length: %d\r\n\r\n" % len(self.body))
        self.sent = 0

    def send(self, part):
        """Up to that part of the whole."""
        until = int(len(self.body) * part)
        self.socket.sendall(self.body[self.sent:until])
        self.sent = until

    def status(self):
        return int(self.socket.recv(12).split()[1])

    def close(self):
        self.socket.close()


def test_who_is_held_lets_other_shapes_pass(batching_server, pool, scene):
    server = batching_server(wait="always")
    held = pool.submit(post_tile, server, scene[:, :64, :64])
    wait_slots(server, READY=1)
    tiles = [pool.submit(post_tile, server, scene[:, :32, :32]) for _ in range(4)]
    assert [tile.result().status_code for tile in tiles] == [200] * 4
    assert not held.done() and runs(server) == (1, 4)
    batch = numpy.stack([scene[:, :64, :64]] * 4)
    assert post_tile(server, batch).status_code == 200  # a batch of its own is full
    assert not held.done() and runs(server) == (2, 8)
    others = [pool.submit(post_tile, server, scene[:, :64, :64]) for _ in range(3)]
    assert [tile.result().status_code for tile in [held, *others]] == [200] * 4
    assert runs(server) == (3, 12)
    server.stop()


def test_nobody_waits_for_nobody(batching_server, scene):
    server = batching_server(wait="receiving")
    for count in range(1, 4):
        assert post_tile(server, scene[:, :32, :32]).status_code == 200
        assert runs(server) == (count, count)
    server.stop()


def test_a_request_waits_for_a_body_that_is_coming(batching_server, pool, scene):
    server = batching_server(wait="receiving")
    tile = scene[:, :96, :96]
    begun = time.monotonic()
    upload = Upload(server, tile)
    time.sleep(3)
    took = time.monotonic() - begun
    upload.send(took / (took + 40))  # at this speed it takes 40 seconds more
    held = pool.submit(post_tile, server, tile)
    wait_until(lambda: held.done() or slots(server)["READY"], WAIT_S, "the other request")
    time.sleep(1)
    assert slots(server)["READY"] == 1 and runs(server) == (0, 0)
    upload.send(1)
    assert upload.status() == 200 and held.result().status_code == 200
    assert runs(server) == (1, 2)
    upload.close()
    server.stop()


@pytest.mark.parametrize("part", [0, 0.5])
def test_nobody_waits_for_a_body_that_stalls(batching_server, scene, part):
    server = batching_server(wait="receiving")
    tile = scene[:, :96, :96]
    upload = Upload(server, tile)
    upload.send(part)
    wait_slots(server, RECV=1)
    assert post_tile(server, tile).status_code == 200
    assert slots(server)["RECV"] == 1
    assert runs(server) == (1, 1)
    upload.close()
    server.stop()
