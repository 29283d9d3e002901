"""The supervisor: starting, restarting, ending, what it tells systemd, and how it refuses."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests

from conftest import BUILD, Gate, WAIT_S, process_alive, wait_until
from protocol_client import Client


def healthy(server):
    try:
        return requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    except requests.RequestException:
        return False


def wait_replaced(server, role, old):
    """A new process of that role is there, and the server as a whole answers again."""
    wait_until(lambda: len(server.role(role)) == len(old) and set(server.role(role)) != set(old),
               WAIT_S, f"a new {role}")
    wait_until(lambda: healthy(server), WAIT_S, "health")


# ---- starting and ending -------------------------------------------------------------------------


def test_ready_line_names_the_port(start_server, simple_model):
    server = start_server(simple_model)
    assert server.ready_line == f"unetserve: ready on http://127.0.0.1:{server.port}"
    assert healthy(server)
    assert len(server.role("gateway")) == 2 and len(server.role("broker")) == 1
    assert len(server.role("worker")) == 1
    server.stop()


def test_sigint_ends_it_as_sigterm_does(start_server, simple_model):
    start_server(simple_model).stop(signal.SIGINT)


def test_run_directory_is_private_and_goes(start_server, simple_model):
    server = start_server(simple_model)
    instance = server.run_root / str(server.port)
    assert instance.stat().st_mode & 0o777 == 0o700
    assert server.run_root.stat().st_mode & 0o777 == 0o700
    server.stop()


def test_sigterm_while_starting(start_server, simple_model):
    """Whatever it is doing just then: it ends with 0 and leaves nothing."""
    for delay_s in (0.0, 0.005, 0.02, 0.05):
        server = start_server(simple_model, wait_ready=False)
        # Not before main has blocked the signals; /proc tells.
        wait_until(lambda: signals_blocked(server.pid), WAIT_S, "the start")
        threading.Event().wait(delay_s)
        server.children()
        server.send(signal.SIGTERM)
        assert server.wait() == 0, server.log_text()
        server.assert_nothing_left()


def signals_blocked(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigBlk:"):
            return int(line.split()[1], 16) & 1 << (signal.SIGTERM - 1)
    return False


def test_second_sigterm_hurries(start_server, simple_model):
    """A gateway that does not end is killed at the second signal, long before the drain is over."""
    server = start_server(simple_model, ["--gateways", "1"],
                          config="[server]\ndrain_timeout_ms = 600000\n")
    for pid in server.role("gateway"):
        os.kill(pid, signal.SIGSTOP)
    server.send(signal.SIGTERM)
    wait_until(lambda: "draining" in server.log_text(), WAIT_S, "the drain")
    server.send(signal.SIGTERM)
    assert server.wait() == 0
    server.assert_nothing_left()


def test_drain_timeout_ends_what_hangs(start_server, simple_model):
    server = start_server(simple_model, config="[server]\ndrain_timeout_ms = 100\n")
    for pid in server.role("worker") + server.role("broker"):
        os.kill(pid, signal.SIGSTOP)
    server.stop()


def test_children_end_with_a_killed_supervisor(start_server, simple_model):
    server = start_server(simple_model)
    children = server.children()
    server.send(signal.SIGKILL)
    server.process.wait(WAIT_S)
    wait_until(lambda: not any(map(process_alive, children)), WAIT_S, "the end of the children")


# ---- restarts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["worker", "gateway", "broker"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_killed_process_is_replaced(start_server, simple_model, role, number):
    server = start_server(simple_model)
    before = server.role(role)
    os.kill(before[0], number)
    wait_replaced(server, role, before)
    assert process_alive(server.pid)
    server.stop()


def test_all_children_killed_at_once(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "2", "--workers", "2"])
    before = set(server.children())
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(server.children()) == len(before) and
               not before & set(server.children()), WAIT_S, "new children")
    wait_until(lambda: healthy(server), WAIT_S, "health")
    server.stop()


def cpu_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_drain_finishes_what_was_accepted(start_server, demo_model):
    server = start_server(config="[server]\ndrain_timeout_ms = 3600000\n"
                                 f"[model slow]\npath = {demo_model}\nbackend = reference\ntimeout_ms = 3600000\nrun_timeout_ms = 3600000\n")
    worker = server.role("worker")[0]
    before = cpu_ticks(worker)
    headers = {"Content-Type": "application/octet-stream", "X-Unetserve-Dtype": "uint8",
               "X-Unetserve-Shape": "12,192,192"}
    answers = []

    def ask():
        answers.append(requests.post(server.url + "/predict", data=bytes(12 * 192 * 192),
                                     headers=headers, timeout=WAIT_S).status_code)

    client = threading.Thread(target=ask)
    client.start()
    wait_until(lambda: cpu_ticks(worker) > before + 2, WAIT_S, "the job's running")
    server.send(signal.SIGTERM)
    client.join(WAIT_S)
    assert answers == [200]
    assert server.wait() == 0
    server.assert_nothing_left()


def test_reload_loses_no_request(start_server, simple_model):
    server = start_server(simple_model)
    answers = []
    enough = threading.Event()

    def ask():
        with requests.Session() as session:
            while not enough.is_set():
                answers.append(session.post(server.url + "/predict", json={"input": 4.0},
                                            timeout=WAIT_S).status_code)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for round_number in (1, 2):
            server.send(signal.SIGHUP)
            wait_until(lambda: server.log_text().count("msg=reloaded") == round_number, WAIT_S,
                       "the reload")
        count = len(answers)
        wait_until(lambda: len(answers) > count + 20, WAIT_S, "answers after the reload")
    finally:
        enough.set()
        for client in clients:
            client.join(WAIT_S)
    assert set(answers) == {200}, answers
    server.stop()


def test_hung_worker_is_replaced(start_server, gate):
    """Stopped in the middle of a job that may run for a second only: the client is told so, and the worker killed."""
    server = start_server(config=f"[model held]\npath = {gate.model}\nroute = /predict\nrun_timeout_ms = 1000\n")
    worker = server.role("worker")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask_text, server, "held 0")
        wait_until(lambda: "RUN" in slot_states(server), WAIT_S, "the job's running")
        os.kill(worker[0], signal.SIGSTOP)
        wait_until(lambda: not process_alive(worker[0]), WAIT_S, "the hung worker's end")
        assert "process shows no progress" in server.log_text()
        wait_until(lambda: "hung=yes" in server.log_text(), WAIT_S, "its burial")
        assert answer.result()[0] == 504
    # The time is the run's, not the queue's.
    assert float(re.search(r"status=504 .*forward_ms=(\S+)", server.log_text())[1]) >= 1000
    wait_replaced(server, "worker", worker)
    server.stop()


def test_sigterm_after_a_kill(start_server, simple_model):
    """Ending while a seat is between two processes."""
    server = start_server(simple_model)
    os.kill(server.role("worker")[0], signal.SIGKILL)
    server.stop()


def test_restarted_gateway_finds_its_backlog(start_server, simple_model):
    """The supervisor holds the listening socket: who connects meanwhile waits and is answered."""
    server = start_server(simple_model)
    gateways = [pid for pid, words in server.children().items()
                if words[0].endswith("gateway") and "zmq" not in words]
    os.kill(gateways[0], signal.SIGKILL)
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as client:
        client.settimeout(WAIT_S)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 ")
    server.stop()


def test_sighup_restarts_workers_one_by_one(start_server, simple_model):
    server = start_server(simple_model, ["--workers", "2"])
    before = server.role("worker")
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the reload")
    assert not set(before) & set(server.role("worker")) and len(server.role("worker")) == 2
    assert healthy(server)
    server.stop()


def test_sighup_with_a_wrong_configuration_changes_nothing(start_server, simple_model):
    server = start_server(config=f"[model x]\npath = {simple_model}\n")
    before = server.children()
    for text, word in (("[model x]\nnonsense = 1\n", "nonsense"),
                       ("[model x]\npath = /nowhere\n", "cannot be read"),
                       (f"[model y]\npath = {simple_model}\n", "added, removed")):
        (server.directory / "unetserve.conf").write_text(text)
        count = server.log_text().count("not reloaded")
        server.send(signal.SIGHUP)
        wait_until(lambda: server.log_text().count("not reloaded") > count, WAIT_S, "the refusal")
        assert word in server.log_text()
        assert server.children() == before and healthy(server)
    server.stop()


def test_sighup_names_the_keys_that_need_a_restart(start_server, simple_model):
    server = start_server(config=f"[model x]\npath = {simple_model}\n")
    (server.directory / "unetserve.conf").write_text(
        f"[server]\ngateways = 3\nmax_connections = 5\n[model x]\npath = {simple_model}\n"
        "threads = 1\nroute = /other\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the reload")
    assert 'keys="gateways max_connections x.route"' in server.log_text()
    words = list(server.children().values())
    assert [one[one.index("--threads") + 1] for one in words if "--threads" in one] == ["1"]
    server.stop()


def test_sighup_applies_keys_and_log_level_to_those_that_run(start_server, simple_model, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("old\n")
    text = f"[server]\napi_key_file = {keys}\n%s\n[model x]\npath = {simple_model}\nroute = /predict\n%s\n"
    server = start_server(config=text % ("", ""))
    gateways = server.role("gateway")

    def status_with(key):
        return requests.post(server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S,
                             headers={"X-API-Key": key}).status_code

    assert (status_with("old"), status_with("new")) == (200, 401)
    keys.write_text("new\n")
    (server.directory / "unetserve.conf").write_text(
        text % ("log_level = debug\nrate_limit = 0.001\nrate_burst = 3", "timeout_ms = 5"))
    reload(server)
    wait_until(lambda: server.log_text().count("configuration read again") == 2, WAIT_S,
               "gateways that know")
    assert "from the next start" not in server.log_text()
    assert status_with("old") == 401
    assert [status_with("new") for _ in range(4)][-1] == 429
    assert server.role("gateway") == gateways
    # A file that cannot be read leaves the keys that there are.
    keys.unlink()
    server.send(signal.SIGHUP)
    wait_until(lambda: "cannot read the API keys" in server.log_text(), WAIT_S, "the complaint")
    assert status_with("old") == 401
    server.stop()


def test_sighup_changes_limits_of_those_that_run(start_server):
    """Connections of one address, the page, and the drain's time, which orphans go by too."""
    poison = BUILD / "tests" / "models" / "poison.so"
    text = ("[server]\ngateways = 1\nheader_timeout_ms = 3600000\n%s\n[model poison]\npath = " + str(poison) + "\nroute = /predict\n"
            "timeout_ms = 3600000\nrun_timeout_ms = 3600000\n")
    server = start_server(config=text % "drain_timeout_ms = 86400000\n")
    gateways = server.role("gateway")
    assert requests.get(server.url + "/docs", timeout=WAIT_S).status_code == 200
    (server.directory / "unetserve.conf").write_text(
        text % "drain_timeout_ms = 500\ndocs = off\nmax_connections_per_address = 2\nsend_timeout_ms = 1000\n"
        "max_receiving_percent = 50\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: "configuration read again" in server.log_text() or "msg=reloaded" in server.log_text(), WAIT_S,
               "the reload")
    assert "from the next start" not in server.log_text()
    wait_until(lambda: requests.get(server.url + "/docs", timeout=WAIT_S).status_code == 404, WAIT_S, "no page")
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WAIT_S))
        running.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n"
                        b"held 0")

        def one_more():
            """What is said to it; it stays, as one of its address's."""
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WAIT_S))
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            return client.recv(100)[:13]

        answers = [one_more() for _ in range(4)]
        assert answers[-1] == b"HTTP/1.1 429 " and set(answers) <= {b"HTTP/1.1 200 ", b"HTTP/1.1 429 "}, answers
        assert server.role("gateway") == gateways
        children = server.children()
        server.send(signal.SIGKILL)
        server.process.wait(WAIT_S)
        assert running.recv(100).startswith(b"HTTP/1.1 503 ")
        wait_until(lambda: not any(map(process_alive, children)), WAIT_S, "the end of the orphans")


