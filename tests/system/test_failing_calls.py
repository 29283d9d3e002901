"""Allocations and descriptors that fail in running processes: one call after the other, in each role.

tests/faults/failing_calls.c lets them fail. Our own code has to survive that: the process lives and says 503, or at
least hangs up on no more clients than calls failed. Where a library ends its process (libzmq aborts), that is a crash
like another one: the process comes back and what was accepted is answered.

UNETSERVE_FAILING_CALLS_MOST=N tries that many calls of each kind instead of the usual few.
"""

import concurrent.futures
import contextlib
import fcntl
import io
import mmap
import os
import resource
import select
import signal
import socket
import struct
import termios
import time

import msgpack
import numpy
import pytest
import requests

from conftest import BUILD, CHECKOUT, SLOW, WAIT_S, process_alive, wait_until
from protocol_client import Client

MOST = int(os.environ.get("UNETSERVE_FAILING_CALLS_MOST", "12"))
SHIM = BUILD / "tests" / "failing_calls.so"
MEMORY, DESCRIPTOR = 1, 2
EMFILE = 24
CONFIG = """
[server]
[model simple]
path = {build}/models/simple.so
route = /simple
[model unet]
path = {checkout}/tests/goldens/cbr.safetensors
route = /unet
"""

needs_shim = pytest.mark.skipif(SLOW, reason="sanitizers have a malloc of their own")


class Calls:
    """The file through which calls are made to fail."""

    FORMAT = "<IIIiqqQQ32s"

    def __init__(self, path):
        self.size = struct.calcsize(self.FORMAT)
        path.write_bytes(bytes(self.size))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), self.size)

    def arm(self, program, kinds, after, own=True, left=1):
        self.memory[4:] = struct.pack(self.FORMAT, 0, kinds, own, EMFILE, after, left, 0, 0, program.encode())[4:]
        self.memory[:4] = struct.pack("<I", 1)

    def disarm(self):
        """How many calls failed."""
        self.memory[:4] = struct.pack("<I", 0)
        return struct.unpack_from("<Q", self.memory, 32)[0]

    @contextlib.contextmanager
    def failing(self, *args, **kwargs):
        self.arm(*args, **kwargs)
        try:
            yield
        finally:
            self.disarm()

    def failed(self):
        return struct.unpack_from("<Q", self.memory, 32)[0]


@pytest.fixture
def calls(tmp_path):
    assert SHIM.exists(), f"{SHIM} is not built: make test-plugins"
    return Calls(tmp_path / "calls")


@pytest.fixture
def server(start_server, tmp_path, calls):
    assert calls
    return start_server(config=CONFIG.format(build=BUILD, checkout=CHECKOUT),
                        env=environment(tmp_path))


def environment(tmp_path):
    return {"LD_PRELOAD": str(SHIM), "UNETSERVE_FAILING_CALLS": str(tmp_path / "calls")}


# ---- a little of everything ----------------------------------------------------------------------


def tile():
    out = io.BytesIO()
    array = numpy.load(CHECKOUT / "tests" / "goldens" / "cbr.input.npy")
    numpy.save(out, array[0] if array.ndim == 4 else array)
    return out.getvalue()


def ask(server, method, path, **kwargs):
    """The answer's status and body; (0, b"") for a connection that broke."""
    try:
        answer = requests.request(method, server.url + path, timeout=WAIT_S, **kwargs)
        return answer.status_code, answer.content
    except requests.exceptions.ConnectionError:
        return 0, b""


def npy_headers(accept):
    return {"Content-Type": "application/x-npy", "Accept": accept}


def tasks(server, with_zmq=False):
    """What each of them is asked, and what is right once it is known."""
    body = tile()
    found = {
        "simple": lambda: ask(server, "POST", "/simple", json={"input": 3}),
        "info": lambda: ask(server, "GET", "/info"),
        "refused": lambda: ask(server, "POST", "/simple", data=b"{", headers={"Content-Type": "application/json"}),
    }
    if with_zmq:
        found["zmq"] = lambda: ask_zmq(server)
    for form in ("application/json", "application/x-npy", "image/png"):
        found[form] = lambda form=form: ask(server, "POST", "/unet", data=body, headers=npy_headers(form))
    return found


def ask_zmq(server):
    with Client(server) as client:
        client.send_raw([msgpack.packb({"v": 1, "op": "predict", "model": "simple"}), b'{"input": 3}'])
        head, body = client.receive(WAIT_S * 1000)
        return head["status"], body


def round_of(found):
    """All of them at once."""
    with concurrent.futures.ThreadPoolExecutor(len(found)) as pool:
        running = {name: pool.submit(task) for name, task in found.items()}
        return {name: one.result() for name, one in running.items()}


def wait_right(found, right):
    """Comes back by itself, and is right again."""
    wait_until(lambda: round_of(found) == right, WAIT_S, "right answers to everything")


def judge(answers, right, failed, died):
    """Every answer is right, or one of at most as many refusals as calls failed; nothing breaks but with its gateway."""
    wrong = {name: answer for name, answer in answers.items() if answer != right[name]}
    if not died:
        assert len(wrong) <= failed, wrong
    for name, (status, body) in wrong.items():
        if status == 0:
            continue
        assert status in (500, 503) or (status == right[name][0] and not body), (name, status, body)


# ---- one call after the other ---------------------------------------------------------------------

KINDS = {"memory": MEMORY, "descriptors": DESCRIPTOR}
OWN = [("gateway", "memory"), ("gateway", "descriptors"), ("worker", "memory"), ("broker", "memory")]


