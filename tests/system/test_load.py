"""The load generator of the benchmarks: what it counts is what happened, by the server's own books, by a plain client, and with a
server that misbehaves by plan."""

import http.client
import itertools
import json
import socketserver
import subprocess
import threading
import time

import pytest
import requests

from conftest import BUILD
from metrics_text import Metrics

WAIT_S = 600
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"


@pytest.fixture
def load(tmp_path):
    """load(url, *options) -> (exit status, report); body and expect: texts of files."""

    def run(url, *options, body=None, expect=None):
        command = [BUILD / "bench/load", url, *map(str, options)]
        for name, texts in (("body", body), ("expect", expect)):
            for i, text in enumerate(texts or []):
                path = tmp_path / f"{name}{i}"
                path.write_bytes(text)
                command += [f"--{name}", path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    return run


@pytest.fixture
def scripted():
    """scripted(act) -> a URL of a server on which act(i, connection) answers the i-th request; false: closes it."""
    servers = []

    def start(act):
        numbers = itertools.count()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                while self.rfile.readline().startswith(b"GET / HTTP/1.1"):
                    while self.rfile.readline() not in (b"\r\n", b""):
                        pass
                    if not act(next(numbers), self.wfile):
                        return

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("options", [("--clients", 1), ("--clients", 16), ("--clients", 4, "--rate", 2000),
                                     ("--clients", 64, "--rate", 2000, "--poisson")])
def test_server_and_a_plain_client_agree(start_server, simple_model, load, options):
    server = start_server(simple_model, ["--gateways", "2"])
    bodies = [b'{"input": 4.0}', b'{"input": 2.0}', b'{"input": 1.0}']
    expect = [b'{"output":80.0}', b'{"output":12.0}', b'{"output":2.0}']
    status, report = load(server.url + "/predict", "--count", 300, "--seconds", 500, *options,
                          "--header", "Content-Type: application/json", body=bodies, expect=expect)
    assert status == 0, report
    assert report["sent"] == report["answers"] == report["right"] == report["latency_ms"]["count"] == 300
    assert report["statuses"] == {"200": 300}
    # 299 in the time between the first and the last, which is part of the whole time.
    assert report["steady_per_s"] >= 299 / report["seconds"]
    assert report["wrong"] + report["malformed"] + report["broken"] + report["unanswered"] == 0
    sent = 0
    for body, right in itertools.islice(itertools.cycle(zip(bodies, expect)), 300):
        answer = requests.post(server.url + "/predict", body, headers={"Content-Type": "application/json"}, timeout=WAIT_S)
        sent += answer.status_code == 200 and answer.content == right
    metrics = Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)
    assert metrics.value("requests_total", model="simple", code="200") == report["right"] + sent == 600
    server.stop()


def test_wrong_answers_and_refusals_are_counted(start_server, simple_model, load):
    server = start_server(simple_model)
    status, report = load(server.url + "/predict", "--count", 60, "--seconds", 500, "--clients", 3, "--header", "Content-Type: application/json",
                          body=[b'{"input": 4.0}', b'{"input": 2.0}', b'{"input": '], expect=[b'{"output":80.0}'] * 3)
    assert status == 1
    assert (report["answers"], report["right"], report["wrong"]) == (60, 20, 20)
    assert report["statuses"] == {"200": 40, "422": 20}
    server.stop()


def misbehave(number, connection):
    """Of ten requests six are answered rightly, the last of these on a connection that then ends."""
    kind = number % 10
    if kind < 6:
        connection.write(GOOD if kind else GOOD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    elif kind == 6:
        connection.write(GOOD.replace(b"good", b"evil"))
    elif kind == 7:
        connection.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")
    elif kind == 8:
        connection.write(GOOD[:-2])
    else:
        connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    return kind not in (0, 8, 9)


def plain_count(url, count):
    """The same with Python's own client."""
    found = dict.fromkeys(("right", "wrong", "503", "broken", "malformed"), 0)
    host = url.split("/")[2]
    connection = http.client.HTTPConnection(host, timeout=WAIT_S)
    for _ in range(count):
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            body = answer.read()
        except (http.client.IncompleteRead, ConnectionError):
            found["broken"] += 1
            connection.close()
            continue
        if answer.status == 503:
            found["503"] += 1
        elif answer.headers["Content-Length"] is None:
            found["malformed"] += 1
            connection.close()
        else:
            found["right" if body == b"good" else "wrong"] += 1
    connection.close()
    return found


def test_a_server_that_misbehaves_by_plan(scripted, load):
    status, report = load(scripted(misbehave), "--count", 100, "--seconds", 500, expect=[b"good"])
    assert status == 1
    found = {name: report[name] for name in ("right", "wrong", "broken", "malformed")} | {"503": report["statuses"]["503"]}
    assert found == {"right": 60, "wrong": 10, "503": 10, "broken": 10, "malformed": 10}
    assert found == plain_count(scripted(misbehave), 100)
    assert report["sent"] == 100 and report["answers"] == 80 and report["reconnects"] == 30


def test_who_comes_during_a_stall_is_charged_for_it(scripted, load):
    """One connection, a request each 10 ms, and the sixth takes half a second: the k-th of the others has waited until then."""

    def stall_once(number, connection):
        if number == 5:
            time.sleep(0.5)
        connection.write(GOOD)
        return True

    status, report = load(scripted(stall_once), "--rate", 100, "--count", 50, "--seconds", 500, expect=[b"good"])
    assert status == 0 and report["right"] == 50
    assert report["latency_ms"]["p75"] >= 60 + 10 * (38 - 5 - 1)
    assert report["latency_ms"]["max"] >= 500


def test_what_is_never_answered_is_told(scripted, load):
    def silent(number, connection):
        time.sleep(0 if number < 10 else 3)
        connection.write(GOOD if number < 10 else b"")
        return number < 10

    status, report = load(scripted(silent), "--rate", 200, "--count", 20, "--seconds", 0.2, "--timeout", 0.5, expect=[b"good"])
    assert status == 1
    assert report["sent"] == report["answers"] + report["unanswered"] + report["broken"] == report["latency_ms"]["count"]
    assert report["unanswered"] > 0


def test_a_thousand_clients(start_server, simple_model, load):
    server = start_server(simple_model, config="[server]\nmax_connections = 2000\nmax_connections_per_address = 0\n")
    status, report = load(server.url + "/predict", "--count", 3000, "--seconds", 500, "--clients", 1000,
                          "--header", "Content-Type: application/json", body=[b'{"input": 4.0}'], expect=[b'{"output":80.0}'])
    assert report["answers"] == report["sent"] == 3000
    assert set(report["statuses"]) <= {"200", "503"} and report["wrong"] == 0
    assert status == (0 if report["right"] == 3000 else 1)
    server.stop()


def test_it_asks_nobody_else(load):
    assert load("http://10.0.0.1:80/")[0] == 64
    assert load("http://192.0.2.1:80/predict", "--count", 1)[0] == 64
    status, text = load("http://127.0.0.1:1/", "--count", 1)
    assert status == 69 and "Connection refused" in text
    assert load("http://127.0.0.1:1/", "--seconds", "1e9")[0] == 64