# ---- a model that becomes another one --------------------------------------------------------------


@pytest.fixture
def moody_gate(tmp_path):
    return Gate(tmp_path, "moody")


@pytest.fixture
def moody(moody_gate, tmp_path):
    """A model whose interface and answers are what a file says: (path, mood)."""

    def mood(text):
        (tmp_path / "moody.so.new").write_text(text)
        (tmp_path / "moody.so.new").rename(tmp_path / "moody.so.mood")

    mood("first")
    return moody_gate.model, mood


@pytest.fixture
def start_moody(start_server, moody):
    """A server of that model whose requests may take their time."""
    def start():
        return start_server(config=f"[model moody]\npath = {moody[0]}\nroute = /predict\ntimeout_ms = 3600000\n"
                                   "run_timeout_ms = 3600000\n")

    return start


def ask_text(server, text="0"):
    answer = requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                           headers={"Content-Type": "application/json"})
    return answer.status_code, answer.text


def reload(server, times=1, what="msg=reloaded"):
    server.send(signal.SIGHUP)
    wait_until(lambda: server.log_text().count(what) == times, WAIT_S, "the end of the reload")


def test_requests_in_flight_end_with_the_model_that_they_began_with(start_moody, moody, moody_gate):
    _, mood = moody
    server = start_moody()
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        old = [pool.submit(ask_text, server, "held 0") for _ in range(3)]
        wait_until(lambda: accepted(server) == 3, WAIT_S, "three jobs")
        mood("second")
        server.send(signal.SIGHUP)
        wait_until(lambda: server.log_text().count("program=worker") >= 2, WAIT_S, "the spare")
        assert ask_text(server) == (200, "second")
        moody_gate.open()
        assert {one.result() for one in old} == {(200, "first")}
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the end of the reload")
    assert len(server.role("worker")) == 1 and ask_text(server) == (200, "second")
    server.stop()


