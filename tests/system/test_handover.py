"""Jobs reach workers in two ways, through the broker or without it, and none is lost on either, nor between them."""

import concurrent.futures
import os
import signal

import requests

from conftest import BUILD, SLOW, wait_until
from metrics_text import Metrics

WAIT_S = 240 if SLOW else 60

CONFIG = f"""[model poison]
path = {BUILD}/tests/models/poison.so
route = /predict
workers = {{workers}}
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
    server = start_server(config=CONFIG.format(workers=2))
    with requests.Session() as session:
        assert [post(server, session=session) for _ in range(50)] == [200] * 50
    assert handed_over(server) > 0
    server.stop()


def behind(server, pool, hold_ms):
    """Eight jobs behind one that takes hold_ms. Did they all queue before it was over?"""
    first = pool.submit(post, server, f"slow {hold_ms}")
    wait_until(lambda: first.done() or metrics(server).value("jobs_running", model="poison"), WAIT_S, "the first job's start")
    others = [pool.submit(post, server) for _ in range(8)]
    queued = wait_until(lambda: first.done() or metrics(server).value("queue_depth", model="poison") == 8, WAIT_S, "the line")
    queued = queued and not first.done()
    assert [job.result() for job in [first, *others]] == [200] * 9
    return queued


def test_a_line_is_the_brokers(start_server):
    """While one job holds the only worker up, others queue: more than one waits when it ends, so the broker has work."""
    server = start_server(config=CONFIG.format(workers=1))
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        assert any(behind(server, pool, hold_ms) for hold_ms in (500, 1000, 2000, 4000, 8000))
    shown = metrics(server)
    jobs = shown.value("requests_total", model="poison", code="200")
    assert shown.value("batch_tiles_count", model="poison") == jobs
    assert shown.value("jobs_handed_over_total", model="poison") <= jobs - 7
    server.stop()


def test_a_stopped_worker_keeps_no_job(start_server):
    """Both look idle to the gateway; one does not answer. Its job goes to the other by the broker, or waits until the supervisor
    has replaced it."""
    server = start_server(config=CONFIG.format(workers=2))
    stopped = server.role("worker")[0]
    os.kill(stopped, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: post(server), range(20))) == [200] * 20
    wait_until(lambda: stopped not in server.role("worker"), WAIT_S, "the replacement of the stopped worker")
    server.stop()


def test_killed_workers_lose_nothing(start_server):
    """Workers die while lone jobs come one after the other: whoever was woken last may be gone."""
    server = start_server(config=CONFIG.format(workers=2))
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
