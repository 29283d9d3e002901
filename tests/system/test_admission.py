"""Who is let in: rates by key and by address over all gateways, and what the queue has room and time for."""

import concurrent.futures
import os
import signal
import socket

import numpy
import pytest
import requests

import protocol_client
from conftest import BUILD, WAIT_S, wait_until
from metrics_text import Metrics
from slow_loris import Loris, files_allowed, honest

# A burst of ten, and then nothing for a quarter of an hour: so the counts do not depend on the clock.
TEN = "[server]\nrate_limit = 0.001\nrate_burst = 10\n"


def scrape(server, **more):
    return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S, **more).text)


def ask(server, times=1, **headers):
    """The statuses, of requests on connections of their own, so that each gateway gets some."""
    codes = []
    for _ in range(times):
        answer = requests.post(server.url + "/predict", json={"input": 2.0}, timeout=WAIT_S, headers=headers)
        codes.append(answer.status_code)
        if answer.status_code == 429:
            assert 1 <= int(answer.headers["Retry-After"]) <= 1000
            assert answer.json()["detail"].startswith("Too many requests: 0.001 a second are allowed, try again in ")
    return codes


def test_rate_is_exact_over_gateways(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "3"], config=TEN)
    assert ask(server, 40) == [200] * 10 + [429] * 30
    metrics = scrape(server)
    assert metrics.value("requests_total", model="simple", code="429") == 30
    assert metrics.value("requests_total", model="simple", code="200") == 10
    assert metrics.value("refused_total", reason="rate") == 30
    for path in ("/", "/health", "/info", "/metrics"):
        assert requests.get(server.url + path, timeout=WAIT_S).status_code == 200
    # What one gateway knows outlives it.
    ready = server.log_text().count("process ready")
    for pid in server.role("gateway"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.log_text().count("process ready") >= ready + 4, WAIT_S, "new gateways")
    assert ask(server, 5) == [429] * 5
    server.stop()


def test_users_over_zeromq_have_their_own_bucket(start_server, simple_model):
    server = start_server(simple_model, config=TEN)
    assert ask(server, 11)[-1] == 429
    codes = []
    for _ in range(3):  # a new routing id each, and the same user
        with protocol_client.Client(server) as client:
            for _ in range(5):
                head, body = client.predict(numpy.zeros(3, "uint8"))
                codes.append(head["status"])
            assert client.status()[0]["status"] == 200
    assert codes.count(429) == 5 and 429 not in codes[:10]
    assert b"Too many requests" in body
    server.stop()


def test_rate_by_key(start_server, simple_model, tmp_path):
    (tmp_path / "keys").write_text("first\nsecond\n")
    server = start_server(simple_model, config=TEN + f"api_key_file = {tmp_path}/keys\ntrusted_proxies = 127.0.0.1\n")
    assert ask(server, 3, **{"X-API-Key": "none"}) == [401] * 3
    assert ask(server, 12, **{"X-API-Key": "first"}) == [200] * 10 + [429] * 2
    assert ask(server, 12, **{"X-API-Key": "second ", "X-Forwarded-For": "192.0.2.1"}) == [200] * 10 + [429] * 2
    assert ask(server, 1, **{"X-API-Key": "first", "X-Forwarded-For": "192.0.2.2"}) == [429]
    server.stop()


def test_rate_by_forwarded_address(start_server, simple_model):
    server = start_server(simple_model, config=TEN + "trusted_proxies = 127.0.0.0/8\n")
    assert ask(server, 11, **{"X-Forwarded-For": "192.0.2.1"}) == [200] * 10 + [429]
    # Whatever the client says of others, whichever port and way of writing.
    for forged in ("203.0.113.7, 192.0.2.1", "192.0.2.1:4711", "127.0.0.9, ::ffff:192.0.2.1,127.0.0.2", "unknown,192.0.2.1"):
        assert ask(server, 1, **{"X-Forwarded-For": forged}) == [429]
    # One network of IPv6 is one client, and so is the proxy itself where it names nobody.
    assert ask(server, 5, **{"X-Forwarded-For": "2001:db8::1"}) == [200] * 5
    assert ask(server, 6, **{"X-Forwarded-For": "[2001:db8:0:0:ffff::2]:1"}) == [200] * 5 + [429]
    assert ask(server, 11, **{"X-Forwarded-For": "unknown"}) == [200] * 10 + [429]
    assert ask(server, 1) == [429]
    server.stop()


def test_forwarded_address_of_a_stranger_is_not_believed(start_server, simple_model):
    server = start_server(simple_model, config=TEN + "trusted_proxies = 10.0.0.0/8\n")
    codes = [ask(server, 1, **{"X-Forwarded-For": f"192.0.2.{number}"})[0] for number in range(12)]
    assert codes == [200] * 10 + [429] * 2