def test_old_worker_dies_during_the_reload(start_moody, moody):
    """Who waited for it is told at once, and not at the deadline: nobody else has the model that he began with."""
    _, mood = moody
    server = start_moody()
    old_worker = server.role("worker")[0]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        old = [pool.submit(ask_text, server, "held 0") for _ in range(3)]
        wait_until(lambda: accepted(server) == 3, WAIT_S, "three jobs")
        mood("second")
        server.send(signal.SIGHUP)
        wait_until(lambda: server.log_text().count("program=worker") >= 2, WAIT_S, "the spare")
        assert ask_text(server) == (200, "second")
        os.kill(old_worker, signal.SIGKILL)
        for one in old:
            status, text = one.result()
            assert status == 503 and "send it again" in text
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the end of the reload")
    server.stop()


@pytest.fixture
def hold(moody):
    """Until it is called again, no worker is set up that finds that mood."""
    path, _ = moody

    def set_hold(text):
        (path.parent / "moody.so.hold.new").write_text(text)
        (path.parent / "moody.so.hold.new").rename(path.parent / "moody.so.hold")

    return set_hold


def wait_worker(server, known):
    """The pid of a worker that is not among those known."""
    found = []

    def look():
        found[:] = set(server.role("worker")) - set(known)
        return len(found) == 1 and "--describe" not in server.children().get(found[0], ["--describe"])

    wait_until(look, WAIT_S, "another worker")
    return found[0]


