"""Python classes as models: `python FILE` starts unetserve with that file, as the tutorial's do."""

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile

import pytest
import requests

from conftest import BUILD, CHECKOUT, SLOW, WAIT_S, Server, listening, process_alive, wait_until
from rasters import creation, write_tif

FILES = CHECKOUT / "tests" / "python"
DEBIAN_PYTHON = "/usr/bin/python3"
CHECKERS_PYTHON = CHECKOUT / "build" / "checkers" / "bin" / "python"


def environment(extra=None):
    """Of an interpreter that finds the package, and in builds with AddressSanitizer the runtime that must come first."""
    variables = {name: value for name, value in os.environ.items()
                 if name not in ("UNETSERVE_API_KEY", "LIT_SERVER_API_KEY")}
    variables["PYTHONPATH"] = str(BUILD / "python")
    if "address" in BUILD.name:
        libraries = [subprocess.run(["gcc", f"-print-file-name={name}"], check=True, text=True,
                                    capture_output=True).stdout.strip() for name in ("libasan.so", "libubsan.so")]
        variables["LD_PRELOAD"] = " ".join(libraries)
        variables["ASAN_OPTIONS"] = "detect_leaks=0"  # the interpreter's own
    variables.update(extra or {})
    return variables


@pytest.fixture
def start_file(request):
    """Factory: start_file("simple.py", *arguments, python=, env=) -> Server, ready."""
    servers = []
    request.node.unetserve_servers = servers

    def start(name, *arguments, python=DEBIAN_PYTHON, env=None, wait_ready=True):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
        variables = environment({"XDG_RUNTIME_DIR": str(directory), **(env or {})})
        with open(directory / "stderr.log", "wb") as log:
            process = subprocess.Popen([str(python), str(FILES / name), *arguments], stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=log, env=variables, cwd=directory)
        server = Server(process, directory)
        servers.append(server)
        if wait_ready:
            wait_for_line(server)
        return server

    yield start
    for server in servers:
        server.kill_leftovers()
        shutil.rmtree(server.directory, ignore_errors=True)


def wait_for_line(server):
    """What the file prints before it becomes unetserve stands first."""
    stream = server.process.stdout
    while True:
        line = stream.readline()
        assert line, f"ended with {server.process.wait(WAIT_S)}:\n{server.log_text()[-4000:]}"
        if line.startswith(b"unetserve: ready on "):
            break
    server.ready_line = line.decode().strip()
    server.url = server.ready_line.split()[-1]
    server.addresses = [server.url]
    server.port = int(server.url.rpartition(":")[2])
    server.sockets = listening(server.port)
    server.children()


@pytest.fixture(scope="session")
def typed_python():
    """An interpreter with pydantic 2, fastapi and numpy."""
    if not CHECKERS_PYTHON.exists():
        pytest.skip("no pydantic 2 and fastapi: run `make checkers`")
    found = subprocess.run([CHECKERS_PYTHON, "-c", "import fastapi, numpy, pydantic; pydantic.TypeAdapter"],
                           capture_output=True, check=False)
    if found.returncode:
        pytest.skip("build/checkers is older than its requirements: run `make checkers`")
    return CHECKERS_PYTHON


@pytest.fixture(scope="session", autouse=True)
def extension():
    assert (BUILD / "python" / "unetserve" / "_worker.abi3.so").exists(), "the extension is not built"


def post(server, document, **options):
    return requests.post(server.url + "/predict", json=document, timeout=WAIT_S, **options)


def send(server, body, **options):
    return requests.post(server.url + "/predict", data=body, timeout=WAIT_S, **options)


def workers(server, name):
    return sorted(pid for pid, words in server.children().items() if words and words[-1].endswith(name))


INTERNAL = {"detail": "Internal server error"}


# ---- simple ----------------------------------------------------------------------------------------------------------


def test_simple_answers_the_tutorial_s_client(start_file):
    server = start_file("simple.py")
    response = post(server, {"input": 4.0})
    assert (response.status_code, response.text) == (200, '{"output":80.0}')
    assert response.headers["content-type"] == "application/json"
    assert requests.get(server.url + "/health", timeout=WAIT_S).text == "ok"
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: post(server, {"input": i}).json(), range(200)))
    assert answers == [{"output": i**2 + i**3} for i in range(200)]
    server.stop()