def test_trusted_proxy_over_a_unix_socket(start_server, simple_model, tmp_path):
    for networks, refused in (("unix:", 0), ("10.0.0.0/8", 2)):
        path = tmp_path / f"{refused}.sock"
        server = start_server(simple_model, config=TEN + f"trusted_proxies = {networks}\n",
                              listen=f"127.0.0.1:0,unix:{path}")
        codes = []
        for number in range(12):
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(WAIT_S)
                line.connect(str(path))
                line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.%d\r\nConnection: close\r\n"
                             b"Content-Length: 12\r\n\r\n{\"input\": 1}" % number)
                codes.append(line.recv(65536).split()[1])
        assert codes == [b"200"] * (12 - refused) + [b"429"] * refused
        server.stop()


def test_refused_before_100_continue(start_server, simple_model):
    server = start_server(simple_model, config=TEN)
    ask(server, 10)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as line:
        line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5000000\r\n\r\n")
        answer = b""
        while piece := line.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: " in answer and b" 100 " not in answer


# ---- what the queue has before it ----------------------------------------------------------------


@pytest.fixture
def slow_server(start_server):
    """One worker, one job at a time, each as long as it says."""
    path = BUILD / "tests" / "models" / "poison.so"
    assert path.exists(), f"{path} is not built: make test-plugins"

    def start(workers=1, server="", model="max_batch_size = 1", path=path):
        return start_server(config=f"[server]\n{server}\n[model poison]\npath = {path}\nroute = /predict\n"
                                   f"workers = {workers}\n{model}\n")

    return start


def post(server, text, **headers):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json", **headers})


def test_refused_when_the_queue_is_longer_than_its_patience(slow_server, gate):
    server = slow_server(path=gate.model)
    short = {"X-Unetserve-Timeout-Ms": "400"}
    # A queue that nothing is known about refuses nobody.
    for _ in range(4):
        assert post(server, "slow 200").status_code == 200
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        long_ones = [pool.submit(post, server, "held 0") for _ in range(12)]
        wait_until(lambda: scrape(server).value("queue_depth", model="poison") >= 8, WAIT_S, "a queue")
        refused = post(server, "hello", **short)
        assert refused.status_code == 503
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.json()["detail"].startswith("The queue is ")
        with protocol_client.Client(server) as client:
            # This front has seen nothing yet, so it may only say 504 in time.
            head, _ = client.predict(numpy.zeros(1, "uint8"), timeout=400)
            assert head["status"] in (503, 504)
        gate.open()
        assert [one.result().status_code for one in long_ones] == [200] * 12, "who has time is let in"
    metrics = scrape(server)
    assert metrics.value("refused_total", reason="wait") >= 1
    assert metrics.value("requests_total", model="poison", code="503") == metrics.value("refused_total", reason="wait")
    # The queue is empty: it is let in again, whatever was measured; in time or not.
    assert post(server, "hello", **short).status_code in (200, 504)
    server.stop()


def test_slots_that_wait_for_bodies_are_capped_over_gateways(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "2"], config="[server]\nheader_timeout_ms = 3600000\n"
                          "max_receiving_percent = 25\n")
    most = int(scrape(server).sum("slots")) // 4
    lines, first = [], []
    try:
        for _ in range(most + 20):
            line = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
            lines.append(line)
            line.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 14\r\n\r\n")
            first.append(line.recv(65536))
        # Those that came too late were told so, or got the slot of one that was too slow by then.
        admitted = [line for line, text in zip(lines, first) if text.startswith(b"HTTP/1.1 100 ")]
        refused = [text for text in first if text.startswith(b"HTTP/1.1 503 ")]
        assert len(admitted) + len(refused) == most + 20
        assert all(b"\r\nRetry-After: 1\r\n" in text for text in refused)
        metrics = scrape(server)
        assert metrics.value("slots", state="RECV") == most
        assert metrics.value("refused_total", reason="receiving") == len(refused)
        assert metrics.sum("requests_total", code="408") == len(admitted) - most
        # There is room for programs that hold no slot while they speak.
        with protocol_client.Client(server) as client:
            assert client.predict(numpy.zeros(3, "uint8"))[0]["status"] != 503
    finally:
        for line in lines:
            line.close()
    wait_until(lambda: ask(server) == [200], WAIT_S, "an answer when they have left")
    server.stop()


# ---- connections ---------------------------------------------------------------------------------


def connect_from(server, address, request=b""):
    line = socket.create_connection(("127.0.0.1", server.port), WAIT_S, source_address=(address, 0))
    line.sendall(request)
    return line


