"""unetctl: tiles in and masks out over both transports, GeoTIFFs with their georeference, what models and files are."""
import json
import os
import pathlib
import shutil
import signal
import subprocess

import numpy
import pytest
import requests

from conftest import WAIT_S
from metrics_text import Metrics
from protocol_client import endpoint_of
from rasters import write_tif

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
GOLDENS = ROOT / "tests" / "goldens"
MODEL = ROOT / "packaging" / "models" / "s2-worldcover"
CHIPS = ROOT.parent / "shared" / "data" / "sentinel2"
SCENE = GOLDENS / "scene_96x112.input.npy"
PATIENT = ["--timeout", 600000]
LABELS = numpy.load(GOLDENS / "scene_96x112.logits.npy").argmax(0).astype(numpy.uint8)


def unetctl(*arguments, code=0, **environment):
    done = subprocess.run([BUILD / "unetctl", *map(str, arguments)], capture_output=True, text=True, timeout=WAIT_S,
                          env={**os.environ, **environment})
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code:
        assert done.stderr.startswith("unetctl: ")
    return done


def read_band(path):
    """One uint8 band of any raster, as an array."""
    raw = path.with_suffix(".bin")
    subprocess.run(["gdal_translate", "-q", "-of", "ENVI", path, raw], check=True)
    info = tif_info(path)
    return numpy.fromfile(raw, numpy.uint8).reshape(info["size"][1], info["size"][0])


def tif_info(path):
    return json.loads(subprocess.run(["gdalinfo", "-json", path], capture_output=True, check=True).stdout)


@pytest.fixture
def server(start_server):
    return start_server(model=MODEL)


@pytest.fixture(params=["zeromq", "http"])
def where(request, server):
    return ["--url", server.url] if request.param == "http" else ["--endpoint", endpoint_of(server)]


def test_npy_to_every_format(where, tmp_path):
    facts = json.loads(unetctl("predict", SCENE, "-o", tmp_path / "m.npy", "--json", *where).stdout)
    mask = numpy.load(tmp_path / "m.npy")
    assert mask.dtype == numpy.uint8 and (mask == LABELS).mean() > 0.99
    assert facts["shape"] == [12, 96, 112] and facts["requests"] == 1 and facts["request_id"]
    assert facts["times_ms"]["forward"] > 0
    for entry in facts["classes"]:
        assert entry["pixels"] == int((mask == entry["label"]).sum())
    assert sum(entry["pixels"] for entry in facts["classes"]) == 96 * 112
    assert {entry["code"] for entry in facts["classes"]} <= {10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100}
    unetctl("predict", SCENE, "-o", tmp_path / "m.png", *where)
    assert (read_band(tmp_path / "m.png") == mask).all()
    unetctl("predict", SCENE, "-o", tmp_path / "m.tif", *where)
    assert (read_band(tmp_path / "m.tif") == mask).all()


def test_geotiff_keeps_its_place(where, tmp_path):
    tile = write_tif(tmp_path / "tile.tif", numpy.load(SCENE), "-co", "INTERLEAVE=PIXEL")
    out = unetctl("predict", tile, "-o", tmp_path / "mask.tif", *where).stdout
    assert "EPSG:32631" in out and "%" in out
    before, after = tif_info(tile), tif_info(tmp_path / "mask.tif")
    assert after["geoTransform"] == before["geoTransform"]
    assert after["coordinateSystem"]["wkt"] == before["coordinateSystem"]["wkt"]
    band = after["bands"][0]
    assert band["type"] == "Byte" and len(after["bands"]) == 1
    assert band["colorTable"]["entries"][0][:3] == [0, 100, 0]
    names = subprocess.run(["gdalinfo", tmp_path / "mask.tif"], capture_output=True, text=True, check=True).stdout
    assert "0: tree cover" in names.lower() and "10: moss and lichen" in names.lower()
    assert "DEFLATE" in json.dumps(after["metadata"]).upper()
    assert (read_band(tmp_path / "mask.tif") == LABELS).mean() > 0.99


def test_codes_instead_of_labels(where, tmp_path):
    unetctl("predict", SCENE, "-o", tmp_path / "labels.npy", *where)
    unetctl("predict", SCENE, "-o", tmp_path / "codes.npy", "--codes", *where)
    codes = numpy.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], numpy.uint8)
    assert (numpy.load(tmp_path / "codes.npy") == codes[numpy.load(tmp_path / "labels.npy")]).all()