@needs_shim
@pytest.mark.parametrize("role, kind", OWN)
def test_our_own_code_survives_each_failing_call(server, calls, role, kind):
    found = tasks(server, with_zmq=True)
    right = round_of(found)
    assert [right[name][0] for name in found] == [200, 200, 422, 200, 200, 200, 200]
    before = server.children().keys()
    for after in range(MOST):
        with calls.failing("unetserve-" + role, KINDS[kind], after):
            answers = round_of(found)
        judge(answers, right, calls.failed(), died=False)
        if not calls.failed():
            break
    with calls.failing("unetserve-" + role, KINDS[kind], 0, left=5):
        judge(round_of(found), right, calls.failed(), died=False)
    wait_right(found, right)
    assert server.children().keys() == before
    server.stop()


@needs_shim
@pytest.mark.parametrize("role", ["gateway", "worker", "broker"])
def test_any_library_may_end_its_process_and_loses_nothing(server, calls, role):
    """What a gateway had is lost with its connections and nothing else; of a broker or a worker nobody hears."""
    found = tasks(server)
    right = round_of(found)
    # Workers that keep crashing are started again after a while only.
    for after in range(0, (3 if role == "worker" else 8) * MOST, 7):
        with calls.failing("unetserve-" + role, MEMORY | DESCRIPTOR, after, own=False):
            answers = round_of(found)
        judge(answers, right, calls.failed(), died=role == "gateway")
        wait_right(found, right)
    server.stop()


@needs_shim
@pytest.mark.parametrize("role", ["gateway", "worker", "broker"])
def test_failing_calls_while_a_process_starts(server, calls, role):
    found = tasks(server)
    right = round_of(found)
    for after in range(0, 3 * MOST, 3):
        with calls.failing("unetserve-" + role, MEMORY | DESCRIPTOR, after):
            for pid in server.role(role):
                os.kill(pid, signal.SIGKILL)
                wait_until(lambda pid=pid: not process_alive(pid), WAIT_S, "the end of a killed process")
            answers = round_of(found)
            judge(answers, right, calls.failed(), died=role == "gateway")
            wait_right(found, right)
        if not calls.failed():
            break
    server.stop()


@needs_shim
def test_failing_calls_of_the_supervisor_while_it_replaces_a_worker(server, calls):
    found = tasks(server)
    right = round_of(found)
    for after in range(6):
        with calls.failing("unetserve", MEMORY | DESCRIPTOR, after):
            os.kill(server.role("worker")[0], signal.SIGKILL)
            judge(round_of(found), right, 0, died=False)
        wait_until(lambda: len(server.role("worker")) == 2, WAIT_S, "both workers")
    assert server.process.poll() is None
    server.stop()


def readable_bytes(stream):
    return struct.unpack("i", fcntl.ioctl(stream, termios.FIONREAD, bytes(4)))[0]


@needs_shim
def test_supervisor_that_cannot_start_says_so_and_leaves_nothing(start_server, calls, tmp_path):
    config = CONFIG.format(build=BUILD, checkout=CHECKOUT)
    for after in range(0, 4 * MOST):
        calls.arm("unetserve", MEMORY | DESCRIPTOR, after)
        server = start_server(config=config, env=environment(tmp_path), wait_ready=False)
        ended_or_ready = select.select([server.process.stdout], [], [], WAIT_S)[0]
        assert ended_or_ready, server.log_text()
        failed = calls.disarm()
        if readable_bytes(server.process.stdout):
            server.wait_ready()
            server.stop()
        else:
            assert server.wait() > 0, server.log_text()
            assert server.log_text().strip()
            server.assert_nothing_left()
        if not failed:
            return


# ---- descriptors run out ---------------------------------------------------------------------------


def cpu_s(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fds(pid):
    return {int(name) for name in os.listdir(f"/proc/{pid}/fd")}


def gateway_of_http(server):
    return next(pid for pid, words in server.children().items()
                if words[0].endswith("gateway") and "--front" not in words)


def test_gateway_without_descriptors_serves_again_when_they_return(start_server, simple_model):
    server = start_server(simple_model, config="[server]\nheader_timeout_ms = 3600000\n")
    pid = gateway_of_http(server)
    session = requests.Session()
    assert session.post(server.url + "/predict", json={"input": 4}, timeout=WAIT_S).json() == {"output": 80.0}
    usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    free = next(number for number in range(1 << 16) if number not in fds(pid))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, usual[1]))
    waiting = []
    limited = time.monotonic()
    try:
        for _ in range(20):
            client = socket.create_connection(("127.0.0.1", server.port), WAIT_S)
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            waiting.append(client)
        wait_until(lambda: "cannot accept now" in server.log_text(), WAIT_S, "the gateway's complaint")
        # Who is in already is served; nobody spins.
        begun_cpu, begun = cpu_s(pid), time.monotonic()
        while time.monotonic() < begun + 2:
            assert session.post(server.url + "/predict", json={"input": 4}, timeout=WAIT_S).status_code == 200
            time.sleep(0.2)
        assert cpu_s(pid) - begun_cpu < (time.monotonic() - begun) / 2
        assert server.log_text().count("cannot accept now") <= 2 + (time.monotonic() - limited) / 10
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        for client in waiting:
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200 ")
    finally:
        for client in waiting:
            client.close()
    assert gateway_of_http(server) == pid
    session.close()
    server.stop()
