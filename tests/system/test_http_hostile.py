"""Clients that are sloppy or mean: cut-off requests, odd heads, floods. None of them takes a slot or a descriptor for good."""

import io
import json
import os
import resource
import signal
import socket
import time

import numpy
import pytest
import requests

import protocol_client
from conftest import WAIT_S, wait_until


@pytest.fixture
def simple(start_server, simple_model):
    return start_server(simple_model)


@pytest.fixture
def unet(start_server, demo_model):
    return start_server(demo_model)


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


def read_all(client):
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    return answer


def descriptors(server):
    return {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in server.role("gateway")}


def descriptors_at_rest(server):
    """Right after the start, the processes are still connecting to each other."""
    seen = []

    def rest():
        seen.append(descriptors(server))
        time.sleep(0.1)
        return len(seen) > 5 and all(each == seen[-1] for each in seen[-5:])

    wait_until(rest, what="descriptors at rest")
    return seen[-1]


def slots(server):
    with protocol_client.Client(server) as observer:
        return json.loads(observer.status()[1])["slots"]


def assert_nothing_held(server, before):
    """Every slot is free and the gateways have the descriptors that they had."""
    wait_until(lambda: slots(server)["FREE"] == slots(server)["total"], what="free slots")
    wait_until(lambda: descriptors(server) == before, what="the descriptors of before")


def npy(array):
    text = io.BytesIO()
    numpy.save(text, array)
    return text.getvalue()


# ---- cut off ------------------------------------------------------------------------------------------------------------

HEAD = (b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: cut\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n")
CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"in"


def test_half_closed_in_the_middle_of_a_request_is_told(start_server, demo_model):
    """At once: with an hour for a head, a server that waits fails here."""
    server = start_server(demo_model, config="[server]\nheader_timeout_ms = 3600000\n")
    body = b'{"image":[[[' + b"1," * 40000
    cuts = [HEAD[:1], HEAD[:30], HEAD, HEAD + body[:1], HEAD + body[:300], HEAD + body[:30000], HEAD + body, CHUNKED]
    before = descriptors_at_rest(server)
    for cut in cuts * 5:
        with connect(server) as client:
            client.sendall(cut)
            client.shutdown(socket.SHUT_WR)
            answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 400 "), (cut[:40], len(cut), answer)
        assert b'{"detail":"truncated: ' in answer
        assert b"\r\nX-Request-Id: " in answer
    assert_nothing_held(server, before)


def test_clients_that_close_early_hold_nothing(start_server, demo_model):
    """The end of the stream comes with the last bytes, in one event."""
    server = start_server(demo_model, config="[server]\nheader_timeout_ms = 3600000\n")
    whole = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    body = b'{"image":[[[' + b"1," * 1000
    before = descriptors_at_rest(server)
    for number in range(100):
        with connect(server) as client:
            client.sendall((whole, HEAD + body, HEAD, whole + HEAD[:50], HEAD[:50])[number % 5])
    assert_nothing_held(server, before)


def test_half_closed_after_requests_is_closed(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\n")
    with connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).count(b"\r\n\r\nok") == 3


def test_half_closed_after_predictions_is_closed(start_server, simple_model):
    """Between two requests, and together with the last one, on a connection that has waited for a job before."""
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\n")
    request = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"input":4.0}'
    for last in (b"", request, request * 2):
        with connect(server) as client:
            client.sendall(request)
            answer = b""
            while not answer.endswith(b'{"output":80.0}'):
                answer += client.recv(4096)
            client.sendall(last)
            client.shutdown(socket.SHUT_WR)
            assert read_all(client).count(b'{"output":80.0}') == last.count(b"POST")


def test_requests_before_the_cut_are_answered(simple):
    with connect(simple) as client:
        client.sendall(b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"input":4.0}' + HEAD)
        client.shutdown(socket.SHUT_WR)
        answer = read_all(client)
    first, second = answer.split(b"HTTP/1.1 400 ")
    assert first.endswith(b'{"output":80.0}')
    assert b'{"detail":"truncated: ' in second