def test_simple_refuses_what_is_no_json_and_survives_what_it_does_not_expect(start_file):
    server = start_file("simple.py")
    broken = send(server, b'{"input"')
    assert (broken.status_code, broken.json()["detail"][0]["type"]) == (422, "json_invalid")
    for body in (b"", b"\xff\xfe", b"[" * 100000):
        assert send(server, body).status_code == 422
    for body in (b"{}", b"null", b"4", b'{"input": null}', b'{"input": [1]}'):
        response = send(server, body)
        assert (response.status_code, response.json()) == (500, INTERNAL)
    assert "KeyError" in server.log_text()
    assert post(server, {"input": 4.0}).json() == {"output": 80.0}
    server.stop()


def test_unetserve_takes_the_file_as_a_model_too(start_server):
    server = start_server(FILES / "simple.py", env=environment())
    assert post(server, {"input": 2}).json() == {"output": 12}
    assert len(workers(server, "simple.py")) == 1
    server.stop()


def test_the_interpreter_is_the_one_that_started_it(start_file, tmp_path):
    subprocess.run([DEBIAN_PYTHON, "-m", "venv", "--without-pip", "--system-site-packages", tmp_path / "venv"],
                   check=True)
    server = start_file("simple.py", python=tmp_path / "venv" / "bin" / "python")
    assert server.children()[workers(server, "simple.py")[0]][0] == str(tmp_path / "venv" / "bin" / "python")
    assert post(server, {"input": 1}).json() == {"output": 2}
    server.stop()


