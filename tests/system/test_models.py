"""Models in a whole server: the tutorial's formula and real UNets, batched, refused, and through deaths of those who serve."""

import concurrent.futures
import io
import json
import os
import pathlib
import signal
import subprocess
import time

import numpy
import pytest
import requests

from conftest import BUILD, CHECKOUT, WAIT_S, unhurried, wait_until

GOLDENS = CHECKOUT / "tests" / "goldens"
HAS_WINOGRAD = {"avx2", "fma"} <= set(pathlib.Path("/proc/cpuinfo").read_text().split())


def predict_json(server, document, **options):
    return requests.post(server.url + "/predict", json=document, timeout=WAIT_S, **options)


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


def predict_mask(server, image):
    """The labels of a tile or of a batch of tiles, as an array."""
    answer = requests.post(server.url + "/predict", data=npy(image), timeout=WAIT_S,
                           headers={"Content-Type": "application/x-npy",
                                    "Accept": "application/x-npy"})
    assert answer.status_code == 200, answer.text
    return numpy.load(io.BytesIO(answer.content))


def assert_labels_follow(labels, logits, least_margin):
    """Every label is the largest logit's, but where the two largest are too close for the precision."""
    assert labels.dtype == numpy.uint8 and labels.shape == logits.shape[1:]
    expected = logits.argmax(axis=0)
    two = numpy.sort(logits, axis=0)[-2:]
    clear = two[1] - two[0] > least_margin
    assert clear.mean() > 0.9
    assert (labels == expected)[clear].all()


def in_parallel(count, work):
    """work(0), work(1), ... at the same time. Returns what they returned, in that order."""
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


# ---- the formula ---------------------------------------------------------------------------------


def test_simple_answers_as_the_tutorial_does(start_server, simple_model):
    server = start_server(simple_model)
    for number in (4.0, 4, 0, -1, 0.1, 1e-7, 123456.789, 1e100):
        answer = predict_json(server, {"input": number})
        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("application/json")
        expected = json.dumps({"output": float(number) ** 2 + float(number) ** 3},
                              separators=(",", ":"))
        assert answer.text == expected
    server.stop()


@pytest.mark.parametrize("body, kind, location", [
    (b"{}", "missing", ["body", "input"]),
    (b'{"inputs": 4.0}', "missing", ["body", "input"]),
    (b'{"input": "4.0"}', "float_type", ["body", "input"]),
    (b'{"input": null}', "float_type", ["body", "input"]),
    (b'{"input": 1e300}', "finite_number", ["body", "input"]),
    (b"[4.0]", "model_attributes_type", ["body"]),
    (b'{"input": 4.0', "json_invalid", None),
    (b"\xff\xfe", "json_invalid", None),
])
def test_simple_refuses_in_pydantics_words(simple_server, body, kind, location):
    answer = requests.post(simple_server.url + "/predict", data=body, timeout=WAIT_S,
                           headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    detail = answer.json()["detail"][0]
    assert detail["type"] == kind
    assert location is None or detail["loc"] == location
    assert predict_json(simple_server, {"input": 4.0}).text == '{"output":80.0}'


@pytest.fixture
def simple_server(start_server, simple_model):
    return start_server(simple_model)


def test_refusals_and_answers_at_the_same_time_do_not_mix(simple_server):
    def ask(i):
        answer = predict_json(simple_server, {"input": i} if i % 3 else {"x": i})
        return answer.status_code, answer.json()

    for i, (status, body) in enumerate(in_parallel(48, ask)):
        assert status == (200 if i % 3 else 422)
        if i % 3:
            assert body == {"output": float(i ** 2 + i ** 3)}


# ---- UNets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "onednn"])
def test_demo_model_in_f32_agrees_with_torch(start_server, demo_model, scene, backend):
    server = start_server(config=unhurried(demo_model, f"backend = {backend}", "precision = f32"))
    logits = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112)
    assert_labels_follow(predict_mask(server, scene), logits, 1e-3)
    server.stop()


@pytest.mark.parametrize("precision, convolution, winograd", [("f32", "winograd", True), ("f32", "direct", False), ("f32", "auto", False),
                                                              ("auto", "auto", True), ("auto", "direct", False)])
def test_winograds_convolutions_agree_with_torch(start_server, demo_model, scene, precision, convolution, winograd):
    server = start_server(config=f"[model m]\npath = {demo_model}\nroute = /predict\nbackend = onednn\nprecision = {precision}\n"
                                 f"convolution = {convolution}\n")
    text = server.log_text()
    in_f32 = " on onednn in f32" in text
    assert ("convolutions are Winograd's" in text) == (winograd and in_f32 and HAS_WINOGRAD)
    logits = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112)
    assert_labels_follow(predict_mask(server, scene), logits, 1e-3 if in_f32 else numpy.abs(logits).max() * 0.01)
    server.stop()