def test_missing_pixels_stay_missing(server, tmp_path):
    scene = numpy.load(SCENE).copy()
    scene[:, 10:20, 30:50] = 65535
    tile = write_tif(tmp_path / "tile.tif", scene, "-a_nodata", "65535")
    unetctl("predict", tile, "-o", tmp_path / "mask.tif", "--url", server.url, "--sent", tmp_path / "sent.npy")
    mask = read_band(tmp_path / "mask.tif")
    assert tif_info(tmp_path / "mask.tif")["bands"][0]["noDataValue"] == 255
    hidden = numpy.zeros(mask.shape, bool)
    hidden[10:20, 30:50] = True
    assert (mask[hidden] == 255).all() and (mask[~hidden] < 11).all()
    assert (numpy.load(tmp_path / "sent.npy")[:, hidden] == 0).all()


def test_nan_of_a_float_raster_is_missing(server, tmp_path):
    scene = numpy.load(SCENE).astype(numpy.float32)
    scene[3, 5, 6] = numpy.nan
    tile = write_tif(tmp_path / "tile.tif", scene)
    unetctl("predict", tile, "-o", tmp_path / "mask.tif", "--url", server.url)
    mask = read_band(tmp_path / "mask.tif")
    assert mask[5, 6] == 255 and (mask == 255).sum() == 1


def test_windows_are_stitched(where, tmp_path):
    scene = numpy.tile(numpy.load(SCENE), (1, 3, 3))[:, :250, :300]
    numpy.save(tmp_path / "large.npy", scene)
    unetctl("predict", tmp_path / "large.npy", "-o", tmp_path / "whole.npy", "--window", "0", *where)
    facts = json.loads(unetctl("predict", tmp_path / "large.npy", "-o", tmp_path / "cut.npy", "--window", "160",
                               "--json", *where).stdout)
    whole, cut = numpy.load(tmp_path / "whole.npy"), numpy.load(tmp_path / "cut.npy")
    assert facts["requests"] == 6 and facts["window"] == 160
    assert cut.shape == (250, 300) and (whole == cut).mean() > 0.97


def test_window_is_halved_where_the_server_has_no_room(start_server, tmp_path):
    server = start_server(model=MODEL, config="[server]\nmax_body_bytes = 600K\n")
    scene = numpy.tile(numpy.load(SCENE), (1, 3, 3))[:, :250, :300]
    numpy.save(tmp_path / "large.npy", scene)
    facts = json.loads(unetctl("predict", tmp_path / "large.npy", "-o", tmp_path / "m.npy", "--json", "--url",
                               server.url).stdout)
    assert facts["window"] == 128 and numpy.load(tmp_path / "m.npy").shape == (250, 300)
    done = unetctl("predict", tmp_path / "large.npy", "-o", tmp_path / "n.npy", "--window", "0", "--url", server.url,
                   code=65)
    assert "413" in done.stderr and not (tmp_path / "n.npy").exists()
    # ZeroMQ has no such answer: a message beyond the limit breaks the connection, and the client does not wait on.
    done = unetctl("predict", tmp_path / "large.npy", "-o", tmp_path / "n.npy", "--window", "0", "--timeout", "600000",
                   "--endpoint", endpoint_of(server), code=74)
    assert "larger" in done.stderr and not (tmp_path / "n.npy").exists()


def test_several_instances_are_told_apart(start_server, tmp_path):
    first = start_server(model=BUILD / "models" / "simple.so")
    second = start_server(model=BUILD / "models" / "simple.so", env={"XDG_RUNTIME_DIR": str(first.directory)})
    done = unetctl("status", code=64, XDG_RUNTIME_DIR=str(first.directory), UNETSERVE_ENDPOINT="")
    assert done.stderr.count("client.ipc") == 2
    second.send(signal.SIGTERM)
    assert second.wait() == 0
    unetctl("status", XDG_RUNTIME_DIR=str(first.directory), UNETSERVE_ENDPOINT="")


def test_of_several_models_one_is_named(start_server, tmp_path):
    server = start_server(config=f"[model land-cover]\npath = {MODEL}\n[model typed]\npath = {BUILD / 'models' / 'typed.so'}\n")
    where = ["-o", tmp_path / "m.npy", "--endpoint", endpoint_of(server), *PATIENT]
    for arguments in ([], ["--model", "land"]):
        assert "land-cover, typed" in unetctl("predict", SCENE, *arguments, *where, code=65).stderr
    unetctl("predict", SCENE, "--model", "land-cover", *where)
    assert (numpy.load(tmp_path / "m.npy") == LABELS).mean() > 0.99


def test_offset_saturates(server, tmp_path):
    values = numpy.full((12, 32, 32), 500, numpy.int16)
    values[0] = -32768
    values[1] = 1500
    numpy.save(tmp_path / "t.npy", values)
    unetctl("predict", tmp_path / "t.npy", "-o", tmp_path / "m.png", "--offset", "-1000", "--url", server.url, "--sent",
            tmp_path / "sent.npy")
    sent = numpy.load(tmp_path / "sent.npy")
    assert sent.dtype == numpy.int16
    assert (sent[0] == -32768).all() and (sent[1] == 500).all() and (sent[2:] == -500).all()


