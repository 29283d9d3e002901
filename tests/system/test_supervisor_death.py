"""The supervisor is killed under a stand-in for systemd: what was accepted is answered by the orphans, who comes
meanwhile is served by the next supervisor, and nothing of the last one stays."""

import concurrent.futures
import json
import os
import pathlib
import shutil
import signal
import socket
import threading
import time

import pytest
import requests

from conftest import BUILD, WAIT_S, listening, process_alive, wait_until
from protocol_client import Client
from service_manager import ServiceManager

PLUGIN = BUILD / "tests" / "models" / "poison.so"
# Orphans go on as long as a test holds their jobs.
PATIENT = {"server": "drain_timeout_ms = 3600000\n", "model": "workers = 1\nmax_batch_size = 1\n"}


def config_text(server="", model="", listen="127.0.0.1:0", path=PLUGIN):
    assert path.exists(), f"{path} is not built: make test-plugins"
    return (f"[server]\nlisten = {listen}\n{server}\n[model poison]\npath = {path}\nroute = /predict\n"
            f"timeout_ms = 3600000\nrun_timeout_ms = 3600000\n{model}\n")


@pytest.fixture
def service(request):
    """Factory of services that run until the test ends."""
    running = []

    def start(**keys):
        manager = ServiceManager(config_text(**keys))
        running.append(manager)
        return manager.__enter__()

    yield start
    for manager in running:
        manager.__exit__()
        shutil.rmtree(manager.directory, ignore_errors=True)


def ask_once(url, text="hello"):
    """On a connection of its own, which a gateway that drains does not cut."""
    return requests.post(url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json", "Connection": "close"})


def ask(url, text="hello"):
    """Once more where this client was slow: a gateway that drains has ended a connection on which nothing came."""
    while True:
        begun = time.monotonic()
        try:
            return ask_once(url, text)
        except requests.ConnectionError:
            if time.monotonic() < begun + 1:
                raise


def wait_gone(pids, seconds=WAIT_S):
    wait_until(lambda: not any(map(process_alive, pids)), seconds, "the end of the orphans")


def test_nobody_notices_that_the_supervisor_was_killed(service):
    """Clients come all the time. Each is answered, by the old processes or by the next ones, and on the same port."""
    manager = service(server="gateways = 2\n")
    port, url = manager.port, manager.url
    enough = threading.Event()
    answers = []

    def client():
        while not enough.is_set():
            answer = ask(url, "slow 5")
            answers.append((answer.status_code, answer.text))

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(client) for _ in range(4)]
        orphans = []
        try:
            for times in range(2, 5):
                orphans += manager.kill_main()
                manager.wait_ready(times)
                count = len(answers)
                wait_until(lambda: len(answers) > count + 20, WAIT_S, "answers")
        finally:
            enough.set()
        for one in clients:
            one.result()
    assert set(answers) == {(200, "slow 5")}
    assert manager.port == port and manager.starts == 4
    assert manager.exits == [-signal.SIGKILL] * 3
    wait_gone(orphans)
    manager.stop()
    assert not manager.processes() and not manager.run_root.exists()


def test_orphans_answer_while_the_next_ones_serve(service, gate):
    """A second worker, since an orphan may still accept who comes before it knows that it is one."""
    keys = dict(PATIENT, model=PATIENT["model"].replace("workers = 1", "workers = 2"))
    manager = service(path=gate.model, **keys)
    url = manager.url
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, url, "held 0")
        wait_until(lambda: running(manager) == 1, WAIT_S, "the held job's running")
        orphans = manager.kill_main()
        assert ask(url).text == "hello"
        manager.wait_ready(2)
        # The next ones have a table of their own, in which nothing runs, and serve while the orphans still have a job.
        wait_until(lambda: running(manager) == 0, WAIT_S, "an answer of the next ones")
        assert ask(url).text == "hello"
        gate.open()
        assert (held.result().status_code, held.result().text) == (200, "held 0")
    wait_gone(orphans)
    # What the old processes left behind at their end has not taken the new ones' sockets away.
    assert running(manager) == 0
    assert ask(url).text == "hello"
    manager.stop()


def slots(manager):
    with Client(manager) as client:
        head, body = client.status()
        assert head["status"] == 200
        return json.loads(body)["slots"]


def running(manager):
    return slots(manager)["RUN"]


def busy(manager):
    """Jobs that were accepted and are not done."""
    counts = slots(manager)
    return counts["READY"] + counts["LEASED"] + counts["RUN"]


def connect_and_ask(port):
    client = socket.create_connection(("127.0.0.1", port), WAIT_S)
    client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                   b"Content-Type: application/json\r\nContent-Length: 5\r\n\r\nhello")
    return client


@pytest.mark.parametrize("before, after", [(3, 1), (1, 3), (2, 2)])
def test_changed_number_of_gateways_strands_no_backlog(service, before, after):
    """With several gateways each has a backlog of its own. Who waits in any of them is answered, whoever serves it."""
    manager = service(server=f"gateways = {before}\n")
    port = manager.port
    manager.holding.clear()
    wait_gone(manager.kill_main())
    clients = [connect_and_ask(port) for _ in range(30)]
    manager.config = config_text(server=f"gateways = {after}\n")
    manager.holding.set()
    for client in clients:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    manager.wait_ready(2)
    assert manager.port == port
    # And once more, with what was stored now.
    manager.holding.clear()
    wait_gone(manager.kill_main())
    clients = [connect_and_ask(port) for _ in range(30)]
    manager.holding.set()
    for client in clients:
        with client:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    manager.stop()


