"""ZeroMQ clients: one written from the grammar, and libunetserve; good requests and hostile ones."""
import ctypes
import io
import json
import os
import pathlib
import struct

import msgpack
import numpy
import pytest
import requests
import zmq

from conftest import WAIT_S
from protocol_client import Client, endpoint_of

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
MODEL = ROOT / "packaging" / "models" / "s2-worldcover"
SCENE = numpy.load(ROOT / "tests" / "goldens" / "scene_96x112.input.npy")
LABELS = numpy.load(ROOT / "tests" / "goldens" / "scene_96x112.logits.npy").argmax(0).astype(numpy.uint8)


def agreement(mask):
    return float((numpy.asarray(mask) == LABELS).mean())


@pytest.fixture
def server(start_server):
    return start_server(model=MODEL)


def test_predict_answers_a_tensor(server):
    with Client(server) as client:
        head, body = client.predict(SCENE, id="my-own-id")
    assert head["status"] == 200, body
    assert head["id"] == "my-own-id"
    assert head["dtype"] == "uint8" and head["shape"] == [96, 112]
    assert set(head["times"]) >= {"receive", "queue", "forward", "encode"}
    assert head["times"]["forward"] > 0
    mask = numpy.frombuffer(body, numpy.uint8).reshape(96, 112)
    assert agreement(mask) > 0.99