@pytest.mark.skipif(not CHIPS.is_dir(), reason="the real chips lie beside the checkout, and do not here")
@pytest.mark.parametrize("chip,offset", [("282D_485L_3_3", 0), ("38D_378R_2_3", 0), ("433D_629L_3_1", -1000),
                                         ("609U_541L_3_0", 0)])
def test_real_chips(server, tmp_path, chip, offset):
    unetctl("predict", CHIPS / f"{chip}.S2L2A.tif", "-o", tmp_path / "mask.tif", "--offset", offset, "--codes", "--url",
            server.url)
    esri = {1: 80, 2: 10, 3: 90, 4: 40, 5: 50, 6: 60, 7: 70, 9: 30}
    truth = numpy.zeros(256, numpy.uint8)
    for code, cover in esri.items():
        truth[code] = cover
    shutil.copy(CHIPS / f"{chip}.LULC.tif", tmp_path / "truth.tif")
    truth = truth[read_band(tmp_path / "truth.tif")]
    mask = read_band(tmp_path / "mask.tif")
    known = truth > 0
    # The model is small and saw parts of these chips only.
    assert (mask[known] == truth[known]).mean() > 0.7
    torch = CHIPS.parents[1] / "models" / "golden" / f"{chip}.logits.npy"
    if torch.is_file():
        codes = numpy.array([10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100], numpy.uint8)
        assert (mask == codes[numpy.load(torch).argmax(0)]).mean() > 0.98


def test_status(server):
    document = json.loads(unetctl("status", "--json", "--endpoint", endpoint_of(server)).stdout)
    assert document["models"] and document["slots"]
    table = unetctl("status", "--endpoint", endpoint_of(server), "--watch", "--count", 2, "--interval", 50).stdout
    assert table.count("slots:") == 2 and "JOBS/S" in table
    assert "health: ok" in unetctl("status", "--url", server.url).stdout


def test_environment_names_the_endpoint(server, tmp_path):
    unetctl("predict", SCENE, "-o", tmp_path / "m.npy", UNETSERVE_ENDPOINT=endpoint_of(server))
    assert (numpy.load(tmp_path / "m.npy") == LABELS).mean() > 0.99


def test_nothing_runs_here(tmp_path):
    done = unetctl("status", code=69, XDG_RUNTIME_DIR=str(tmp_path), UNETSERVE_ENDPOINT="")
    assert "--endpoint" in done.stderr
    unetctl("predict", SCENE, "-o", tmp_path / "m.npy", "--url", "http://127.0.0.1:9", code=69)
    unetctl("status", "--endpoint", f"ipc://{tmp_path}/nobody", "--timeout", 50, code=75)


def test_server_refuses(server, tmp_path):
    numpy.save(tmp_path / "rgb.npy", numpy.zeros((3, 32, 32), numpy.uint8))
    for where in (["--url", server.url], ["--endpoint", endpoint_of(server)]):
        done = unetctl("predict", tmp_path / "rgb.npy", "-o", tmp_path / "m.npy", *where, code=65)
        assert "12" in done.stderr and not (tmp_path / "m.npy").exists()


def test_wrong_use_is_said(tmp_path):
    for arguments in (["predict"], ["predict", SCENE], ["predict", SCENE, "-o", "m.jpg"], ["nonsense"],
                      ["predict", SCENE, "-o", "m.png", "--offset", "x"], ["status", "extra"], ["inspect"],
                      ["predict", SCENE, "-o", "m.png", "--url", "http://x", "--endpoint", "ipc://y"],
                      ["predict", SCENE, "-o", "m.png", "--url", "ftp://x"], ["check", "--nonsense", "x"]):
        assert len(unetctl(*arguments, code=64).stderr.splitlines()) == 1
    unetctl("predict", tmp_path / "missing.npy", "-o", "m.png", code=66)
    for command in ("predict", "status", "inspect", "plan", "check"):
        assert "usage: unetctl " + command in unetctl(command, "--help").stdout


