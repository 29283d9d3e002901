"""What waits behind a long job is taken back by the broker and answered by a worker that has become idle."""

import concurrent.futures

import pytest

from conftest import WAIT_S, wait_until
from test_autoscaler import ask, jobs

CONFIG = ("[server]\nqueue_memory = 256M\n[model poison]\npath = {path}\nroute = /predict\nworkers = {workers}\n"
          "max_batch_size = {batch}\ntimeout_ms = 3600000\nrun_timeout_ms = 3600000\n")


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(16) as executor:
        yield executor


def begin(pool, server, texts):
    """Each runs at a worker of its own."""
    begun = []
    for count, text in enumerate(texts, 1):
        begun.append(pool.submit(ask, server, text))
        wait_until(lambda count=count: jobs(server, "RUN") == count, WAIT_S, f"{count} running jobs")
    return begun


def wait_behind(pool, server, texts):
    """All of them are leased to workers that run something."""
    behind = [pool.submit(ask, server, text) for text in texts]
    wait_until(lambda: jobs(server, "LEASED") == len(texts), WAIT_S, "the leases")
    return behind


def check(texts, answers):
    for text, answer in zip(texts, answers):
        assert (answer.result().status_code, answer.result().text) == (200, text)


@pytest.mark.parametrize("batch", [1, 2])
def test_idle_worker_answers_what_waits_at_a_busy_one(start_server, gate, pool, batch):
    server = start_server(config=CONFIG.format(path=gate.model, workers=2, batch=batch))
    long = begin(pool, server, ["held 1 a", "held 0 b"])
    texts = [f"quick {number}" for number in range(2 * batch)]
    behind = wait_behind(pool, server, texts)
    workers = server.role("worker")
    gate.open(0)
    wait_until(lambda: all(one.done() for one in behind), WAIT_S, "the answers of those that waited")
    assert long[1].result().status_code == 200 and not long[0].done()
    assert jobs(server, "RUN") == 1 and jobs(server, "READY", "LEASED") == 0
    check(texts, behind)
    gate.open(1)
    assert long[0].result().text == "held 1 a"
    assert server.role("worker") == workers
    server.stop()


def test_several_idle_workers_share_what_waits(start_server, gate, pool):
    """Three become idle at once; of four that waited, those at the fourth go on, too."""
    server = start_server(config=CONFIG.format(path=gate.model, workers=4, batch=1))
    long = begin(pool, server, ["held 2 a", "held 0 b", "held 0 c", "held 0 d"])
    texts = [f"held 1 {number}" for number in range(3)] + ["quick"]
    behind = wait_behind(pool, server, texts)
    gate.open(0)
    wait_until(lambda: all(one.done() for one in long[1:]) and jobs(server, "LEASED") <= 1, WAIT_S, "their next jobs")
    gate.open(1)
    wait_until(lambda: all(one.done() for one in behind), WAIT_S, "the answers of those that waited")
    assert not long[0].done()
    check(texts, behind)
    gate.open(2)
    check(["held 2 a"], long[:1])
    server.stop()