def test_worker_that_was_starting_when_the_reload_began(start_server, moody, hold):
    """It was started for the old model, so it is none of the new one's: it starts again."""
    path, mood = moody
    server = start_server(path)
    hold("first")
    old_worker = server.role("worker")[0]
    os.kill(old_worker, signal.SIGKILL)
    late = wait_worker(server, [old_worker])
    mood("second")
    reload(server)
    assert ask_text(server) == (200, "second")
    workers = server.role("worker")
    assert len(workers) == 1 and late not in workers
    server.stop()


def test_refused_reload_leaves_no_worker_of_the_new_model(start_server, moody, hold):
    """Not even one that was replaced meanwhile and was still loading it."""
    path, mood = moody
    server = start_server(path)
    old_worker = server.role("worker")[0]
    hold("second")
    mood("second")
    server.send(signal.SIGHUP)
    spare = wait_worker(server, [old_worker])
    os.kill(old_worker, signal.SIGKILL)
    late = wait_worker(server, [old_worker, spare])
    os.kill(spare, signal.SIGKILL)
    wait_until(lambda: "not reloaded" in server.log_text(), WAIT_S, "the refusal")
    mood("first")
    hold("nothing")
    wait_until(lambda: ask_text(server) == (200, "first"), WAIT_S, "the old model")
    assert late not in server.role("worker")
    mood("third")
    reload(server)
    assert ask_text(server) == (200, "third")
    server.stop()


