"""TIFF and PNG request bodies: the same labels as the same pixels as npy; and files that lie."""
import base64
import io
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import threading
import zlib

import numpy
import pytest
import requests

from conftest import BUILD, WAIT_S, unhurried, wait_until
from rasters import creation, write_tif

GOLDENS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "goldens"
TIFF = {"Content-Type": "image/tiff", "Accept": "application/x-npy"}
PNG = {"Content-Type": "image/png", "Accept": "application/x-npy"}


def post(server, body, headers):
    return requests.post(server.url + "/predict", data=body, headers=headers, timeout=WAIT_S)


def labels_by_npy(server, tile):
    file = io.BytesIO()
    numpy.save(file, tile)
    answer = post(server, file.getvalue(), {"Content-Type": "application/x-npy", "Accept": "application/x-npy"})
    assert answer.status_code == 200, answer.text
    return answer.content


WAYS = [(), ("COMPRESS=LZW", "PREDICTOR=2"), ("COMPRESS=DEFLATE", "TILED=YES", "BLOCKXSIZE=64", "BLOCKYSIZE=32"),
        ("COMPRESS=ZSTD", "INTERLEAVE=BAND"), ("COMPRESS=PACKBITS", "BIGTIFF=YES"),
        ("ENDIANNESS=BIG", "INTERLEAVE=BAND", "TILED=YES", "BLOCKXSIZE=16", "BLOCKYSIZE=16"),
        ("COMPRESS=DEFLATE", "PREDICTOR=3")]


def test_geotiffs_in_many_ways(start_server, demo_model, scene, tmp_path):
    server = start_server(demo_model)
    for dtype in ("uint16", "int16", "float32", "float64"):
        tile = scene.astype(dtype)
        expected = labels_by_npy(server, tile)
        for number, way in enumerate(WAYS):
            if "PREDICTOR=3" in way and not dtype.startswith("float"):
                continue
            if "PREDICTOR=2" in way and dtype.startswith("float"):
                way = way[:1]
            file = write_tif(tmp_path / f"{dtype}-{number}.tif", tile, *creation(*way))
            answer = post(server, file.read_bytes(), TIFF)
            assert (answer.status_code, answer.content) == (200, expected), (dtype, way, answer.text[:200])
    # By curl, compressed on the way as well, with a picture for an answer.
    done = subprocess.run(["curl", "-s", "-H", "Content-Type: image/tiff", "-H", "Accept: image/png", "-H", "Content-Encoding: gzip",
                           "--data-binary", "@-", server.url + "/predict"], capture_output=True, check=True, timeout=WAIT_S,
                          input=subprocess.run(["gzip", "-c", file], capture_output=True, check=True).stdout)
    assert done.stdout[:8] == b"\x89PNG\r\n\x1a\n"
    server.stop()


def test_real_chips(start_server, demo_model, chips, tmp_path):
    server = start_server(demo_model)
    files = sorted(chips.glob("*.S2L2A.tif"))
    assert len(files) == 4
    for file in files:
        raw = tmp_path / "chip.raw"
        subprocess.run(["gdal_translate", "-q", "-of", "ENVI", "-co", "INTERLEAVE=BSQ", file, raw], check=True)
        tile = numpy.fromfile(raw, numpy.int16).reshape(12, 224, 224)
        answer = post(server, file.read_bytes(), TIFF)
        assert (answer.status_code, answer.content) == (200, labels_by_npy(server, tile))


def test_a_small_file_of_a_large_image(start_server, demo_model, scene, tmp_path):
    """It needs a larger slot than its bytes do, for its pixels and for its labels."""
    server = start_server(demo_model)
    large = numpy.repeat(numpy.repeat(scene[:, :64, :64], 12, axis=1), 12, axis=2)
    file = write_tif(tmp_path / "large.tif", large, *creation("COMPRESS=ZSTD", "TILED=YES"))
    body = file.read_bytes()
    assert len(body) < large.nbytes / 4
    answer = post(server, body, TIFF)
    assert (answer.status_code, answer.content) == (200, labels_by_npy(server, large))


