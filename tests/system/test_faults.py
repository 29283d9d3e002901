"""Models that crash or hang, processes that are stopped: who is answered what, and what comes back by itself."""

import concurrent.futures
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import time

import pytest
import requests

from conftest import BUILD, WAIT_S, listening, process_alive, wait_until
from protocol_client import Client


# A window: jobs may be held, so that even lone ones are the broker's.
THROUGH_BROKER = "batch_timeout_ms = 1\n"


@pytest.fixture
def poison_server(start_server):
    """One worker with a model that does to it what the request says."""
    path = BUILD / "tests" / "models" / "poison.so"
    assert path.exists(), f"{path} is not built: make test-plugins"

    def start(workers=1, server="", model="", path=path):
        if not re.search(r"^timeout_ms", model, re.M):
            model += "timeout_ms = 3600000\n"
        return start_server(config=f"[server]\n{server}\n[model poison]\npath = {path}\n"
                                   f"route = /predict\nworkers = {workers}\n{model}\n")

    return start


def ask(server, text, headers=None):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json", **(headers or {})})


def slots(server):
    with Client(server) as client:
        head, body = client.status()
        assert head["status"] == 200
        return requests.models.complexjson.loads(body)["slots"]


def taken(server):
    counts = slots(server)
    return counts["total"] - counts["FREE"]


def arrived(server):
    """Requests that have been accepted, answered or not."""
    text = requests.get(server.url + "/metrics", timeout=WAIT_S).text
    return int(re.search(r"^unetserve_requests_arrived_total\{[^}]*\} (\d+)$", text, re.M).group(1))


def wait_slots_free(server):
    wait_until(lambda: taken(server) == 0, WAIT_S, "all slots to be free")


def ask_together(server, gate, texts):
    """A job first that is held, so that the others meet in one batch behind it."""
    with concurrent.futures.ThreadPoolExecutor(len(texts) + 1) as pool:
        first = pool.submit(ask, server, "held 0")
        wait_until(lambda: slots(server)["RUN"], WAIT_S, "the held job's running")
        answers = [pool.submit(ask, server, text) for text in texts]
        wait_until(lambda: arrived(server) == len(texts) + 1, WAIT_S, "all jobs to be accepted")
        gate.open()
        assert first.result().status_code == 200
        return [answer.result() for answer in answers]


@pytest.mark.parametrize("word", ["crash", "abort", "exit"])
def test_poison_is_answered_500_and_its_batch_200(poison_server, gate, word):
    server = poison_server(path=gate.model)
    texts = ["a", "b", word, "c", "d"]
    answers = ask_together(server, gate, texts)
    for text, answer in zip(texts, answers):
        if text == word:
            assert answer.status_code == 500
            assert answer.json()["detail"] == "The model crashed or hung on this input 2 times"
        else:
            assert (answer.status_code, answer.text) == (200, text)
    assert ask(server, "after").text == "after"
    wait_slots_free(server)
    server.stop()


def test_hanging_input_is_answered_500_and_its_batch_200(poison_server, gate):
    server = poison_server(model="run_timeout_ms = 18000\n", path=gate.model)
    answers = ask_together(server, gate, ["a", "hang", "b"])
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert "2 times" in answers[1].json()["detail"]
    assert server.log_text().count("process shows no progress") >= 2
    wait_slots_free(server)
    server.stop()


def test_failing_batch_is_taken_apart(poison_server, gate):
    server = poison_server(path=gate.model)
    before = server.role("worker")
    answers = ask_together(server, gate, ["a", "fail", "b"])
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[1].json()["detail"] == "The model failed on this input"
    assert server.role("worker") == before
    server.stop()


def test_slow_job_that_ticks_is_left_alone(poison_server, gate):
    """Longer than a silent one would be allowed: it is progress that counts."""
    server = poison_server(path=gate.model, model="run_timeout_ms = 36000\n")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, "held 0")
        wait_until(lambda: slots(server)["RUN"], WAIT_S, "the job's running")
        time.sleep(7)
        gate.open()
        assert answer.result().status_code == 200
    assert "no progress" not in server.log_text()
    server.stop()


def test_mute_job_is_killed_before_its_run_timeout(poison_server):
    server = poison_server(model="run_timeout_ms = 600000\ntimeout_ms = 600000\n")
    worker = server.role("worker")[0]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, "mute 4500")
        assert answer.result().status_code == 200  # a sixth of ten minutes was not over
    assert server.role("worker") == [worker]
    server.stop()


def run_by(server, before):
    """The worker that runs the job now, when it is another one than before."""
    def look():
        workers = server.role("worker")
        return workers[0] if workers not in ([], [before]) and slots(server)["RUN"] else None

    return wait_until(look, WAIT_S, "the job's running")


PATIENT = "timeout_ms = 3600000\nrun_timeout_ms = %d\n"


def test_kills_from_outside_are_not_the_jobs_fault(poison_server, gate):
    server = poison_server(path=gate.model, model=PATIENT % 3600000)
    worker = None
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, "held 0")
        for _ in range(5):
            worker = run_by(server, worker)
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: not process_alive(worker), WAIT_S, "the worker's end")
        gate.open()
        assert (answer.result().status_code, answer.result().text) == (200, "held 0")
    server.stop()


