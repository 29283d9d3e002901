"""API keys on the running server: digests with names, rates and scopes, Bearer, unetctl key."""

import re
import subprocess

import pytest
import requests

from conftest import BUILD, WAIT_S, wait_until

SLOWEST = "rate_limit = 0.001\nrate_burst = 3\n"


def make_key(*arguments):
    """(line for the file, key)"""
    made = subprocess.run([BUILD / "unetctl", "key", *arguments], capture_output=True, text=True, timeout=WAIT_S, check=True)
    return made.stdout, made.stderr.strip()


def ask(server, headers=None, route="/predict"):
    return requests.post(server.url + route, json={"input": 4.0}, headers=headers or {}, timeout=WAIT_S)


def statuses(server, count, headers, route="/predict"):
    return [ask(server, headers, route).status_code for _ in range(count)]


def serve(start_server, model, keys, config=""):
    return start_server(config=f"[server]\napi_key_file = {keys}\n{config}\n"
                               f"[model x]\npath = {model}\nroute = /predict\n[model y]\npath = {model}\nroute = /other\n")


def test_unetctl_key(tmp_path):
    line, key = make_key("alice", "--rate", "2.5", "--burst", "10", "--models", "x,y")
    found = re.fullmatch(r"alice sha256:([0-9a-f]{16}):[0-9a-f]{64} rate=2\.5 burst=10 models=x,y\n", line)
    assert found, line
    assert re.fullmatch(rf"unetserve_{found.group(1)}_[0-9a-f]{{48}}", key)
    assert make_key("alice")[1] != key
    for wrong in ([], ["two", "names"], ["a/b"], ["a b"], [""], ["n" * 64], ["a", "--rate", "fast"], ["a", "--burst", "3"],
                  ["a", "--models", "x, y"], ["a", "--models", "x\nsesame"], ["a", "--models", "m" * 2000], ["a", "--color", "red"]):
        refused = subprocess.run([BUILD / "unetctl", "key", *wrong], capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (refused.returncode, refused.stdout) == (64, ""), wrong
        assert refused.stderr.startswith("unetctl: ")


def test_bodies_and_headers(start_server, simple_model, tmp_path):
    line, key = make_key("alice")
    (tmp_path / "keys").write_text(line + "plain\n")
    server = serve(start_server, simple_model, tmp_path / "keys")
    for headers in ({"X-API-Key": key}, {"X-API-Key": "plain"}, {"Authorization": f"Bearer {key}"},
                    {"Authorization": "bearer plain"}, {"X-API-Key": key, "Authorization": "Basic eDp5"}):
        assert ask(server, headers).json() == {"output": 80.0}
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": f"Digest {key}"}, {"Authorization": key}):
        answer = ask(server, headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "APIKey")
        assert answer.text == '{"detail":"Not authenticated"}'
    line_parts = line.split(":")
    for wrong in (key[:-1], key + "0", key.upper(), "alice", line.strip(), line_parts[2].strip(), "Plain"):
        answer = ask(server, {"X-API-Key": wrong})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "APIKey")
        assert answer.text == ('{"detail":"Invalid API Key. Check that you are passing a correct '
                               '\'X-API-Key\' in your header."}')
        answer = ask(server, {"Authorization": f"Bearer {wrong}"})
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert "'Authorization: Bearer KEY'" in answer.text
    # Probes have no keys; pages need one, any one.
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    for page in ("/", "/info", "/metrics"):
        assert requests.get(server.url + page, timeout=WAIT_S).status_code == 401
        assert requests.get(server.url + page, headers={"X-API-Key": key}, timeout=WAIT_S).status_code == 200
    server.stop()


def test_scopes(start_server, simple_model, tmp_path):
    lines, keys = zip(make_key("both"), make_key("first", "--models", "x"), make_key("none", "--models", "z"))
    (tmp_path / "keys").write_text("".join(lines))
    server = serve(start_server, simple_model, tmp_path / "keys")
    both, first, none = ({"X-API-Key": key} for key in keys)
    assert [ask(server, both, route).status_code for route in ("/predict", "/other")] == [200, 200]
    assert [ask(server, first, route).status_code for route in ("/predict", "/other")] == [200, 403]
    assert [ask(server, none, route).status_code for route in ("/predict", "/other")] == [403, 403]
    answer = ask(server, first, "/other")
    assert answer.text == '{"detail":"This API key does not open the model y"}'
    assert "WWW-Authenticate" not in answer.headers
    answer = ask(server, {"Authorization": f"Bearer {keys[1]}"}, "/other")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (403, 'Bearer error="insufficient_scope"')
    assert requests.get(server.url + "/info", headers=none, timeout=WAIT_S).status_code == 200
    server.stop()


def test_rates(start_server, simple_model, tmp_path):
    slow, fast, free = make_key("slow"), make_key("fast", "--rate", "0.001", "--burst", "6"), make_key("free", "--rate", "0")
    renewed = make_key("slow")
    (tmp_path / "keys").write_text(slow[0] + fast[0] + free[0] + renewed[0])
    server = serve(start_server, simple_model, tmp_path / "keys", SLOWEST + "gateways = 2")
    assert statuses(server, 2, {"X-API-Key": slow[1]}) == [200] * 2
    # A key that takes another's place is the same client.
    assert statuses(server, 2, {"X-API-Key": renewed[1]}) == [200, 429]
    assert statuses(server, 7, {"X-API-Key": fast[1]}) == [200] * 6 + [429]
    assert statuses(server, 20, {"X-API-Key": free[1]}) == [200] * 20
    refused = ask(server, {"Authorization": f"Bearer {fast[1]}"})
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("Too many requests: 0.001 a second are allowed")
    # Lines in another order are the same clients.
    (tmp_path / "keys").write_text(free[0] + renewed[0] + fast[0])
    reads = server.log_text().count("reloaded")
    server.send(1)
    wait_until(lambda: server.log_text().count("reloaded") > reads, WAIT_S, "the reload")
    wait_until(lambda: ask(server, {"X-API-Key": slow[1]}).status_code == 401, WAIT_S, "keys read again")
    assert ask(server, {"X-API-Key": fast[1]}).status_code == 429
    assert ask(server, {"X-API-Key": renewed[1]}).status_code == 429
    server.stop()


@pytest.mark.parametrize("text, said", [("", "there is no key in it"), ("ok\nbob sha256:12\n", "line 2: a digest is"),
                                        ("k" * 5000 + "\n", "line 1: the line is too long"), ("a\0b\n", "line 1: ")],
                         ids=["empty", "digest", "long", "zero"])
def test_a_bad_file_does_not_open_the_door(start_server, simple_model, tmp_path, text, said):
    (tmp_path / "keys").write_text("good\n")
    server = serve(start_server, simple_model, tmp_path / "keys")
    (tmp_path / "keys").write_text(text)
    server.send(1)
    wait_until(lambda: said in server.log_text(), WAIT_S, "the complaint")
    assert ask(server, {}).status_code == 401
    assert ask(server, {"X-API-Key": "good"}).status_code == 200
    server.stop()
