"""Whatever comes, under load and through several gateways: each request has one answer, and what clients read and what /metrics
says are the same numbers. sent = 200 + 4xx + 429 + 503 + 504."""

import collections
import concurrent.futures
import itertools
import random
import socket

import requests

from conftest import WAIT_S, wait_until
from metrics_text import Metrics

CLIENTS = 32
EACH = 25

CONFIG = """[server]
gateways = 3
trusted_proxies = 127.0.0.0/8
rate_limit = 0.001
rate_burst = 40
max_body_bytes = 100K
queue_memory = 4M
header_timeout_ms = 3600000
[model poison]
path = {path}
route = /predict
workers = 2
max_batch_size = 1
timeout_ms = 3600000
run_timeout_ms = 3600000
"""


class Asker:
    """One thread's clients: each kind of request, on new connections and old ones."""

    def __init__(self, server, seed):
        self.server, self.random = server, random.Random(seed)
        self.session = requests.Session()
        self.numbers = itertools.count(seed * 10_000)

    def somebody(self):
        """An address that has not asked yet."""
        number = next(self.numbers)
        return {"X-Forwarded-For": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"}

    def post(self, text, path="/predict", kind="application/json", **headers):
        asker = self.session if self.random.random() < 0.5 else requests
        return asker.post(self.server.url + path, data=text, timeout=WAIT_S,
                          headers={"Content-Type": kind, **self.somebody(), **headers}).status_code

    def fine(self):
        return self.post("hello")

    def slow(self):
        return self.post("slow 30")

    def late(self):
        return self.post("slow 10", **{"X-Unetserve-Timeout-Ms": "40"})

    def greedy(self):
        return self.post("hello", **{"X-Forwarded-For": "192.0.2.1"})

    def lost(self):
        return self.post("hello", path="/nowhere")

    def wrong_method(self):
        return self.session.put(self.server.url + "/predict", data=b"x", timeout=WAIT_S).status_code

    def wrong_type(self):
        return self.post("hello", kind="application/x-npy")

    def large(self):
        return self.post(b"x" * 150_000)

    def malformed(self):
        """Heads that break the grammar, and a body that ends too early."""
        text = self.random.choice([
            b"POST /predict HTTP/1.1\r\n\r\n", b"nonsense\r\n\r\n",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nhell",
            b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: %s\r\nContent-Type: application/json\r\n"
            b"Content-Length: 50\r\n\r\nhello" % self.somebody()["X-Forwarded-For"].encode()])
        with socket.create_connection(("127.0.0.1", self.server.port), WAIT_S) as line:
            line.sendall(text)
            line.shutdown(socket.SHUT_WR)
            answer = b""
            while part := line.recv(65536):
                answer += part
        assert answer.count(b"HTTP/1.1 ") == 1
        return int(answer.split()[1])

    def run(self, times):
        kinds = [self.fine, self.slow, self.late, self.greedy, self.lost, self.wrong_method, self.wrong_type, self.large,
                 self.malformed]
        weights = [3, 6, 3, 3, 1, 1, 1, 1, 2]
        with self.session:
            return [(kind.__name__, kind()) for kind in self.random.choices(kinds, weights, k=times)]


def test_books_add_up_under_overload(start_server, gate):
    server = start_server(config=CONFIG.format(path=gate.model))

    def page():
        return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)

    # At first all slots are taken by jobs that are held: so there are too few of them on any machine.
    slots = int(page().sum("slots"))
    with concurrent.futures.ThreadPoolExecutor(slots) as pool:
        held = [pool.submit(Asker(server, CLIENTS + 1 + i).post, "held 0") for i in range(slots)]
        wait_until(lambda: page().value("slots", state="FREE") == 0, WAIT_S, "the last slot's job")
        runs = [[("fine", Asker(server, CLIENTS).fine())]]
        assert runs[0][0][1] == 503
        gate.open()
        runs.append([("held", one.result()) for one in held])
    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        runs += pool.map(lambda seed: Asker(server, seed).run(EACH), range(CLIENTS))
    answers = collections.Counter(code for run in runs for _, code in run)
    by_kind = collections.Counter(answer for run in runs for answer in run)
    sent = slots + 1 + CLIENTS * EACH
    assert sum(answers.values()) == sent
    assert set(answers) <= {200, 400, 404, 405, 413, 415, 429, 503, 504}, answers
    # Each kind had what is right for it, but for those that found no slot or no time.
    assert all(by_kind[kind, code] == 0 for kind, code in itertools.product(("lost", "wrong_method", "large"), (200, 503, 504)))
    assert by_kind["greedy", 429] == answers[429] > 0
    assert answers[200] > 0 and answers[503] > 0

    def books():
        metrics = page()
        return metrics if metrics.value("requests_in_flight") == 1 else None

    metrics = wait_until(books, WAIT_S, "the end of all requests")
    counted = {int(dict(labels)["code"]): 0 for (name, labels), _ in metrics.samples.items()
               if name == "unetserve_requests_total"}
    for code in counted:
        counted[code] = metrics.sum("requests_total", code=str(code))
    earlier_pages = counted[200] - answers[200]  # the scrapes themselves
    assert 0 <= earlier_pages <= 100_000
    counted[200] -= metrics.value("requests_total", model="", code="200")
    assert {code: count for code, count in counted.items() if count} == dict(answers)
    assert metrics.sum("requests_abandoned_total") == 0
    # Why: each refusal has one reason, and what was accepted has its outcome.
    refused = {reason: metrics.value("refused_total", reason=reason)
               for reason in ("rate", "size", "wait", "slots", "receiving", "not_ready", "draining", "slow", "connections")}
    assert refused["rate"] == answers[429] and refused["size"] == answers[413]
    assert refused["wait"] + refused["slots"] + refused["receiving"] == answers[503]
    assert refused["not_ready"] == refused["draining"] == refused["slow"] == refused["connections"] == 0
    assert metrics.value("request_seconds_count", model="poison") == answers[200] + answers[504]
    # The load: what workers were there for, or should have been.
    assert metrics.value("requests_arrived_total", model="poison") == answers[200] + answers[504] + answers[503]
    assert metrics.value("slots", state="FREE") == metrics.sum("slots")
    server.stop()


def test_job_of_a_client_that_left_does_not_run(start_server, gate):
    """It would kill its worker if it did."""
    server = start_server(config=CONFIG.format(path=gate.model).replace("workers = 2", "workers = 1"))
    head = (b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 10.9.9.%d\r\nContent-Type: application/json\r\n"
            b"Content-Length: 8\r\n\r\n")

    def page():
        return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(Asker(server, 1).post, "held 0")
        wait_until(lambda: page().value("jobs_running", model="poison") == 1, WAIT_S, "the first job")
        lines = [socket.create_connection(("127.0.0.1", server.port), WAIT_S) for _ in range(4)]
        for number, line in enumerate(lines):
            line.sendall(head % number + b"crash me")
        wait_until(lambda: page().value("queue_depth", model="poison") == 4, WAIT_S, "the others in the queue")
        for line in lines:
            line.close()
        wait_until(lambda: page().value("requests_abandoned_total", model="poison") == 4, WAIT_S, "their end")
        # One that the busy worker holds already comes back with its cancel flag.
        assert page().value("queue_depth", model="poison") <= 1
        gate.open()
        assert first.result() == 200
    assert Asker(server, 2).fine() == 200
    metrics = page()
    assert metrics.value("process_restarts_total", role="worker") == 0
    assert metrics.value("slots", state="FREE") == metrics.sum("slots")
    server.stop()