def seats(server):
    """{number: pid} of the workers' seats."""
    return {int(words[words.index("--seat") + 1]): pid for pid, words in server.children().items()
            if "--seat" in words and words[0].endswith("unetserve-worker")}


def seat_of(server, pid):
    return next(seat for seat, one in seats(server).items() if one == pid)


def spare_of(server):
    """The pid of the worker at the last seat, which loads what is to come; None: it is not there."""
    found = seats(server)
    return found[max(found)] if len(found) == 3 else None


def test_reload_whose_spare_never_loads_ends(start_server, moody, hold):
    """Another worker, replaced meanwhile, has brought the new model already: it is taken back, and what was begun with it
    is answered by it."""
    path, mood = moody
    server = start_server(path, ["--workers", "2"])
    old = server.role("worker")
    hold("second")
    mood("second")
    server.send(signal.SIGHUP)
    spare = wait_until(lambda: spare_of(server), WAIT_S, "the spare")
    os.kill(old[0], signal.SIGKILL)
    wait_until(lambda: len(server.role("worker")) == 3 and old[0] not in server.role("worker"), WAIT_S, "its successor")
    hold(f"second at {seat_of(server, spare)}")
    wait_until(lambda: ask_text(server) == (200, "second"), WAIT_S, "the new model")
    hold("second")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        begun = pool.submit(ask_text, server, "1500")
        wait_until(lambda: begun.done() or "RUN" in slot_states(server), WAIT_S, "the running job")

        def end_spare():
            if pid := spare_of(server):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return "is taken back" in server.log_text()

        wait_until(end_spare, WAIT_S, "the end of the tries")
        mood("first")
        hold("nothing")
        assert begun.result() == (200, "second")
    wait_until(lambda: "not reloaded" in server.log_text(), WAIT_S, "the end of the reload")
    assert ask_text(server) == (200, "first")
    page = requests.get(server.url + "/metrics", timeout=WAIT_S).text
    assert 'unetserve_reloads_total{outcome="refused"} 1\n' in page
    assert 'unetserve_reloads_total{outcome="done"} 0\n' in page
    wait_until(lambda: len(server.role("worker")) == 2, WAIT_S, "both workers")
    mood("third")
    reload(server)
    assert {ask_text(server) for _ in range(4)} == {(200, "third")}
    server.stop()


def slots(server):
    with Client(server) as client:
        return json.loads(client.status()[1])["slots"]


def slot_states(server):
    return [state for state, count in slots(server).items() if count]


def accepted(server):
    """Jobs that are not done."""
    counts = slots(server)
    return counts["READY"] + counts["LEASED"] + counts["RUN"]


def test_changed_interfaces_lose_no_request(start_server, moody):
    path, mood = moody
    server = start_server(path, ["--workers", "2"])
    answers = []
    enough = threading.Event()

    def client():
        while not enough.is_set():
            answers.append(ask_text(server, "2"))

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    try:
        for times in range(1, 6):
            mood(f"mood {times}")
            reload(server, times)
            assert ask_text(server) == (200, f"mood {times}")
    finally:
        enough.set()
        for one in clients:
            one.join(WAIT_S)
    assert {status for status, _ in answers} == {200}
    texts = [text for _, text in answers]
    assert set(texts) <= {"first", *(f"mood {times}" for times in range(1, 6))}
    assert len(server.role("worker")) == 2
    server.stop()


