"""Streamed answers: item by item, held back by slow readers, stopped by those who leave, broken off and said so."""

import concurrent.futures
import json
import os
import signal
import socket
import time

import pytest
import requests

from conftest import BUILD, Gate, WAIT_S, wait_until

SERVER = "[server]\nsend_timeout_ms = 3600000\ndrain_timeout_ms = 3600000\n"
TEN = [{"output": (4.0 + i) ** 2 + (4.0 + i) ** 3} for i in range(10)]


@pytest.fixture
def river(start_server):
    def start(config="", plugin=BUILD / "tests" / "models" / "river.so", **options):
        return start_server(config=f"{config or SERVER}\n[model river]\npath = {plugin}\nroute = /predict\n"
                                   "timeout_ms = 3600000\nrun_timeout_ms = 3600000\n", **options)
    return start


@pytest.fixture
def tutorial(start_server):
    return start_server(BUILD / "models" / "streaming.so")


class Raw:
    """A client that sees the bytes."""

    def __init__(self, server, body, version="1.1", headers="", receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.sendall(f"POST /predict HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n{headers}\r\n{body}"
                            .encode())
        self.bytes = b""

    def more(self):
        part = self.socket.recv(65536)
        self.bytes += part
        return part

    def until(self, text):
        while text not in self.bytes:
            assert self.more(), self.bytes
        return self.bytes

    def to_the_end(self):
        while self.more():
            pass
        return self.bytes

    def close(self):
        self.socket.close()


def chunks(message):
    """The chunks of a body, and whether it ended as it should."""
    body = message.partition(b"\r\n\r\n")[2]
    found = []
    while body:
        size, _, rest = body.partition(b"\r\n")
        size = int(size, 16)
        if size == 0:
            return found, rest == b"\r\n"
        found.append(rest[:size])
        body = rest[size + 2:]
    return found, False


# ---- what the tutorial shows ---------------------------------------------------------------------------------------------


def test_ten_items_of_one_chunk_each(tutorial):
    client = Raw(tutorial, '{"input":4.0}')
    answer = client.until(b"0\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0]
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and b"Transfer-Encoding: chunked" in head
    found, clean = chunks(answer)
    assert clean
    assert [json.loads(chunk) for chunk in found] == TEN
    assert all(chunk.endswith(b"}\n") for chunk in found)
    client.close()


def test_the_tutorial_s_way_to_read(tutorial):
    with requests.post(tutorial.url + "/predict", json={"input": 4.0}, stream=True, timeout=WAIT_S) as response:
        assert response.status_code == 200
        assert [json.loads(line) for line in response.iter_lines()] == TEN
    assert requests.get(tutorial.url + "/info", timeout=WAIT_S).json()["server"]["stream"] == {"/predict": True}


def test_a_wrong_body_is_refused_before_the_stream(tutorial):
    response = requests.post(tutorial.url + "/predict", json={"input": "x"}, timeout=WAIT_S)
    assert (response.status_code, response.json()["detail"][0]["type"]) == (422, "float_parsing")
    response = requests.post(tutorial.url + "/predict", json={"input": 1e200}, timeout=WAIT_S)
    assert (response.status_code, response.json()) == (422, {"detail": "input is too large to be cubed"})
    tutorial.stop()


@pytest.mark.parametrize("accept, events", [
    ("text/event-stream", True), ("text/event-stream, */*;q=0.1", True), ("*/*", False),
    ("application/json", False), ("application/x-ndjson, text/event-stream;q=0.5", False), ("image/png", False)])
def test_events_by_accept(tutorial, accept, events):
    response = requests.post(tutorial.url + "/predict", json={"input": 4.0}, headers={"Accept": accept}, timeout=WAIT_S)
    assert response.headers["Content-Type"] == ("text/event-stream" if events else "application/x-ndjson")
    if events:
        parts = response.text.split("\n\n")
        assert parts.pop() == ""
        assert [json.loads(part.removeprefix("data: ")) for part in parts] == TEN
    else:
        assert [json.loads(line) for line in response.text.splitlines()] == TEN


def test_http_1_0_gets_no_chunks(tutorial):
    client = Raw(tutorial, '{"input":4.0}', version="1.0")
    head, _, body = client.to_the_end().partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert [json.loads(line) for line in body.splitlines()] == TEN


def test_connections_live_on_and_many_streams_run(tutorial):
    with requests.Session() as session:
        for _ in range(20):
            assert len(session.post(tutorial.url + "/predict", json={"input": 1}, timeout=WAIT_S).text.splitlines()) == 10

    def ask(i):
        text = requests.post(tutorial.url + "/predict", json={"input": i}, timeout=WAIT_S).text
        return [json.loads(line)["output"] for line in text.splitlines()]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for i, items in enumerate(pool.map(ask, range(64))):
            assert items == [float((i + k) ** 2 + (i + k) ** 3) for k in range(10)]
    tutorial.stop()


# ---- slow readers and leavers ----------------------------------------------------------------------------------------------


def test_items_come_while_the_model_makes_more(river):
    server = river()
    client = Raw(server, "hold")
    client.until(b'{"i":0}')
    assert "hold: nobody waits" not in server.log_text()
    client.close()
    wait_until(lambda: "hold: nobody waits" in server.log_text(), what="the end of the model's work")
    assert requests.post(server.url + "/predict", data="count 3", timeout=WAIT_S).text.count("\n") == 3
    server.stop()


def test_who_leaves_while_items_go_out_stops_the_model(river):
    server = river()
    client = Raw(server, "drip")
    client.until(b'{"i":3}')
    client.close()
    wait_until(lambda: "drip: nobody waits" in server.log_text(), what="the end of the model's work")
    server.stop()


def test_a_slow_reader_holds_the_model_back_and_loses_nothing(river):
    server = river()
    client = Raw(server, "wide 400", receive_buffer=65536)
    client.until(b"\r\n\r\n")
    # 12 MB are to come. The model goes on as far as buffers go, and no further.
    made = -1
    while made != server.log_text().count("made"):
        made = server.log_text().count("made")
        time.sleep(0.5)
    assert made < 40
    found, clean = chunks(client.until(b"\r\n0\r\n\r\n"))
    assert clean
    assert [chunk.strip()[-2:-1] for chunk in found] == [b"%d" % (i % 10) for i in range(400)]
    client.close()
    server.stop()


def test_who_never_reads_is_dropped_and_stops_the_model(river):
    server = river("[server]\nsend_timeout_ms = 1000\n")
    client = Raw(server, "wide 4000", receive_buffer=4096)
    client.until(b"\r\n\r\n")
    wait_until(lambda: "wide: ends with" in server.log_text(), what="the end of the model's work")
    assert "wide: ends with -" in server.log_text()
    client.close()
    server.stop()


def test_half_closed_before_the_answer_is_no_leaving(river):
    server = river()
    client = Raw(server, "count 0")
    client.close()
    client = Raw(server, "later 300")
    client.socket.shutdown(socket.SHUT_WR)
    found, clean = chunks(client.to_the_end())
    # Either way it is told: all, or (ended after the first item) a stream that breaks off.
    assert clean == (len(found) == 300)
    server.stop()


# ---- broken streams --------------------------------------------------------------------------------------------------------


def broken(server, body, **options):
    """The items of a stream that must break off, the last of which says why."""
    client = Raw(server, body, **options)
    found, clean = chunks(client.to_the_end())
    assert not clean
    return [json.loads(chunk) for chunk in found]


def test_an_error_in_a_stream_is_an_item_and_no_clean_end(river):
    server = river()
    *items, last = broken(server, "refuse 3")
    assert items == [{"i": i} for i in range(3)] and last == {"detail": "no more"}
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.post(server.url + "/predict", data="refuse 3", timeout=WAIT_S)
    response = requests.post(server.url + "/predict", data="refuse 0", timeout=WAIT_S)
    assert (response.status_code, response.json()) == (422, {"detail": "no more"})
    server.stop()


def test_a_model_that_fails_breaks_its_stream_off(river):
    server = river()
    client = Raw(server, "fail 3", headers="Connection: close\r\n")
    answer = client.to_the_end()
    if answer.startswith(b"HTTP/1.1 200"):
        found, clean = chunks(answer)
        assert not clean and json.loads(found[-1]) == {"detail": "The model broke off"}
    else:
        # It failed before the first item went out.
        assert answer.startswith(b"HTTP/1.1 500")
    assert requests.post(server.url + "/predict", data="fail 0", timeout=WAIT_S).status_code == 500
    server.stop()


def test_a_worker_s_death_breaks_a_stream_off_and_it_does_not_run_again(river, tmp_path):
    gate = Gate(tmp_path, "river")
    server = river(plugin=gate.model)
    client = Raw(server, "crash 3")
    client.until(b'{"i":2}')
    gate.open()
    found, clean = chunks(client.to_the_end())
    *items, last = map(json.loads, found)
    assert not clean
    assert items == [{"i": i} for i in range(3)] and last == {"detail": "The model broke off"}
    assert requests.post(server.url + "/predict", data="count 2", timeout=WAIT_S).text == '{"i":0}\n{"i":1}\n'
    assert server.log_text().count("signal=11") <= 1
    server.stop()


def test_a_killed_worker_breaks_a_stream_off(river):
    server = river()
    client = Raw(server, "drip")
    client.until(b'{"i":2}')
    os.kill(server.role("worker")[0], signal.SIGKILL)
    found, clean = chunks(client.to_the_end())
    assert not clean and json.loads(found[-1]) == {"detail": "The model broke off"}
    assert requests.post(server.url + "/predict", data="count 2", timeout=WAIT_S).status_code == 200
    server.stop()


def test_a_deadline_breaks_a_stream_off(river):
    server = river()
    for timeout_ms in (2000, 8000, 32000, 128000):
        client = Raw(server, "drip", headers=f"X-Unetserve-Timeout-Ms: {timeout_ms}\r\nConnection: close\r\n")
        answer = client.to_the_end()
        if answer.startswith(b"HTTP/1.1 200"):
            break
        assert answer.startswith(b"HTTP/1.1 504")  # before the first item, on a machine that has too much to do
    found, clean = chunks(answer)
    *items, last = map(json.loads, found)
    assert not clean and items == [{"i": i} for i in range(len(items))] and last == {"detail": "Request timed out"}
    wait_until(lambda: "drip: nobody waits" in server.log_text(), what="the end of the model's work")
    server.stop()


def test_http_1_0_is_told_in_the_last_line(river):
    server = river()
    client = Raw(server, "refuse 2", version="1.0")
    body = client.to_the_end().partition(b"\r\n\r\n")[2]
    assert [json.loads(line) for line in body.splitlines()] == [{"i": 0}, {"i": 1}, {"detail": "no more"}]
    server.stop()


# ---- odd items -------------------------------------------------------------------------------------------------------------


def test_an_item_is_one_line(river):
    server = river()
    response = requests.post(server.url + "/predict", data="lines", timeout=WAIT_S)
    assert response.text.count("\n") == 1 and response.json() == {"a": [1, 2]}
    response = requests.post(server.url + "/predict", data="lines", headers={"Accept": "text/event-stream"}, timeout=WAIT_S)
    assert response.text.startswith("data: ") and response.text.count("\n") == 2
    response = requests.post(server.url + "/predict", data="huge", timeout=WAIT_S)
    assert (response.status_code, response.json()) == (422, {"detail": "no more"})
    response = requests.post(server.url + "/predict", data="count 0", timeout=WAIT_S)
    assert (response.status_code, response.text) == (200, "")
    server.stop()


def test_pending_items_stream_too(river):
    server = river()

    def ask(count):
        return requests.post(server.url + "/predict", data=f"later {count}", timeout=WAIT_S).text.splitlines()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for count, lines in zip((1, 5, 50, 7, 30, 2, 9, 100), pool.map(ask, (1, 5, 50, 7, 30, 2, 9, 100))):
            assert [json.loads(line) for line in lines] == [{"i": i} for i in range(count)]
    server.stop()


def test_draining_waits_for_streams(river):
    server = river()
    client = Raw(server, "later 400")
    client.until(b'{"i":0}')
    server.send(signal.SIGTERM)
    found, clean = chunks(client.until(b"\r\n0\r\n\r\n"))
    assert clean and len(found) == 400
    client.close()
    assert server.wait() == 0


def test_the_end_of_a_drain_breaks_a_stream_off(river):
    server = river("[server]\ndrain_timeout_ms = 300\n")
    client = Raw(server, "drip")
    client.until(b'{"i":0}')
    server.send(signal.SIGTERM)
    found, clean = chunks(client.to_the_end())
    assert not clean and json.loads(found[-1])["detail"].startswith("The server ends")
    client.close()
    assert server.wait() == 0