def test_the_wheel_installs_into_a_virtual_environment(start_file, tmp_path):
    wheels = list((BUILD / "wheel").glob("unetserve-*.whl"))
    if not wheels:
        pytest.skip("no wheel: run `make wheel`")
    subprocess.run([DEBIAN_PYTHON, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([DEBIAN_PYTHON, "-m", "pip", "--python", python, "install", "-q", "--no-index", "--no-deps",
                    wheels[0]], check=True, timeout=WAIT_S)
    server = start_file("simple.py", python=python, env={"PYTHONPATH": "", "PATH": f"{BUILD}:{os.environ['PATH']}"})
    assert post(server, {"input": 3}).json() == {"output": 36}
    server.stop()


# ---- declared types --------------------------------------------------------------------------------------------------


def test_typed_refuses_as_fastapi_does(start_file, typed_python):
    server = start_file("typed.py", python=typed_python)
    assert post(server, {"input": 4.0}).text == '{"output":80.0}'
    assert post(server, {"input": "4"}).json() == {"output": 80.0}
    cases = [
        (b"{}", {"type": "missing", "loc": ["body", "input"], "msg": "Field required", "input": {}}),
        (b'{"input":"x"}', {"type": "float_parsing", "loc": ["body", "input"],
                            "msg": "Input should be a valid number, unable to parse string as a number", "input": "x"}),
        (b"", {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}),
        (b"[4.0]", {"type": "model_attributes_type", "loc": ["body"],
                    "msg": "Input should be a valid dictionary or object to extract fields from", "input": [4.0]}),
    ]
    for body, expected in cases:
        response = send(server, body)
        assert (response.status_code, response.json()) == (422, {"detail": [expected]})
    refused = post(server, {"input": 13})
    assert (refused.status_code, refused.json()) == (418, {"detail": "thirteen brings bad luck"})
    assert post(server, {"input": 1e200}).status_code == 500
    page = post(server, {"input": 1}, headers={"Origin": "https://maps.example.org"})
    assert page.headers["Access-Control-Allow-Origin"] == "*"
    asked = requests.options(server.url + "/predict", timeout=WAIT_S,
                             headers={"Origin": "https://maps.example.org", "Access-Control-Request-Method": "POST"})
    assert asked.status_code == 200
    server.stop()


def test_types_are_told_to_those_who_write_clients(start_file, typed_python):
    server = start_file("typed.py", python=typed_python)
    document = requests.get(server.url + "/openapi.json", timeout=WAIT_S).json()
    operation = document["paths"]["/predict"]["post"]
    schemas = document["components"]["schemas"]
    asked = schemas[operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    given = schemas[operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]]
    assert asked["properties"] == {"input": {"type": "number", "title": "Input"}} and asked["required"] == ["input"]
    assert given["properties"] == {"output": {"type": "number", "title": "Output"}}
    # And python client.py, which run() has written, asks with them.
    done = subprocess.run([DEBIAN_PYTHON, "client.py"], cwd=server.directory, capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert (done.returncode, done.stdout) == (0, 'Status: 200\nResponse:\n {"output":80.0}\n'), done.stderr
    server.stop()


def test_models_within_models_are_told_as_a_schema(start_file, typed_python):
    server = start_file("nested.py", "0", python=typed_python)
    document = requests.get(server.url + "/openapi.json", timeout=WAIT_S).json()
    asked, given = (document["components"]["schemas"]["Products-" + one] for one in ("request", "answer"))
    assert "$ref" not in json.dumps([asked, given]) and "$defs" not in json.dumps([asked, given])
    band = {"type": "object", "title": "Band", "required": ["name", "wavelength_nm"], "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 3},
        "wavelength_nm": {"type": "number", "title": "Wavelength Nm", "exclusiveMinimum": 300, "exclusiveMaximum": 3000}}}
    assert asked["properties"]["bands"]["items"] == given["properties"]["bands"]["items"] == band
    assert asked["properties"]["level"]["enum"] == ["L2A", "L1C"] and asked["properties"]["level"]["default"] == "L2A"
    assert asked["properties"]["region"]["properties"]["parts"]["items"] == {}  # a region within a region
    assert len(asked["properties"]) == 11 and asked["properties"]["discriminator"]["type"] == "integer"
    # What client.py and /docs begin with is right, and refused where it is made wrong.
    example = document["paths"]["/predict"]["post"]["x-unetserve-model"]["example"]
    assert asked["examples"] == [example]
    answer = post(server, example)
    assert (answer.status_code, answer.json()["pixels"]) == (200, 28)
    done = subprocess.run([DEBIAN_PYTHON, "client.py"], cwd=server.directory, capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == 0 and '"pixels":28' in done.stdout, done.stderr
    example["bands"][0]["wavelength_nm"] = 4
    assert post(server, example).json()["detail"][0]["loc"] == ["body", "bands", 0, "wavelength_nm"]
    checker = CHECKERS_PYTHON.parent / "openapi-spec-validator"
    (server.directory / "openapi.json").write_text(json.dumps(document))
    done = subprocess.run([checker, server.directory / "openapi.json"], capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    server.stop()


def test_land_cover_answers_the_notebook_s_client(start_file, typed_python):
    numpy = pytest.importorskip("numpy")
    server = start_file("land_cover.py", python=typed_python)
    image = numpy.random.default_rng(3).integers(0, 9000, (12, 40, 56))
    response = post(server, {"image": image.tolist()})
    mask = numpy.array(response.json()["output"])
    assert (response.status_code, mask.shape) == (200, (40, 56))
    assert len(numpy.unique(mask)) > 1
    bad = post(server, {"image": [[["x"]]]})
    assert (bad.status_code, bad.json()["detail"][0]["loc"]) == (422, ["body", "image", 0, 0, 0])
    server.stop()


def test_a_torch_server_of_a_whole_tile(start_file, typed_python, tmp_path):
    """The class that the tutorial's readers have, with a stand-in for torch; and its answer is longer than a usual slot's."""
    numpy = pytest.importorskip("numpy")
    weights = numpy.random.default_rng(7).normal(size=(11, 12)).astype(numpy.float32)
    (tmp_path / "weights.json").write_text(json.dumps(weights.tolist()))
    server = start_file("worldcover.py", str(tmp_path / "weights.json"), python=typed_python,
                        env={"PYTHONPATH": f"{BUILD / 'python'}:{FILES / 'stand_in'}"})
    image = numpy.random.default_rng(3).integers(0, 12000, (12, 256, 256))
    response = post(server, {"image": image.tolist()}, headers={"Origin": "https://maps.example.org"})
    logits = numpy.einsum("kc,chw->khw", weights, (image / 10000).clip(0, 1).astype(numpy.float32))
    mask = numpy.array(response.json()["output"])
    assert response.status_code == 200 and (mask == logits.argmax(axis=0)).mean() > 0.999
    assert len(response.content) > 128 << 10 and response.headers["Access-Control-Allow-Origin"] == "*"
    server.stop()


# ---- the slot's memory -----------------------------------------------------------------------------------------------


def test_a_tensor_is_the_slot_s_memory(start_file):
    numpy = pytest.importorskip("numpy")
    server = start_file("tensor.py")
    image = numpy.random.default_rng(5).integers(0, 60000, (3, 50, 70)).astype(numpy.uint16)
    expected = image.argmax(axis=0).tolist()
    assert post(server, {"image": image.tolist()}).json() == {"output": expected}
    with tempfile.TemporaryFile() as file:
        numpy.save(file, image)
        file.seek(0)
        body = file.read()
    for accept, check in (("application/x-npy", lambda r: r.content[:6] == b"\x93NUMPY"),
                          ("image/png", lambda r: r.content[:4] == b"\x89PNG")):
        response = send(server, body, headers={"Content-Type": "application/x-npy", "Accept": accept})
        assert response.status_code == 200 and check(response)
    assert post(server, {"image": [[[1]]]}).status_code == 422
    server.stop()


def test_an_image_file_is_a_tensor_too(start_file, tmp_path):
    numpy = pytest.importorskip("numpy")
    server = start_file("tensor.py")
    image = numpy.random.default_rng(5).integers(0, 60000, (3, 50, 70)).astype(numpy.uint16)
    file = write_tif(tmp_path / "image.tif", image, *creation("COMPRESS=ZSTD"))
    response = send(server, file.read_bytes(), headers={"Content-Type": "image/tiff"})
    assert (response.status_code, response.json()) == (200, {"output": image.argmax(axis=0).tolist()})
    assert send(server, file.read_bytes()[:300], headers={"Content-Type": "image/tiff"}).status_code == 400
    server.stop()


# ---- forms -----------------------------------------------------------------------------------------------------------


def test_a_form_is_a_dict_with_files(start_file):
    server = start_file("upload.py")
    content = bytes(range(256)) * 41
    response = requests.post(server.url + "/predict", data={"text": "é + &"},
                             files={"image": ("a.bin", content, "application/x-thing"), "bare": ("b", b"")}, timeout=WAIT_S)
    assert response.status_code == 200, response.text
    told = response.json()
    assert told["text"] == "é + &"
    assert told["image"] == {"filename": "a.bin", "content_type": "application/x-thing", "size": len(content),
                             "digest": hashlib.sha256(content).hexdigest()}
    assert (told["bare"]["filename"], told["bare"]["content_type"], told["bare"]["size"]) == ("b", None, 0)
    assert requests.post(server.url + "/predict", data={"a": "1", "b": ""}, timeout=WAIT_S).json() == {"a": "1", "b": ""}
    assert post(server, {"a": 1}).json() == {"a": 1}
    server.stop()


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_batched_answers_each_and_one_bad_item_fails_alone(start_file):
    server = start_file("batched.py")
    assert post(server, {"input": 4.0}).json()["output"] == 16.0

    def ask(i):
        return post(server, {"input": [float(i), 2.0]})

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        responses = list(pool.map(ask, range(120)))
    for i, response in enumerate(responses):
        if i == 13:
            assert (response.status_code, response.json()) == (500, INTERNAL)
        else:
            assert response.json()["output"] == [float(i * i), 4.0]
    assert max(response.json().get("largest", 0) for response in responses) > 1
    server.stop()


# ---- coroutines ------------------------------------------------------------------------------------------------------


def test_many_coroutines_in_one_worker(start_file):
    server = start_file("asynchronous.py")
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda i: post(server, {"input": i + 20}).json(), range(24)))
    assert answers == [{"output": (i + 20) ** 2 + (i + 20) ** 3} for i in range(24)]
    assert len(workers(server, "asynchronous.py")) == 1
    refused = post(server, {"input": 13})
    assert (refused.status_code, refused.json()) == (418, {"detail": "thirteen brings bad luck"})
    assert post(server, {"input": [1]}).status_code == 500
    server.stop()


def test_a_coroutine_is_cancelled_when_its_time_is_over(start_file):
    server = start_file("asynchronous.py")
    late = post(server, {"input": "for ever"}, headers={"X-Unetserve-Timeout-Ms": "700"})
    assert late.status_code == 504
    # It is given back, so the worker can leave; its pid has not changed.
    before = workers(server, "asynchronous.py")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        assert {r.status_code for r in pool.map(lambda i: post(server, {"input": i + 20}), range(20))} == {200}
    assert workers(server, "asynchronous.py") == before
    server.stop()


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_streaming_sends_ten_items_as_litserve_spells_them(start_file):
    server = start_file("streaming.py")
    response = post(server, {"input": 4.0}, stream=True)
    assert response.status_code == 200
    lines = response.raw.read(decode_content=True).decode().splitlines()
    assert lines == [json.dumps({"output": (4.0 + i) ** 2 + (4.0 + i) ** 3}) for i in range(10)]
    events = post(server, {"input": 4.0}, headers={"Accept": "text/event-stream"})
    assert events.text.startswith('data: {"output": 80.0}\n\n')
    refused = post(server, {"input": 13})
    assert (refused.status_code, refused.json()) == (418, {"detail": "thirteen brings bad luck"})
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(lambda i: post(server, {"input": 20 + i}).text, range(24)))
    assert [len(text.splitlines()) for text in texts] == [10] * 24
    server.stop()


def test_an_error_inside_a_stream_is_its_last_item_and_no_clean_end(start_file):
    server = start_file("streaming.py")
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        post(server, {"input": 5})
    response = post(server, {"input": 5}, stream=True)
    lines = []
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        for line in response.iter_lines():
            lines.append(json.loads(line))
    assert [list(line) for line in lines] == [["output"]] * 3 + [["detail"]]
    server.stop()


@pytest.mark.parametrize("name", ["streaming.py", "generator.py"])
def test_who_leaves_or_reads_slowly_does_not_stop_the_others(start_file, name):
    server = start_file(name)
    endless = {"input": 1000, "to": 10**9}
    response = post(server, endless, stream=True)
    assert next(response.iter_lines())
    if name == "streaming.py":  # while it waits for its reader, others are served
        assert len(post(server, {"input": 1}).text.splitlines()) == 10
    response.close()
    short = post(server, {"input": 1, "to": 3})
    assert short.status_code == 200 and short.text.endswith("\n")
    if name == "generator.py":
        assert json.loads(short.text.splitlines()[0]) == {"i": 0, "left": 1}
        assert post(server, {"to": -1}).json() == {"detail": "to must not be negative"}
    server.stop()


# ---- when something goes wrong ---------------------------------------------------------------------------------------


def test_exceptions_tell_the_log_and_not_the_client(start_file):
    server = start_file("trouble.py", "--weights", "some file")
    for what in ("raise", "nan", "bytes", "exit"):
        response = post(server, {"do": what})
        assert response.status_code == 500 and "secret" not in response.text
        if what != "exit":
            assert response.json() == INTERNAL
    assert "a secret that clients must not read" in server.log_text()
    answer = post(server, {"do": "log"}).json()
    assert answer["arguments"] == ["--weights", "some file"]
    metrics = requests.get(server.url + "/metrics", timeout=WAIT_S).text
    assert "unetserve_model_python_answer" in metrics and "42.5" in metrics
    assert post(server, {"do": "fork"}).json() == {"child": -signal.SIGTERM}
    assert len(post(server, {"do": "long", "count": 50000}).text) == 50002
    assert len(post(server, {"do": "long", "count": 1000000}).text) == 1000002
    long = post(server, {"do": "long", "count": 1100000})
    assert (long.status_code, long.json()) == (500, {"detail": "The answer is too long"})
    server.stop()


def test_a_worker_that_dies_is_replaced_and_its_job_ends_with_a_word(start_file):
    server = start_file("trouble.py")
    first = post(server, {"do": "nothing"}).json()["pid"]
    response = post(server, {"do": "crash"})
    assert response.status_code == 500
    last = post(server, {"do": "nothing"}).json()["pid"]
    assert last != first and not process_alive(first)
    server.stop()


def test_a_long_call_is_no_hang_and_a_hang_is_noticed(start_file):
    server = start_file("trouble.py", env={"TEST_RUN_TIMEOUT": "24"})
    first = post(server, {"do": "nothing"}).json()["pid"]
    # Longer than the silence for which a worker is taken for hung.
    assert post(server, {"do": "sleep", "seconds": 5}).json()["pid"] == first
    # Its time is over, or it has cost as many workers as a job may: whichever is noticed first.
    assert post(server, {"do": "spin"}).status_code in (500, 504)
    after = wait_until(lambda: [pid for pid in workers(server, "trouble.py") if pid != first], WAIT_S, "another worker")
    assert post(server, {"do": "nothing"}).json()["pid"] in after
    server.stop()


def test_a_reload_reads_the_file_again(start_server, tmp_path):
    text = (FILES / "simple.py").read_text()
    (tmp_path / "model.py").write_text(text)
    server = start_server(tmp_path / "model.py", env=environment())
    assert post(server, {"input": 2}).json() == {"output": 12}
    (tmp_path / "model.py").write_text(text.replace("x**3", "x**4"))
    server.send(signal.SIGHUP)
    wait_until(lambda: post(server, {"input": 2}).json() == {"output": 20}, WAIT_S, "the changed file's answer")
    server.stop()


def test_a_drain_finishes_what_runs(start_file, tmp_path):
    server = start_file("trouble.py")
    gate = tmp_path / "gate"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, server, {"do": "wait", "until": str(gate)})
        wait_until(lambda: 'unetserve_jobs_running{model="Trouble"} 1' in
                   requests.get(server.url + "/metrics", timeout=WAIT_S).text or None, WAIT_S, "a running job")
        server.send(signal.SIGTERM)
        wait_until(lambda: "why=SIGTERM" in server.log_text(), what="the drain")
        gate.touch()
        assert running.result().status_code == 200
    assert server.wait() == 0
    server.assert_nothing_left()