def test_model_that_does_not_load_leaves_the_old_one(start_server, moody):
    path, mood = moody
    server = start_server(path)
    before = server.children()
    mood("fail")  # can be described, but not set up
    reload(server, what="not reloaded")
    assert "does not load" in server.log_text()
    assert server.children() == before and ask_text(server) == (200, "first")
    mood("better")
    reload(server)
    assert ask_text(server) == (200, "better")
    server.stop()


def test_supervisor_does_not_wait_for_a_description(start_server, moody):
    """It serves its processes while a model takes its time to be described, and ends when it is told to."""
    path, mood = moody
    server = start_server(path)
    mood("slow to describe")
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloading" in server.log_text(), WAIT_S, "the reload")
    worker = next(pid for pid, words in server.children().items() if "--seat" in words
                  and words[0].endswith("worker"))
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: f"pid={worker} signal=KILL" in server.log_text(), WAIT_S, "the burial")
    assert "msg=reloaded" not in server.log_text()
    server.stop()


# ---- addresses -----------------------------------------------------------------------------------


def test_several_gateways_share_a_port(start_server, simple_model):
    server = start_server(simple_model, ["--gateways", "3"])
    assert len(server.role("gateway")) == 4
    for _ in range(20):
        assert healthy(server)
    server.stop()


def test_ipv6_and_unix_addresses(start_server, simple_model, tmp_path):
    path = str(tmp_path / "s")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()  # leaves the file
    server = start_server(simple_model, ["--listen", "[::1]:0", "--listen", f"unix:{path}"])
    assert len(server.addresses) == 3 and server.addresses[2] == f"unix:{path}"
    assert server.addresses[1].startswith("http://[::1]:")
    assert requests.get(server.addresses[1] + "/health", timeout=WAIT_S).status_code == 200
    assert os.stat(path).st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
    server.stop()


def test_port_that_is_taken(run_unetserve, simple_model):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for gateways in (1, 2):
            end = run_unetserve("--model", simple_model, "--listen", f"127.0.0.1:{port}",
                                "--gateways", gateways)
            assert end.returncode == 69
            assert f"127.0.0.1:{port}" in end.stderr and "another program" in end.stderr


def test_run_dir_of_a_living_instance_is_refused(start_server, run_unetserve, simple_model):
    server = start_server(simple_model)
    instance = server.run_root / str(server.port)
    end = run_unetserve("--model", simple_model, "--listen", "127.0.0.1:0", "--run-dir", instance)
    assert end.returncode == 69 and "another unetserve lives there" in end.stderr
    assert healthy(server)
    server.stop()


def test_sockets_from_systemd(start_server, simple_model):
    """A stand-in for socket activation."""
    with socket.socket() as passed:
        passed.bind(("127.0.0.1", 0))
        passed.listen()
        port = passed.getsockname()[1]
        os.set_inheritable(passed.fileno(), True)
        server = start_activated(start_server, simple_model, passed.fileno())
    assert server.port == port
    assert healthy(server)
    server.send(signal.SIGTERM)
    assert server.wait() == 0


def start_activated(start_server, model, fd):
    """unetserve under a wrapper that moves fd to 3 and sets LISTEN_PID, which only the process itself can know."""
    import conftest

    class Activated(conftest.subprocess.Popen):
        def __init__(self, command, **options):
            env = {**options.pop("env"), "LISTEN_FDS": "1"}
            start = ("import os, sys; os.dup2(int(sys.argv[1]), 3); "
                     "os.environ['LISTEN_PID'] = str(os.getpid()); "
                     "os.execv(sys.argv[2], sys.argv[2:])")
            words = [sys.executable, "-c", start, str(fd), *command]
            super().__init__(words, env=env, **options)

    usual = conftest.subprocess.Popen
    conftest.subprocess.Popen = Activated
    try:
        return start_server(model, pass_fds=(fd,))
    finally:
        conftest.subprocess.Popen = usual


# ---- systemd's protocol ----------------------------------------------------------------------------