def test_every_accept_gives_the_same_mask(server):
    with Client(server) as client:
        tensor = numpy.frombuffer(client.predict(SCENE, accept="tensor")[1], numpy.uint8).reshape(96, 112)
        head, body = client.predict(SCENE, accept="npy")
        assert head["status"] == 200 and "npy" in head["type"]
        assert (numpy.load(io.BytesIO(body)) == tensor).all()
        head, body = client.predict(SCENE, accept="json")
        assert head["type"].startswith("application/json")
        assert (numpy.array(json.loads(body)["output"]) == tensor).all()
        head, body = client.predict(SCENE, accept="png")
        assert head["type"] == "image/png" and body[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", body[16:24]) == (112, 96)


def test_req_socket_gets_its_empty_frame(server):
    with Client(server, zmq.REQ) as client:
        head, body = client.predict(SCENE)
        assert head["status"] == 200 and len(body) == 96 * 112
        assert head["id"]


def test_many_requests_of_one_client_all_come_back(server):
    with Client(server) as client:
        for i in range(24):
            head = {"v": 1, "op": "predict", "id": f"n{i}", "dtype": "uint16", "shape": list(SCENE.shape)}
            client.send_raw([msgpack.packb(head), SCENE.tobytes()])
        answers = [client.receive() for _ in range(24)]
    assert all(answer is not None for answer in answers)
    assert {answer[0]["id"] for answer in answers} == {f"n{i}" for i in range(24)}
    # A full queue may refuse, but says so.
    assert {answer[0]["status"] for answer in answers} <= {200, 429, 503}
    assert any(answer[0]["status"] == 200 for answer in answers)


def workers_of(document):
    """The pids of ready workers."""
    processes = document.get("workers") or [p for p in document["processes"] if p["role"] == "worker"]
    return [process["pid"] for process in processes if process["ready"]]


def test_status_tells_what_runs(server):
    with Client(server) as client:
        head, body = client.status(id="s")
    assert head["status"] == 200 and head["id"] == "s"
    document = json.loads(body)
    interface = document["models"][0]["interface"]
    assert interface["input"]["channels"] == 12
    assert len(interface["output"]["classes"]) == 11
    assert workers_of(document)
    assert document["slots"]["FREE"] > 0


REFUSED = {
    "wrong channels": ({"dtype": "uint16", "shape": [3, 32, 32]}, 3 * 32 * 32 * 2),
    "too few bytes": ({"dtype": "uint16", "shape": [12, 32, 32]}, 100),
    "too many bytes": ({"dtype": "uint16", "shape": [12, 32, 32]}, 12 * 32 * 32 * 2 + 1),
    "huge shape": ({"dtype": "uint16", "shape": [12, 2**40, 2**40]}, 16),
    "overflowing shape": ({"dtype": "float64", "shape": [2**63, 2**63, 2**63]}, 16),
    "zero size": ({"dtype": "uint16", "shape": [12, 0, 32]}, 0),
    "one dimension": ({"dtype": "uint16", "shape": [12]}, 24),
    "no shape": ({}, 24),
    "unknown model": ({"dtype": "uint16", "shape": [12, 32, 32], "model": "nobody"}, 12 * 32 * 32 * 2),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_requests_are_refused_with_a_sentence(server, case):
    fields, size = REFUSED[case]
    with Client(server) as client:
        head = {"v": 1, "op": "predict", "id": "bad", **fields}
        client.send_raw([msgpack.packb(head), bytes(size)])
        answer = client.receive()
        assert answer is not None
        assert 400 <= answer[0]["status"] < 500, answer
        assert answer[0]["id"] == "bad"
        assert json.loads(answer[1])["detail"]
        assert (answer[0]["status"] == 413) == (case in ("huge shape", "overflowing shape"))
        assert client.predict(SCENE)[0]["status"] == 200


HOSTILE = [
    [b""],
    [b"", b""],
    [b"\xff"],
    [b"\xc1", b"x"],
    [b"\xdd\xff\xff\xff\xff"],
    [b"\xdf\xff\xff\xff\xff", b""],
    [b"\x81\xa1x\xc6\xff\xff\xff\xff"],
    [os.urandom(64), os.urandom(64)],
    [b"\x91" * 5000],
    [bytes(1 << 20)],
    [msgpack.packb({"v": 1, "op": "predict"})],
    [msgpack.packb({"v": 2, "op": "predict"}), b"x"],
    [msgpack.packb({"v": 1, "op": "shutdown"})],
    [msgpack.packb({"v": 1, "op": "status", "id": "x" * 64})],
    [msgpack.packb({"v": 1, "op": "status", "id": "a\nb"})],
    [msgpack.packb({"v": 1, "op": "predict", "dtype": "uint16", "shape": [1] * 7}), b"x"],
    [msgpack.packb({"v": 1, "op": "predict", "dtype": "object", "shape": [12, 32, 32]}), b"x"],
    [msgpack.packb({"v": 1, "op": "predict", "dtype": "uint16", "shape": [-1, 2, 3]}), b"x"],
    [msgpack.packb({"v": 1, "op": "predict", "timeout": -1}), b"x"],
    [msgpack.packb({"v": 1, "op": "status"})] + [b"frame"] * 50,
    [b""] * 50,
]


def test_hostile_messages_harm_nobody(server):
    with Client(server) as good:
        before = json.loads(good.status()[1])
        processes = server.children().keys()
        for frames in HOSTILE:
            with Client(server) as client:
                client.send_raw(frames)
                answer = client.receive(300)
                if answer is not None and answer[0]["status"] != 200:
                    assert 400 <= answer[0]["status"] < 500
        head, body = good.predict(SCENE)
        assert head["status"] == 200
        assert agreement(numpy.frombuffer(body, numpy.uint8).reshape(96, 112)) > 0.99
        after = json.loads(good.status()[1])
    # The same processes: the ZeroMQ front, the broker, the workers.
    assert server.children().keys() == processes
    assert workers_of(after) == workers_of(before)
    # Nothing of the refused requests is kept.
    assert after["slots"].get("FREE") == before["slots"].get("FREE")


class Shape(ctypes.Structure):
    _fields_ = [("dtype", ctypes.c_uint32), ("rank", ctypes.c_uint32), ("dims", ctypes.c_uint64 * 6)]


class Tensor(ctypes.Structure):
    _fields_ = [("shape", Shape), ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t)]


class Answer(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("shape", Shape), ("data", ctypes.c_void_p), ("bytes", ctypes.c_size_t),
                ("request_id", ctypes.c_char * 64), ("receive_ms", ctypes.c_double), ("queue_ms", ctypes.c_double),
                ("forward_ms", ctypes.c_double), ("encode_ms", ctypes.c_double)]


# A sanitizer's runtime has to be the first library of its process; there the C client of test_install.py speaks for the library.
SANITIZED = b"__asan_init" in (BUILD / "libunetserve.so").read_bytes()


@pytest.mark.skipif(SANITIZED, reason="the interpreter cannot load a library built with AddressSanitizer")
def test_library_answers_as_http_does(server):
    library = ctypes.CDLL(str(BUILD / "libunetserve.so"))
    handle = ctypes.c_void_p()
    assert library.unetserve_client_open(endpoint_of(server).encode(), ctypes.byref(handle)) == 0
    data = SCENE.tobytes()
    tile = Tensor(Shape(3, 3, (ctypes.c_uint64 * 6)(*SCENE.shape)), ctypes.cast(data, ctypes.c_void_p), len(data))
    answer = Answer()
    assert library.unetserve_client_predict(handle, None, ctypes.byref(tile), 30000, ctypes.byref(answer)) == 0
    assert answer.status == 200
    mask = numpy.frombuffer(ctypes.string_at(answer.data, answer.bytes), numpy.uint8).reshape(96, 112)
    library.unetserve_answer_free(ctypes.byref(answer))
    assert library.unetserve_client_predict(handle, b"nobody", ctypes.byref(tile), 30000, ctypes.byref(answer)) == 0
    assert 400 <= answer.status < 500
    assert json.loads(ctypes.string_at(answer.data, answer.bytes))["detail"]
    library.unetserve_answer_free(ctypes.byref(answer))
    library.unetserve_client_close(handle)
    body = io.BytesIO()
    numpy.save(body, SCENE)
    reply = requests.post(server.url + "/predict", data=body.getvalue(), timeout=WAIT_S,
                          headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy"})
    assert (numpy.load(io.BytesIO(reply.content)) == mask).all()