def test_inspect_tells_what_a_model_is(tmp_path):
    facts = json.loads(unetctl("inspect", MODEL, "--json").stdout)
    assert facts["family"] == "milesial" and facts["parameters"] == 1944043
    assert (facts["depth"], facts["base_width"], facts["in_channels"], facts["class_count"]) == (4, 16, 12, 11)
    assert [entry["code"] for entry in facts["classes"]] == [10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100]
    assert 5 < facts["gflop"] < 8
    assert "milesial" in unetctl("inspect", GOLDENS / "milesial_bilinear.safetensors").stdout
    unetctl("inspect", tmp_path / "none.pth", code=66)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    unetctl("inspect", tmp_path / "bad.safetensors", code=65)
    header = b'{"stem.weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    (tmp_path / "alien.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    assert "stem.weight" in unetctl("inspect", tmp_path / "alien.safetensors", code=65).stderr
    lines = unetctl("inspect", BUILD / "models" / "batched.so").stdout.splitlines()
    assert "  takes       a document of input: list of float" in lines


def test_check_looks_at_files(tmp_path):
    facts = json.loads(unetctl("check", SCENE, "--json").stdout)
    scene = numpy.load(SCENE)
    assert facts["least"] == scene.min() and facts["largest"] == scene.max() and facts["dtype"] == "uint16"
    broken = scene.astype(numpy.float32)
    broken[0, 0, 0] = numpy.nan
    numpy.save(tmp_path / "nan.npy", broken)
    assert "1 value" in unetctl("check", tmp_path / "nan.npy", code=65).stderr
    (tmp_path / "cut.npy").write_bytes(SCENE.read_bytes()[:5000])
    unetctl("check", tmp_path / "cut.npy", code=65)
    (tmp_path / "noise.tif").write_bytes(b"noise")
    assert "not recognized" in unetctl("check", tmp_path / "noise.tif", code=65).stderr
    (tmp_path / "noise.tif").write_bytes(os.urandom(500))
    unetctl("check", tmp_path / "noise.tif", code=65)
    big = SCENE.read_bytes().replace(b"(12, 96, 112)", b"(12, 9600, 11)")
    (tmp_path / "lie.npy").write_bytes(big)
    unetctl("check", tmp_path / "lie.npy", code=65)
    (tmp_path / "good.conf").write_text(f"[server]\nlisten = 127.0.0.1:8000\n[model a]\npath = {MODEL}\n")
    assert "1 model" in unetctl("check", tmp_path / "good.conf").stdout
    (tmp_path / "bad.conf").write_text("[server]\nlisten = 127.0.0.1:8000\nlissten = 1\n")
    assert "bad.conf:3" in unetctl("check", tmp_path / "bad.conf", code=78).stderr
    assert "milesial" in unetctl("check", MODEL).stdout


def test_bench_counts_what_the_server_counts(server, tmp_path):
    report = json.loads(unetctl("bench", SCENE, "--url", server.url, "--seconds", 0.5, *PATIENT, "--json").stdout)
    assert report["mode"] == "closed" and report["clients"] == 1
    assert report["sent"] == report["right"] == report["statuses"]["200"] == report["latency_ms"]["count"] > 0
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p99"] <= report["latency_ms"]["max"]
    text = unetctl("bench", SCENE, "--url", server.url + "/predict", "--rate", 20, "--seconds", 0.2, *PATIENT).stdout
    assert f"{SCENE} to {server.url}/predict: " in text and "4 of 4 requests answered rightly" in text
    metrics = Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)
    # The first question of each run is asked beside the load.
    assert metrics.value("requests_total", model="s2-worldcover", code="200") == report["right"] + 1 + 4 + 1


def test_bench_sends_documents_and_the_key(start_server, simple_model, tmp_path):
    server = start_server(model=simple_model, env={"UNETSERVE_API_KEY": "bench-key"})
    document = tmp_path / "four.json"
    document.write_text('{"input": 4}')
    unetctl("bench", document, "--url", server.url, code=77, UNETSERVE_API_KEY="")
    report = json.loads(unetctl("bench", document, "--url", server.url, "--clients", 2, "--seconds", 0.2, *PATIENT, "--json",
                                UNETSERVE_API_KEY="bench-key").stdout)
    assert report["sent"] == report["right"] > 0


def test_bench_says_why_it_did_not_run(server, tmp_path):
    bad = tmp_path / "bad.npy"
    numpy.save(bad, numpy.zeros((3, 32, 32), numpy.uint8))
    assert "refused the tile (4" in unetctl("bench", bad, "--url", server.url, code=65).stderr
    assert "loopback" in unetctl("bench", SCENE, "--url", "http://192.0.2.1:8000", code=64).stderr
    for wrong in (["--clients", 0], ["--rate", "x"], ["--seconds", 601], ["--timeout", 0], [SCENE], ["--nothing"]):
        assert "bench" in unetctl("bench", SCENE, *wrong, code=64).stderr or wrong[0] in ("--clients", "--rate", "--seconds", "--timeout")
    unetctl("bench", tmp_path / "none.npy", code=66)
    unetctl("bench", tmp_path / "none.json", code=66)
