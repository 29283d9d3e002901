"""A stand-in for systemd: starts a service as its unit file says, keeps the file descriptors that it stores, and after
the death of its main process does to the rest of its processes what KillMode says, before it starts it again.

It follows systemd.service(5), systemd.kill(5) and sd_pid_notify_with_fds(3) as far as a unit of Type=notify needs them. A
service's processes (its control group) are those that have a mark in their environment.
"""

import os
import pathlib
import re
import select
import signal
import socket
import stat
import struct
import tempfile
import threading
import time
import uuid

from conftest import BUILD, CHECKOUT, WAIT_S, process_alive, wait_until

UNIT = CHECKOUT / "packaging" / "systemd" / "unetserve.service"
READY_LINE = re.compile(rb"ready on http://127\.0\.0\.1:(\d+)")


def unit_settings():
    """The settings of the packaged unit; of one that is there several times, the last."""
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and line[0] not in "#;"]
    return dict(line.split("=", 1) for line in lines)


def seconds(text):
    return float(text[:-2]) / 1000 if text.endswith("ms") else float(text)


class ServiceManager:
    def __init__(self, config, env=None):
        self.unit = unit_settings()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="us-", dir="/tmp"))
        self.log = self.directory / "stderr.log"
        self.config = config
        self.mark = f"UNETSERVE_TEST_UNIT={uuid.uuid4()}"
        self.env = env or {}
        self.store = {}  # name -> file descriptors
        self.pid = None
        self.starts = 0
        self.ready = 0  # how many times READY=1 came
        self.holding = threading.Event()  # cleared: a dead main process is not replaced yet
        self.holding.set()
        self.stopping = False
        self.exits = []
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.notify.bind(str(self.directory / "notify"))
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self):
        try:
            self._start()
            self.listener.start()
            self.keeper.start()
            self.wait_ready(1)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stopping = True
        self.holding.set()
        for pid in [self.pid, *self.processes()]:
            if pid and process_alive(pid):
                os.kill(pid, signal.SIGKILL)
        if self.keeper.ident:
            self.keeper.join(WAIT_S)
        self.notify.close()
        self.empty_store()

    # ---- what tests ask ----

    @property
    def port(self):
        """Of the first address, as the newest ready line names it."""
        return int(READY_LINE.findall(self.log.read_bytes())[-1])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def run_root(self):
        return self.directory / "unetserve"

    def log_text(self):
        return self.log.read_text(errors="replace")

    def processes(self, program=None):
        """Pids of the service, without its main process; of one program (unetserve-NAME) only."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit() or int(entry) == self.pid:
                continue
            try:
                environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes()
                words = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if self.mark.encode() not in environment.split(b"\0") or not process_alive(int(entry)):
                continue
            if program is None or words[0].endswith(b"unetserve-" + program.encode()):
                found.append(int(entry))
        return found

    def wait_ready(self, times):
        wait_until(lambda: self.ready >= times or (self.exits and self.stopping), WAIT_S,
                   f"READY=1 number {times}:\n{self.log_text()[-4000:]}")

    def kill_main(self):
        """Returns what was there then: the processes that are orphans now."""
        left = self.processes()
        os.kill(self.pid, signal.SIGKILL)
        return left

    def stop(self):
        """As `systemctl stop`: and when all is over the store is emptied."""
        self.stopping = True
        os.kill(self.pid, signal.SIGTERM)
        self.keeper.join(WAIT_S)
        assert not self.keeper.is_alive() and self.exits[-1] == 0, self.log_text()[-4000:]

    def empty_store(self):
        for fds in self.store.values():
            for fd in fds:
                os.close(fd)
        self.store.clear()

    # ---- what systemd does ----

    def _start(self):
        (self.directory / "unetserve.conf").write_text(self.config)
        passed = [(name, fd) for name, fds in self.store.items() for fd in fds]
        argv = [str(BUILD / "unetserve"), "-c", str(self.directory / "unetserve.conf")]
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("UNETSERVE_API_KEY", "LIT_SERVER_API_KEY")}
        environment.update(self.env)
        environment.update({
            "NOTIFY_SOCKET": str(self.directory / "notify"), "XDG_RUNTIME_DIR": str(self.directory),
            "LISTEN_FDS": str(len(passed)), "LISTEN_FDNAMES": ":".join(name for name, _ in passed)})
        name, _, value = self.mark.partition("=")
        environment[name] = value
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        pid = os.fork()
        if pid == 0:
            try:
                high = [os.dup2(fd, 700 + i, False) for i, (_, fd) in enumerate(passed)]
                os.dup2(log, 1)
                os.dup2(log, 2)
                for i, fd in enumerate(high):
                    os.dup2(fd, 3 + i)
                os.closerange(3 + len(high), 4096)
                environment["LISTEN_PID"] = str(os.getpid())
                os.execve(argv[0], argv, environment)
            finally:
                os._exit(127)
        os.close(log)
        self.pid = pid
        self.starts += 1

    def _keep(self):
        while True:
            _, status = os.waitpid(self.pid, 0)
            self.exits.append(os.waitstatus_to_exitcode(status))
            self._kill_rest()
            prevented = [int(word) for word in self.unit["RestartPreventExitStatus"].split()]
            if self.stopping or self.exits[-1] == 0 or self.exits[-1] in prevented:
                return
            time.sleep(seconds(self.unit["RestartSec"]))
            self.holding.wait()
            if self.stopping:
                return
            self._start()

    def _kill_rest(self):
        """The main process is gone. control-group: everybody is told to end and waited for; mixed: all are killed."""
        mode = self.unit["KillMode"]
        rest = self.processes() if mode != "process" else []
        for pid in rest:
            os.kill(pid, signal.SIGKILL if mode == "mixed" else signal.SIGTERM)
        end = time.monotonic() + seconds(self.unit["TimeoutStopSec"])
        while any(map(process_alive, rest)) and time.monotonic() < end:
            time.sleep(0.01)

    def _listen(self):
        while True:
            try:
                if not select.select([self.notify], [], [], 1)[0]:
                    if self.stopping and not self.keeper.is_alive():
                        return
                    continue
                data, control, _, _ = self.notify.recvmsg(4096, 8192)
            except (OSError, ValueError):
                return
            fds, sender = [], 0
            for level, kind, content in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds += struct.unpack(f"{len(content) // 4}i", content)
                elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                    sender = struct.unpack("3i", content)[0]
            if sender != self.pid:  # NotifyAccess=main
                for fd in fds:
                    os.close(fd)
                continue
            self._obey(dict(line.split("=", 1) for line in data.decode().splitlines()), fds)

    def _obey(self, message, fds):
        name = message.get("FDNAME", "stored")
        assert ":" not in name and name.isprintable()
        if message.get("FDSTOREREMOVE") == "1":
            for fd in self.store.pop(name, []):
                os.close(fd)
        for fd in fds:
            known = [os.fstat(one).st_ino for kept in self.store.values() for one in kept]
            full = len(known) >= int(self.unit["FileDescriptorStoreMax"])
            if message.get("FDSTORE") != "1" or full or os.fstat(fd).st_ino in known:
                os.close(fd)
                continue
            assert stat.S_ISSOCK(os.fstat(fd).st_mode)
            self.store.setdefault(name, []).append(fd)
        if message.get("READY") == "1":
            self.ready += 1
