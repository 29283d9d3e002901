"""Starts real servers for the system tests, on free loopback ports, and sees to it that nothing of them is left.

    def test_x(start_server, simple_model):
        server = start_server(simple_model)
        requests.post(server.url + "/predict", json={"input": 4.0})
        server.stop()                      # drains; asserts exit 0 and that nothing is left
"""

import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import pytest

CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("UNETSERVE_BUILD", CHECKOUT / "build")).resolve()
SLOW = any(word in BUILD.name for word in ("address", "undefined", "thread"))
WAIT_S = 480 if SLOW else 240  # nothing that comes takes so long, however busy the machine is
READY_LINE = re.compile(r"^unetserve: ready on (\S.*)$")


def process_alive(pid):
    """Is there such a process, and is it more than a zombie?"""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def process_begun(pid):
    """When it was started, in ticks since the machine was: with the pid, what tells a process from a later one. None: it
    is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def wait_until(condition, seconds=WAIT_S, what="the condition"):
    """Looks again and again, for a bounded time. Returns what the condition returned."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what} did not come about within {seconds} s"
        time.sleep(0.02)


def listening(port):
    """The inodes of the sockets that listen on that TCP port. Somebody else's socket on the same port has another one."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = pathlib.Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]
        except FileNotFoundError:
            continue
        for fields in map(str.split, lines):
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(int(fields[9]))
    return found


@contextlib.contextmanager
def reserved_port():
    """A port of 127.0.0.1 that the kernel gives to nobody meanwhile. Who asks for it by its number gets it, if it sets
    SO_REUSEADDR, as servers do."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class Server:
    """A running unetserve. port and url belong to its first TCP address."""

    def __init__(self, process, directory):
        self.process = process
        self.pid = process.pid
        self.directory = directory
        self.run_root = directory / "unetserve"
        self.log = directory / "stderr.log"
        self.ready_line = None
        self.addresses = []
        self.port = None
        self.url = None
        self._seen = {}  # pid: when it was started
        self.sockets = set()  # those that listen

    def log_text(self):
        return self.log.read_text(errors="replace")

    def children(self):
        """{pid: command line} of the processes that it has started and that still run."""
        found = {}
        try:
            listed = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return found
        for pid in map(int, listed.split()):
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if process_alive(pid):
                found[pid] = [word.decode(errors="replace") for word in words if word]
        self._seen.update({pid: process_begun(pid) for pid in found})
        return found

    def seen(self):
        """Every child that was ever looked at."""
        return set(self._seen)

    def left(self):
        """Those of them that still run. A pid may be another process's by now."""
        return [pid for pid, begun in self._seen.items() if process_alive(pid) and process_begun(pid) == begun]

    def role(self, name):
        """Sorted pids of children whose program is unetserve-NAME."""
        return sorted(pid for pid, words in self.children().items()
                      if words and words[0].endswith("unetserve-" + name))

    def wait_ready(self, seconds=WAIT_S):
        stream = self.process.stdout
        end = time.monotonic() + seconds
        text = b""
        while b"\n" not in text:
            left = end - time.monotonic()
            assert left > 0, f"no ready line within {seconds} s:\n{self.log_text()[-4000:]}"
            if not select.select([stream], [], [], min(left, 1.0))[0]:
                continue
            part = os.read(stream.fileno(), 4096)
            assert part, (f"unetserve ended with {self.process.wait(WAIT_S)} before it was ready:\n"
                          f"{self.log_text()[-4000:]}")
            text += part
        self.ready_line = text.decode().splitlines()[0]
        match = READY_LINE.match(self.ready_line)
        assert match, f"not a ready line: {self.ready_line!r}"
        self.addresses = match.group(1).split(", ")
        for address in self.addresses:
            if address.startswith("http://"):
                self.url = address
                self.port = int(address.rpartition(":")[2])
                self.sockets = listening(self.port)
                break
        self.children()

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=WAIT_S):
        self.children()
        return self.process.wait(seconds)

    def stop(self, number=signal.SIGTERM, status=0):
        """End it in order, and look that no process, socket or file is left."""
        self.children()
        self.send(number)
        assert self.wait() == status, self.log_text()[-4000:]
        self.assert_nothing_left()

    def assert_nothing_left(self):
        wait_until(lambda: not self.left(), what="the end of every process")
        assert not self.run_root.exists(), list(self.run_root.rglob("*"))
        for address in self.addresses:
            if address.startswith("unix:"):
                assert not os.path.lexists(address[len("unix:"):]), address
        assert not self.port or not self.sockets & listening(self.port)

    def kill_leftovers(self):
        self.children()
        for pid in [*([self.pid] if self.process.poll() is None else []), *self.left()]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait(WAIT_S)
        self.process.stdout.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test shows what its servers wrote."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" and report.failed:
        for server in getattr(item, "unetserve_servers", []):
            report.sections.append((f"log of unetserve {server.pid}", server.log_text()[-20000:]))


