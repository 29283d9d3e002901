"""Request bodies in gzip, deflate and zstd: the same answers as without, whatever the body's kind; and clear refusals."""

import gzip
import http.client
import io
import json
import subprocess
import threading
import zlib

import numpy
import pytest
import requests

from conftest import WAIT_S

NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
ACCEPTED = "gzip, deflate, zstd"


def zstd(body):
    return subprocess.run(["zstd", "-c"], input=body, check=True, capture_output=True, timeout=WAIT_S).stdout


PACK = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress, "zstd": zstd}


def npy(tile):
    file = io.BytesIO()
    numpy.save(file, tile)
    return file.getvalue()


def pieces(body, size=10007):
    for at in range(0, len(body), size):
        yield body[at:at + size]


def test_same_answers(start_server, demo_model, scene):
    server = start_server(demo_model)
    url = server.url + "/predict"
    bodies = {
        "npy": (npy(scene), NPY),
        "json": (json.dumps({"image": scene.tolist()}).encode(), {"Content-Type": "application/json"}),
        "raw": (scene.tobytes(), {"Content-Type": "application/octet-stream", "X-Unetserve-Dtype": str(scene.dtype),
                                  "X-Unetserve-Shape": ",".join(map(str, scene.shape))}),
    }
    for body, headers in bodies.values():
        plain = requests.post(url, data=body, headers=headers, timeout=WAIT_S)
        assert plain.status_code == 200
        for coding, pack in PACK.items():
            for data in (pack(body), pieces(pack(body))):  # with a length, and chunked
                answer = requests.post(url, data=data, headers={**headers, "Content-Encoding": coding}, timeout=WAIT_S)
                assert (answer.status_code, answer.content) == (200, plain.content), coding
    # By curl, as one does it on a command line.
    command = ["curl", "-s", "--data-binary", "@-", "-H", "Content-Encoding: gzip", "-H", "Content-Type: application/x-npy",
               "-H", "Accept: application/x-npy", url]
    answer = subprocess.run(command, input=gzip.compress(npy(scene)), check=True, capture_output=True, timeout=WAIT_S).stdout
    assert answer == requests.post(url, data=npy(scene), headers=NPY, timeout=WAIT_S).content


def test_documents(start_server, simple_model):
    server = start_server(simple_model)
    for coding, pack in PACK.items():
        answer = requests.post(server.url + "/predict", data=pack(b'{"input": 4.0}'),
                               headers={"Content-Encoding": coding.upper()}, timeout=WAIT_S)
        assert (answer.status_code, answer.json()) == (200, {"output": 80.0})


@pytest.fixture
def ask(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nmax_body_bytes = 1000000\n")

    def send(body, *codings):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
        connection.putrequest("POST", "/predict")
        for coding in codings:
            connection.putheader("Content-Encoding", coding)
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer, text.decode()

    return send


def test_codings_that_are_refused(ask):
    body = gzip.compress(b'{"input": 4.0}')
    for codings in (["br"], ["gzip, gzip"], ["gzip", "gzip"], ["zstd", "identity"], ["gzip" + " " * 200 + ", br"]):
        answer, text = ask(body, *codings)
        assert (answer.status, answer.getheader("Accept-Encoding")) == (415, ACCEPTED), text
        assert "Content-Encoding" in text
    answer, text = ask(b'{"input": 4.0}', "identity")
    assert (answer.status, text, answer.getheader("Accept-Encoding")) == (200, '{"output":80.0}', None)


def test_broken_bodies(ask):
    body = b'{"input": 4.0}'
    for coding, pack in PACK.items():
        good = pack(body)
        for bad in (body, good[:-1], good[: len(good) // 2], good + b"junk"):
            answer, text = ask(bad, coding)
            assert answer.status == 400, (coding, bad, text)
            assert "Content-Encoding" in text
        answer, text = ask(good, coding)
        assert (answer.status, text) == (200, '{"output":80.0}')


def test_a_bomb_is_refused_and_keeps_nobody_waiting(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nmax_body_bytes = 500000000\nqueue_memory = 100000000\n")
    url = server.url + "/predict"
    for coding, pack in PACK.items():
        bomb = pack(bytes(400_000_000))
        assert len(bomb) < 500_000
        answers = []

        def send():
            answers.append(requests.post(url, data=bomb, headers={"Content-Encoding": coding}, timeout=WAIT_S))

        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            assert requests.post(url, json={"input": 4.0}, timeout=WAIT_S).json() == {"output": 80.0}
        for thread in threads:
            thread.join()
        # 503: another of them has the one slot that is large enough to go on.
        assert {answer.status_code for answer in answers} <= {413, 503}, answers[0].text
        assert 413 in [answer.status_code for answer in answers]
    server.stop()


def test_a_body_that_unpacks_to_more_than_is_allowed(ask):
    for coding, pack in PACK.items():
        answer, text = ask(pack(b'{"input": 4.0' + b" " * 2_000_000 + b"}"), coding)
        assert answer.status == 413, text
        assert "Payload too large" in text
