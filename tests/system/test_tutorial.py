"""The tutorial's programs as plugins, asked with the tutorial's own client code."""

import asyncio
import concurrent.futures
import json

import httpx
import pytest
import requests

from conftest import BUILD, WAIT_S


def plugin(name):
    path = BUILD / "models" / f"{name}.so"
    assert path.exists(), f"{path} is not built"
    return path


def post(server, document, **options):
    return requests.post(server.url + "/predict", json=document, timeout=WAIT_S, **options)


# ---- declared types --------------------------------------------------------------------------------------------------


def test_typed_answers_the_tutorial_s_client(start_server):
    server = start_server(plugin("typed"))
    response = requests.post(f"http://127.0.0.1:{server.port}/predict", json={"input": 4.0}, timeout=WAIT_S)
    assert f"Status: {response.status_code}\nResponse:\n {response.text}" == 'Status: 200\nResponse:\n {"output":80.0}'
    # What pydantic converts is converted.
    for given in (4, "4.0", " 4 "):
        assert post(server, {"input": given}).json() == {"output": 80.0}
    assert post(server, {"input": True}).json() == {"output": 2.0}
    server.stop()


def test_typed_refuses_as_pydantic_does(start_server):
    server = start_server(plugin("typed"))
    cases = [
        (b"{}", {"type": "missing", "loc": ["body", "input"], "msg": "Field required", "input": {}}),
        (b'{"input":"x"}', {"type": "float_parsing", "loc": ["body", "input"],
                            "msg": "Input should be a valid number, unable to parse string as a number", "input": "x"}),
        (b'{"input":null}', {"type": "float_type", "loc": ["body", "input"],
                             "msg": "Input should be a valid number", "input": None}),
        (b"", {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}),
        (b"[4.0]", {"type": "model_attributes_type", "loc": ["body"],
                    "msg": "Input should be a valid dictionary or object to extract fields from", "input": [4.0]}),
    ]
    for body, expected in cases:
        response = requests.post(server.url + "/predict", data=body, timeout=WAIT_S)
        assert (response.status_code, response.json()) == (422, {"detail": [expected]})
    broken = requests.post(server.url + "/predict", data=b'{"input"', timeout=WAIT_S)
    assert (broken.status_code, broken.json()["detail"][0]["type"]) == (422, "json_invalid")
    assert post(server, {"input": 1e200}).status_code == 422
    assert post(server, {"input": 4.0}).json() == {"output": 80.0}
    server.stop()


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_batched_squares_arrays_and_numbers(start_server):
    server = start_server(plugin("batched"))
    assert post(server, {"input": [1, 2.5, -3]}).text == '{"output":[1.0,6.25,9.0]}'
    assert post(server, {"input": []}).text == '{"output":[]}'
    assert post(server, {"input": 4.0}).text == '{"output":16.0}'
    server.stop()


def test_batched_gives_each_request_its_own_part(start_server):
    server = start_server(plugin("batched"))

    def ask(i):
        given = [i + k / 4 for k in range(i % 5)] if i % 7 else "x"
        return given, post(server, {"input": given})

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        for given, response in pool.map(ask, range(120)):
            if given == "x":
                assert response.status_code == 422
            else:
                assert response.json() == {"output": [x * x for x in given]}
    large = post(server, {"input": [1e200, 1]})
    assert (large.status_code, large.json()) == (422, {"detail": "a number is too large to be squared"})
    server.stop()


@pytest.mark.parametrize("count", [1, 1000, 2000])
def test_batched_takes_long_arrays(start_server, count):
    server = start_server(plugin("batched"))
    given = [0.1 * i for i in range(count)]
    assert json.loads(post(server, {"input": given}).text) == {"output": [x * x for x in given]}


# ---- waiting ---------------------------------------------------------------------------------------------------------


def test_async_answers_the_tutorial_s_client(start_server):
    server = start_server(plugin("async"))

    async def main():
        async with httpx.AsyncClient(timeout=WAIT_S) as client:
            return await client.post(server.url + "/predict", json={"input": 4})

    response = asyncio.run(main())
    assert (response.status_code, response.json()) == (200, {"output": 80.0})
    assert post(server, {"input": "x"}).status_code == 422
    assert post(server, {"input": 1e200}).json() == {"detail": "input is too large to be cubed"}
    server.stop()


def test_async_has_many_requests_in_one_worker(start_server):
    server = start_server(plugin("async"))

    def ask(i):
        return post(server, {"input": i}).json()

    with concurrent.futures.ThreadPoolExecutor(48) as pool:
        assert list(pool.map(ask, range(96))) == [{"output": float(i**2 + i**3)} for i in range(96)]
    server.stop()
