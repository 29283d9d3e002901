"""Answers in gzip and zstd, by Accept-Encoding, seen as bytes."""

import gzip
import http.client
import io
import subprocess

import numpy
import pytest

from conftest import WAIT_S

NPY = {"Content-Type": "application/x-npy"}


@pytest.fixture
def ask(start_server, demo_model):
    servers = {}

    def send(tile, accept_encoding, config="", **headers):
        if config not in servers:
            servers[config] = start_server(demo_model, config="[server]\n" + config)
        file = io.BytesIO()
        numpy.save(file, tile)
        connection = http.client.HTTPConnection("127.0.0.1", servers[config].port, timeout=WAIT_S)
        if accept_encoding is not None:
            headers["Accept-Encoding"] = accept_encoding
        # http.client asks for identity by itself.
        connection.putrequest("POST", "/predict", skip_accept_encoding=True)
        for name, value in {**NPY, **headers, "Content-Length": str(file.tell())}.items():
            connection.putheader(name, value)
        connection.endheaders(file.getvalue())
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer, body

    return send


def unpack_zstd(body, tmp_path):
    path = tmp_path / "body.zst"
    path.write_bytes(body)
    return subprocess.run(["zstd", "-dc", path], check=True, capture_output=True, timeout=WAIT_S).stdout


def test_codings(ask, scene, tmp_path):
    answer, plain = ask(scene, None)
    assert (answer.status, answer.getheader("Content-Encoding")) == (200, None)
    assert answer.getheader("Vary") == "Accept-Encoding"
    assert len(plain) > 1000
    for accept in ("gzip", "gzip, deflate", "zstd;q=0.5, gzip", "identity;q=0, gzip;q=0.1"):
        answer, body = ask(scene, accept)
        assert (answer.getheader("Content-Encoding"), answer.getheader("Vary")) == ("gzip", "Accept-Encoding")
        assert int(answer.getheader("Content-Length")) == len(body) < len(plain) / 4
        assert gzip.decompress(body) == plain
    for accept in ("zstd", "gzip, deflate, br, zstd", "*"):
        answer, body = ask(scene, accept)
        assert answer.getheader("Content-Encoding") == "zstd"
        assert unpack_zstd(body, tmp_path) == plain
    for accept in ("identity", "br", "gzip;q=0", "identity, gzip;q=0.5", ""):
        answer, body = ask(scene, accept)
        assert (answer.getheader("Content-Encoding"), body) == (None, plain)


def test_refused_where_nothing_will_do(ask, scene):
    answer, body = ask(scene, "identity;q=0, br")
    assert answer.status == 406
    assert body == (b'{"detail":"None of the codings in Accept-Encoding can be given, possible: '
                    b'gzip, zstd, identity"}')


def test_forms(ask, scene):
    _, plain = ask(scene, None, Accept="application/x-npy")
    answer, body = ask(scene, "gzip", Accept="application/x-npy")
    assert (answer.getheader("Content-Encoding"), gzip.decompress(body)) == ("gzip", plain)
    answer, body = ask(scene, "gzip", Accept="image/png")
    assert (answer.getheader("Content-Encoding"), answer.getheader("Vary")) == (None, None)
    assert body.startswith(b"\x89PNG")


def test_keys(ask, scene):
    _, plain = ask(scene, None)
    for config in ("gzip_level = 0\nzstd_level = 0\n", "compress_min_bytes = 1000000\n"):
        answer, body = ask(scene, "gzip, zstd", config)
        assert (answer.getheader("Content-Encoding"), answer.getheader("Vary"), body) == (None, None, plain)
    answer, body = ask(scene, "gzip, zstd", "zstd_level = 0\ngzip_level = 9\n")
    assert (answer.getheader("Content-Encoding"), gzip.decompress(body)) == ("gzip", plain)


def test_large_answers_go_out_in_pieces(ask, scene, tmp_path):
    large = numpy.tile(scene, (1, 8, 8))
    answer, plain = ask(large, None)
    assert answer.status == 200, plain
    assert len(plain) > 4 * 256 * 1024
    for accept, unpack in (("gzip", gzip.decompress), ("zstd", lambda body: unpack_zstd(body, tmp_path))):
        answer, body = ask(large, accept)
        assert answer.getheader("Content-Encoding") == accept
        assert answer.getheader("Transfer-Encoding") == "chunked"
        assert unpack(body) == plain


def test_pages(start_server, simple_model):
    server = start_server(simple_model)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=WAIT_S)
    connection.request("GET", "/metrics", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert answer.getheader("Content-Encoding") == "gzip"
    assert b"unetserve_" in gzip.decompress(answer.read())
    connection.request("GET", "/health", headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    assert (answer.getheader("Content-Encoding"), answer.getheader("Vary"), answer.read()) == (None, None, b"ok")
