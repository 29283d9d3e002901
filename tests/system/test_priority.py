"""X-Unetserve-Priority: who waits is started in its order, and who may ask for how much."""

import concurrent.futures
import subprocess

import pytest
import requests

from conftest import BUILD, CHECKOUT, WAIT_S, wait_until
from metrics_text import Metrics
from test_python import DEBIAN_PYTHON, environment


def post(server, document, priority=None, key=None):
    headers = {"X-API-Key": key, "X-Unetserve-Priority": priority}
    return requests.post(server.url + "/predict", json=document, timeout=WAIT_S,
                         headers={name: value for name, value in headers.items() if value is not None})


def make_key(*words):
    done = subprocess.run([BUILD / "unetctl", "key", *words], capture_output=True, text=True, check=True, timeout=WAIT_S)
    return done.stderr.strip(), done.stdout


@pytest.fixture
def keys(tmp_path):
    """The usual key and one that may go first, in tmp_path/keys."""
    made = [make_key("usual"), make_key("first", "--priority", "5")]
    (tmp_path / "keys").write_text("".join(line for _, line in made))
    return [key for key, _ in made]


def slots(server, state, key):
    shown = requests.get(server.url + "/metrics", timeout=WAIT_S, headers={"X-API-Key": key}).text
    return Metrics(shown).value("slots", state=state)


def test_the_highest_goes_first(start_server, keys, tmp_path):
    usual, first = keys
    config = (f"[server]\napi_key_file = {tmp_path}/keys\n"
              f"[model turns]\npath = {CHECKOUT}/tests/python/turns.py\npython = {DEBIAN_PYTHON}\nsandbox = off\n"
              "timeout_ms = 120000\nrun_timeout_ms = 120000\n")
    server = start_server(config=config, env=environment())
    gate = tmp_path / "gate"
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        one = pool.submit(post, server, {"until": str(gate)}, None, usual)
        wait_until(lambda: slots(server, "RUN", usual) == 1, WAIT_S, "the first one's run")
        # The worker holds one more: that is its next, whatever comes.
        two = pool.submit(post, server, {}, None, usual)
        wait_until(lambda: slots(server, "LEASED", usual) == 1, WAIT_S, "the second one's lease")
        waiting = []
        for priority, key in (("-9", usual), (None, first), ("0", usual), ("5", first)):
            waiting.append(pool.submit(post, server, {}, priority, key))
            wait_until(lambda: slots(server, "READY", usual) == len(waiting), WAIT_S, "another one that waits")
        gate.touch()
        answers = [future.result().json()["output"] for future in (one, two, *waiting)]
    assert answers == [1, 2, 6, 4, 5, 3]
    server.stop()


def test_more_than_allowed_is_refused(start_server, keys, tmp_path):
    usual, first = keys
    server = start_server(BUILD / "models" / "typed.so", config=f"[server]\napi_key_file = {tmp_path}/keys\n")
    for priority, key, status in (("0", usual, 200), ("-9", usual, 200), ("1", usual, 403), ("5", first, 200), ("6", first, 403),
                                  ("10", first, 400), ("x", usual, 400)):
        answer = post(server, {"input": 1.0}, priority, key)
        assert answer.status_code == status, (priority, answer.text)
        assert status == 200 or "X-Unetserve-Priority" in answer.json()["detail"]
    server.stop()


def test_without_keys_nobody_goes_first(start_server):
    server = start_server(BUILD / "models" / "typed.so")
    assert [post(server, {"input": 1.0}, priority).status_code for priority in ("-1", "0", "1")] == [200, 200, 403]
    server.stop()


def test_all_gateways_get_connections(start_server):
    """SO_REUSEPORT spreads them by a hash of both ends: of 400 each of four gateways gets some."""
    server = start_server(BUILD / "models" / "typed.so", ["--gateways", "4"])
    for _ in range(400):
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    metrics = Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text)
    counts = [metrics.value("gateway_connections_total", gateway=str(i)) for i in range(4)]
    assert min(counts) > 0 and sum(counts) == metrics.value("connections_total") >= 401
    server.stop()
