"""unetctl plan: how a GPU would run a model, asked of the real cuDNN on a machine without one. Nothing is run here."""
import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", ROOT / "build"))
DEVICES = ROOT / "tests" / "gpu" / "devices"
GOLDENS = ROOT / "tests" / "goldens"
MODEL = ROOT / "packaging" / "models" / "s2-worldcover"


def unetctl_plan(*arguments, code=0):
    # Leaks of cuDNN's are not ours to find.
    done = subprocess.run([BUILD / "unetctl", "plan", *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "ASAN_OPTIONS": "detect_leaks=0"})
    if done.returncode == 69 and ("built without" in done.stderr or " is missing" in done.stderr):
        pytest.skip(done.stderr.strip())
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def plan(model, device, *options):
    return json.loads(unetctl_plan(model, "--device-props", DEVICES / f"{device}.json", "--json", *options).stdout)


@pytest.mark.parametrize("device, kind", [("a100", "bf16"), ("b200", "bf16"), ("h100", "bf16"), ("rtx4090", "bf16"),
                                          ("t4", "f16")])
def test_every_convolution_runs_on_tensor_cores(device, kind):
    facts = plan(MODEL, device)
    assert facts["type"] == kind and len(facts["layers"]) == 23
    for layer in facts["layers"]:
        assert layer["tensor_core"] and layer["type"] == kind, layer
        assert int(layer["engine"]) >= 0 and layer["workspace_bytes"] >= 0 and layer["flop"] > 0 and layer["bytes"] > 0
    # The same arithmetic as the model's own description tells.
    flop = json.loads(subprocess.run([BUILD / "unetctl", "inspect", MODEL, "--json"], capture_output=True,
                                     check=True).stdout)["gflop"]
    assert sum(layer["flop"] for layer in facts["layers"]) == pytest.approx(flop * 1e9)


@pytest.mark.parametrize("golden", ["aladdinpersson", "fepegar", "mateuszbuda", "milesial_bilinear", "smp",
                                    "zhoudaxia233"])
def test_families_of_any_width_are_padded_to_tensor_cores(golden):
    facts = plan(GOLDENS / f"{golden}.safetensors", "h100", "--size", "96x160", "--batch", "3")
    assert facts["layers"] and all(layer["tensor_core"] for layer in facts["layers"])


def test_batch_size_and_precision_count():
    one = plan(MODEL, "h100", "--size", "64x96")
    four = plan(MODEL, "h100", "--size", "64x96", "--batch", "4")
    assert [layer["flop"] * 4 for layer in one["layers"]] == [layer["flop"] for layer in four["layers"]]
    assert four["arena_bytes"] > 3 * one["arena_bytes"]
    assert plan(MODEL, "h100", "--size", "64x96", "--precision", "f16")["type"] == "f16"
    text = unetctl_plan(MODEL, "--device-props", DEVICES / "h100.json", "--size", "64x96").stdout
    assert "tensor_core" in text and "activations" in text


def test_what_cannot_be_planned_is_said(tmp_path):
    props = DEVICES / "t4.json"
    (tmp_path / "half.json").write_text(json.dumps({**json.loads(props.read_text()), "deviceVer": 10 ** 6}))
    (tmp_path / "none.json").write_text("{}")
    (tmp_path / "huge.json").write_text(" " * 100_000)
    no_registers = json.loads(props.read_text())
    del no_registers["regsPerBlock"]
    (tmp_path / "key.json").write_text(json.dumps(no_registers))
    for code, *arguments in [(64, MODEL), (64, MODEL, "--device-props", props, "--batch", "0"),
                             (64, MODEL, "--device-props", props, "--size", "12"),
                             (64, MODEL, "--device-props", props, "--size", "7x9"),
                             (64, MODEL, "--device-props", props, "--precision", "bf16"),
                             (64, MODEL, "--device-props", props, "--precision", "int8"),
                             (64, MODEL, MODEL, "--device-props", props), (66, MODEL, "--device-props", tmp_path / "no"),
                             (66, tmp_path / "no.pth", "--device-props", props),
                             *[(65, MODEL, "--device-props", tmp_path / f"{name}.json")
                               for name in ("half", "none", "huge", "key")]]:
        done = unetctl_plan(*arguments, code=code)
        assert done.stdout == "" and done.stderr.startswith("unetctl: ") and done.stderr.count("\n") == 1