@pytest.mark.skipif(SLOW, reason="builds with sanitizers have no such walls")
def test_the_sandbox_can_be_asked_for(start_server):
    config = f"[model m]\npath = {FILES / 'trouble.py'}\npython = {DEBIAN_PYTHON}\nsandbox = files\n"
    server = start_server(config=config, env=environment())
    assert post(server, {"do": "nothing"}).status_code == 200
    assert post(server, {"do": "fork"}).status_code == 500
    assert "PermissionError" in server.log_text()
    server.stop()


# ---- what is refused -------------------------------------------------------------------------------------------------

HEAD = "import unetserve.litserve as ls\nclass A(ls.LitAPI):\n    def setup(self, device): pass\n"
PREDICT = "    def predict(self, x): return x\n"

REFUSED = [
    (PREDICT + "    def authorize(self, auth): pass\n", "ls.LitServer(A())", "authorize"),
    ("", "ls.LitServer(A())", "predict is not implemented"),
    (PREDICT, "ls.LitServer(A(), loggers=[1])", "loggers"),
    (PREDICT, "ls.LitServer(A(), callbacks=[1])", "callbacks"),
    (PREDICT, "ls.LitServer(A(), spec=1)", "LitServer(spec"),
    (PREDICT, "ls.LitServer(A(), loop=1)", "LitServer(loop"),
    (PREDICT, "ls.LitServer(A(), model_metadata={'a': 1})", "model_metadata"),
    (PREDICT, "ls.LitServer(A(), healthcheck_path='/well')", "healthcheck_path"),
    (PREDICT, "ls.LitServer(A(), info_path='/about')", "info_path"),
    (PREDICT, "ls.LitServer(A(), shutdown_path='/end')", "shutdown_path"),
    (PREDICT, "ls.LitServer(A(), enable_shutdown_api=True)", "enable_shutdown_api"),
    (PREDICT, "ls.LitServer(A(), max_payload_size='100MB')", "max_payload_size"),
    (PREDICT, "ls.LitServer(A(), accelerator='cuda', devices=[[0, 1]])", "devices"),
    (PREDICT, "ls.LitServer(A(), workers_per_device=0)", "workers_per_device"),
    (PREDICT, "ls.LitServer(A(), workers_per_device=[1, 2])", "workers_per_device"),
    (PREDICT, "ls.LitServer(A(), workers_per_device={'/other': 2})", "/other"),
    (PREDICT, "ls.LitServer(A(), timeout=1, batch_timeout=2)", "batch_timeout"),
    (PREDICT, "ls.LitServer([])", "lit_api"),
    (PREDICT, "ls.LitServer([A(), A()])", "api_path"),
    (PREDICT, "ls.LitServer(A(), no_such_option=1)", "no_such_option"),
    (PREDICT, "ls.LitServer(A(), middlewares=(1,))", "middlewares"),
    (PREDICT, "ls.LitServer(A(), middlewares=[type('TrustedHost', (), {})])", "TrustedHost"),
    (PREDICT, "ls.LitServer(A(), middlewares=[(type('GZipMiddleware', (), {}), {'level': 1})])", "GZipMiddleware(level"),
    (PREDICT, "ls.LitServer(A(), middlewares=[(type('CORSMiddleware', (), {}), {'allow_origin_regex': 'x'})])", "allow_origin_regex"),
    (PREDICT, "ls.LitServer(A(), accelerator='mps')", "mps"),
    (PREDICT, "ls.LitServer(A(enable_async=True))", "must be a coroutine"),
    (PREDICT, "ls.LitServer(A(spec=1))", "spec"),
    (PREDICT, "ls.LitServer(A(mcp=1))", "mcp"),
    (PREDICT, "ls.LitServer(A(loop=1))", "loop"),
    (PREDICT, "ls.LitServer(A(max_batch_size=0))", "max_batch_size"),
    (PREDICT, "ls.LitServer(A(batch_timeout=-1))", "batch_timeout"),
    (PREDICT, "ls.LitServer(A(api_path='predict'))", "api_path"),
    (PREDICT, "ls.LitServer(A(), stream=True)", "yields"),
    (PREDICT, "ls.LitServer(A()).run(ssl_keyfile='k')", "ssl_keyfile"),
    (PREDICT, "ls.LitServer(A()).run(backlog=5)", "backlog"),
    (PREDICT, "ls.LitServer(A()).run(pretty_logs=True)", "pretty_logs"),
    (PREDICT, "ls.LitServer(A()).run(api_server_worker_type='thread')", "api_server_worker_type"),
    ("    def predict(self, x):\n        yield x\n", "ls.LitServer(A())", "stream=True"),
    ("    def predict(self, x):\n        yield x\n", "ls.LitServer(A(max_batch_size=2), stream=True)", "batch streams"),
    (PREDICT + "    def step(self): pass\n", "ls.LitServer(A())", "continuous batching"),
]


