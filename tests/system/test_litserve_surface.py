"""LitServe's answers, request by request, beside those of plugins and of Python classes here.

Where ours is another one, the row says so: a 4xx for what the client did wrong, where LitServe says 500 or 405."""

import pytest
import requests

from conftest import BUILD, WAIT_S
from test_python import start_file, typed_python  # pylint: disable=unused-import  # noqa: F401

KEY = "open-sesame"
MODELS = ["simple.so", "typed.so", "simple.py", "typed.py"]
INTERNAL = {"detail": "Internal server error"}
BODY, FIELD = ["body"], ["body", "input"]


def problem(kind, loc=None):
    """A 422 of that type, at that place."""
    def is_it(answer):
        detail = answer.json()["detail"][0]
        return answer.status_code == 422 and detail["type"] == kind and (loc is None or detail["loc"] == loc)
    return is_it


def is_answer(status, body, **headers):
    def is_it(answer):
        told = answer.json() if isinstance(body, dict) else answer.text
        return answer.status_code == status and told == body and all(
            answer.headers.get(name.replace("_", "-")) == value for name, value in headers.items())
    return is_it


# (method, path, what is sent, LitServe's answer; and ours where it is another one: for all, or by model)
SAME = None
TABLE = [
    ("GET", "/", {}, is_answer(200, "litserve running"), is_answer(200, "unetserve running")),
    ("GET", "/health", {}, is_answer(200, "ok"), SAME),
    ("HEAD", "/health", {}, is_answer(405, ""), is_answer(200, "")),
    ("POST", "/predict", {"json": {"input": 4.0}}, is_answer(200, {"output": 80.0}, Content_Type="application/json"), SAME),
    ("POST", "/predict", {"json": {"input": 4}}, is_answer(200, {"output": 80.0}), SAME),
    # The Content-Type is not asked.
    ("POST", "/predict", {"data": b'{"input":4.0}', "headers": {"Content-Type": "application/octet-stream"}},
     is_answer(200, {"output": 80.0}), SAME),
    ("POST", "/predict", {"data": b'{"input":4.0}'}, is_answer(200, {"output": 80.0}), SAME),
    # Keys that a model does not know are ignored.
    ("POST", "/predict", {"json": {"input": 4.0, "more": [1]}}, is_answer(200, {"output": 80.0}), SAME),
    ("POST", "/predict", {"data": b'{"input"'}, is_answer(500, INTERNAL), problem("json_invalid")),
    ("POST", "/predict", {"data": b"{,}"}, is_answer(500, INTERNAL), problem("json_invalid")),
    ("POST", "/predict", {"data": b""}, is_answer(500, INTERNAL),
     {"simple.py": problem("json_invalid"), "*": problem("missing", BODY)}),
    ("POST", "/predict", {"json": {}}, problem("missing", FIELD), {"simple.py": is_answer(500, INTERNAL), "*": SAME}),
    ("POST", "/predict", {"json": {"input": "x"}}, problem("float_parsing", FIELD),
     {"simple.py": is_answer(500, INTERNAL), "simple.so": problem("float_type", FIELD), "*": SAME}),
    ("GET", "/none", {}, is_answer(404, {"detail": "Not Found"}), SAME),
    ("POST", "/none", {"json": {}}, is_answer(404, {"detail": "Not Found"}), SAME),
    ("GET", "/predict", {}, is_answer(405, {"detail": "Method Not Allowed"}, Allow="POST"), SAME),
    ("PUT", "/predict", {}, is_answer(405, {"detail": "Method Not Allowed"}, Allow="POST"), SAME),
    ("OPTIONS", "/predict", {}, is_answer(405, {"detail": "Method Not Allowed"}, Allow="POST"), SAME),
    # Not there unless LitServe's enable_shutdown_api asks for it, which is refused here.
    ("POST", "/shutdown", {}, is_answer(404, {"detail": "Not Found"}), SAME),
]


@pytest.fixture(params=MODELS)
def served(request, start_server, start_file, typed_python):  # noqa: F811
    if request.param.endswith(".so"):
        return request.param, start_server(BUILD / "models" / request.param)
    return request.param, start_file(request.param, python=typed_python)


def test_answers(served):
    model, server = served
    wrong = []
    for method, path, sent, litserve, ours in TABLE:
        if isinstance(ours, dict):
            ours = ours.get(model, ours["*"])
        answer = requests.request(method, server.url + path, timeout=WAIT_S, **sent)
        if not (litserve if ours is SAME else ours)(answer):
            wrong.append((method, path, sent, answer.status_code, answer.text[:300]))
    assert wrong == []
    info = requests.get(server.url + "/info", timeout=WAIT_S).json()
    assert set(info["server"]) >= {"devices", "workers_per_device", "timeout", "stream", "max_payload_size", "track_requests"}
    assert info["server"]["devices"] == ["cpu"] and info["server"]["stream"] == {"/predict": False} and "model" in info
    page = requests.get(server.url + "/docs", timeout=WAIT_S)
    assert page.status_code == 200 and page.headers["Content-Type"].startswith("text/html")
    assert requests.get(server.url + "/openapi.json", timeout=WAIT_S).json()["openapi"] == "3.1.0"
    server.stop()


@pytest.mark.parametrize("model", ["typed.so", "typed.py"])
def test_keys(model, start_server, start_file, typed_python):  # noqa: F811
    if model.endswith(".so"):
        server = start_server(BUILD / "models" / model, env={"UNETSERVE_API_KEY": KEY})
    else:
        server = start_file(model, python=typed_python, env={"LIT_SERVER_API_KEY": KEY})
    sent = {"json": {"input": 4.0}, "timeout": WAIT_S}
    url = server.url + "/predict"
    none = requests.post(url, **sent)
    assert is_answer(401, {"detail": "Not authenticated"})(none) and "APIKey" in none.headers["WWW-Authenticate"]
    assert is_answer(401, {"detail": "Invalid API Key. Check that you are passing a correct 'X-API-Key' in your header."})(
        requests.post(url, headers={"X-API-Key": "wrong"}, **sent))
    assert is_answer(200, {"output": 80.0})(requests.post(url, headers={"X-API-Key": KEY}, **sent))
    # Probes have no keys: here /health is open, LitServe asks for one.
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    assert requests.get(server.url + "/docs", timeout=WAIT_S).status_code == 200
    assert requests.get(server.url + "/info", timeout=WAIT_S).status_code == 401
    server.stop()


def test_a_long_answer_is_compressed_and_a_large_body_refused(start_server):
    server = start_server(BUILD / "models" / "batched.so", config="[server]\nmax_body_bytes = 20000\n")
    long = requests.post(server.url + "/predict", json={"input": [1.5] * 1000}, timeout=WAIT_S,
                         headers={"Accept-Encoding": "gzip"})
    assert long.headers["Content-Encoding"] == "gzip" and long.headers["Vary"] == "Accept-Encoding"
    assert long.json() == {"output": [2.25] * 1000}
    short = requests.post(server.url + "/predict", json={"input": 1.5}, timeout=WAIT_S)
    assert "Content-Encoding" not in short.headers
    body = b'{"input": [' + b"1," * 20000 + b"1]}"
    assert is_answer(413, {"detail": "Payload too large"})(requests.post(server.url + "/predict", data=body, timeout=WAIT_S))
    chunked = requests.post(server.url + "/predict", data=(body[i:i + 999] for i in range(0, len(body), 999)), timeout=WAIT_S)
    assert chunked.status_code == 413
    server.stop()