def test_addresses_that_are_no_longer_named_are_closed(service, other_port, tmp_path):
    path = str(tmp_path / "s")
    manager = service(listen=f"127.0.0.1:0, unix:{path}")
    port = manager.port
    sockets = listening(port)
    assert sockets
    manager.config = config_text(listen=f"127.0.0.1:{other_port}, unix:{path}")
    manager.holding.clear()
    wait_gone(manager.kill_main())
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(path)
        waiting.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        manager.holding.set()
        waiting.settimeout(WAIT_S)
        assert waiting.recv(100).startswith(b"HTTP/1.1 ")
    manager.wait_ready(2)
    assert manager.port == other_port and ask(manager.url).text == "hello"
    # The service manager closes what it is told to give up, and the orphans theirs, when they come to it.
    wait_until(lambda: not sockets & listening(port), WAIT_S, "the end of the old address")
    manager.stop()


def test_orphans_of_supervisor_and_gateway_leave_at_once(service):
    """Nobody waits for anything any more; drain_timeout_ms is far away."""
    manager = service(server="drain_timeout_ms = 600000\n", model="workers = 2\n")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lost = [pool.submit(ask_once, manager.url, "held 0") for _ in range(2)]
        wait_until(lambda: running(manager) == 2, WAIT_S, "running jobs")
        fronts = manager.processes("gateway")
        rest = set(manager.processes()) - set(fronts)
        manager.holding.clear()
        idle = manager.processes("broker")
        for pid in [manager.pid, *fronts]:
            os.kill(pid, signal.SIGKILL)
        wait_gone(idle)
        for one in lost:
            assert isinstance(one.exception(), requests.ConnectionError)
    for pid in rest:  # the workers are in the middle of a job without end
        if process_alive(pid):
            os.kill(pid, signal.SIGKILL)


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_orphans_do_without_a_broker(service, gate):
    """It is killed with the supervisor, and nobody replaces it: the workers take what was accepted by themselves."""
    manager = service(path=gate.model, **PATIENT)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        texts = ["held 0", "one", "two", "three"]
        asked = [pool.submit(ask, manager.url, "held 0")]
        wait_until(lambda: running(manager) == 1, WAIT_S, "the running job")
        asked += [pool.submit(ask, manager.url, text) for text in texts[1:]]
        wait_until(lambda: busy(manager) == 4, WAIT_S, "all jobs to be accepted")
        brokers = manager.processes("broker")
        manager.holding.clear()
        for pid in [manager.pid, *brokers]:
            os.kill(pid, signal.SIGKILL)
        wait_gone(brokers)
        gate.open()
        for text, one in zip(texts, asked):
            assert (one.result().status_code, one.result().text) == (200, text)


def test_orphans_tell_whom_they_cannot_answer(service):
    """The supervisor and the only worker are killed: at the drain's end that is what the client reads, not a broken
    connection."""
    manager = service(server="drain_timeout_ms = 1500\n", model="workers = 1\n")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lost = [pool.submit(ask, manager.url, "held 0")]
        wait_until(lambda: running(manager) == 1, WAIT_S, "the running job")
        lost.append(pool.submit(ask, manager.url, "hello"))
        wait_until(lambda: busy(manager) == 2, WAIT_S, "the waiting job")
        fronts, workers = manager.processes("gateway"), manager.processes("worker")
        manager.holding.clear()
        for pid in [manager.pid, *workers]:
            os.kill(pid, signal.SIGKILL)
        for one in lost:
            answer = one.result()
            assert answer.status_code == 503 and answer.headers["Retry-After"] == "1"
            assert answer.json() == {"detail": "The server ends, and this request was not done in time: send it again"}
        wait_gone(fronts)


def test_orphan_that_loops_or_is_stopped_ends(service):
    manager = service(server="drain_timeout_ms = 1000\n", model="workers = 2\n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lost = pool.submit(ask, manager.url, "hang")
        wait_until(lambda: running(manager) == 1, WAIT_S, "the running job")
        broker = manager.processes("broker")[0]
        manager.holding.clear()
        for pid in (manager.pid, broker):  # the supervisor first: it would replace the other
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda pid=pid: state_of(pid) == "T", WAIT_S, "its stop")
        wait_gone(manager.kill_main(), WAIT_S)
        assert lost.result().status_code == 503


def test_next_supervisor_is_started_by_hand(service, other_port, gate):
    """Nobody has stored the sockets. The address is free as soon as the orphans know that they are orphans."""
    manager = service(path=gate.model, listen=f"127.0.0.1:{other_port}", **PATIENT)
    port = manager.port
    manager.holding.clear()
    manager.empty_store()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        held = pool.submit(ask, manager.url, "held 0")
        wait_until(lambda: running(manager) == 1, WAIT_S, "the held job's running")
        manager.kill_main()
        manager.config = config_text(listen=f"127.0.0.1:{port}")
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)), WAIT_S, "a free port")
        manager.holding.set()
        manager.wait_ready(2)
        assert ask(f"http://127.0.0.1:{port}").text == "hello"
        gate.open()
        assert held.result().text == "held 0"
    manager.stop()