@pytest.mark.parametrize("body, line, word", REFUSED, ids=[f"{i}-{word}" for i, (_, _, word) in enumerate(REFUSED)])
def test_what_unetserve_does_not_have_is_refused_by_name(tmp_path, body, line, word):
    (tmp_path / "refused.py").write_text(f"{HEAD}{body}server = {line}\nserver.run(host='127.0.0.1', port=0)\n")
    ended = subprocess.run([DEBIAN_PYTHON, tmp_path / "refused.py"], cwd=tmp_path, env=environment(), capture_output=True,
                           text=True, timeout=WAIT_S, check=False)
    assert ended.returncode == 1
    assert word in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("text, status, word", [
    ("import there_is_no_such_module\n", 70, "LitServer.run()"),
    ("print('no server here')\n", 70, "LitServer.run()"),
    (HEAD + PREDICT + "A.setup = lambda self, device: 1 / 0\nls.LitServer(A()).run()\n", 65, "ZeroDivisionError"),
])
def test_a_file_that_cannot_serve_ends_with_a_sentence(run_unetserve, tmp_path, text, status, word):
    (tmp_path / "broken.py").write_text(text)
    ended = run_unetserve("--model", tmp_path / "broken.py", "--listen", "127.0.0.1:0", env=environment())
    assert ended.returncode == status
    assert word in ended.stderr