ROOT = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def test_connections_of_one_address_are_capped(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nmax_connections_per_address = 5\nheader_timeout_ms = 3600000\n")
    lines = [connect_from(server, "127.0.0.2", ROOT) for _ in range(5)]
    assert all(line.recv(65536).startswith(b"HTTP/1.1 200 ") for line in lines)
    for _ in range(3):
        with connect_from(server, "127.0.0.2", ROOT) as line:
            text = b""
            while part := line.recv(65536):
                text += part
        assert text.startswith(b"HTTP/1.1 429 ") and b"\r\nRetry-After: 1\r\n" in text and b"\r\nConnection: close\r\n" in text
        assert text.endswith(b'{"detail":"Too many connections from one address: 5 are allowed"}')
    metrics = scrape(server)  # from another address
    assert metrics.value("refused_total", reason="connections") == 3
    assert metrics.value("requests_total", model="", code="429") == 3
    lines.pop().close()

    def admitted():
        with connect_from(server, "127.0.0.2", ROOT) as line:
            return line.recv(65536).startswith(b"HTTP/1.1 200 ")

    wait_until(admitted, WAIT_S, "the place of the one that left")
    for line in lines:
        line.close()
    server.stop()


def is_over(line):
    """Has the server closed it? What it has sent before is thrown away."""
    line.setblocking(False)
    try:
        while part := line.recv(65536):
            assert part
        return True
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True
    finally:
        line.settimeout(WAIT_S)


def test_connections_of_one_address_are_counted_over_gateways(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "3"],
                          config="[server]\nmax_connections_per_address = 9\nheader_timeout_ms = 3600000\n")
    lines = []

    def admitted():
        line = connect_from(server, "127.0.0.2", ROOT)
        status = line.recv(65536).split(b" ", 2)[1]
        assert status in (b"200", b"429")
        if status == b"200":
            lines.append(line)
        else:
            line.close()
        return status == b"200"

    assert [admitted() for _ in range(15)] == [True] * 9 + [False] * 6
    with connect_from(server, "127.0.0.3", ROOT) as another:
        assert another.recv(65536).startswith(b"HTTP/1.1 200 ")
    for _ in range(4):
        lines.pop(0).close()
    for _ in range(4):
        wait_until(admitted, WAIT_S, "the place of one that left")
    assert [admitted() for _ in range(3)] == [False] * 3
    # What a dead one had is free, and nothing else is.
    ready = server.log_text().count("process ready")
    for pid in server.role("gateway")[:2]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.log_text().count("process ready") >= ready + 2, WAIT_S, "their successors")
    lines[:] = [line for line in lines if not is_over(line)]
    while len(lines) < 9:
        wait_until(admitted, WAIT_S, "the place of one that broke")
    assert [admitted() for _ in range(3)] == [False] * 3
    for line in lines:
        line.close()
    server.stop()


def test_connections_are_counted_over_gateways(start_server, simple_model):
    """Idle ones give way to who waits, also when another gateway has them; and there are never more than may be."""
    server = start_server(simple_model, ["--gateways", "2"], config="[server]\nmax_connections = 4\nheader_timeout_ms = 3600000\n")
    lines = []
    for i in range(10):
        lines.append(connect_from(server, "127.0.0.2", ROOT))
        assert lines[-1].recv(65536).startswith(b"HTTP/1.1 200 "), i
        wait_until(lambda: sum(not is_over(line) for line in lines) <= 4, WAIT_S, "the end of one that gave way")
    for line in lines:
        line.close()
    server.stop()


def test_connections_of_trusted_proxies_and_unix_sockets_are_not_counted(start_server, simple_model, tmp_path):
    path = tmp_path / "front.sock"
    server = start_server(simple_model, listen=f"127.0.0.1:0,unix:{path}",
                          config="[server]\nmax_connections_per_address = 2\ntrusted_proxies = 127.0.0.3\n")
    lines = [connect_from(server, "127.0.0.3", ROOT) for _ in range(6)]
    for _ in range(6):
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(WAIT_S)
        line.connect(str(path))
        line.sendall(ROOT)
        lines.append(line)
    for line in lines:
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        line.close()


def test_slow_loris_does_not_stop_an_honest_client(start_server, simple_model):
    """Two thousand connections that drip heads and bodies, with the configuration as it comes."""
    if files_allowed() < 3000:
        pytest.skip("this process may not have 2,000 sockets")
    server = start_server(simple_model)
    with Loris(server.port, 2000) as loris:
        assert loris.full.wait(WAIT_S)
        wait_until(lambda: scrape(server).value("connections_open") > 1500, WAIT_S, "the connections")
        answers = honest(server.port, WAIT_S, b'{"input": 4.0}', most=200)
        wait_until(lambda: loris.closed, what="that slots and places are not theirs for ever")
        answers += honest(server.port, WAIT_S, b'{"input": 4.0}', most=200)
    assert [status for status, _ in answers if status != 200] == []
    wait_until(lambda: scrape(server).value("slots", state="RECV") == 0, WAIT_S, "the slots")
    server.stop()
