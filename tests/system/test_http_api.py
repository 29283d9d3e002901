"""The HTTP interface: pages, formats, negotiation, headers, deadlines, clients that leave, drain."""

import concurrent.futures
import http.client
import io
import json
import os
import signal
import socket

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


def npy(array):
    text = io.BytesIO()
    numpy.save(text, array)
    return text.getvalue()


def tile(*shape, dtype=numpy.uint16):
    return (numpy.arange(numpy.prod(shape)).reshape(shape) % 10000).astype(dtype)


def post(server, body, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(f"{server.url}/predict", data=body, headers=names, timeout=WAIT_S)


# ---- pages ------------------------------------------------------------------------------------------------------------


def test_pages(simple):
    answer = requests.get(simple.url + "/", timeout=WAIT_S)
    assert (answer.status_code, answer.text) == (200, "unetserve running")
    assert answer.headers["server"] == "unetserve"
    answer = requests.get(simple.url + "/health?verbose=1", timeout=WAIT_S)
    assert (answer.status_code, answer.text) == (200, "ok")
    info = requests.get(simple.url + "/info", timeout=WAIT_S)
    assert info.headers["content-type"] == "application/json"
    assert info.json()["server"]["stream"] == {"/predict": False}
    assert set(info.json()["server"]) == {
        "devices", "workers_per_device", "timeout", "stream", "max_payload_size", "track_requests",
    }
    assert set(info.json()["model"]) == {"name", "version"}
    for path in ("/", "/health", "/info"):
        answer = requests.head(simple.url + path, timeout=WAIT_S)
        assert (answer.status_code, answer.content) == (200, b"")
        answer = requests.delete(simple.url + path, timeout=WAIT_S)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
    answer = requests.get(simple.url + "/predict", timeout=WAIT_S)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.json() == {"detail": "Method Not Allowed"}
    answer = requests.get(simple.url + "/predict/", timeout=WAIT_S)
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


def test_every_answer_has_a_request_id(simple):
    own = [requests.get(simple.url + path, timeout=WAIT_S).headers["x-request-id"] for path in ("/", "/nothing", "/")]
    assert len(set(own)) == 3 and all(len(each) == 32 for each in own)
    for given in ("a", "job-17/b:c", "x" * 63):
        answer = post(simple, b'{"input":4.0}', X_Request_Id=given)
        assert answer.headers["x-request-id"] == given
    for given in ("x" * 64, "a b", '"quoted"', "a;b"):
        answer = post(simple, b'{"input":4.0}', X_Request_Id=given)
        assert answer.headers["x-request-id"] != given and len(answer.headers["x-request-id"]) == 32


def test_server_timing(simple):
    answer = post(simple, b'{"input":4.0}', Content_Type="application/json")
    assert answer.status_code == 200
    parts = dict(part.strip().split(";dur=") for part in answer.headers["server-timing"].split(","))
    assert set(parts) == {"receive", "queue", "forward", "encode"}
    assert all(float(value) >= 0 for value in parts.values())


# ---- formats ----------------------------------------------------------------------------------------------------------


def test_formats_give_the_same_mask(unet):
    image = tile(12, 64, 48)
    answers = [
        post(unet, npy(image), Content_Type="application/x-npy"),
        post(unet, npy(image.astype(">u2")), Content_Type="Application/X-NPY; charset=binary"),
        post(unet, npy(image.astype(numpy.float32)), Content_Type="application/x-npy"),
        post(unet, npy(image.astype(numpy.float64)), Content_Type="application/x-npy"),
        post(unet, image.astype("<u2").tobytes(), Content_Type="application/octet-stream",
             X_Unetserve_Shape="12,64,48", X_Unetserve_Dtype="uint16"),
        requests.post(unet.url + "/predict", json={"image": image.tolist(), "more": [1]}, timeout=WAIT_S),
    ]
    for answer in answers:
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
    masks = [numpy.array(answer.json()["output"]) for answer in answers]
    assert all(mask.shape == (64, 48) and (mask == masks[0]).all() for mask in masks)
    as_npy = post(unet, npy(image), Content_Type="application/x-npy", Accept="application/x-npy")
    assert as_npy.headers["content-type"] == "application/x-npy"
    assert (numpy.load(io.BytesIO(as_npy.content)) == masks[0]).all()
    as_png = post(unet, npy(image), Content_Type="application/x-npy", Accept="image/*, application/json;q=0.5")
    assert as_png.headers["content-type"] == "image/png"
    assert as_png.content.startswith(b"\x89PNG")


def test_batch_and_chunked_body(unet):
    images = tile(2, 12, 32, 32)
    body = npy(images)
    pieces = (body[at : at + 999] for at in range(0, len(body), 999))
    answer = post(unet, pieces, Content_Type="application/x-npy")
    assert answer.status_code == 200, answer.text
    assert numpy.array(answer.json()["output"]).shape == (2, 32, 32)
    answer = post(unet, body, Content_Type="application/x-npy", Accept="image/png")
    assert answer.status_code == 406


BAD_HEADS = [
    (415, {"Content_Type": "image/jpeg"}),
    (415, {"Content_Type": "application/json", "Content_Encoding": "br"}),
    (406, {"Content_Type": "application/x-npy", "Accept": "text/html"}),
    (406, {"Content_Type": "application/x-npy", "Accept": "application/json;q=0, application/x-npy;q=0.0"}),
    (400, {"Content_Type": "application/x-npy", "X_Unetserve_Timeout_Ms": "soon"}),
    (400, {"Content_Type": "application/x-npy", "X_Unetserve_Timeout_Ms": "0"}),
    (400, {"Content_Type": "application/octet-stream"}),
    (400, {"Content_Type": "application/octet-stream", "X_Unetserve_Shape": "12,x", "X_Unetserve_Dtype": "uint16"}),
]


def test_bad_heads_are_refused_with_a_sentence(unet):
    body = npy(tile(12, 32, 32))
    for status, headers in BAD_HEADS:
        answer = post(unet, body, **headers)
        assert answer.status_code == status, (headers, answer.text)
        assert len(answer.json()["detail"]) > 10
    assert post(unet, body, Content_Type="application/x-npy").status_code == 200


def test_bad_bodies_are_never_500(unet):
    image = tile(12, 32, 32)
    good = npy(image)
    bad = [
        (good[:-1], "application/x-npy"),
        (good + b"x", "application/x-npy"),
        (b"", "application/x-npy"),
        (npy(tile(3, 32, 32)), "application/x-npy"),
        (npy(numpy.full((12, 32, 32), numpy.nan, numpy.float32)), "application/x-npy"),
        (npy(numpy.zeros((12, 32, 32), numpy.complex64)), "application/x-npy"),
        (npy(numpy.asfortranarray(image)), "application/x-npy"),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"[]", "application/json"),
        (b'{"other":1}', "application/json"),
        (b'{"image":"no"}', "application/json"),
        (b'{"image":[[[1,2],[3]]]}', "application/json"),
        (b"\x00\xff", "application/json"),
    ]
    for body, kind in bad:
        answer = post(unet, body, Content_Type=kind)
        assert 400 <= answer.status_code < 500, (body[:40], answer.status_code, answer.text)
        assert answer.json()["detail"]
    assert post(unet, good, Content_Type="application/x-npy").status_code == 200