def test_an_interpreter_that_is_not_there_is_named(run_unetserve, tmp_path):
    ended = run_unetserve("--model", FILES / "simple.py", "--listen", "127.0.0.1:0", env={"PATH": str(tmp_path)})
    assert ended.returncode == 78
    assert "python" in ended.stderr


# ---- what is taken ---------------------------------------------------------------------------------------------------

TAKEN = [
    ("LitServer(A())", "", ["listen = 127.0.0.1:0", "gateways = 1", "devices = cpu", "workers_per_device = 1", "timeout_ms = 30000",
                            "route = /predict"], 1),
    ("LitServer(A(api_path='/x'), accelerator='cpu', devices=3, workers_per_device=2, timeout=1.5)", "num_api_servers=3",
     ["gateways = 3", "workers_per_device = 2", "timeout_ms = 1500", "route = /x"], 1),
    ("LitServer([A(), A(api_path='/b')], workers_per_device=[1, 2], timeout=False)", "log_level='warning'",
     ["log_level = warning", "workers_per_device = 2", "timeout_ms = 86400000"], 2),
    ("LitServer([A(), A(api_path='/b')], workers_per_device={'/b': 2})", "", ["workers_per_device = 2"], 2),
    ("LitServer(A(), max_payload_size=2e6, max_response_bytes=4096, run_timeout=5, disable_openapi_url=True)", "",
     ["max_body_bytes = 2000000", "max_response_bytes = 4096", "run_timeout_ms = 5000", "docs = off"], 1),
    ("LitServer(A(), track_requests=True, fast_queue=True, restart_workers=True, max_batch_size=4, batch_timeout=0.1)",
     "pretty_logs=False, api_server_worker_type='process', generate_client_file=False", ["devices = cpu"], 1),
    ("LitServer(A(), middlewares=[(type('GZipMiddleware', (), {}), {'minimum_size': 7}), (type('CORSMiddleware', (), {}), "
     "{'allow_origins': ['https://a.example'], 'allow_methods': ['*'], 'allow_headers': ['X-A'], 'expose_headers': ['X-B'], "
     "'allow_credentials': True, 'max_age': 5})])", "",
     ["compress_min_bytes = 7", "gzip_level = 9", "cors_allow_origins = https://a.example", "cors_allow_methods = *",
      "cors_allow_headers = X-A", "cors_expose_headers = X-B", "cors_allow_credentials = on", "cors_max_age = 5"], 1),
    ("LitServer(A())", "ssl_certfile='c.pem', ssl_keyfile='/k.pem'", ["listen = https://127.0.0.1:0", "tls_key = /k.pem"], 1),
]


