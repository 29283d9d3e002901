"""CORS as a browser meets it: preflights, and headers on whatever is answered, early refusals included."""

import signal
import socket

import pytest

from conftest import WAIT_S, wait_until

ORIGIN = "https://maps.example.org"
LISTED = f"[server]\ncors_allow_origins = {ORIGIN}, http://localhost:3000\ncors_allow_headers = X-API-Key\n"
OPEN = "[server]\ncors_allow_origins = *\ncors_allow_headers = *\ncors_allow_methods = *\n"
PREFLIGHT = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "content-type,x-api-key"}


def exchange(server, data):
    """Status, headers (names in lower case; a repeated one is an error) and body of one answer to raw bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as client:
        client.sendall(data)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        assert name.lower() not in headers, head
        headers[name.lower()] = value
    return int(lines[0].split()[1]), headers, body


def ask(server, method="POST", path="/predict", body=b"", length=None, **headers):
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if method == "POST":
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return exchange(server, "\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def preflight(server, path="/predict", **changes):
    headers = {name: value for name, value in {**PREFLIGHT, **changes}.items() if value is not None}
    return ask(server, "OPTIONS", path, **headers)


def cors_of(headers):
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


def test_off_by_default(start_server, simple_model):
    server = start_server(simple_model)
    status, headers, _ = preflight(server)
    assert (status, headers["allow"], cors_of(headers)) == (405, "POST", {})
    status, headers, body = ask(server, body=b'{"input": 4.0}', Origin=ORIGIN)
    assert (status, body, cors_of(headers)) == (200, b'{"output":80.0}', {})


@pytest.fixture
def listed(start_server, simple_model):
    return start_server(simple_model, config=LISTED + "max_body_bytes = 1M\n", env={"UNETSERVE_API_KEY": "secret"})


def test_preflight_needs_no_key(listed):
    for path in ("/predict", "/health", "/nothing"):
        status, headers, body = preflight(listed, path)
        assert (status, body) == (200, b"OK")
        assert cors_of(headers) == {
            "access-control-allow-origin": ORIGIN,
            "access-control-allow-methods": "GET, POST",
            "access-control-allow-headers": "Accept, Accept-Language, Content-Language, Content-Type, X-API-Key",
            "access-control-max-age": "600",
            "vary": "Origin"}


@pytest.mark.parametrize("changes, what", [
    ({"Origin": "https://evil.example"}, "origin"),
    ({"Origin": ORIGIN + ".evil"}, "origin"),
    ({"Access-Control-Request-Method": "DELETE"}, "method"),
    ({"Access-Control-Request-Headers": "x-other"}, "headers"),
    ({"Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "x-other"}, "method, headers")])
def test_preflight_is_refused(listed, changes, what):
    status, headers, body = preflight(listed, **changes)
    assert (status, body.decode()) == (400, '{"detail":"Disallowed CORS %s"}' % what)
    assert ("access-control-allow-origin" in headers) == ("origin" not in what)
    assert headers["vary"] == "Origin"


def test_options_that_are_no_preflight(listed):
    status, headers, _ = preflight(listed, **{"Access-Control-Request-Method": None})
    assert (status, headers["allow"], headers["access-control-allow-origin"]) == (405, "POST", ORIGIN)
    assert preflight(listed, Origin=None)[0] == 405


def test_answers_to_listed_origins(listed):
    for origin, granted in ((ORIGIN, True), ("http://localhost:3000", True), ("https://evil.example", False)):
        status, headers, body = ask(listed, body=b'{"input": 4.0}', Origin=origin, X_API_Key="secret")
        assert (status, body) == (200, b'{"output":80.0}')
        assert cors_of(headers) == {"vary": "Origin", **({"access-control-allow-origin": origin} if granted else {})}
    # A cache must not give this one to a page.
    _, headers, _ = ask(listed, "GET", "/health")
    assert cors_of(headers) == {"vary": "Origin"}


def test_refusals_can_be_read(listed):
    key = {"Origin": ORIGIN, "X-API-Key": "secret"}
    cases = [
        (401, ask(listed, body=b"{}", Origin=ORIGIN)),
        (404, ask(listed, path="/nothing", body=b"{}", **key)),
        (405, ask(listed, "PUT", **key)),
        # Written past libmicrohttpd: the body is still to come, or breaks off.
        (413, ask(listed, length=50_000_000, body=bytes(1000), **key)),
        (404, ask(listed, path="/nothing", length=50_000_000, body=bytes(1000), **key)),
    ]
    for expected, (status, headers, _) in cases:
        assert status == expected
        assert cors_of(headers) == {"access-control-allow-origin": ORIGIN, "vary": "Origin"}


def test_cut_body_can_be_read(listed):
    with socket.create_connection(("127.0.0.1", listed.port), timeout=WAIT_S) as client:
        client.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nOrigin: {ORIGIN}\r\nX-API-Key: secret\r\n"
                       "Content-Length: 100\r\nExpect: 100-continue\r\n\r\n".encode())
        assert client.recv(25, socket.MSG_WAITALL) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{")
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"\r\nAccess-Control-Allow-Origin: {ORIGIN}\r\n".encode() in answer


def test_everybody(start_server, simple_model):
    server = start_server(simple_model, config=OPEN + "cors_expose_headers = X-Request-Id, Server-Timing\n")
    status, headers, _ = preflight(server, **{"Access-Control-Request-Method": "PUT",
                                              "Access-Control-Request-Headers": "x-one,x-two"})
    assert status == 200
    assert cors_of(headers) == {
        "access-control-allow-origin": "*", "access-control-max-age": "600",
        "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "access-control-allow-headers": "x-one,x-two"}
    simple = {"access-control-allow-origin": "*", "access-control-expose-headers": "X-Request-Id, Server-Timing"}
    for answer in (ask(server, body=b'{"input": 4.0}', Origin=ORIGIN), ask(server, "GET", "/health")):
        assert (answer[0], cors_of(answer[1])) == (200, simple)
    # Nobody reads who asks in a head that is not one.
    status, headers, _ = exchange(server, b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
    assert (status, cors_of(headers)) == (400, simple)


def test_everybody_with_credentials(start_server, simple_model):
    server = start_server(simple_model, config=OPEN + "cors_allow_credentials = on\n")
    status, headers, _ = ask(server, body=b'{"input": 4.0}', Origin=ORIGIN, Cookie="a=b")
    named = {"access-control-allow-origin": ORIGIN, "access-control-allow-credentials": "true", "vary": "Origin"}
    assert (status, cors_of(headers)) == (200, named)
    status, headers, _ = preflight(server)
    assert status == 200
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-allow-headers"] == "content-type,x-api-key"


def test_reload_takes_it_up(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nlog_level = info\n")
    assert preflight(server)[0] == 405
    (server.directory / "unetserve.conf").write_text(OPEN)
    server.send(signal.SIGHUP)
    wait_until(lambda: preflight(server)[0] == 200, WAIT_S, "the new configuration")


def test_wrong_origins_are_refused_at_the_start(run_unetserve, simple_model, tmp_path):
    path = tmp_path / "c.conf"
    path.write_text("[server]\ncors_allow_origins = https://maps.example.org/\n")
    done = run_unetserve("-c", path, "--model", simple_model, "--check")
    assert done.returncode != 0
    assert "cors_allow_origins" in done.stderr and "without a path" in done.stderr