# ---- waiting --------------------------------------------------------------------------------------------------------------


class stopped:
    """The server's only worker stands still meanwhile, and so does the supervisor, which would replace it."""

    def __init__(self, server):
        self.pids = [server.pid, *server.role("worker")]

    def __enter__(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_):
        for pid in reversed(self.pids):
            os.kill(pid, signal.SIGCONT)


REQUEST = b'POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"input":4.0}'


def read_answer(client):
    """(interim answers, status, body) of one answer with Content-Length."""
    stream = client.makefile("rb")
    interim = 0
    while True:
        status = int(stream.readline().split()[1])
        headers = {}
        while line := stream.readline().strip():
            name, value = line.split(b":", 1)
            headers[name.lower()] = value.strip()
        if status != 100:
            return interim, status, stream.read(int(headers[b"content-length"]))
        interim += 1


def test_half_closed_client_gets_its_answer(simple):
    with socket.create_connection(("127.0.0.1", simple.port), timeout=WAIT_S) as client:
        with stopped(simple):
            client.sendall(REQUEST)
            client.shutdown(socket.SHUT_WR)
            client.settimeout(WAIT_S)
            assert client.recv(1000, socket.MSG_PEEK).startswith(b"HTTP/1.1 100 ")
        _, status, body = read_answer(client)
        assert (status, body) == (200, b'{"output":80.0}')