class NotifySocket:
    """What systemd does with NOTIFY_SOCKET, as far as a test needs it."""

    def __init__(self):
        self.path = f"/tmp/us-notify-{os.getpid()}.sock"
        pathlib.Path(self.path).unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)

    def wait_for(self, assignment):
        """Reads messages until one has that line; returns all lines read."""
        self.socket.settimeout(WAIT_S)
        lines = []
        while assignment not in lines:
            lines += self.socket.recv(4096).decode().splitlines()
        return lines

    def close(self):
        self.socket.close()
        os.unlink(self.path)


@pytest.fixture
def notify():
    stand_in = NotifySocket()
    yield stand_in
    stand_in.close()


def test_notify_protocol(start_server, simple_model, notify):
    server = start_server(simple_model, env={"NOTIFY_SOCKET": notify.path,
                                             "WATCHDOG_USEC": "400000"})
    lines = notify.wait_for("READY=1")
    assert any(line.startswith("STATUS=") for line in lines)
    notify.wait_for("WATCHDOG=1")
    notify.wait_for("WATCHDOG=1")
    server.send(signal.SIGHUP)
    reload = notify.wait_for("READY=1")
    assert "RELOADING=1" in reload
    assert any(line.startswith("MONOTONIC_USEC=") for line in reload)
    server.send(signal.SIGTERM)
    notify.wait_for("STOPPING=1")
    assert server.wait() == 0
    server.assert_nothing_left()


# ---- environment and logs ----------------------------------------------------------------------------


def environment_of(pid):
    return pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")


def test_children_get_only_what_is_theirs(start_server, simple_model, notify):
    server = start_server(simple_model, env={"UNETSERVE_API_KEY": "secret",
                                             "NOTIFY_SOCKET": notify.path})
    notify.wait_for("READY=1")  # and so forgets the sockets that it was to store
    for pid, words in server.children().items():
        environment = environment_of(pid)
        is_gateway = words[0].endswith("gateway")
        assert (b"UNETSERVE_API_KEY=secret" in environment) == is_gateway
        assert not any(entry.startswith(b"NOTIFY_SOCKET=") for entry in environment)
    worker = environment_of(server.role("worker")[0])
    assert b"OMP_WAIT_POLICY=PASSIVE" in worker
    server.stop()


def test_workers_divide_the_cores(start_server, simple_model):
    cores = os.sched_getaffinity(0)
    server = start_server(simple_model, ["--workers", "2"])
    sets = [os.sched_getaffinity(pid) for pid in server.role("worker")]
    assert len(sets) == 2 and all(one <= cores for one in sets)
    if len(cores) >= 2:
        assert not sets[0] & sets[1]
    server.stop()


def test_json_log(start_server, simple_model):
    server = start_server(simple_model, ["--log-format", "json"])
    server.stop()
    events = [json.loads(line) for line in server.log_text().splitlines()]
    assert {"supervisor", "worker"} <= {event["role"] for event in events}


# ---- refusals ------------------------------------------------------------------------------------


def refused(end, status, *words):
    assert end.returncode == status, end.stderr
    lines = end.stderr.strip().splitlines()
    assert len(lines) == 1, end.stderr
    for word in words:
        assert str(word) in lines[0], lines[0]


def test_usage_errors(run_unetserve, simple_model):
    refused(run_unetserve("--no-such-option"), 64, "--no-such-option")
    refused(run_unetserve("stray"), 64, "stray", "--model")
    refused(run_unetserve(), 64, "--model")
    refused(run_unetserve("--model", simple_model, "--workers", "none"), 64, "--workers", "MIN-MAX")
    refused(run_unetserve("--model", simple_model, "--listen", "nowhere"), 64, "--listen",
            "ADDRESS:PORT")
    refused(run_unetserve("--model", f"a={simple_model}", "--model", f"a={simple_model}"), 64, "'a'")


