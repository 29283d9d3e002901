"""A refusal reaches the client, also one that sends all of a large body before it reads: by curl, requests and http.client."""

import http.client
import socket
import subprocess

import pytest
import requests

from conftest import WAIT_S

BODY = bytes(15_000_000)
TIMES = 20


@pytest.fixture
def server(start_server, simple_model):
    return start_server(simple_model, config="[server]\nmax_body_bytes = 1M\n")


def ask_curl(port, path, method, headers):
    command = ["curl", "-sS", "-m", str(WAIT_S), "-o", "-", "-w", "\n%{http_code}", "-X", method, "--data-binary", "@-"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run(command + [f"http://127.0.0.1:{port}{path}"], input=BODY, capture_output=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    body, status = done.stdout.rsplit(b"\n", 1)
    return int(status), body.decode()


def ask_requests(port, path, method, headers):
    answer = requests.request(method, f"http://127.0.0.1:{port}{path}", data=BODY, headers=headers, timeout=WAIT_S)
    return answer.status_code, answer.text


def ask_http_client(port, path, method, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
    try:
        connection.request(method, path, body=BODY, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


REFUSALS = [
    ("/nothing", "POST", 404, '{"detail":"Not Found"}'),
    ("/predict", "PUT", 405, '{"detail":"Method Not Allowed"}'),
    ("/predict", "POST", 413, '{"detail":"Payload too large"}'),
]


@pytest.mark.parametrize("ask", [ask_curl, ask_requests, ask_http_client])
def test_refusal_is_read(server, ask):
    for path, method, status, text in REFUSALS:
        for _ in range(TIMES):
            assert ask(server.port, path, method, {}) == (status, text)


def test_refusal_is_read_by_curl_that_does_not_ask_first(server):
    for path, method, status, text in REFUSALS:
        for _ in range(TIMES):
            assert ask_curl(server.port, path, method, {"Expect": ""}) == (status, text)


def test_expecting_client_is_answered_before_its_body(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 15000000\r\nExpect: 100-continue\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"HTTP/1.") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_small_refused_body_keeps_the_connection(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    for _ in range(3):
        connection.request("POST", "/nothing", body=bytes(1000))
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (404, b'{"detail":"Not Found"}')
        used = connection.sock
        connection.request("GET", "/health")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"ok")
        assert connection.sock is used
    connection.close()


def test_chunked_body_beyond_the_limit(server):
    def pieces():
        for _ in range(40):
            yield b" " * 50_000

    for _ in range(TIMES):
        answer = requests.post(f"{server.url}/predict", data=pieces(), timeout=WAIT_S)
        assert (answer.status_code, answer.text) == (413, '{"detail":"Payload too large"}')


def test_wrong_key(start_server, simple_model):
    server = start_server(simple_model, env={"UNETSERVE_API_KEY": "open sesame"})
    for ask in (ask_curl, ask_requests, ask_http_client):
        assert ask(server.port, "/predict", "POST", {}) == (401, '{"detail":"Not authenticated"}')
        status, text = ask(server.port, "/predict", "POST", {"X-API-Key": "open barley"})
        assert status == 401
        assert text == (
            '{"detail":"Invalid API Key. Check that you are passing a correct \'X-API-Key\' in your header."}'
        )
    answer = requests.post(f"{server.url}/predict", json={"input": 4.0}, timeout=WAIT_S)
    assert answer.headers["www-authenticate"] == "APIKey"
    key = {"X-API-Key": "open sesame"}
    assert requests.post(f"{server.url}/predict", json={"input": 4.0}, timeout=WAIT_S, headers=key).status_code == 200
    assert requests.get(f"{server.url}/health", timeout=WAIT_S).text == "ok"
