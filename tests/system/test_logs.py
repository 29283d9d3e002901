"""Logs: one request's way through all processes by its id, in both formats; text from outside cannot forge a line."""

import collections
import concurrent.futures
import json
import os
import re
import signal
import socket

import msgpack
import pytest
import requests

from conftest import WAIT_S, wait_until
from protocol_client import Client

PAIR = re.compile(r'(?P<key>[a-z_]+)=(?:"(?P<quoted>(?:[^"\\\x00-\x1f\x7f]|\\.)*)"|(?P<bare>[^\s"=\\]+))(?: |$)')


def parse_text(line):
    """{key: value}; the line must be such pairs to its end, each key once."""
    found, at = {}, 0
    while at < len(line):
        match = PAIR.match(line, at)
        assert match, f"not a log line from character {at}: {line!r}"
        assert match["key"] not in found, line
        found[match["key"]] = match["bare"] if match["quoted"] is None else match["quoted"]
        at = match.end()
    return found


def parse_json(line):
    pairs = json.loads(line, object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs), line
    return {key: str(value) for key, value in pairs}


PARSERS = {"text": parse_text, "json": parse_json}


@pytest.fixture(params=["text", "json"])
def traced(request, start_server, gate):
    """A server with a model that misbehaves as it is told, and its log so far as a list of {key: value}."""
    timeout_ms = 8000 if "slow" in request.node.name else 3600000
    server = start_server(config=f"[server]\nlog_level = debug\nlog_format = {request.param}\n"
                                 f"[model poison]\npath = {gate.model}\nroute = /predict\n"
                                 f"timeout_ms = {timeout_ms}\nrun_timeout_ms = 3600000\n"
                                 "batch_timeout_ms = 1\n")  # a window: all jobs go through the broker
    return server, lambda: [PARSERS[request.param](line)
                            for line in server.log.read_bytes().decode("utf-8").splitlines()]


def ask(server, text, request_id):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json", "X-Request-Id": request_id})


def of_request(lines, request_id):
    return [(line["role"], line["msg"]) for line in lines if line.get("request_id") == request_id]


def wait_told(lines, request_id, *line):
    """A process may have written what it says after the answer."""
    wait_until(lambda: line in of_request(lines(), request_id), WAIT_S, f"the line {line}")


def test_a_request_is_followed_through_all_processes_and_a_death(traced, gate):
    server, lines = traced
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, "held 0", "trace/1=a")
        wait_until(lambda: ("worker", "job started") in of_request(lines(), "trace/1=a"), WAIT_S, "the job's start")
        worker = server.role("worker")[0]
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: of_request(lines(), "trace/1=a").count(("worker", "job started")) == 2, WAIT_S, "its next start")
        gate.open()
        assert answer.result().status_code == 200
    wait_told(lines, "trace/1=a", "gateway", "request answered")
    # In some order: each process writes for itself, perhaps a little later than what it did was seen.
    expected = {("broker", "job leased"): 2, ("worker", "job started"): 2, ("supervisor", "a job lost its worker"): 1,
                ("gateway", "request answered"): 1}
    wait_until(lambda: collections.Counter(of_request(lines(), "trace/1=a")) == expected, WAIT_S, f"the lines {expected}")
    lost = next(line for line in lines() if line["msg"] == "a job lost its worker")
    assert (int(lost["pid"]), int(lost["deaths_before"])) == (worker, 0)
    server.stop()


def test_a_failed_request_is_told_at_level_warning(traced):
    server, lines = traced
    assert ask(server, "exit", "bad-1").status_code == 500
    assert ask(server, "fail", "bad-2").status_code == 500
    for name in ("bad-1", "bad-2"):
        wait_told(lines, name, "gateway", "request failed")
    failed = {line["request_id"]: line for line in lines() if line["msg"] == "request failed"}
    assert {failed[name]["level"] for name in ("bad-1", "bad-2")} == {"warning"}
    assert {failed[name]["status"] for name in ("bad-1", "bad-2")} == {"500"}
    wait_until(lambda: of_request(lines(), "bad-1").count(("supervisor", "a job lost its worker")) == 2, WAIT_S, "two deaths")
    wait_told(lines, "bad-2", "worker", "job failed")
    server.stop()


def test_a_slow_request_is_told_and_a_refused_one_has_its_line(traced):
    server, lines = traced
    answer = requests.post(server.url + "/predict", data="slow 4500", timeout=WAIT_S,
                           headers={"Content-Type": "application/json", "X-Request-Id": "late"})
    assert answer.status_code == 200
    wait_told(lines, "late", "gateway", "request was slow")
    assert requests.get(server.url + "/none", headers={"X-Request-Id": "nowhere"}, timeout=WAIT_S).status_code == 404
    wait_told(lines, "nowhere", "gateway", "request refused")
    assert of_request(lines(), "nowhere") == [("gateway", "request refused")]
    server.stop()


HOSTILE = [b'a" level=error msg="forged', b"a\\", b"\xff\xfe", b"a\x7f", b"caf\xc3\xa9", b"a b", b"x" * 5000,
           b"a\ttime=now forged=1"]


def test_no_text_from_outside_forges_a_line(traced):
    server, lines = traced
    for text in HOSTILE:
        with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as client:
            client.sendall(b"POST /predict/" + text.replace(b" ", b"%20%0aforged") + b" HTTP/1.1\r\nHost: x\r\n"
                           b"X-Request-Id: " + text + b"\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 4")
    with Client(server) as client:
        for text in [*HOSTILE, b"a\nforged=1", b"a\0forged"]:
            # As MessagePack's raw text, which nothing makes UTF-8 of.
            head = (b"\x84\xa1v\x01\xa2op\xa7predict\xa2id" + msgpack.packb(text, use_bin_type=False) +
                    b"\xa5model\xa6poison")
            client.send_raw([head, b"fail " + text])
            answer, _ = client.receive(WAIT_S * 1000)
            assert answer["status"] in (400, 500)
    wait_until(lambda: any(line["msg"] == "job failed" for line in lines()), WAIT_S, "the worker's line")
    found = lines()
    assert {line["role"] for line in found} <= {"supervisor", "gateway", "broker", "worker"}
    assert not any("forged" in key for line in found for key in line)
    for line in found:
        assert re.fullmatch(r"[-A-Za-z0-9._:/+=@~]*", line.get("request_id", "")), line
    server.stop()