@pytest.mark.parametrize("text, line, words", [
    ("[server]\nlisten = 127.0.0.1:0\nspeed = 9\n", 3, ["'speed'", "max_body_bytes"]),
    ("[server]\n\ngateways = many\n", 3, ["'gateways'", "many", "1 to 64"]),
    ("[model x]\nroute = /health\npath = /tmp\n", 2, ["'route'", "/health"]),
    ("[model x]\ntile = 256\n", 1, ["'path'"]),
    ("[modle x]\n", 1, ["modle", "[server]"]),
    ("gateways = 1\n", 1, ["'gateways'", "section"]),
    ("[server]\nnothing here\n", 2, ["key = value"]),
    ("[model x]\npath = /a\npath = /b\n", 3, ["'path'", "twice"]),
])
def test_configuration_errors_name_file_line_key_and_what_is_allowed(run_unetserve, tmp_path, text,
                                                                     line, words):
    path = tmp_path / "wrong.conf"
    path.write_text(text)
    refused(run_unetserve("-c", path, "--check"), 78, f"{path}:{line}:", *words)


def test_missing_files(run_unetserve, tmp_path):
    refused(run_unetserve("-c", tmp_path / "none.conf"), 66, "none.conf")
    refused(run_unetserve("--model", tmp_path / "none.pth", "--check"), 66, "none.pth")


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_files_of_keys_and_certificates_are_looked_for(run_unetserve, simple_model, tmp_path, check):
    path = tmp_path / "keys.conf"
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (("none", "No such file"), ("pipe", "no regular file"), (".", "no regular file")):
        path.write_text(f"[server]\nlisten = 127.0.0.1:0\napi_key_file = {tmp_path}/{name}\n[model x]\npath = {simple_model}\n")
        refused(run_unetserve("-c", path, *check), 66, "'api_key_file'", f"{tmp_path}/{name}: ", sentence)


def test_keys_that_are_none_end_the_start(run_unetserve, simple_model, tmp_path):
    (tmp_path / "keys").write_text("# nobody\n")
    path = tmp_path / "keys.conf"
    path.write_text(f"[server]\nlisten = 127.0.0.1:0\napi_key_file = {tmp_path}/keys\n[model x]\npath = {simple_model}\n")
    end = run_unetserve("-c", path)
    assert end.returncode == 78 and "there is no key in it" in end.stderr


def test_pipes_are_no_models(run_unetserve, tmp_path):
    """They are not waited for, either."""
    os.mkfifo(tmp_path / "pipe")
    refused(run_unetserve("--model", tmp_path / "pipe"), 65, f"{tmp_path}/pipe: it is no regular file")
    (tmp_path / "model").mkdir()
    os.mkfifo(tmp_path / "model" / "model.json")
    refused(run_unetserve("--model", tmp_path / "model"), 65, "model.json: it is no regular file")


def test_too_few_files(simple_model):
    end = subprocess.run(["sh", "-c", 'ulimit -n 200 && exec "$0" "$@"', BUILD / "unetserve", "--model", simple_model, "--check"],
                         text=True, capture_output=True, timeout=WAIT_S, check=False)
    refused(end, 71, "200 files", "512 or more")


def test_bad_model_data(run_unetserve, tmp_path):
    path = tmp_path / "bad.so"
    path.write_bytes(b"this is no shared object")
    end = run_unetserve("--model", path, "--check")
    assert end.returncode == 65 and "bad.so" in end.stderr


def test_missing_device(run_unetserve, simple_model):
    if pathlib.Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has such a device")
    end = run_unetserve("--model", simple_model, "--device", "cuda", "--check")
    assert end.returncode == 69 and end.stderr.strip()


def test_memory_that_holds_no_job(run_unetserve, simple_model, tmp_path):
    path = tmp_path / "small.conf"
    path.write_text(f"[server]\nlisten = 127.0.0.1:0\nqueue_memory = 4096\n[model x]\npath = {simple_model}\n")
    for check in ((), ("--check",)):
        refused(run_unetserve("-c", path, *check), 78, "queue_memory", "allowed")


def test_check_serves_nothing(run_unetserve, simple_model):
    end = run_unetserve("--model", f"cubes={simple_model}", "--check")
    assert end.returncode == 0, end.stderr
    assert "model cubes at /predict" in end.stdout
    assert "listen 127.0.0.1:8000" in end.stdout


def test_version_and_help(run_unetserve):
    assert run_unetserve("--version").stdout.startswith("unetserve ")
    assert "--model" in run_unetserve("--help").stdout
