"""Servers that are measured: unetserve, its bare library, and peers, each in a process group of its own on a free loopback port.

A peer that is not measured just then is stopped (SIGSTOP): some of them spin while idle, and would take the others' time.
"""
import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import environment

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", "build"))
BUILD = BUILD if BUILD.is_absolute() else TOP / BUILD
OUT = environment.OUT
READY_WAIT_S = 300


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def children(pid):
    found = []
    for entry in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in entry.read_text().split()]
    return found


class Server:
    """path: where requests go. stops: is it stopped while others are measured?"""

    stops = False
    path = "/predict"

    def __init__(self, name):
        self.name, self.process, self.port = name, None, None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    def launch(self, command, **more):
        begun = time.monotonic()
        self.process = subprocess.Popen(command, start_new_session=True, **more)
        return begun

    def signal_all(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def pause(self):
        if self.stops:
            self.signal_all(signal.SIGSTOP)

    def resume(self):
        if self.stops:
            self.signal_all(signal.SIGCONT)
            time.sleep(0.05)

    def stop(self):
        """In order, and then whatever is left of its group."""
        if self.process is None:
            return
        self.resume()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        self.signal_all(signal.SIGKILL)
        self.process.wait(30)


class Unetserve(Server):
    """config: lines of [server] and a [model m] section, or None with a model's path and options."""

    def __init__(self, model, name="unetserve", server="", section="", cache=None):
        super().__init__(name)
        self.directory = tempfile.TemporaryDirectory(prefix="unetserve-bench-", dir="/tmp")
        config = pathlib.Path(self.directory.name) / "unetserve.conf"
        config.write_text(f"[server]\nlisten = 127.0.0.1:0\n{server}\ncache_dir = {cache or self.directory.name}\n"
                          f"[model m]\npath = {pathlib.Path(model).resolve()}\nroute = /predict\n{section}\n")
        with open(pathlib.Path(self.directory.name) / "log", "wb") as log:
            begun = self.launch([BUILD / "unetserve", "-c", config], stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL,
                                text=True, env=dict(os.environ, XDG_RUNTIME_DIR=self.directory.name))
        line = self.process.stdout.readline()
        self.ready_s = time.monotonic() - begun
        if "ready on" not in line:
            text = self.log()
            self.stop()
            raise RuntimeError(f"unetserve did not start: {line!r}\n{text[-2000:]}")
        self.port = int(line.rsplit(":", 1)[1])

    def log(self):
        return (pathlib.Path(self.directory.name) / "log").read_text(errors="replace")

    def stop(self):
        super().stop()
        self.process.stdout.close()
        self.directory.cleanup()

    def roles(self):
        """{role: [pid, ...]}: supervisor, broker, gateway, zmq-front, worker."""
        found = {"supervisor": [self.process.pid]}
        for pid in children(self.process.pid):
            with contextlib.suppress(OSError):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                role = words[0].decode().rpartition("unetserve-")[2]
                found.setdefault("zmq-front" if b"--front" in words else role, []).append(pid)
        return found

    def cpu_seconds(self):
        """{role: seconds of processor time so far}, from the scheduler's own count of nanoseconds."""
        result = {}
        for role, pids in self.roles().items():
            for pid in pids:
                for task in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
                    with contextlib.suppress(OSError):
                        result[role] = result.get(role, 0) + int(task.read_text().split()[0]) * 1e-9
        return result

    def memory_mib(self):
        """{role: {rss, pss, uss}} of one process each; uss: what is its own alone."""
        result = {}
        for role, pids in self.roles().items():
            with contextlib.suppress(OSError, IndexError):
                lines = pathlib.Path(f"/proc/{pids[0]}/smaps_rollup").read_text().splitlines()[1:]
                kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
                result[role] = {"rss": kib["Rss"] / 1024, "pss": kib["Pss"] / 1024,
                                "uss": (kib["Private_Clean"] + kib["Private_Dirty"]) / 1024}
        return result


class Bare(Server):
    """libmicrohttpd with nothing behind it."""

    def __init__(self):
        super().__init__("bare libmicrohttpd")
        self.launch([BUILD / "bench/bare"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


class Peer(Server):
    """A program of bench/peers in the peers' environment. probe: body and headers of a request that is answered 200 when it is ready."""

    stops = True

    def __init__(self, name, words, path, probe, variables=None):
        super().__init__(name)
        self.path, self.port = path, free_port()
        self.directory = tempfile.TemporaryDirectory(prefix="unetserve-bench-", dir="/tmp")
        command = [environment.python(), *[str(word).replace("PORT", str(self.port)) for word in words]]
        self.logfile = open(pathlib.Path(self.directory.name) / "log", "w+", encoding="utf-8", errors="replace")
        begun = self.launch(command, stdin=subprocess.DEVNULL, stdout=self.logfile, stderr=subprocess.STDOUT, cwd=self.directory.name,
                            env=dict(environment.variables(), **(variables or {})))
        try:
            self.wait_ready(begun, *probe)
        except Exception:
            self.stop()
            raise
        self.ready_s = time.monotonic() - begun

    def wait_ready(self, begun, body, headers):
        while True:
            try:
                request = urllib.request.Request(self.url, body, headers)
                with urllib.request.urlopen(request, timeout=READY_WAIT_S):
                    return
            except (OSError, urllib.error.HTTPError):
                if self.process.poll() is not None or time.monotonic() - begun > READY_WAIT_S:
                    self.logfile.seek(0)
                    raise RuntimeError(f"{self.name} did not start: {self.logfile.read()[-600:]}") from None
                time.sleep(0.1)

    def stop(self):
        super().stop()
        self.logfile.close()
        self.directory.cleanup()


@contextlib.contextmanager
def running(makers, trouble):
    """Starts them one after the other, paused; who does not start is named in trouble ({name: why}) and left out. Stops them all."""
    servers = []
    try:
        for name, maker in makers:
            try:
                servers.append(maker())
                servers[-1].name = name
                servers[-1].pause()
            except (RuntimeError, OSError, ValueError) as error:
                trouble[name] = str(error).strip()
                print(f"  left out: {name}: {str(error).strip().splitlines()[0]}", flush=True)
        yield servers
    finally:
        for server in servers:
            server.stop()


class Ask:
    """What is asked of a server, and what it must answer."""

    def __init__(self, body, headers, right):
        """right(bytes): None when the answer is right, else why not."""
        self.body, self.headers, self.right, self.expected = body, headers, right, None

    def learn(self, server):
        """Ask once, by Python's own client, check the answer, and expect it from then on, byte for byte."""
        request = urllib.request.Request(server.url, self.body, self.headers)
        with urllib.request.urlopen(request, timeout=READY_WAIT_S) as answer:
            body = answer.read()
            timing = answer.headers.get("Server-Timing")
        why = self.right(body)
        if why is not None:
            raise RuntimeError(f"{server.name} answers wrongly: {why}")
        self.expected = body
        return timing


def load(server, ask, clients, seconds, rate=None, timeout=60):
    """One run of the load generator against it; its report. Raises where an answer was wrong, since then no figure counts."""
    with tempfile.TemporaryDirectory(prefix="unetserve-bench-") as scratch:
        body, expect = pathlib.Path(scratch) / "body", pathlib.Path(scratch) / "expect"
        body.write_bytes(ask.body)
        expect.write_bytes(ask.expected)
        command = [BUILD / "bench/load", server.url, "--clients", str(clients), "--seconds", str(seconds), "--timeout", str(timeout),
                   "--body", body, "--expect", expect]
        for name, value in ask.headers.items():
            command += ["--header", f"{name}: {value}"]
        if rate:
            command += ["--rate", str(rate), "--poisson"]
        server.resume()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + timeout + 60, check=False)
        finally:
            server.pause()
    if not done.stdout:
        raise RuntimeError(f"load on {server.name}: {done.stderr.strip()}")
    report = json.loads(done.stdout)
    if report["wrong"] or report["malformed"]:
        raise RuntimeError(f"{server.name}: {report['wrong']} wrong answers, {report['malformed']} that are none, of {report['sent']}")
    return report