@pytest.mark.parametrize("constructor, run, lines, models", TAKEN, ids=range(len(TAKEN)))
def test_options_become_the_configuration(tmp_path, run_unetserve, constructor, run, lines, models):
    """What is started is looked at instead, and unetserve asked whether it is right."""
    (tmp_path / "taken.py").write_text(
        f"{HEAD}{PREDICT}import os\nfrom unetserve import _seat\n"
        "def execute(program, words):\n    print(open(words[2]).read())\n    print('words', words[3:])\n    raise SystemExit(0)\n"
        f"server = ls.{constructor}\n"
        "if not _seat.words:\n    os.execv = execute\n"
        f"server.run(host='127.0.0.1', port=0{', ' + run if run else ''})\n")
    ended = subprocess.run([DEBIAN_PYTHON, tmp_path / "taken.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True,
                           timeout=WAIT_S, check=False)
    assert ended.returncode == 0, ended.stderr
    text, _, words = ended.stdout.partition("words ")
    told = text.splitlines()
    assert [line for line in lines if line not in told] == []
    assert sum(line.startswith("[model ") for line in told) == models
    assert ("--client-file" in words) == ("generate_client_file=False" not in run)
    (tmp_path / "taken.conf").write_text(text)
    if "ssl_" not in run:
        checked = run_unetserve("-c", tmp_path / "taken.conf", "--check", env=environment())
        assert checked.returncode == 0, checked.stderr
