"""Precision int8, from unetctl calibrate to answers over HTTP."""
import io
import json
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import WAIT_S, unhurried

numpy = pytest.importorskip("numpy")
requests = pytest.importorskip("requests")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
GOLDENS = ROOT / "tests" / "goldens"
MODEL = ROOT / "packaging" / "models" / "s2-worldcover"
WEIGHTS = "s2-worldcover-b16.safetensors"
HAS_VNNI = any(flag in pathlib.Path("/proc/cpuinfo").read_text().split() for flag in ("avx512_vnni", "avx_vnni"))
IN_INT8 = ["precision = int8", *([] if HAS_VNNI else ["backend = reference"])]


def unetctl(*arguments, code=0):
    done = subprocess.run([BUILD / "unetctl", *map(str, arguments)], capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The demonstration model without ranges."""
    directory = tmp_path_factory.mktemp("bare")
    for name in ("model.json", WEIGHTS):
        shutil.copy(MODEL / name, directory)
    return directory


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two small invented scenes, cut from larger ones."""
    directory = tmp_path_factory.mktemp("scenes")
    for seed in (1, 2):
        whole = directory / f"whole{seed}.npy"
        subprocess.run([BUILD / "demo" / "make-scene", GOLDENS / "spectra.json", whole, directory / "truth.npy", str(seed)],
                       check=True, timeout=WAIT_S)
        numpy.save(directory / f"scene{seed}.npy", numpy.load(whole)[:, 40:136, 30:158])
    return directory / "scene1.npy", directory / "scene2.npy"


@pytest.fixture(scope="module")
def calibrated(bare, scenes, tmp_path_factory):
    directory = tmp_path_factory.mktemp("calibrated") / "model"
    report = json.loads(unetctl("calibrate", bare, scenes[0], "--check", scenes[1], "-o", directory, "--json").stdout)
    assert json.loads((directory / "quantization-report.json").read_text()) == report
    return directory, report


def predict(server, image):
    file = io.BytesIO()
    numpy.save(file, image)
    answer = requests.post(server.url + "/predict", data=file.getvalue(), timeout=WAIT_S,
                           headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy"})
    assert answer.status_code == 200, answer.text
    return numpy.load(io.BytesIO(answer.content))


def test_few_labels_change(calibrated, scenes):
    directory, report = calibrated
    assert sorted(file.name for file in directory.iterdir()) == ["model.json", "quantization-report.json",
                                                                 "quantization.json", WEIGHTS]
    for part, path in (("calibrated", scenes[0]), ("checked", scenes[1])):
        assert report[part]["tiles"][0]["tile"] == str(path) and report[part]["tiles"][0]["pixels"] == 96 * 128
        assert report[part]["worst"] < 0.01
    facts = json.loads(unetctl("inspect", directory, "--json").stdout)["int8"]
    assert facts == {"ready": True, "convolutions": 23, "in_int8": 21, "in_float": ["inc.double_conv.0", "outc.conv"]}


def test_layers_can_be_kept(bare, scenes, tmp_path):
    unetctl("calibrate", bare, scenes[0], "-o", tmp_path / "kept", "--keep", "up1.conv.double_conv.3", "--method", "percentile",
            "--percentile", "99.9")
    assert "up1.conv.double_conv.3" in unetctl("inspect", tmp_path / "kept").stdout
    assert json.loads((tmp_path / "kept" / "quantization.json").read_text())["method"] == "percentile 99.9"


def test_a_server_answers_in_int8(start_server, calibrated, scenes):
    image = numpy.load(scenes[1])
    server = start_server(calibrated[0], ["--precision", "f32"])
    exact = predict(server, image)
    server.stop()
    server = start_server(config=unhurried(calibrated[0], *IN_INT8))
    coded = predict(server, image)
    assert (coded != exact).mean() < 0.01
    odd = image[:, :37, :51]
    assert predict(server, odd).shape == (37, 51)
    server.stop()


def test_the_demonstration_model_has_ranges(start_server, demo_model, scene):
    facts = json.loads(unetctl("inspect", demo_model, "--json").stdout)["int8"]
    assert facts["ready"] and facts["in_int8"] == 21
    server = start_server(config=unhurried(demo_model, *IN_INT8))
    exact = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112).argmax(0)
    assert (predict(server, scene) != exact).mean() < 0.01
    server.stop()


@pytest.mark.parametrize("precision, words", [("bf16", ["AVX512-BF16", "auto is f32"]), ("int8", ["VNNI", "auto is f32", "backend reference"])])
def test_what_the_processor_lacks_is_told_by_check(run_unetserve, demo_model, precision, words):
    """oneDNN is told that this is a processor with AVX2 and no more; the kernels for AMX are switched off."""
    for arguments in (["--check"], ["--listen", "127.0.0.1:0"]):
        done = run_unetserve("--model", demo_model, "--precision", precision, "--backend", "onednn", *arguments, env={"DNNL_MAX_CPU_ISA": "AVX2"})
        assert done.returncode == 78 and not done.stdout, done.stderr
        assert all(word in done.stderr for word in words), done.stderr
    done = run_unetserve("--model", demo_model, "--backend", "onednn", "--check", env={"DNNL_MAX_CPU_ISA": "AVX2"})
    assert done.returncode == 0, done.stderr


def test_inspect_tells_what_the_processor_has(demo_model):
    here = json.loads(unetctl("inspect", demo_model, "--json").stdout)["precisions_here"]
    assert here[0] == "f32" and ("int8" in here) == HAS_VNNI
    shown = unetctl("inspect", demo_model).stdout
    assert f"{' '.join(here)} on this processor; auto is {'bf16' if 'bf16' in here else 'f32'}" in shown


def test_without_ranges_int8_is_refused(bare, run_unetserve):
    done = run_unetserve("--model", bare, "--precision", "int8", "--listen", "127.0.0.1:0")
    assert done.returncode == 78
    assert "unetctl calibrate" in done.stderr and "quantization.json" in done.stderr
    assert "calibrate" in unetctl("inspect", bare).stdout


def test_ranges_of_other_weights_are_refused(calibrated, run_unetserve, tmp_path):
    for name in ("model.json", WEIGHTS, "quantization.json"):
        shutil.copy(calibrated[0] / name, tmp_path)
    with open(tmp_path / WEIGHTS, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(numpy.float32(0.125).tobytes())
    done = run_unetserve("--model", tmp_path, "--precision", "int8", "--listen", "127.0.0.1:0")
    assert done.returncode == 65 and "other weights" in done.stderr
    assert json.loads(unetctl("inspect", tmp_path, "--json").stdout)["int8"]["ready"] is False


@pytest.mark.parametrize("text, words", [("{", "line"), ("{}", "format"), ('{"format": 1}', "weights")])
def test_broken_ranges_are_refused(calibrated, run_unetserve, tmp_path, text, words):
    for name in ("model.json", WEIGHTS):
        shutil.copy(calibrated[0] / name, tmp_path)
    (tmp_path / "quantization.json").write_text(text)
    done = run_unetserve("--model", tmp_path, "--precision", "int8", "--listen", "127.0.0.1:0")
    assert done.returncode == 65 and words in done.stderr, done.stderr


@pytest.mark.parametrize("arguments, code, words", [
    ((), 64, "takes"),
    (("MODEL", "TILE"), 64, "-o"),
    (("MODEL", "TILE", "-o", "OUT", "--method", "max"), 64, "--method"),
    (("MODEL", "TILE", "-o", "OUT", "--percentile", "101"), 64, "--percentile"),
    (("MODEL", "TILE", "-o", "OUT", "--threads", "0"), 64, "--threads"),
    (("nowhere.pth", "TILE", "-o", "OUT"), 66, "nowhere.pth"),
    (("MODEL", "nowhere.npy", "-o", "OUT"), 66, "nowhere.npy"),
    (("MODEL", "THREE", "-o", "OUT"), 65, "channels"),
    (("MODEL", "SMALL", "-o", "OUT"), 65, "smaller"),
])
def test_wrong_arguments(bare, scenes, tmp_path, arguments, code, words):
    numpy.save(tmp_path / "three.npy", numpy.zeros((3, 64, 64), numpy.uint8))
    numpy.save(tmp_path / "small.npy", numpy.zeros((12, 8, 64), numpy.uint8))
    places = {"MODEL": bare, "TILE": scenes[0], "OUT": tmp_path / "out", "THREE": tmp_path / "three.npy",
              "SMALL": tmp_path / "small.npy"}
    done = unetctl("calibrate", *(places.get(word, word) for word in arguments), code=code)
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert not (tmp_path / "out").exists()
