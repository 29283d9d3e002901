"""Python classes as models: `python FILE` starts unetserve with that file, as the tutorial's do."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time

import pytest
import requests

from conftest import BUILD, CHECKOUT, SLOW, Server, process_alive, wait_until
from rasters import creation, write_tif

WAIT_S = 120
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
        assert line, f"ended with {server.process.wait(10)}:\n{server.log_text()[-4000:]}"
        if line.startswith(b"unetserve: ready on "):
            break
    server.ready_line = line.decode().strip()
    server.url = server.ready_line.split()[-1]
    server.addresses = [server.url]
    server.port = int(server.url.rpartition(":")[2])
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
    long = post(server, {"do": "long", "count": 300000})
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
    server = start_file("trouble.py", env={"TEST_RUN_TIMEOUT": "9"})
    first = post(server, {"do": "nothing"}).json()["pid"]
    # Longer than the silence for which a worker is taken for hung.
    assert post(server, {"do": "sleep", "seconds": 5}).json()["pid"] == first
    assert post(server, {"do": "spin"}).status_code == 504
    after = wait_until(lambda: [pid for pid in workers(server, "trouble.py") if pid != first], 60, "another worker")
    assert post(server, {"do": "nothing"}).json()["pid"] in after
    server.stop()


def test_a_reload_reads_the_file_again(start_server, tmp_path):
    text = (FILES / "simple.py").read_text()
    (tmp_path / "model.py").write_text(text)
    server = start_server(tmp_path / "model.py", env=environment())
    assert post(server, {"input": 2}).json() == {"output": 12}
    (tmp_path / "model.py").write_text(text.replace("x**3", "x**4"))
    server.send(signal.SIGHUP)
    wait_until(lambda: post(server, {"input": 2}).json() == {"output": 20}, 60, "the changed file's answer")
    server.stop()


def test_a_drain_finishes_what_runs(start_file):
    server = start_file("trouble.py")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, server, {"do": "sleep", "seconds": 2})
        wait_until(lambda: 'unetserve_jobs_running{model="Trouble"} 1' in
                   requests.get(server.url + "/metrics", timeout=WAIT_S).text or None, 30, "a running job")
        server.stop()
        assert running.result().status_code == 200


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
    (PREDICT, "ls.LitServer(A(), middlewares=[(type('GZipMiddleware', (), {}), {})])", "GZipMiddleware"),
    (PREDICT, "ls.LitServer(A(), accelerator='mps')", "mps"),
    (PREDICT, "ls.LitServer(A(enable_async=True))", "must be a coroutine"),
    (PREDICT, "ls.LitServer(A(spec=1))", "spec"),
    (PREDICT, "ls.LitServer(A(), stream=True)", "yields"),
    (PREDICT, "ls.LitServer(A()).run(ssl_keyfile='k')", "ssl_keyfile"),
    ("    def predict(self, x):\n        yield x\n", "ls.LitServer(A())", "stream=True"),
]


@pytest.mark.parametrize("body, line, word", REFUSED, ids=[word for _, _, word in REFUSED])
def test_what_unetserve_does_not_have_is_refused_by_name(tmp_path, body, line, word):
    (tmp_path / "refused.py").write_text(f"{HEAD}{body}server = {line}\nserver.run(host='127.0.0.1', port=0)\n")
    ended = subprocess.run([DEBIAN_PYTHON, tmp_path / "refused.py"], env=environment(), capture_output=True,
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