def test_many_at_once(start_server, demo_model, scene, tmp_path):
    """Batches of files and tensors of one shape, and of others."""
    server = start_server(config=unhurried(demo_model))
    tiles = [numpy.roll(scene, n, axis=2)[:, :96 - 16 * (n % 2), :] for n in range(12)]
    expected = [labels_by_npy(server, tile) for tile in tiles]
    files = [write_tif(tmp_path / f"{n}.tif", tile, *creation("COMPRESS=LZW")).read_bytes() for n, tile in enumerate(tiles)]
    answers = [None] * 36

    def ask(n):
        answers[n] = post(server, files[n % 12], TIFF)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(36)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 36
    assert all(answer.content == expected[n % 12] for n, answer in enumerate(answers))


@pytest.mark.parametrize("name, channels", [("zhoudaxia233", 1), ("milesial_no_norm", 2), ("milesial_transposed", 3), ("smp", 4)])
def test_png(start_server, tmp_path, name, channels):
    server = start_server(GOLDENS / f"{name}.safetensors")
    tile = numpy.load(GOLDENS / f"{name}.input.npy")
    assert tile.shape[0] == channels
    for dtype in ("uint16", "uint8"):
        image = tile if dtype == "uint16" else (tile >> 6).astype(dtype)
        write_tif(tmp_path / "image.tif", image)
        file = tmp_path / f"{dtype}.png"
        subprocess.run(["gdal_translate", "-q", "-of", "PNG", tmp_path / "image.tif", file], check=True)
        answer = post(server, file.read_bytes(), PNG)
        assert (answer.status_code, answer.content) == (200, labels_by_npy(server, image)), answer.text[:200]


def test_in_json(start_server, demo_model, scene, tmp_path):
    """As LitServe's ImageInput and ImageOutput; and with the model's own key."""
    server = start_server(demo_model)
    url = server.url + "/predict"
    expected = labels_by_npy(server, scene)
    buffer = io.BytesIO()
    numpy.save(buffer, scene)
    tif = write_tif(tmp_path / "scene.tif", scene, *creation("COMPRESS=DEFLATE")).read_bytes()
    png = post(server, tif, {"Content-Type": "image/tiff", "Accept": "image/png"}).content
    for file in (buffer.getvalue(), tif):
        text = base64.b64encode(file).decode()
        answer = requests.post(url, json={"image_data": text}, timeout=WAIT_S)
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json"), answer.text
        assert base64.b64decode(answer.json()["image"]) == png and list(answer.json()) == ["image"]
        for key in ("image", "image_data"):
            answer = requests.post(url, json={key: text, "x": 1}, headers={"Accept": "application/x-npy"}, timeout=WAIT_S)
            assert (answer.status_code, answer.content) == (200, expected), answer.text
        answer = requests.post(url, json={"image": text}, timeout=WAIT_S)
        assert answer.json() == {"output": numpy.load(io.BytesIO(expected)).tolist()}
    several = io.BytesIO()
    numpy.save(several, numpy.stack([scene, scene]))
    answer = requests.post(url, json={"image_data": base64.b64encode(several.getvalue()).decode()}, timeout=WAIT_S)
    assert numpy.array(answer.json()["output"]).shape == (2, 96, 112)
    assert requests.post(url, json={"image_data": "?"}, timeout=WAIT_S).status_code == 422


# ---- refusals --------------------------------------------------------------------------------------------------------


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height, channels=1, bits=8, data=b""):
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)) +
            chunk(b"IDAT", data) + chunk(b"IEND", b""))


def tiff_of(**tags):
    """A head and a directory, nothing else."""
    numbers = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offset": 273, "samples": 277,
               "rows": 278, "count": 279, "planar": 284, "tile_width": 322, "tile_height": 323}
    entries = sorted((numbers[name], value) for name, value in tags.items())
    directory = struct.pack("<H", len(entries))
    for number, value in entries:
        count, value = value if isinstance(value, tuple) else (1, value)
        directory += struct.pack("<HHII", number, 4, count, value)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 0)


HUGE = 2_000_000_000
LIES = [
    (b"", 400), (b"II*\0", 400), (b"GIF89a" + bytes(100), 415), (b"II*\0" + b"\xff" * 60, 400),
    (tiff_of(width=96, height=96), 422),  # of one bit
    (tiff_of(width=96, height=96, bits=16, samples=1), 422),  # one band for a model of twelve
    (tiff_of(width=96, height=96, bits=(65535, 8), samples=65535), 422),
    (tiff_of(width=HUGE, height=HUGE, bits=(12, 200), samples=12), 400),
    (tiff_of(width=96, height=96, bits=8, samples=12), 400),
    (png_of(96, 96, 3), 422), (png_of(HUGE, HUGE, 4), 422), (png_of(0, 5), 400),
]


