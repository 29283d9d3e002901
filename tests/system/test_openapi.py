"""/openapi.json: true to the models, valid, and no request that a fuzzer makes of it is answered otherwise than it says."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import pytest
import requests

from conftest import BUILD, CHECKOUT, WAIT_S, wait_until

CHECKERS = pathlib.Path(os.environ.get("UNETSERVE_CHECKERS", CHECKOUT / "build" / "checkers"))
PAGES = {"/", "/health", "/info", "/metrics", "/openapi.json", "/docs"}
KEY = "open-sesame"

# Several models at once, each on its own route.
EVERYTHING = f"""
[model typed]
path = {BUILD}/models/typed.so
[model batched]
path = {BUILD}/models/batched.so
route = /batched
[model streaming]
path = {BUILD}/models/streaming.so
route = /streaming
[model land-cover]
path = {CHECKOUT}/packaging/models/s2-worldcover
route = /unet
"""


def checker(name):
    program = CHECKERS / "bin" / name
    if not program.exists():
        pytest.skip(f"{program} is not there: make checkers")
    return program


def schema_of(document, path):
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]


@pytest.fixture
def everything(start_server):
    server = start_server(config=EVERYTHING)
    return server, requests.get(server.url + "/openapi.json", timeout=WAIT_S).json()


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_it_lists_every_route(everything):
    server, document = everything
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == PAGES | {"/predict", "/batched", "/streaming", "/unet"}
    for path in PAGES:
        answer = requests.get(server.url + path, timeout=WAIT_S)
        assert answer.status_code == 200
        kind = answer.headers["Content-Type"].partition(";")[0]
        assert kind in document["paths"][path]["get"]["responses"]["200"]["content"]


def test_declared_fields_are_in_it(everything):
    _, document = everything
    typed = schema_of(document, "/predict")
    assert typed["properties"] == {"input": {"type": "number", "title": "Input"}}
    assert typed["required"] == ["input"]
    batched = schema_of(document, "/batched")["properties"]["input"]
    assert batched["anyOf"] == [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]
    answer = document["components"]["schemas"]["typed-answer"]
    assert answer["properties"] == {"output": {"type": "number", "title": "Output"}}


def test_tensors_are_nested_lists_of_the_right_sides(everything):
    _, document = everything
    image = schema_of(document, "/unet")["properties"]["image"]
    one = image["anyOf"][0] if "anyOf" in image else image
    assert (one["minItems"], one["maxItems"]) == (12, 12)
    assert one["items"]["items"]["items"] == {"type": "number"}
    content = document["paths"]["/unet"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-npy", "image/tiff", "image/png", "multipart/form-data", "application/octet-stream"}
    answers = document["paths"]["/unet"]["post"]["responses"]["200"]["content"]
    assert set(answers) == {"application/json", "application/x-npy", "image/png"}


def test_facts_for_those_who_write_clients(everything):
    server, document = everything
    facts = document["paths"]["/unet"]["post"]["x-unetserve-model"]
    assert (facts["request"], facts["answer"], facts["channels"]) == ("tensor", "labels", 12)
    assert len(facts["classes"]) == 11 and "uint16" in facts["dtypes"]
    assert facts["classes"][0].keys() == {"name", "code", "color"}
    for path, answer in (("/predict", 80.0), ("/batched", None)):
        example = document["paths"][path]["post"]["x-unetserve-model"]["example"]
        got = requests.post(server.url + path, json=example, timeout=WAIT_S)
        assert got.status_code == 200
        assert answer is None or got.json() == {"output": answer}


def test_streams_say_so(everything):
    _, document = everything
    operation = document["paths"]["/streaming"]["post"]
    assert operation["x-unetserve-model"]["streams"] is True
    assert set(operation["responses"]["200"]["content"]) == {"application/x-ndjson", "text/event-stream"}


def test_keys_are_in_it_where_there_are_keys(start_server, simple_model):
    server = start_server(simple_model, env={"UNETSERVE_API_KEY": KEY})
    document = requests.get(server.url + "/openapi.json", timeout=WAIT_S).json()
    assert document["components"]["securitySchemes"]["ApiKey"]["name"] == "X-API-Key"
    assert document["security"] == [{"ApiKey": []}, {"Bearer": []}]
    for path, item in document["paths"].items():
        operation = next(iter(item.values()))
        is_open = operation.get("security") == []
        assert is_open == (path in ("/health", "/openapi.json", "/docs"))
        assert is_open == ("401" not in operation["responses"])
        if "get" in item:
            assert requests.get(server.url + path, timeout=WAIT_S).status_code == (200 if is_open else 401)
    open_server = start_server(simple_model)
    document = requests.get(open_server.url + "/openapi.json", timeout=WAIT_S).json()
    assert "security" not in document and "securitySchemes" not in document["components"]


def test_it_follows_a_reload(start_server, tmp_path):
    """The document is kept, but not beyond its models."""
    plugin = tmp_path / "model.so"
    shutil.copy(BUILD / "models" / "typed.so", plugin)
    server = start_server(config=f"[model m]\npath = {plugin}\n")

    def field():
        return schema_of(requests.get(server.url + "/openapi.json", timeout=WAIT_S).json(), "/predict")["properties"]["input"]

    assert field() == field() == {"type": "number", "title": "Input"}
    shutil.copy(BUILD / "models" / "batched.so", tmp_path / "other.so")
    os.rename(tmp_path / "other.so", plugin)
    server.send(signal.SIGHUP)
    wait_until(lambda: "anyOf" in field(), WAIT_S, "the new model in the document")


def test_off_means_off(start_server, simple_model):
    server = start_server(config=f"[server]\ndocs = off\n[model m]\npath = {simple_model}\n")
    for path in ("/openapi.json", "/docs", "/redoc"):
        assert requests.get(server.url + path, timeout=WAIT_S).status_code == 404
    assert requests.get(server.url + "/info", timeout=WAIT_S).status_code == 200


# ---- checkers --------------------------------------------------------------------------------------------------------


def test_it_is_valid(everything, tmp_path):
    _, document = everything
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    done = subprocess.run([checker("openapi-spec-validator"), tmp_path / "openapi.json"], capture_output=True,
                          text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# What two of schemathesis' checks want cannot be had of a model:
# - JSON Schema has no word for "rows of equal length", so some of what fits an image's schema is refused (422);
# - pydantic takes "4.0" and true for a number, and so does unetserve, whose schema says "number" as pydantic's does.
# And a request with X-Unetserve-Timeout-Ms: 1 is rightly answered 504, or 503 where that can be foreseen.
SETTINGS = """
[checks]
positive_data_acceptance.enabled = false
negative_data_rejection.enabled = false
not_a_server_error.expected-statuses = ["2xx", "4xx", "503", "504"]
"""


@pytest.mark.parametrize("with_key", [False, True])
def test_a_fuzzer_finds_no_answer_that_it_does_not_tell_of(start_server, with_key, tmp_path):
    program = checker("schemathesis")
    server = start_server(config=EVERYTHING, env={"UNETSERVE_API_KEY": KEY} if with_key else {})
    (tmp_path / "schemathesis.toml").write_text(SETTINGS)
    # Not the image: twelve channels of numbers, invented one by one, take minutes for each example.
    command = [program, "--config-file", "schemathesis.toml", "--no-color", "run", server.url + "/openapi.json",
               "--exclude-path", "/unet", "--max-examples", "20", "--generation-deterministic",
               "--request-timeout", "60", "--suppress-health-check", "all"]
    if with_key:
        command += ["--header", f"X-API-Key: {KEY}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert requests.post(server.url + "/predict", json={"input": 4.0}, headers={"X-API-Key": KEY},
                         timeout=WAIT_S).json() == {"output": 80.0}


# In place of that: bodies that are nearly images.
NEARLY = [(b"", {}), (b"\x93NUMPY", {"Content-Type": "application/x-npy"}),
          (b"1234", {"Content-Type": "application/octet-stream"}),
          (b"1234", {"Content-Type": "application/octet-stream", "X-Unetserve-Shape": "1,2", "X-Unetserve-Dtype": "u"}),
          (b'{"image": [[[1]]]}', {"Content-Type": "application/json"}), (b"{}", {"Accept": "text/plain"}),
          (b'{"image": [[["x"]]]}', {"Content-Type": "application/json"}), (b"{}", {"Content-Encoding": "br"}),
          (b"{}", {"X-Unetserve-Timeout-Ms": "x"}), (b"<a/>", {"Content-Type": "text/xml"})]


@pytest.mark.parametrize("body, headers", NEARLY)
def test_refusals_of_images_are_told_of(everything, body, headers):
    server, document = everything
    operation = document["paths"]["/unet"]["post"]
    answer = requests.post(server.url + "/unet", data=body, headers=headers, timeout=WAIT_S)
    assert 400 <= answer.status_code < 500 and str(answer.status_code) in operation["responses"]
    detail = answer.json()["detail"]
    assert isinstance(detail, str) or all({"type", "loc", "msg", "input"} <= set(one) for one in detail)