def test_half_closed_client_of_http_1_0_gets_no_interim_answer(simple):
    with socket.create_connection(("127.0.0.1", simple.port), timeout=WAIT_S) as client:
        with stopped(simple):
            client.sendall(REQUEST.replace(b"HTTP/1.1", b"HTTP/1.0"))
            client.shutdown(socket.SHUT_WR)
            client.settimeout(0.5)
            with pytest.raises(socket.timeout):
                client.recv(1)
            client.settimeout(WAIT_S)
        assert read_answer(client) == (0, 200, b'{"output":80.0}')


def test_timeout_header(simple):
    with stopped(simple):
        answer = post(simple, b'{"input":4.0}', X_Unetserve_Timeout_Ms="300")
        assert (answer.status_code, answer.json()) == (504, {"detail": "Request timed out"})
    assert post(simple, b'{"input":4.0}').json() == {"output": 80.0}


def test_clients_that_leave_hold_no_slot(simple):
    """Their jobs end long before the deadline: the waiting ones at once, the others when the worker gives them back."""
    with protocol_client.Client(simple) as observer:

        def slots():
            return json.loads(observer.status()[1])["slots"]

        with stopped(simple):
            clients = [socket.create_connection(("127.0.0.1", simple.port), timeout=WAIT_S) for _ in range(100)]
            for client in clients:
                client.sendall(REQUEST)
            wait_until(lambda: slots()["total"] - slots()["FREE"] == len(clients), what="a hundred taken slots")
            assert slots()["READY"] > 0  # more than the worker can have been given
            for client in clients:
                client.close()
            wait_until(lambda: slots()["READY"] == 0, WAIT_S, "the end of the waiting jobs")
        wait_until(lambda: slots()["FREE"] == slots()["total"], WAIT_S, "the end of all jobs")
    assert post(simple, b'{"input":4.0}').json() == {"output": 80.0}


def test_drain_answers_what_was_accepted(start_server, gate):
    server = start_server(config="[server]\ndrain_timeout_ms = 3600000\n"
                                 f"[model poison]\npath = {gate.model}\nroute = /predict\nmax_batch_size = 1\n"
                                 "timeout_ms = 3600000\nrun_timeout_ms = 3600000\n")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(post, server, b"held 0", Content_Type="application/json") for _ in range(4)]
        with protocol_client.Client(server) as observer:
            def accepted():
                counts = json.loads(observer.status()[1])["slots"]
                return counts["RUN"] + counts["LEASED"] + counts["READY"]

            wait_until(lambda: accepted() == 4, what="four accepted requests")
        os.kill(server.pid, signal.SIGTERM)
        wait_until(lambda: server.log_text().count("why=SIGTERM") >= 2, what="both fronts' drain")
        gate.open()
        for one in asked:
            answer = one.result()
            assert (answer.status_code, answer.text, answer.headers["connection"].lower()) == (200, "held 0", "close")
    assert server.wait() == 0


def test_drain_delay_serves_on_while_health_says_no(start_server, simple_model):
    server = start_server(simple_model, config="[server]\ndrain_delay_ms = 3600000\n")
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    os.kill(server.pid, signal.SIGTERM)
    wait_until(lambda: requests.get(server.url + "/health", timeout=WAIT_S).status_code == 503, WAIT_S, "a 503")
    assert post(server, b'{"input":4.0}').json() == {"output": 80.0}
    os.kill(server.pid, signal.SIGTERM)  # the second one hurries
    assert server.wait() == 0


def test_keep_alive_carries_many_requests(simple):
    connection = http.client.HTTPConnection("127.0.0.1", simple.port, timeout=WAIT_S)
    connection.connect()
    used = connection.sock
    for number in range(50):
        connection.request("POST", "/predict", body=b'{"input":%d}' % number)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
        assert connection.sock is used
    connection.close()