def test_slow_body_is_refused_with_its_id(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 1000\n")
    before = descriptors_at_rest(server)
    with connect(server) as client:
        client.sendall(HEAD + b"{")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"\r\nX-Request-Id: cut\r\n" in answer
    assert_nothing_held(server, before)


def test_slow_bodies_do_not_keep_honest_clients_out(start_server, demo_model):
    """Each slot is taken by a body that does not come, for an hour. The slowest give way."""
    server = start_server(demo_model, config="[server]\nheader_timeout_ms = 3600000\n"
                                              "max_receiving_percent = 100\nqueue_memory = 128M\n")
    before = descriptors_at_rest(server)
    total = slots(server)["total"]
    body = npy(numpy.zeros((12, 32, 32), numpy.uint16))

    def ask():
        return requests.post(server.url + "/predict", data=body, headers={"Content-Type": "application/x-npy"},
                             timeout=WAIT_S)

    clients = [connect(server) for _ in range(total)]
    for client in clients:
        client.sendall(HEAD + b"{")
    wait_until(lambda: slots(server)["RECV"] == total, what="slots that are all taken")
    assert ask().status_code in (200, 503)
    wait_until(lambda: ask().status_code == 200, WAIT_S, "an answer for the honest client")
    assert [ask().status_code for _ in range(5)] == [200] * 5
    refused = []
    for client in clients:
        client.setblocking(False)
        try:
            refused.append(client.recv(65536))
        except BlockingIOError:
            pass
        client.close()
    assert refused and all(answer.startswith(b"HTTP/1.1 408 ") for answer in refused)
    assert_nothing_held(server, before)


def test_idle_connections_do_not_keep_honest_clients_out(start_server, simple_model):
    """All places are taken, for an hour: by clients that say nothing, too little, or nothing more."""
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\nmax_connections = 30\n")
    before = descriptors_at_rest(server)
    clients = [connect(server) for _ in range(60)]
    for number, client in enumerate(clients):
        client.sendall((b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")[number % 3])
    for _ in range(3):
        answer = requests.post(server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S)
        assert answer.json() == {"output": 80.0}
    for client in clients:
        client.close()
    assert_nothing_held(server, before)


def test_out_of_descriptors(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\n")
    before = descriptors_at_rest(server)
    pid = next(pid for pid, words in server.children().items()
               if words[0].endswith("unetserve-gateway") and "zmq" not in words)
    limit = before[pid] + 10
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
    begun = time.monotonic()
    clients = [connect(server) for _ in range(30)]
    for client in clients:
        client.sendall(HEAD + b"{")
    wait_until(lambda: descriptors(server)[pid] >= limit, what="as many descriptors as there may be")
    wait_until(lambda: "cannot accept now" in server.log_text(), what="a warning")
    time.sleep(0.5)
    assert server.log_text().count("cannot accept now") <= 1 + (time.monotonic() - begun) / 10
    for client in clients:
        client.close()
    answer = requests.post(server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S)
    assert answer.json() == {"output": 80.0}
    assert_nothing_held(server, before)
    assert pid in server.role("gateway")


def test_png_for_a_batch_is_refused_before_it_runs(unet):
    (worker,) = unet.role("worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        answer = requests.post(unet.url + "/predict", data=npy(numpy.zeros((2, 12, 32, 32), numpy.uint16)),
                               headers={"Content-Type": "application/x-npy", "Accept": "image/png"}, timeout=WAIT_S)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert answer.status_code == 406 and "one mask" in answer.json()["detail"]


# ---- heads that are odd and right ----------------------------------------------------------------------------------------


def test_whole_uri_as_target(simple):
    """RFC 9112, 3.2.2: a server must accept the absolute form."""
    for target, expected in (("http://x/health", b"ok"), ("HTTP://x:1/health?a=b", b"ok"),
                             ("http://x", b"unetserve running"), ("http://x/nothing", b'{"detail":"Not Found"}')):
        with connect(simple) as client:
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert read_all(client).endswith(b"\r\n\r\n" + expected), target


def test_white_space_after_values_is_no_part_of_them(start_server, simple_model):
    server = start_server(simple_model, env={"UNETSERVE_API_KEY": "open sesame"})
    with connect(server) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine \r\nX-API-Key: open sesame \t\r\n"
                       b"X-Unetserve-Timeout-Ms: 60000 \r\nContent-Encoding: identity \r\nConnection: close\r\n"
                       b'Content-Length: 13\r\n\r\n{"input":4.0}')
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200 ") and b"\r\nX-Request-Id: mine\r\n" in answer


def test_every_answer_has_its_timing(unet):
    answers = [requests.get(unet.url + path, timeout=WAIT_S) for path in ("/", "/health", "/info", "/nothing")]
    answers += [requests.post(unet.url + "/predict", data=body, timeout=WAIT_S)
                for body in (b"", b"{}", b'{"image":[1]}')]
    answers.append(requests.post(unet.url + "/predict", data=b"x", headers={"Content-Type": "a/b"}, timeout=WAIT_S))
    for answer in answers:
        parts = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
        assert set(parts) == {"receive", "queue", "forward", "encode"}
        assert all(float(value) >= 0 for value in parts.values())
    with connect(unet) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert b"\r\nServer-Timing: " in read_all(client)


def test_curl_data_without_a_type_is_told_what_to_do(unet):
    answer = requests.post(unet.url + "/predict", data=b"{}", timeout=WAIT_S,
                           headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 415
    assert "curl -d" in answer.json()["detail"] and "application/json" in answer.json()["detail"]


@pytest.mark.parametrize("variable", ["UNETSERVE_API_KEY", "LIT_SERVER_API_KEY"])
def test_all_but_health_needs_the_key(start_server, simple_model, variable):
    server = start_server(simple_model, env={variable: "open sesame"})
    for path in ("/", "/info"):
        answer = requests.get(server.url + path, timeout=WAIT_S)
        assert (answer.status_code, answer.text) == (401, '{"detail":"Not authenticated"}')
        assert answer.headers["www-authenticate"] == "APIKey"
        assert requests.get(server.url + path, headers={"X-API-Key": "open"}, timeout=WAIT_S).status_code == 401
        assert requests.get(server.url + path, headers={"X-API-Key": "open sesame"}, timeout=WAIT_S).status_code == 200
    answer = requests.post(server.url + "/predict", data=b'{"input":4.0}', timeout=WAIT_S)
    assert (answer.status_code, answer.text) == (401, '{"detail":"Not authenticated"}')
    assert requests.get(server.url + "/health", timeout=WAIT_S).text == "ok"
    assert requests.get(server.url + "/nothing", timeout=WAIT_S).status_code == 404