@pytest.mark.parametrize("times", [1, 2])
def test_stopped_worker_is_replaced_and_its_job_runs_again(poison_server, gate, times):
    """Its run time-out is an hour; the stop is seen by its ticks, and is not the job's fault."""
    server = poison_server(path=gate.model, model=PATIENT % 3600000)
    worker = None
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, server, "held 0")
        for _ in range(times):
            worker = run_by(server, worker)
            os.kill(worker, signal.SIGSTOP)
            wait_until(lambda: not process_alive(worker), WAIT_S, "the stopped worker's end")
        gate.open()
        assert (answer.result().status_code, answer.result().text) == (200, "held 0")
    assert server.log_text().count("stopped=yes") == times
    assert "condemned" not in server.log_text()
    server.stop()


def test_stopped_idle_worker_keeps_nobody_waiting(poison_server):
    """It is stopped before it gets the job, which then is leased to it and never begins."""
    server = poison_server()
    worker = server.role("worker")[0]
    os.kill(worker, signal.SIGSTOP)
    assert ask(server, "hello").text == "hello"
    assert not process_alive(worker)
    server.stop()


def test_stopped_broker_is_replaced(poison_server):
    server = poison_server(model=THROUGH_BROKER)
    broker = server.role("broker")[0]
    os.kill(broker, signal.SIGSTOP)
    assert ask(server, "hello").text == "hello"
    assert not process_alive(broker)
    server.stop()


def test_stopped_gateway_is_replaced(poison_server):
    server = poison_server()
    gateways = server.role("gateway")
    for pid in gateways:
        os.kill(pid, signal.SIGSTOP)
    assert ask(server, "hello").text == "hello"  # it waited in the backlog
    wait_until(lambda: not set(gateways) & set(server.role("gateway")), WAIT_S, "the replacement of the other front too")
    server.stop()


def test_idle_processes_are_not_taken_for_hung(poison_server):
    server = poison_server()
    before = server.children()
    time.sleep(5)
    assert server.children() == before and "no progress" not in server.log_text()
    server.stop()


@pytest.mark.parametrize("role", ["worker", "broker"])
def test_deadline_is_kept_whatever_is_stopped(poison_server, role):
    """504 in every state: not leased (no broker), leased or running (no worker)."""
    server = poison_server(model=THROUGH_BROKER)
    still = [server.pid, *server.role(role)]  # the supervisor first: it would replace the others
    for pid in still:
        os.kill(pid, signal.SIGSTOP)
    answer = ask(server, "hello", {"X-Unetserve-Timeout-Ms": "300"})
    assert answer.status_code == 504
    assert "forward;dur=0.000" in answer.headers["Server-Timing"] and "queue;dur=0.000" not in answer.headers["Server-Timing"]
    for pid in still[::-1]:
        os.kill(pid, signal.SIGCONT)
    wait_slots_free(server)
    server.stop()


def test_deadline_of_a_job_behind_a_long_one(poison_server, gate):
    """It is leased to the worker, which is busy past the job's deadline: 504, and not a moment's 500."""
    server = poison_server(path=gate.model, model=PATIENT % 3600000 + "max_batch_size = 1\n")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, server, "held 0")
        wait_until(lambda: slots(server)["RUN"], WAIT_S, "the held job's running")
        others = [pool.submit(ask, server, str(i), {"X-Unetserve-Timeout-Ms": "600"}) for i in range(3)]
        assert [other.result().status_code for other in others] == [504] * 3
        gate.open()
        assert first.result().status_code == 200
    wait_slots_free(server)
    server.stop()


def test_reload_is_not_held_up_by_a_stopped_worker(poison_server):
    server = poison_server()
    worker = server.role("worker")[0]
    os.kill(worker, signal.SIGSTOP)
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text(), WAIT_S, "the reload")
    assert ask(server, "hello").text == "hello" and not process_alive(worker)
    server.stop()


# ---- processes that cannot be killed -----------------------------------------------------------------


class Unkillable:
    """A process that a signal cannot end until release(): its tracer holds it on its way out, as a device may that
    does not answer."""

    SEIZE, DETACH, TRACE_EXIT = 0x4206, 17, 0x40

    def __init__(self, pid):
        self.pid = pid
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        if self.libc.ptrace(self.SEIZE, pid, None, self.TRACE_EXIT):
            pytest.skip(f"no tracing here: {os.strerror(ctypes.get_errno())}")

    def release(self):
        assert process_alive(self.pid)
        # Its stop belongs to this thread until it has been seen.
        os.waitpid(self.pid, os.WUNTRACED | 0x40000000)  # __WALL
        assert self.libc.ptrace(self.DETACH, self.pid, None, None) == 0
        wait_until(lambda: not process_alive(self.pid), WAIT_S, "the end at last")


