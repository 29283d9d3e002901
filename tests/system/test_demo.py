"""make demo's script: the invented scene is segmented, a picture is drawn, nothing is left running."""
import os
import pathlib
import re
import shutil
import struct
import subprocess

import numpy
import pytest

from conftest import WAIT_S

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
CHIPS = ROOT.parent / "shared" / "data" / "sentinel2"


def build_copy(tmp_path):
    """The demo writes below its build directory: give it one of links, so that runs do not meet."""
    copy = tmp_path / "build"
    copy.mkdir()
    for entry in BUILD.iterdir():
        if entry.name == "demo":
            continue
        if entry.is_dir():
            if entry.name == "models":
                shutil.copytree(entry, copy / "models")
        else:
            shutil.copy2(entry, copy / entry.name)
    (copy / "demo").mkdir()
    for name in ("make-scene", "make-picture"):
        shutil.copy2(BUILD / "demo" / name, copy / "demo" / name)
    return copy


def run_demo(build, **environment):
    return subprocess.run(["packaging/demo/demo.sh"], cwd=ROOT, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "BUILD": str(build), "TILE": "", **environment})


def processes_of(build):
    found = []
    for link in pathlib.Path("/proc").glob("[0-9]*/exe"):
        try:
            if str(build) in os.readlink(link):
                found.append(link)
        except OSError:
            pass
    return found


def assert_picture(path):
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 1000 and height > 500 and len(data) > 20000


def test_demo_segments_the_invented_scene(tmp_path):
    build = build_copy(tmp_path)
    done = run_demo(build)
    assert done.returncode == 0, done.stdout + done.stderr
    agreement = float(re.search(r"truth: (\d+\.\d) % of the pixels", done.stdout).group(1)) * 10
    assert agreement > 900
    assert "forward" in done.stdout and "cropland" in done.stdout.lower()
    truth = numpy.load(build / "demo" / "truth.npy")
    labels = numpy.load(build / "demo" / "labels.npy")
    assert int((truth == labels).mean() * 1000) == agreement
    assert_picture(build / "demo" / "mask.png")
    assert not processes_of(build)


@pytest.mark.skipif(not CHIPS.is_dir(), reason="the real chips lie beside the checkout, and do not here")
def test_demo_takes_a_tile(tmp_path):
    build = build_copy(tmp_path)
    done = run_demo(build, TILE=str(CHIPS / "433D_629L_3_1.S2L2A.tif"), OFFSET="-1000")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "224" in done.stdout
    assert_picture(build / "demo" / "mask.png")
    assert not processes_of(build)


def test_demo_fails_honestly(tmp_path):
    build = build_copy(tmp_path)
    done = run_demo(build, TILE=str(tmp_path / "missing.tif"))
    assert done.returncode != 0 and "missing.tif" in done.stderr
    assert not processes_of(build)
    (build / "unetserve-worker").unlink()
    done = run_demo(build)
    assert done.returncode != 0 and done.stderr
    assert not processes_of(build)


def test_scene_is_the_same_every_time(tmp_path):
    for name in "ab":
        subprocess.run([BUILD / "demo" / "make-scene", ROOT / "tests" / "goldens" / "spectra.json",
                        tmp_path / f"{name}.npy", tmp_path / f"{name}-truth.npy", "3"], check=True, timeout=WAIT_S)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    scene, truth = numpy.load(tmp_path / "a.npy"), numpy.load(tmp_path / "a-truth.npy")
    assert scene.shape == (12, 256, 256) and scene.dtype == numpy.uint16 and scene.max() <= 10000
    assert len(numpy.unique(truth)) >= 5
    other = subprocess.run([BUILD / "demo" / "make-scene", tmp_path / "a.npy", tmp_path / "c.npy"],
                           capture_output=True, timeout=WAIT_S)
    assert other.returncode == 65
