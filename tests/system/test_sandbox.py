"""What each role gave up: looked up in /proc, and tried by a model that means harm (tests/plugins/intruder.c)."""

import ctypes
import errno
import os
import pathlib
import re
import shutil
import stat
import subprocess

import pytest
import requests

from conftest import BUILD, CHECKOUT, SLOW, WAIT_S

LANDLOCK_CREATE_RULESET = 444
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

pytestmark = [
    pytest.mark.skipif(SLOW, reason="a sanitizer's runtime needs what the sandbox forbids"),
    pytest.mark.skipif("Seccomp:" not in pathlib.Path("/proc/self/status").read_text(),
                       reason="this kernel has no seccomp"),
]


def landlock_version():
    return max(LIBC.syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1), 0)


needs_landlock = pytest.mark.skipif(landlock_version() == 0, reason="this kernel has no Landlock")


def status(pid, task=None):
    path = f"/proc/{pid}/task/{task}/status" if task else f"/proc/{pid}/status"
    return dict(line.split(":", 1) for line in pathlib.Path(path).read_text().splitlines())


def limit(pid, name):
    line = re.search(rf"^{name} +(\S+) +(\S+)", pathlib.Path(f"/proc/{pid}/limits").read_text(), re.M)
    assert line.group(1) == line.group(2)
    return int(line.group(1))


@pytest.fixture
def intruder(start_server, tmp_path):
    """start(server="", model="") -> (server, ask); files that are none of the model's business lie about."""
    place = tmp_path / "model"
    place.mkdir()
    shutil.copy(BUILD / "tests" / "models" / "intruder.so", place)
    secret = tmp_path / "secret"
    secret.write_text("12345")

    def start(server="", model=""):
        started = start_server(
            config=f"[server]\n{server}\n[model intruder]\npath = {place / 'intruder.so'}\nroute = /predict\n"
                   f"workers = 1\n{model}\n",
            env={"INTRUDER_SECRET": str(secret), "INTRUDER_MAKE": str(tmp_path / "made")})
        return started, lambda what="all": requests.post(started.url + "/predict", json=what, timeout=WAIT_S)

    start.secret = secret
    return start


def test_every_thread_of_every_role_is_filtered(intruder):
    server, ask = intruder()
    assert ask().status_code == 200
    for role in ("gateway", "broker", "worker"):
        pids = server.role(role)
        assert pids
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                fields = status(pid, task)
                assert (fields["Seccomp"].strip(), fields["NoNewPrivs"].strip()) == ("2", "1"), role
                # The last power of all is to read a model's files.
                assert int(fields["CapPrm"], 16) & ~(1 << 2) == 0, role
            assert int(status(pid)["CapPrm"], 16) == 0, role
            assert limit(pid, "Max core file size") == 0, role
            assert limit(pid, "Max open files") <= 1024 + 2 * 8192
            if role != "worker":
                assert limit(pid, "Max processes") == 0
    assert status(server.pid)["NoNewPrivs"].strip() == "1"
    assert limit(server.pid, "Max core file size") == 0
    server.stop()


def test_auth_gives_up_what_it_does_not_need(intruder):
    server, _ = intruder("oauth_issuer = http://127.0.0.1:9\noauth_audience = maps")
    pid, = server.role("auth")
    for task in os.listdir(f"/proc/{pid}/task"):
        fields = status(pid, task)
        assert (fields["Seccomp"].strip(), fields["NoNewPrivs"].strip(), int(fields["CapPrm"], 16)) == ("2", "1", 0)
    assert limit(pid, "Max core file size") == 0
    assert limit(pid, "Max open files") <= 1024
    server.stop()


def test_connections_are_within_the_limit_of_descriptors(intruder):
    server, _ = intruder("max_connections = 300")
    assert {limit(pid, "Max open files") for pid in server.role("gateway")} == {1024 + 600}
    server.stop()


def test_a_model_that_means_harm_is_refused(intruder):
    server, ask = intruder()
    tried = ask().json()
    refused = {"exec", "fork", "inet", "unix", "kill", "ptrace", "foreign_memory", "namespace", "chmod_inputs"}
    for stage in ("setup", "serve"):
        assert {name: tried[stage][name] for name in refused} == {name: errno.EPERM for name in refused}, stage
        # However it comes by the descriptor, it only reads.
        assert tried[stage]["map_inputs"] == errno.EACCES
        assert tried[stage]["protect_inputs"] == errno.EACCES
        assert tried[stage]["write_inputs"] in (errno.EBADF, errno.EPERM)
        assert tried[stage]["reopen_inputs"] in (errno.EACCES, errno.EPERM)
        assert tried[stage]["thread"] == 0
    assert tried["setup"]["system"] == 0
    for name in ("secret", "system", "make", "parent_environ", "reopen_inputs"):
        assert tried["serve"][name] == errno.EPERM
    server.stop()


@needs_landlock
def test_a_model_sees_its_own_files_only(intruder):
    server, ask = intruder()
    tried = ask().json()["setup"]
    assert {name: tried[name] for name in ("secret", "make", "parent_environ")} == {
        "secret": errno.EACCES, "make": errno.EACCES, "parent_environ": errno.EACCES}
    assert not (intruder.secret.parent / "made").exists()
    server.stop()


@needs_landlock
def test_more_paths_and_files_while_serving(intruder):
    server, ask = intruder(model=f"sandbox = files\nsandbox_paths = /nowhere:{intruder.secret}")
    tried = ask().json()
    assert (tried["setup"]["secret"], tried["serve"]["secret"], tried["serve"]["system"]) == (0, 0, 0)
    assert tried["serve"]["make"] == errno.EACCES
    assert tried["serve"]["exec"] == tried["serve"]["inet"] == errno.EPERM
    server.stop()


def test_off_is_off_for_that_model_alone(intruder):
    server, ask = intruder(model="sandbox = off")
    tried = ask().json()["serve"]
    assert (tried["exec"], tried["secret"], tried["inet"], tried["fork"]) == (errno.ENOENT, 0, 0, 0)
    # The descriptor needs no sandbox.
    assert (tried["map_inputs"], tried["protect_inputs"]) == (errno.EACCES, errno.EACCES)
    worker, = server.role("worker")
    gateway = server.role("gateway")[0]
    assert (status(worker)["Seccomp"].strip(), status(gateway)["Seccomp"].strip()) == ("0", "2")
    server.stop()


@needs_landlock
def test_on_starts_where_the_kernel_has_it_all(intruder):
    server, ask = intruder("sandbox = on")
    assert ask().status_code == 200
    assert "missing" not in server.log_text()
    server.stop()


def test_a_stray_store_into_an_input_ends_the_worker_and_spoils_nothing(intruder):
    server, ask = intruder()
    answer = ask("scratch")
    assert (answer.status_code, answer.json()["detail"]) == (500, "The model crashed or hung on this input 2 times")
    assert ask().status_code == 200
    server.stop()


def test_sockets_are_this_users_alone(intruder):
    server, _ = intruder()
    places = [path for path in server.run_root.rglob("*") if path.is_socket()]
    assert len(places) >= 2
    for path in places:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    server.stop()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_the_unit_is_hardened():
    unit = CHECKOUT / "packaging" / "systemd" / "unetserve.service"
    asked = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=16", str(unit)],
                           capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert "exposure level" in asked.stdout, asked.stderr
    assert asked.returncode == 0, asked.stdout.splitlines()[-1]
