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


def test_a_line_is_the_brokers(start_server, gate):
    """While one job holds the only worker up, others queue: more than one waits when it ends, so the broker has work."""
    server = start_server(config=CONFIG.format(workers=1, path=gate.model))
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        first = pool.submit(post, server, "held 0")
        wait_until(lambda: metrics(server).value("jobs_running", model="poison"), WAIT_S, "the first job's start")
        others = [pool.submit(post, server) for _ in range(8)]
        wait_until(lambda: metrics(server).value("queue_depth", model="poison") == 8, WAIT_S, "the line")
        gate.open()
        assert [job.result() for job in [first, *others]] == [200] * 9
    shown = metrics(server)
    jobs = shown.value("requests_total", model="poison", code="200")
    assert shown.value("batch_tiles_count", model="poison") == jobs
    assert shown.value("jobs_handed_over_total", model="poison") <= jobs - 7
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
