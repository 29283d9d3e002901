"""Clients that are sloppy or mean: cut-off requests, odd heads, floods. None of them takes a slot or a descriptor for good."""

import io
import json
import os
import socket

import numpy
import pytest
import requests

import protocol_client
from conftest import wait_until

WAIT_S = 60


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
    before = descriptors(server)
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
    before = descriptors(server)
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
    before = descriptors(server)
    with connect(server) as client:
        client.sendall(HEAD + b"{")
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"\r\nX-Request-Id: cut\r\n" in answer
    assert_nothing_held(server, before)
