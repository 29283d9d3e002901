"""Jobs reach workers in two ways, through the broker or without it, and none is lost on either, nor between them."""

import concurrent.futures
import os
import signal

import requests

from conftest import BUILD, WAIT_S, wait_until
from metrics_text import Metrics

PLUGIN = BUILD / "tests" / "models" / "poison.so"
CONFIG = """[model poison]
path = {path}
route = /predict
workers = {workers}
max_batch_size = 1
"""


def metrics(server):
    return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)


def handed_over(server):
    return metrics(server).value("jobs_handed_over_total", model="poison")


def post(server, text="hello", session=requests):
    return session.post(server.url + "/predict", data=text, timeout=WAIT_S,
                        headers={"Content-Type": "application/json"}).status_code


def test_lone_jobs_go_to_idle_workers(start_server):
    server = start_server(config=CONFIG.format(workers=2, path=PLUGIN))
    with requests.Session() as session:
        assert [post(server, session=session) for _ in range(50)] == [200] * 50
    assert handed_over(server) > 0
    server.stop()


def hold_and_queue(server, gate, pool, held):
    """Jobs hold that many workers up, others queue, and then the gate opens: all are answered. How many went without the broker."""
    before = metrics(server)
    gate.close()
    first = [pool.submit(post, server, "held 0") for _ in range(held)]
    wait_until(lambda: metrics(server).value("jobs_running", model="poison") == held, WAIT_S, "the first jobs' start")
    others = [pool.submit(post, server) for _ in range(8)]
    wait_until(lambda: metrics(server).value("queue_depth", model="poison") == 8, WAIT_S, "the line")
    gate.open()
    assert [job.result() for job in [*first, *others]] == [200] * (8 + held)
    after = metrics(server)
    assert after.value("batch_tiles_count", model="poison") - before.value("batch_tiles_count", model="poison") == 8 + held
    return after.value("jobs_handed_over_total", model="poison") - before.value("jobs_handed_over_total", model="poison")


def test_a_line_is_the_brokers(start_server, gate):
    """While jobs hold both workers up, others queue: more than one waits when they end, so the broker has work. Only the first, and
    the last of the line, may have been alone."""
    server = start_server(config=CONFIG.format(workers=2, path=gate.model))
    with concurrent.futures.ThreadPoolExecutor(10) as pool:
        assert hold_and_queue(server, gate, pool, 2) <= 2 + 1
    server.stop()


def test_a_line_is_the_only_workers(start_server, gate):
    """With one worker there is nothing to choose. The broker, who hears of jobs that wait, may still be faster, but not always."""
    server = start_server(config=CONFIG.format(workers=1, path=gate.model))
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        wait_until(lambda: hold_and_queue(server, gate, pool, 1) > 1 + 1, WAIT_S, "a line that went without the broker")
    server.stop()


def test_a_stopped_worker_keeps_no_job(start_server):
    """Both look idle to the gateway; one does not answer. Its job goes to the other by the broker, or waits until the supervisor
    has replaced it."""
    server = start_server(config=CONFIG.format(workers=2, path=PLUGIN))
    stopped = server.role("worker")[0]
    os.kill(stopped, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: post(server), range(20))) == [200] * 20
    wait_until(lambda: stopped not in server.role("worker"), WAIT_S, "the replacement of the stopped worker")
    server.stop()


def test_killed_workers_lose_nothing(start_server):
    """Workers die while lone jobs come one after the other: whoever was woken last may be gone."""
    server = start_server(config=CONFIG.format(workers=2, path=PLUGIN))
    with requests.Session() as session:
        for _ in range(6):
            victim = server.role("worker")[0]
            assert post(server, session=session) == 200
            os.kill(victim, signal.SIGKILL)
            assert [post(server, session=session) for _ in range(5)] == [200] * 5
            wait_until(lambda: len(server.role("worker")) == 2 and victim not in server.role("worker"),
                       WAIT_S, "a new worker")
    assert metrics(server).value("requests_total", model="poison", code="200") == 36
    assert handed_over(server) > 0
    server.stop()
