"""A burst of load on a model with a range of workers: more are started, answers stay right, and they go again."""

import concurrent.futures
import os
import signal

import pytest
import requests

from conftest import BUILD, SLOW, wait_until

WAIT_S = 240 if SLOW else 60
JOBS = 60

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2,
                                reason="one core: a second worker would make no sense")


@pytest.fixture
def server(start_server):
    """Between one and two workers, whatever the cores: a minimum is never cut, a maximum is."""
    path = BUILD / "tests" / "models" / "poison.so"
    return start_server(config=f"[model poison]\npath = {path}\nroute = /predict\nworkers = 1-2\n"
                               "max_batch_size = 1\nscale_wait_ms = 100\nscale_down_after_ms = 300\n")


def ask(server, text):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json"})


def metric(server, name):
    for line in requests.get(server.url + "/metrics", timeout=WAIT_S).text.splitlines():
        if line.startswith(f"unetserve_{name} "):
            return float(line.split()[-1])
    raise AssertionError(f"no metric {name}")


def ready(server):
    return metric(server, 'workers{model="poison",state="ready"}')


def wanted(server):
    return metric(server, 'workers_wanted{model="poison"}')


def burst(pool, server):
    texts = [f'"slow 50 {number}"' if number % 2 else f'slow 50 {number}' for number in range(JOBS)]
    return [(text, pool.submit(ask, server, text)) for text in texts]


def check(answers):
    for text, answer in answers:
        assert answer.result().status_code == 200
        assert answer.result().text == text


def wait_ready(server, count):
    wait_until(lambda: ready(server) == count, WAIT_S, f"{count} ready workers")


def test_burst_raises_the_workers_and_they_go_again(server):
    assert (ready(server), wanted(server)) == (1, 1)
    assert len(server.role("worker")) == 1
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_ready(server, 2)
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
        check(answers)
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "the second worker's end")
    assert wanted(server) == 1
    log = server.log_text()
    assert "more workers" in log and "fewer workers" in log
    server.stop()


def test_health_does_not_wait_for_more_than_the_least(server):
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        first = server.role("worker")
        answers = burst(pool, server)
        wait_until(lambda: len(server.role("worker")) == 2, WAIT_S, "a second worker")
        second = next(pid for pid in server.role("worker") if pid not in first)
        os.kill(second, signal.SIGSTOP)
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
        os.kill(second, signal.SIGCONT)
        check(answers)
    server.stop()


def test_worker_killed_while_it_drains_loses_nothing(server):
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        first = server.role("worker")
        answers = burst(pool, server)
        wait_ready(server, 2)
        check(answers)
        late = [(text, pool.submit(ask, server, text)) for text in ["slow 700 a", "slow 700 b"]]
        second = [pid for pid in server.role("worker") if pid not in first]
        wait_until(lambda: "fewer workers" in server.log_text() or wanted(server) == 1, WAIT_S,
                   "the decision to have fewer workers")
        for pid in second:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        check(late)
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "one worker")
    server.stop()
