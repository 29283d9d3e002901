"""/metrics: the text is well-formed, the books are exact over all gateways, and no count falls when a process is killed."""

import io
import json
import os
import signal
import socket
import struct
import subprocess

import numpy
import requests

import protocol_client
from conftest import BUILD, WAIT_S, wait_until
from metrics_text import TYPE, Metrics


def scrape(server, **more):
    answer = requests.get(server.url + "/metrics", timeout=WAIT_S, **more)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TYPE
    return Metrics(answer.text)


def http_gateways(server):
    return [pid for pid, words in server.children().items()
            if words[0].endswith("unetserve-gateway") and "zmq" not in words]


def raw(server, request, half_close=False):
    """What comes back on a connection of its own."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as line:
        line.sendall(request)
        if half_close:
            line.shutdown(socket.SHUT_WR)
        text = b""
        while part := line.recv(65536):
            text += part
    return text


def test_status_counts_the_same(start_server, simple_model):
    """Over ZeroMQ, from the same numbers, and unetctl shows the rate."""
    server = start_server(simple_model)
    for number in (1, 2, 3, "x"):
        requests.post(server.url + "/predict", json={"input": number}, timeout=WAIT_S)
    with protocol_client.Client(server) as client:
        model = json.loads(client.status()[1])["models"][0]
    assert (model["answered"], model["answered_200"]) == (4, 3)
    metrics = scrape(server)
    assert metrics.sum("requests_total", model="simple") == 4
    assert metrics.value("requests_total", model="simple", code="200") == 3
    shown = subprocess.run([str(BUILD / "unetctl"), "status", "--endpoint", protocol_client.endpoint_of(server), "--watch",
                            "--count", "2", "--interval", "50"], check=True, capture_output=True, text=True).stdout
    heads = [line.split() for line in shown.splitlines() if line.startswith("MODEL")]
    rows = [line.split() for line in shown.splitlines() if line.startswith("simple ")]
    assert [row[6:8] for row in rows] == [["4", "3"], ["4", "3"]]
    assert "ANSWERS/S" not in heads[0] and heads[1][-1] == "ANSWERS/S" and rows[1][8] == "0.0"


class Book:
    """Sends requests, each on a connection of its own so that all gateways get some, and writes down the answers."""

    def __init__(self, server):
        self.server = server
        self.answers = {}
        self.scrapes = 0

    def note(self, model, code):
        self.answers[model, str(code)] = self.answers.get((model, str(code)), 0) + 1

    def ask(self, method, path, model="", **more):
        self.note(model, requests.request(method, self.server.url + path, timeout=WAIT_S, **more).status_code)

    def scrape(self):
        """The page, which must agree with the book; then the scrape itself is in the book."""
        metrics = scrape(self.server)
        counted = {(dict(labels)["model"], dict(labels)["code"]): value
                   for (name, labels), value in metrics.samples.items()
                   if name == "unetserve_requests_total" and value}
        assert counted == self.answers
        self.note("", 200)
        self.scrapes += 1
        return metrics

    def scrape_at_rest(self):
        """A gateway may be done with a connection a little later than its client."""
        def rest():
            metrics = self.scrape()
            return metrics if metrics.value("connections_open") == 1 == metrics.value("requests_in_flight") else None

        return wait_until(rest, WAIT_S, "the end of all other connections")

    def mixture(self, rounds):
        for number in range(rounds):
            self.ask("POST", "/predict", "simple", json={"input": number})
            self.ask("POST", "/predict", "simple", json={"input": number}, headers={"Accept": "image/png"})
            self.ask("POST", "/predict", "simple", data=b'{"input"')
            self.ask("POST", "/predict", "simple", data=b"\0" * 1001)
            self.ask("POST", "/predict", "simple", data=b" " * 100_000)
            self.ask("GET", "/predict")
            self.ask("GET", "/nowhere")
            self.ask("HEAD", "/health")
            self.ask("GET", "/info")
            self.ask("HEAD", "/metrics")
            assert raw(self.server, b"GET / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
            self.note("", 400)
        with protocol_client.Client(self.server) as client:
            for _ in range(rounds):
                self.note("", client.status()[0]["status"])
                head, _ = client.predict(numpy.zeros(3, "uint8"))
                self.note("simple", head["status"])


def test_books_are_exact_over_gateways(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "2", "--workers", "2"])
    book = Book(server)
    first = book.scrape()
    assert first.sum("requests_total") == 0
    book.mixture(8)
    metrics = book.scrape_at_rest()
    assert metrics.sum("requests_total") == sum(book.answers.values()) - 1
    assert metrics.sum("requests_total", model="simple", code="200") >= 8
    assert metrics.sum("requests_abandoned_total") == 0
    assert metrics.value("refused_total", reason="head") == 8
    # Each accepted job is in each histogram once, and in one batch.
    accepted = metrics.value("request_seconds_count", model="simple")
    assert accepted >= 16
    for name in ("receive_seconds", "queue_seconds"):
        assert metrics.value(name + "_count", model="simple") == accepted
    ran = metrics.value("forward_seconds_count", model="simple")
    assert metrics.value("encode_seconds_count", model="simple") == ran <= accepted
    assert 8 <= metrics.value("batch_tiles_sum", model="simple") <= ran
    assert metrics.value("worker_busy_seconds_total", model="simple") > 0
    # What is there now.
    assert metrics.value("workers", model="simple", state="ready") == 2
    assert metrics.value("workers_needed", model="simple") == 2
    assert metrics.sum("workers") == 2
    assert metrics.value("slots", state="FREE") == metrics.sum("slots") > 0
    assert metrics.value("queue_depth", model="simple") == 0
    assert metrics.value("jobs_running", model="simple") == 0
    assert metrics.value("requests_in_flight") == 1, "the scrape itself"
    assert metrics.value("connections_total") == 8 * 11 + book.scrapes
    assert metrics.value("received_bytes_total") > 8 * 100_000
    assert metrics.value("answered_bytes_total") > 0
    assert metrics.value("start_time_seconds") > 1.6e9
    assert metrics.sum("build_info") == 1
    assert [metrics.value("process_starts_total", role=role) for role in ("gateway", "broker", "worker")] == [3, 1, 2]
    assert metrics.sum("process_restarts_total") == 0
    server.stop()


def test_a_binary_tensor_is_copied_once(start_server, demo_model):
    """From libmicrohttpd's buffer into the slot. What is more are elements that a piece of the body ended within."""
    server = start_server(demo_model, ["--precision", "f32"])
    tile = numpy.zeros((12, 128, 128), numpy.uint16)
    file = io.BytesIO()
    numpy.save(file, tile)
    raw = {"Content-Type": "application/octet-stream", "X-Unetserve-Shape": "12,128,128", "X-Unetserve-Dtype": "uint16"}
    before = scrape(server)
    for body, headers in ((tile.tobytes(), raw), (file.getvalue(), {"Content-Type": "application/x-npy"})):
        assert requests.post(server.url + "/predict", data=body, headers=headers, timeout=WAIT_S).status_code == 200
        after = scrape(server)
        came, copied = (after.value(name) - before.value(name) for name in ("body_bytes_total", "copied_bytes_total"))
        assert came == len(body)
        assert came <= copied < 1.001 * came
        before = after
    assert requests.post(server.url + "/predict", json={"image": tile[:, :16, :16].tolist()}, timeout=WAIT_S).status_code == 200
    assert scrape(server).value("copied_bytes_total") - before.value("copied_bytes_total") == 12 * 16 * 16 * 4
    server.stop()


