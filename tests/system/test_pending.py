"""Models that answer later: many requests in one worker, cancelled, crashed, kept."""

import concurrent.futures
import signal
import socket

import pytest
import requests

from conftest import BUILD, WAIT_S, wait_until
from metrics_text import Metrics


@pytest.fixture
def later(start_server):
    def start(more=""):
        plugin = BUILD / "tests" / "models" / "later.so"
        return start_server(config=f"[server]\ndrain_timeout_ms = 3600000\n[model later]\npath = {plugin}\nroute = /predict\n"
                                   f"workers = 1-1\ntimeout_ms = 3600000\n{more}")
    return start


def ask(server, text, **headers):
    return requests.post(server.url + "/predict", data=text, headers=headers, timeout=WAIT_S)


def running(server):
    return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text).value("jobs_running", model="later")


def told(server):
    return server.log_text().count("wait: nobody waits")


def wait_running(server):
    wait_until(lambda: running(server) == 1, what="the job's running")


def together(server, texts):
    with concurrent.futures.ThreadPoolExecutor(len(texts)) as pool:
        return list(pool.map(lambda text: ask(server, text), texts))


def test_requests_meet_in_one_worker(later):
    server = later()
    assert len(server.role("worker")) == 1
    answers = together(server, [f"meet 12 {i}" for i in range(12)])
    assert [answer.text for answer in answers] == [f"meet 12 {i}" for i in range(12)]
    server.stop()


def test_threads_and_errors(later):
    server = later()
    answers = together(server, [f"thread {i}" if i % 4 else f"fail {i}" for i in range(24)])
    for i, answer in enumerate(answers):
        assert (answer.status_code, answer.text) == (200, f"thread {i}") if i % 4 else answer.status_code == 500
    server.stop()


def test_a_deadline_and_a_leaver_reach_the_model(later):
    server = later()
    def late():
        """Where there is much else to do its time may be over before the model sees it."""
        assert ask(server, "wait", **{"X-Unetserve-Timeout-Ms": "300"}).status_code == 504
        return told(server)

    wait_until(late, what="the model's being told")
    wait_until(lambda: running(server) == 0, what="the end of all jobs")
    before = told(server)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as leaver:
        leaver.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nwait")
        wait_running(server)
    wait_until(lambda: told(server) == before + 1, what="the model's being told")
    assert ask(server, "now").text == "now"
    server.stop()


def test_what_is_never_given_back_costs_the_worker(later):
    server = later("run_timeout_ms = 1000\n")
    worker = server.role("worker")
    assert ask(server, "keep").status_code == 504
    wait_until(lambda: server.role("worker") and server.role("worker") != worker, what="another worker")
    wait_until(lambda: "does not give back" in server.log_text(), what="its saying why")
    assert ask(server, "now").text == "now"
    server.stop()


def test_pending_neighbours_of_a_crash_run_again(later):
    server = later()
    answers = together(server, ["nap 0", "nap 1", "crash", "nap 2", "nap 3"])
    assert answers[2].status_code == 500 and "crashed or hung on this input 2 times" in answers[2].json()["detail"]
    assert [answer.text for answer in answers if answer is not answers[2]] == [f"nap {i}" for i in range(4)]
    server.stop()


def test_models_have_numbers_of_their_own(later):
    server = later()
    for _ in range(3):
        assert ask(server, "now").text == "now"
    shown = requests.get(server.url + "/metrics", timeout=WAIT_S).text
    assert 'TYPE unetserve_model_calls_total counter\nunetserve_model_calls_total{model="later"} 1.5\n' in shown
    assert 'TYPE unetserve_model_last_count gauge\nunetserve_model_last_count{model="later"} 1\n' in shown
    # A counter outlives its process, a gauge does not.
    assert ask(server, "crash").status_code == 500
    wait_until(lambda: server.role("worker"), what="a worker")
    shown = requests.get(server.url + "/metrics", timeout=WAIT_S).text
    assert 'unetserve_model_calls_total{model="later"} 2.5\n' in shown
    assert ask(server, "now").text == "now"
    assert "unetserve_model_x_total" not in shown
    server.stop()


def test_draining_waits_for_what_is_pending(later):
    server = later()
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as leaver:
        leaver.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nwait")
        wait_running(server)
        server.send(signal.SIGTERM)
        wait_until(lambda: "why=SIGTERM" in server.log_text(), what="the drain")
        assert not told(server) and server.process.poll() is None
    assert server.wait() == 0
    assert told(server) == 1