def test_sighup_takes_another_way_to_convolve(start_server, demo_model, scene):
    config = f"[model m]\npath = {demo_model}\nroute = /predict\nbackend = onednn\nprecision = f32\n"
    server = start_server(config=config)
    assert "convolutions are Winograd's" not in server.log_text()
    before = server.role("worker")
    (server.directory / "unetserve.conf").write_text(config + "convolution = winograd\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the reload")
    assert not set(before) & set(server.role("worker"))
    assert ("convolutions are Winograd's" in server.log_text()) == HAS_WINOGRAD
    logits = numpy.load(GOLDENS / "scene_96x112.logits.npy").reshape(-1, 96, 112)
    assert_labels_follow(predict_mask(server, scene), logits, 1e-3)
    server.stop()


@pytest.mark.parametrize("name", ["mateuszbuda.safetensors", "milesial_checkpoint.pth",
                                  "zhoudaxia233.safetensors", "fepegar.safetensors",
                                  "smp.safetensors"])
def test_golden_networks_agree_with_torch(start_server, name):
    server = start_server(GOLDENS / name, ["--precision", "f32"])
    stem = name.partition(".")[0]
    image = numpy.load(GOLDENS / f"{stem}.input.npy").astype(numpy.float32)
    logits = numpy.load(GOLDENS / f"{stem}.logits.npy")
    image = image.reshape(image.shape[-3:])
    logits = logits.reshape(logits.shape[-3:])
    labels = predict_mask(server, image)
    if logits.shape[0] == 1:
        clear = numpy.abs(logits[0]) > 1e-3
        assert (labels == (logits[0] > 0))[clear].all()
    else:
        assert_labels_follow(labels, logits, 1e-3)
    server.stop()