def test_no_count_falls_when_processes_are_killed(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "2"])
    book = Book(server)
    book.mixture(3)
    before = book.scrape()
    kills = {"gateway": 0, "broker": 0, "worker": 0}
    for role in ("gateway", "gateway", "worker", "broker", "gateway"):
        victims = http_gateways(server) if role == "gateway" else server.role(role)
        ready = server.log_text().count("process ready")
        os.kill(victims[0], signal.SIGKILL)
        kills[role] += 1
        wait_until(lambda: server.log_text().count("process ready") > ready, WAIT_S, "its successor")
        book.mixture(2)
        after = book.scrape()
        now = after.growing()
        for key, value in before.growing().items():
            assert now[key] >= value, f"{key} fell from {value} to {now[key]} after the {role} was killed"
        for name, count in kills.items():
            assert after.value("process_restarts_total", role=name) == count
        before = after
    book.scrape_at_rest()


def test_clients_that_leave_are_counted(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\n")
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        wait_until(lambda: scrape(server).value("slots", state="RECV") == 1, WAIT_S, "the request")
        wait_until(lambda: (page := scrape(server)).value("requests_in_flight") == 2 == page.value("connections_open"), WAIT_S,
                   "nobody else")
    metrics = wait_until(lambda: (page := scrape(server)).value("requests_in_flight") == 1 and page, WAIT_S, "its end")
    assert metrics.value("requests_abandoned_total", model="simple") == 1
    assert metrics.value("requests_abandoned_total", model="") == 0
    assert metrics.sum("requests_total", model="simple") == 0
    assert metrics.value("slots", state="RECV") == 0


def test_refusals_by_reason(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 30000\n",
                          env={"UNETSERVE_API_KEY": "sesame"})
    key = {"X-API-Key": "sesame"}
    refused = requests.get(server.url + "/metrics", timeout=WAIT_S)
    assert (refused.status_code, refused.json()) == (401, {"detail": "Not authenticated"})
    assert requests.post(server.url + "/predict", data=b"{}", timeout=WAIT_S).status_code == 401
    large = requests.post(server.url + "/predict", headers={**key, "Content-Length": "600000000"}, timeout=WAIT_S)
    assert large.status_code == 413
    assert raw(server, b"GET / HTTP/1.1\r\nHost: x\r\n").startswith(b"HTTP/1.1 408 ")
    assert raw(server, b"bad\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(server, b"POST / HTTP/1.1\r\nHos", half_close=True).startswith(b"HTTP/1.1 400 ")
    metrics = scrape(server, headers=key)
    counts = {reason: metrics.value("refused_total", reason=reason)
              for reason in ("head", "cut", "slow", "key", "size", "slots", "not_ready", "draining")}
    assert counts == {"head": 1, "cut": 1, "slow": 1, "key": 2, "size": 1, "slots": 0, "not_ready": 0, "draining": 0}
    assert metrics.value("requests_total", model="simple", code="401") == 1
    assert metrics.value("requests_total", model="", code="401") == 1
    assert metrics.value("requests_total", model="", code="408") == 1


def test_refused_when_all_slots_are_taken(start_server, simple_model):
    """One for each that was refused in the end, whatever was tried before."""
    server = start_server(simple_model, config="[server]\nmax_receiving_percent = 100\nheader_timeout_ms = 3600000\n")
    slots = int(scrape(server).sum("slots"))
    lines = []
    try:
        for _ in range(slots):
            lines.append(socket.create_connection(("127.0.0.1", server.port), WAIT_S))
            lines[-1].sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{")
        wait_until(lambda: scrape(server).value("slots", state="FREE") == 0, WAIT_S, "the last slot")
        codes = [requests.post(server.url + "/predict", json={"input": 1}, timeout=WAIT_S).status_code for _ in range(3)]
        metrics = scrape(server)
        assert metrics.value("refused_total", reason="slots") == codes.count(503)
        # When they are old enough to be called slow one gives way, and its slot serves whoever comes then.
        slow = metrics.value("refused_total", reason="slow")
        assert min(codes.count(200), 1) <= slow <= codes.count(200)
        assert len(codes) == codes.count(503) + codes.count(200)
    finally:
        for line in lines:
            line.close()
