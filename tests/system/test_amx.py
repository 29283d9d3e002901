"""Whole servers whose UNet plugin runs on the software model of AMX's tiles."""

import shutil

import numpy
import pytest

from conftest import BUILD, unhurried
from test_models import GOLDENS, assert_labels_follow, predict_mask


@pytest.fixture(name="modelled", scope="module")
def fixture_modelled(tmp_path_factory):
    """The programs beside that plugin: they look for plugins where they lie themselves."""
    directory = tmp_path_factory.mktemp("modelled")
    for program in BUILD.glob("unetserve*"):
        if program.is_file():
            shutil.copy2(program, directory)
    (directory / "models").mkdir()
    shutil.copy2(BUILD / "tests/amx/unet.so", directory / "models/unet.so")
    return directory


@pytest.mark.parametrize("wish, backend", [("", "amx in bf16"), ("backend = onednn", "onednn in "),
                                           ("precision = f32", "onednn in f32")])
def test_the_log_says_who_runs_the_network(start_server, modelled, demo_model, scene, wish, backend):
    server = start_server(config=unhurried(demo_model, wish), build=modelled)
    assert f" on {backend}" in server.log_text()
    logits = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112)
    assert_labels_follow(predict_mask(server, scene), logits, numpy.abs(logits).max() * 0.01)
    assert "packed weights mapped" in server.log_text()
    server.stop()


def test_it_runs_int8(start_server, modelled, demo_model, scene):
    server = start_server(config=unhurried(demo_model, "precision = int8"), build=modelled)
    assert " on amx in int8" in server.log_text()
    exact = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112).argmax(0)
    assert (predict_mask(server, scene) != exact).mean() < 0.01
    server.stop()


def test_what_the_tiles_do_not_take_is_refused(modelled, start_server, demo_model):
    server = start_server(demo_model, ["--backend", "amx", "--precision", "f32"], build=modelled,
                          wait_ready=False)
    assert server.wait() != 0
    assert "backend onednn takes the others" in server.log_text()