def read_safetensors(path):
    raw = path.read_bytes()
    data = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:data])
    header.pop("__metadata__", None)
    types = {"F32": numpy.float32, "I64": numpy.int64}
    return {name: numpy.frombuffer(raw[data:][slice(*entry["data_offsets"])],
                                   types[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()}


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, array in tensors.items():
        header[name] = {"dtype": {"float32": "F32", "int64": "I64"}[array.dtype.name],
                        "shape": array.shape,
                        "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_concat_order_from_model_json(start_server, tmp_path):
    """The plain golden, made over for decoders that see the skip first: told so, it answers as before."""
    tensors = read_safetensors(GOLDENS / "plain.safetensors")
    for name in [name for name in tensors if name.startswith("dec") and name.endswith(".0.weight")]:
        half = tensors[name].shape[1] // 2
        tensors[name] = numpy.roll(tensors[name], half, axis=1)
    write_safetensors(tmp_path / "turned.safetensors", tensors)
    (tmp_path / "model.json").write_text('{"concat": "skip_up"}')
    server = start_server(tmp_path, ["--precision", "f32"])
    image = numpy.load(GOLDENS / "plain.input.npy")
    assert_labels_follow(predict_mask(server, image), numpy.load(GOLDENS / "plain.logits.npy"), 1e-3)
    (tmp_path / "model.json").unlink()
    server.stop()
    server = start_server(tmp_path, ["--precision", "f32"])
    assert (predict_mask(server, image) != numpy.load(GOLDENS / "plain.logits.npy").argmax(0)).any()
    server.stop()


@pytest.mark.parametrize("name, lines", [
    ("plain.safetensors", ["missing enc1.0.bias [", "shape head.weight ["]),
    ("mateuszbuda.safetensors", ["unexpected stray.weight [7]"]),
])
def test_unfit_names_are_listed(tmp_path, name, lines):
    """unetserve, its --check and unetctl say the file, the count and each name."""
    tensors = read_safetensors(GOLDENS / name)
    if name == "plain.safetensors":
        del tensors["enc1.0.bias"]
        tensors["head.weight"] = tensors["head.weight"][:, 1:].copy()
    else:
        tensors["stray.weight"] = numpy.zeros(7, numpy.float32)
    path = tmp_path / "unfit.safetensors"
    write_safetensors(path, tensors)
    for command in (["unetserve", "--model", f"m={path}", "--listen", "127.0.0.1:0"],
                    ["unetserve", "--check", "--model", f"m={path}"], ["unetctl", "inspect", path]):
        answer = subprocess.run([BUILD / command[0], *command[1:]], capture_output=True, text=True,
                                timeout=WAIT_S, check=False)
        assert answer.returncode == 65, command
        assert f"{path}: the weights do not fit the family {name.partition('.')[0]}" in answer.stderr
        for line in lines:
            assert "\n" + line in answer.stderr


@pytest.mark.parametrize("classes, status", [(["no", "yes"], 0), (["a", "b", "c"], 65), (["a"], 65)])
def test_a_threshold_has_two_classes(tmp_path, classes, status):
    """mateuszbuda's golden has one output channel; unetserve and unetctl say the same about model.json's classes."""
    (tmp_path / "m.safetensors").write_bytes((GOLDENS / "mateuszbuda.safetensors").read_bytes())
    (tmp_path / "model.json").write_text(json.dumps({"classes": classes}))
    for command in (["unetserve", "--check", "--model", f"m={tmp_path}"], ["unetctl", "inspect", tmp_path]):
        answer = subprocess.run([BUILD / command[0], *command[1:]], capture_output=True, text=True,
                                timeout=WAIT_S, check=False)
        assert answer.returncode == status, answer.stderr
        assert status == 0 or f"names {len(classes)} classes, the weights have 2" in answer.stderr


def test_batched_requests_equal_single_ones(start_server, demo_model, scene):
    """A request's own batch, and tiles of different requests put together."""
    config = f"[model land-cover]\npath = {demo_model}\nmax_batch_size = 3\nprecision = f32\n"
    server = start_server(config=config)
    tiles = numpy.stack([numpy.roll(scene[:, :64, :64], 7 * i, axis=2) for i in range(5)])
    alone = numpy.stack([predict_mask(server, tile) for tile in tiles])
    assert (predict_mask(server, tiles[:3]) == alone[:3]).all()
    assert (predict_mask(server, tiles[3:4]) == alone[3:4]).all()

    def ask(i):
        if i % 3 == 0:
            return (predict_mask(server, tiles[:2]) == alone[:2]).all()
        return (predict_mask(server, tiles[i % 5]) == alone[i % 5]).all()

    assert all(in_parallel(12, ask))
    server.stop()


def test_shapes_at_the_same_time_do_not_mix(start_server, demo_model, scene):
    server = start_server(demo_model, ["--precision", "f32"])
    sizes = [(96, 112), (64, 64), (32, 48), (96, 64)]
    alone = [predict_mask(server, scene[:, :h, :w]) for h, w in sizes]

    def ask(i):
        h, w = sizes[i % 4]
        return predict_mask(server, scene[:, :h, :w])

    for i, labels in enumerate(in_parallel(16, ask)):
        assert labels.shape == sizes[i % 4]
        assert (labels == alone[i % 4]).all()
    server.stop()


# ---- deaths --------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["worker", "broker"])
def test_no_request_is_lost_when_a_process_is_killed(start_server, demo_model, scene, role):
    server = start_server(demo_model, ["--precision", "f32"])
    expected = predict_mask(server, scene)
    victim = server.role(role)[0]

    def ask(i):
        if i == 5:
            time.sleep(0.05)
            os.kill(victim, signal.SIGKILL)
        return predict_mask(server, scene)

    for labels in in_parallel(12, ask):
        assert (labels == expected).all()
    wait_until(lambda: server.role(role) and victim not in server.role(role), WAIT_S,
               f"a new {role}")
    assert (predict_mask(server, scene) == expected).all()
    server.stop()


def context_switches(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError("no such line")


def test_idle_processes_sleep(start_server, simple_model):
    """Broker and worker wake up about once a second when there is nothing to do, and right after work too."""
    server = start_server(simple_model)
    assert predict_json(server, {"input": 4.0}).status_code == 200
    time.sleep(1.5)
    pids = server.role("broker") + server.role("worker")
    begun, before = time.monotonic(), [context_switches(pid) for pid in pids]
    time.sleep(4)
    more = [context_switches(pid) - old for pid, old in zip(pids, before)]
    assert max(more) <= 3 * (time.monotonic() - begun), more
    server.stop()


# ---- describing ----------------------------------------------------------------------------------


def describe(path, *options):
    return subprocess.run([BUILD / "unetserve-worker", "--describe", "--model-path", path, *options],
                          capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_describe_prints_one_line(simple_model, demo_model):
    for path in (simple_model, demo_model, demo_model / "s2-worldcover-b16.safetensors"):
        answer = describe(path)
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count("\n") == 1
        assert json.loads(answer.stdout)["name"]


@pytest.mark.parametrize("name, options, status, words", [
    ("nowhere.pth", (), 66, "nowhere.pth"),
    ("make_goldens.py", (), 65, "make_goldens.py"),
    ("refused_module.pth", (), 65, "refused_module.pth"),
    ("plain.safetensors", ("--device", "cuda"), 69, "cudnn"),
    ("plain.safetensors", ("--device", "cuda:1"), 69, "cuda:1"),
    ("plain.safetensors", ("--backend", "cudnn"), 69, "cudnn"),
    ("plain.safetensors", ("--precision", "f64"), 78, "f64"),
    ("plain.safetensors", ("--tile", "many"), 64, "--tile"),
])
def test_describe_says_why_not(name, options, status, words):
    answer = describe(GOLDENS / name, *options)
    assert answer.returncode == status
    assert answer.stdout == ""
    assert answer.stderr.count("\n") == 1 and words in answer.stderr
