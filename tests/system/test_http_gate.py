"""What the head gate promises, on the running server: nothing but well-formed requests reaches a handler."""

import socket

import pytest

from conftest import WAIT_S
from http_cases import CASES

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def server(start_server, simple_model):
    return start_server(simple_model)


def exchange(port, pieces):
    """Send, and read until the server closes: a server that keeps the connection runs into the time limit and fails."""
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                client.sendall(piece)
        except OSError:
            pass  # refused before all of it was sent
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


def single_bytes(raw):
    return [raw[i : i + 1] for i in range(len(raw))]


def assert_one_refusal(name, answer):
    assert int(answer[9:12]) in (400, 413, 431, 501, 505), (name, answer)
    assert answer.count(b"HTTP/1.") == 1, (name, answer)
    assert b"\r\nConnection: close\r\n" in answer, (name, answer)


@pytest.mark.parametrize("split", [lambda raw: [raw], single_bytes], ids=["whole", "bytes"])
def test_cases(server, split):
    for name, raw, good in CASES:
        if not good:
            assert_one_refusal(name, exchange(server.port, split(raw)))
            continue
        answer = exchange(server.port, split(raw.replace(b"POST / ", b"POST /nothing ") + HEALTH))
        assert answer.startswith(b"HTTP/1.1 404 "), (name, answer)
        assert answer.count(b"HTTP/1.") == 2, (name, answer)
        assert answer.endswith(b"\r\n\r\nok"), (name, answer)


def test_cases_after_a_good_request(server):
    """Pipelined behind a request that is in order: that one is answered, then comes the refusal."""
    for name, raw, good in CASES:
        if good:
            continue
        answer = exchange(server.port, [HEALTH.replace(b"Connection: close\r\n", b"") + raw])
        first, rest = answer.split(b"\r\n\r\nok", 1)
        assert first.startswith(b"HTTP/1.1 200 "), (name, answer)
        assert_one_refusal(name, rest)


def test_smuggled_request_is_not_answered(server):
    raw = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    answer = exchange(server.port, [raw])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.") == 1


BOUNDS = [
    ("long target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("many headers", b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 120 + b"\r\n", 431),
    ("long header", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"b" * 20000 + b"\r\n\r\n", 431),
    ("version", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
]


def test_bounds(server):
    for name, raw, status in BOUNDS:
        answer = exchange(server.port, [raw])
        assert answer.startswith(b"HTTP/1.1 %d " % status), (name, answer[:100])


def test_pipelined_requests_are_answered_in_order(server):
    paths = [b"/", b"/health", b"/nothing", b"/health", b"/"]
    raw = b"".join(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths[:-1])
    answer = exchange(server.port, [raw + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"])
    bodies = [b"unetserve running", b"ok", b'{"detail":"Not Found"}', b"ok", b"unetserve running"]
    parts = answer.split(b"HTTP/1.1 ")
    assert parts[0] == b"" and len(parts) == 1 + len(paths)
    for part, body in zip(parts[1:], bodies):
        assert part.endswith(b"\r\n\r\n" + body)


def test_encoded_nul_does_not_end_the_path(server):
    answer = exchange(server.port, [HEALTH.replace(b"/health", b"/health%00x")])
    assert answer.startswith(b"HTTP/1.1 404 ")
    answer = exchange(server.port, [HEALTH.replace(b"/health", b"/h%65alth?a=%00")])
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_slow_head_is_refused(start_server, simple_model):
    """Also one that comes byte by byte, so that the connection is never idle."""
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 1000\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=0.1) as client:
        answer = b""
        for byte in single_bytes(b"GET / HTTP/1.1\r\nX-A: " + b"a" * 300):
            try:
                client.sendall(byte)
                answer += client.recv(65536)
            except socket.timeout:
                continue
            except OSError:
                break
            if answer:
                break
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert requests_work(server)


def requests_work(server):
    return exchange(server.port, [HEALTH]).endswith(b"\r\n\r\nok")