def whole_lie(**tags):
    """Twelve bands of 16 bits by their tags; 96 x 96 and without strips if they do not say otherwise."""
    tags = {"width": 96, "height": 96, "samples": 12, "photometric": 1, **tags}
    bits = struct.pack("<12I", *[16] * 12)
    body = tiff_of(bits=(12, 0), **tags)
    return tiff_of(bits=(12, len(body)), **tags) + bits


def test_files_that_lie(start_server, demo_model, scene):
    server = start_server(demo_model)
    expected = labels_by_npy(server, scene)
    lies = LIES + [
        (whole_lie(), 400),  # no strips
        (whole_lie(width=2 ** 30, height=2 ** 30), 413), (whole_lie(offset=10, count=HUGE), 400),
        (whole_lie(offset=HUGE, count=100, rows=96), 400), (whole_lie(offset=(HUGE, 8), count=(HUGE, 8), rows=1), 400),
        (whole_lie(tile_width=2 ** 31, tile_height=2 ** 31, offset=8, count=8), 400),
        (whole_lie(tile_width=4096, tile_height=4096, offset=8, count=8), 400),
        (whole_lie(compression=7, offset=8, count=8), 422),
    ]
    for body, status in lies:
        answer = post(server, body, TIFF)
        assert answer.status_code == status, (body[:80], answer.status_code, answer.text)
        assert answer.json()["detail"]
        assert labels_by_npy(server, scene) == expected
    server.stop()


def test_a_bomb_costs_what_its_pixels_cost(start_server, demo_model, scene):
    """A few bytes of deflate for hundreds of megabytes: refused by its head, since no slot holds that."""
    server = start_server(demo_model, config="[server]\nqueue_memory = 200000000\n")
    side = 5000
    strip = zlib.compress(bytes(side * side * 2))
    tags = {"width": side, "height": side, "rows": side, "compression": 8, "planar": 2}
    size = len(whole_lie(offset=(12, 0), count=(12, 0), **tags))
    body = whole_lie(offset=(12, size), count=(12, size + 48), **tags) + struct.pack("<12I", *[size + 96] * 12) + \
        struct.pack("<12I", *[len(strip)] * 12) + strip
    assert len(body) < 100_000
    answer = post(server, body, TIFF)
    assert (answer.status_code, "Payload too large" in answer.text) == (413, True), answer.text
    # One whose pixels are few and whose strips would be that much more.
    tags["width"] = tags["height"] = tags["rows"] = 96
    body = whole_lie(offset=(12, size), count=(12, size + 48), **tags) + struct.pack("<12I", *[size + 96] * 12) + \
        struct.pack("<12I", *[len(strip)] * 12) + strip
    answer = post(server, body, TIFF)
    assert answer.status_code in (200, 400), answer.text
    assert labels_by_npy(server, scene)
    server.stop()


def test_the_next_worker_reads_images_too(start_server, demo_model, scene, tmp_path):
    server = start_server(demo_model)
    file = write_tif(tmp_path / "scene.tif", scene, *creation("COMPRESS=ZSTD")).read_bytes()
    expected = labels_by_npy(server, scene)
    worker = server.role("worker")[0]
    os.kill(worker, signal.SIGKILL)
    assert post(server, file, TIFF).content == expected
    wait_until(lambda: server.role("worker") not in ([], [worker]), WAIT_S, "another worker")


def test_without_the_library(start_server, demo_model, scene, tmp_path):
    """A build tree without unetserve-images.so serves everything else."""
    build = tmp_path / "build"
    shutil.copytree(BUILD / "models", build / "models")
    for program in BUILD.glob("unetserve*"):
        if program.is_file() and program.name != "unetserve-images.so":
            shutil.copy(program, build)
    server = start_server(demo_model, build=build)
    file = write_tif(tmp_path / "scene.tif", scene)
    answer = post(server, file.read_bytes(), TIFF)
    assert (answer.status_code, "reads no image files" in answer.text) == (415, True)
    assert labels_by_npy(server, scene)
    server.stop()