def condemned(server):
    with Client(server) as client:
        processes = json.loads(client.status()[1])["processes"]
    return [process["pid"] for process in processes if process["life"] == "condemned"]


def test_worker_that_cannot_be_killed(poison_server):
    """Its client is told at the deadline, its slot is out of use, its lease goes to the process that replaces it; and
    when it goes after all, nothing of it stays."""
    server = poison_server(model="run_timeout_ms = 18000\nmax_batch_size = 1\n")
    worker = server.role("worker")[0]
    unkillable = Unkillable(worker)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        stuck = pool.submit(ask, server, "hang")
        wait_until(lambda: slots(server)["RUN"], WAIT_S, "the job's running")
        behind = pool.submit(ask, server, "behind")
        hasty = pool.submit(ask, server, "hasty", {"X-Unetserve-Timeout-Ms": "300"})
        assert hasty.result().status_code == 504
        assert stuck.result().status_code == 504
        assert behind.result().text == "behind"
    assert process_alive(worker) and condemned(server) == [worker]
    assert ask(server, "hello").text == "hello"
    wait_until(lambda: len(server.role("worker")) == 2, WAIT_S, "a worker beside it")
    wait_until(lambda: taken(server) == 1, WAIT_S, "all slots but one to be free")
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    unkillable.release()
    wait_slots_free(server)
    wait_until(lambda: not condemned(server), WAIT_S, "the burial")
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "one worker")
    server.stop()


@pytest.mark.parametrize("role", ["broker", "gateway"])
def test_others_that_cannot_be_killed_are_replaced(poison_server, role):
    server = poison_server()
    pids = server.role(role)
    ready = server.log_text().count('msg="process ready"')
    held = [Unkillable(pid) for pid in pids]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert ask(server, "hello").text == "hello"
    # The ZeroMQ front too: who connects to the stopped one waits as long as that one does.
    wait_until(lambda: server.log_text().count('msg="process ready"') >= ready + len(pids), WAIT_S, "all successors")
    assert all(map(process_alive, pids)) and set(condemned(server)) == set(pids)
    for one in held:
        one.release()
    wait_until(lambda: not condemned(server), WAIT_S, "the burial")
    server.stop()


def test_server_ends_without_those_that_cannot_be_killed(poison_server):
    server = poison_server(server="drain_timeout_ms = 100\n")
    worker = server.role("worker")[0]
    unkillable = Unkillable(worker)
    os.kill(worker, signal.SIGSTOP)
    server.send(signal.SIGTERM)
    assert server.wait() == 71 and process_alive(worker)
    assert "cannot be killed" in server.log_text()
    unkillable.release()
    server.assert_nothing_left()


def test_drain_timeout_is_told_to_whom_it_leaves_unanswered(poison_server):
    """A job that does not end, and a body that does not come: both read 503 before the process goes."""
    server = poison_server(server="gateways = 1\nheader_timeout_ms = 3600000\ndrain_timeout_ms = 300\n")
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as running, \
            socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as sending:
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
        running.sendall(head + b"6\r\n\r\nheld 0")
        sending.sendall(head + b"100000\r\n\r\nslow")
        wait_until(lambda: slots(server)["RUN"] == 1 and slots(server)["RECV"] == 1, WAIT_S, "a job and a body")
        server.send(signal.SIGTERM)
        for client, word in ((running, b"this request was not done in time"), (sending, b"the body was not whole in time")):
            answer = b"".join(iter(lambda: client.recv(65536), b""))
            assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 1\r\n" in answer and word in answer, answer
    assert server.wait() == 0
    server.assert_nothing_left()


def test_killed_supervisor_leaves_nobody_unanswered(poison_server):
    """What was accepted is answered by processes that have nobody to restart them; then they end."""
    server = poison_server(workers=2, server="gateways = 2\ndrain_timeout_ms = 3600000\n")
    children = server.children()
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        answers = [pool.submit(ask, server, f"slow {100 + i}") for i in range(12)]
        wait_until(lambda: slots(server)["RUN"], WAIT_S, "running jobs")
        wait_until(lambda: arrived(server) == 12, WAIT_S, "all jobs to be accepted")
        server.send(signal.SIGKILL)
        server.process.wait(WAIT_S)
        for i, answer in enumerate(answers):
            assert (answer.result().status_code, answer.result().text) == (200, f"slow {100 + i}")
    wait_until(lambda: not any(map(process_alive, children)), WAIT_S, "the end of the children")
    assert server.sockets and not server.sockets & listening(server.port)


def test_health_tells_of_a_dead_worker(start_server, tmp_path):
    """From its burial on, and until the next one is ready, which takes a while when its plugin is not there."""
    path = tmp_path / "poison.so"
    shutil.copy(BUILD / "tests" / "models" / "poison.so", path)
    server = start_server(path)
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    path.rename(tmp_path / "away")
    worker = server.role("worker")[0]
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: f"pid={worker} signal=KILL" in server.log_text(), WAIT_S, "the burial")
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 503
    (tmp_path / "away").rename(path)
    wait_until(lambda: requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200,
               WAIT_S, "health")
    server.stop()