def unhurried(path, *lines):
    """A configuration of one model whose runs may take an hour: a network under a sanitizer, beside other tests, may need more
    than the twenty seconds after which a worker counts as hung."""
    return "\n".join(["[model m]", f"path = {path}", "timeout_ms = 3600000", "run_timeout_ms = 3600000", *lines, ""])


@pytest.fixture
def start_server(request):
    """Factory: start_server(model=PATH or [PATH, ...], extra_args=(), config=TEXT, env={}, wait_ready=True).

    build: the directory of other programs than those that were built. before: words of a program that becomes it."""
    servers = []
    request.node.unetserve_servers = servers

    def start(model=None, extra_args=(), config=None, env=None, wait_ready=True,
              listen="127.0.0.1:0", pass_fds=(), build=BUILD, before=()):
        program = build / "unetserve"
        assert program.exists(), f"{program} is not built"
        # Short, since socket paths are.
        directory = pathlib.Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
        command = [*before, str(program)]
        if config is not None:
            (directory / "unetserve.conf").write_text(config)
            command += ["-c", str(directory / "unetserve.conf")]
        models = [] if model is None else [model] if isinstance(model, (str, os.PathLike)) else model
        for one in models:
            command += ["--model", str(one)]
        if listen is not None:
            command += ["--listen", listen]
        command += [str(word) for word in extra_args]
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC",
                                       "WATCHDOG_PID", "UNETSERVE_API_KEY", "LIT_SERVER_API_KEY")}
        environment["XDG_RUNTIME_DIR"] = str(directory)
        environment.update(env or {})
        with open(directory / "stderr.log", "wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=log, env=environment, pass_fds=pass_fds)
        server = Server(process, directory)
        servers.append(server)
        if wait_ready:
            server.wait_ready()
        return server

    yield start
    for server in servers:
        server.kill_leftovers()
        shutil.rmtree(server.directory, ignore_errors=True)


@pytest.fixture
def run_unetserve():
    """Runs unetserve to its end, which must come by itself: run_unetserve("--check", ...) -> CompletedProcess."""

    def run(*arguments, env=None, seconds=WAIT_S):
        with tempfile.TemporaryDirectory(prefix="us-", dir="/tmp") as directory:
            environment = {**os.environ, "XDG_RUNTIME_DIR": directory, **(env or {})}
            return subprocess.run([str(BUILD / "unetserve"), *map(str, arguments)], text=True,
                                  stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=seconds, env=environment, check=False)

    return run


class Gate:
    """A copy of a model of tests/plugins whose jobs "held 0", "held 1" and so on run until the test lets them through."""

    def __init__(self, directory, name="poison"):
        plugin = BUILD / "tests" / "models" / f"{name}.so"
        assert plugin.exists(), f"{plugin} is not built: make test-plugins"
        self.model = directory / f"{name}.so"
        shutil.copy2(plugin, self.model)
        self.file = directory / f"{name}.so.gate"
        self.file.touch()

    def open(self, upto=0):
        """For "held UPTO", and those with smaller numbers."""
        os.truncate(self.file, upto + 1)

    def close(self):
        os.truncate(self.file, 0)


@pytest.fixture
def gate(tmp_path):
    one = Gate(tmp_path)
    yield one
    one.open(1000)


@pytest.fixture
def other_port():
    with reserved_port() as port:
        yield port


@pytest.fixture(scope="session")
def simple_model():
    """The tutorial's x^2 + x^3, as a plugin."""
    path = BUILD / "models" / "simple.so"
    assert path.exists(), f"{path} is not built"
    return path


@pytest.fixture(scope="session")
def demo_model():
    """The demonstration UNet: 12 bands, WorldCover classes."""
    path = CHECKOUT / "packaging" / "models" / "s2-worldcover"
    assert path.exists(), f"{path} is not there"
    return path


@pytest.fixture(scope="session")
def scene():
    """A small made-up Sentinel-2 scene, 12 x 96 x 112."""
    numpy = pytest.importorskip("numpy")
    return numpy.load(CHECKOUT / "tests" / "goldens" / "scene_96x112.input.npy")


@pytest.fixture(scope="session")
def chips():
    """The directory of real Sentinel-2 chips, where there is one."""
    path = CHECKOUT.parent / "shared" / "data" / "sentinel2"
    if not path.is_dir():
        pytest.skip("no real chips: ../shared/data/sentinel2 is not there")
    return path
