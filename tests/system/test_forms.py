"""Forms as request bodies: fields for models that take documents, a file for models that take images."""
import gzip
import io
import subprocess

import numpy
import pytest
import requests

from conftest import BUILD, WAIT_S
from rasters import creation, write_tif

NPY = {"Accept": "application/x-npy"}


def npy(tile):
    file = io.BytesIO()
    numpy.save(file, tile)
    return file.getvalue()


def curl(*words):
    return subprocess.run(["curl", "-s", *map(str, words)], capture_output=True, check=True, timeout=WAIT_S).stdout


@pytest.fixture(scope="module")
def typed_model():
    return BUILD / "models" / "typed.so"


def test_fields(start_server, typed_model):
    url = start_server(typed_model).url + "/predict"
    body = b"input=4.0"
    for answer in (requests.post(url, data={"input": 4.0}, timeout=WAIT_S),
                   requests.post(url, data={"input": "4.0", "more": ""}, timeout=WAIT_S),
                   requests.post(url, files={"input": (None, "4.0")}, timeout=WAIT_S),
                   requests.post(url, data=gzip.compress(body), timeout=WAIT_S,
                                 headers={"Content-Type": "application/x-www-form-urlencoded", "Content-Encoding": "gzip"}),
                   requests.post(url, data=iter([b"inp", b"ut=%34.", b"0"]), timeout=WAIT_S,
                                 headers={"Content-Type": "application/x-www-form-urlencoded"}),
                   requests.post(url, json={"input": 4.0}, timeout=WAIT_S)):
        assert (answer.status_code, answer.json()) == (200, {"output": 80.0})
    for words in (["-d", "input=4.0"], ["-F", "input=4.0"], ["--data-urlencode", "input=4.0"], ["-d", '{"input": 4.0}']):
        assert curl(*words, url) == b'{"output":80.0}', words


def test_fields_that_are_wrong(start_server, typed_model):
    url = start_server(typed_model).url + "/predict"
    answer = requests.post(url, data={"input": "four"}, timeout=WAIT_S)
    detail = answer.json()["detail"][0]
    assert (answer.status_code, detail["type"], detail["loc"], detail["input"]) == (422, "float_parsing", ["body", "input"], "four")
    answer = requests.post(url, data={"other": "1"}, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "missing")
    answer = requests.post(url, files={"input": b"4.0"}, timeout=WAIT_S)
    assert (answer.status_code, "is a file" in answer.text) == (422, True)
    for kind, body in (("multipart/form-data", b"--x--"), ("multipart/form-data; boundary=x", b"--y--"),
                       ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=input\r\n\r\n4.0"),
                       ("multipart/form-data; boundary=" + "x" * 71, b"--x--"),
                       ("application/x-www-form-urlencoded", b"n" * 200)):
        answer = requests.post(url, data=body, headers={"Content-Type": kind}, timeout=WAIT_S)
        assert (answer.status_code, bool(answer.json()["detail"])) == (400, True), (kind, answer.text)


def test_files(start_server, demo_model, scene, tmp_path):
    server = start_server(demo_model)
    url = server.url + "/predict"
    expected = requests.post(url, data=npy(scene), headers={**NPY, "Content-Type": "application/x-npy"}, timeout=WAIT_S).content
    assert expected[:6] == b"\x93NUMPY"
    tif = write_tif(tmp_path / "scene.tif", scene, *creation("COMPRESS=ZSTD"))
    array = tmp_path / "scene.npy"
    array.write_bytes(npy(scene))
    raw = tmp_path / "scene.raw"
    raw.write_bytes(scene.tobytes())
    told = {"X-Unetserve-Shape": ",".join(map(str, scene.shape)), "X-Unetserve-Dtype": "uint16"}
    for name, file, headers in (("image", array, {}), ("image", tif, {}), ("anything", tif, {}), ("image", raw, told)):
        with open(file, "rb") as opened:
            answer = requests.post(url, files={name: opened}, data={"note": "x" * 100000}, headers={**NPY, **headers}, timeout=WAIT_S)
        assert (answer.status_code, answer.content) == (200, expected), answer.text[:200]
        words = [word for key, value in headers.items() for word in ("-H", f"{key}: {value}")]
        assert curl("-H", "Accept: application/x-npy", *words, "-F", f"{name}=@{file}", url) == expected
    with open(tif, "rb") as one, open(array, "rb") as other:
        answer = requests.post(url, files={"image": one, "other": other}, timeout=WAIT_S)
    assert (answer.status_code, "more than one file" in answer.text) == (422, True)
    answer = requests.post(url, files={"note": (None, "text")}, timeout=WAIT_S)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "image"])
    assert requests.post(url, files={"image": b"neither nor, says the first look"}, timeout=WAIT_S).status_code == 415
    assert requests.post(url, data={"image": "x"}, timeout=WAIT_S).status_code == 415  # urlencoded
    server.stop()


def test_a_real_chip(start_server, demo_model, chips):
    url = start_server(demo_model).url + "/predict"
    file = sorted(chips.glob("*.S2L2A.tif"))[0]
    expected = requests.post(url, data=file.read_bytes(), headers={**NPY, "Content-Type": "image/tiff"}, timeout=WAIT_S)
    with open(file, "rb") as opened:
        answer = requests.post(url, files={"image": opened}, headers=NPY, timeout=WAIT_S)
    assert (answer.status_code, answer.content) == (200, expected.content)
