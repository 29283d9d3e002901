"""A burst of load on a model with a range of workers: more are started, answers stay right, and they go again."""

import concurrent.futures
import os
import shutil
import signal
import subprocess
import time

import pytest
import requests

from conftest import WAIT_S, wait_until

JOBS = 60

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2,
                                reason="one core: a second worker would make no sense")


# Between one and two workers, whatever the cores: a minimum is never cut, a maximum is.
CONFIG = ("[server]\nqueue_memory = 256M\n[model poison]\npath = {path}\nroute = /predict\nworkers = 1-2\n"
          "max_batch_size = 1\nscale_wait_ms = 100\nscale_down_after_ms = {keep_ms}\n"
          "timeout_ms = 3600000\nrun_timeout_ms = 3600000\n")


@pytest.fixture
def server(start_server, gate):
    return start_server(config=CONFIG.format(path=gate.model, keep_ms=300))


def ask(server, text):
    return requests.post(server.url + "/predict", data=text, timeout=WAIT_S,
                         headers={"Content-Type": "application/json"})


def metric(server, name):
    for line in requests.get(server.url + "/metrics", timeout=WAIT_S).text.splitlines():
        if line.startswith(f"unetserve_{name} "):
            return float(line.split()[-1])
    raise AssertionError(f"no metric {name}")


def ready(server):
    return metric(server, 'workers{model="poison",state="ready"}')


def wanted(server):
    return metric(server, 'workers_wanted{model="poison"}')


def jobs(server, *states):
    """How many are with the server, in one of those states."""
    return sum(metric(server, f'slots{{state="{state}"}}') for state in states or ("READY", "LEASED", "RUN"))


def burst(pool, server, turn=0):
    """Jobs that go on when the gate is open for that turn."""
    texts = [f"held {turn} {number}" for number in range(JOBS)]
    return [(text, pool.submit(ask, server, text)) for text in texts]


def check(answers):
    for text, answer in answers:
        assert answer.result().status_code == 200
        assert answer.result().text == text


def wait_ready(server, count):
    wait_until(lambda: ready(server) == count, WAIT_S, f"{count} ready workers")


def test_burst_raises_the_workers_and_they_go_again(server, gate):
    assert (ready(server), wanted(server)) == (1, 1)
    assert len(server.role("worker")) == 1
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_ready(server, 2)
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
        gate.open()
        check(answers)
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "the second worker's end")
    assert wanted(server) == 1
    log = server.log_text()
    assert "more workers" in log and "fewer workers" in log
    server.stop()


def test_health_does_not_wait_for_more_than_the_least(server, gate):
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        first = server.role("worker")
        answers = burst(pool, server)
        wait_until(lambda: len(server.role("worker")) == 2, WAIT_S, "a second worker")
        second = next(pid for pid in server.role("worker") if pid not in first)
        os.kill(server.pid, signal.SIGSTOP)  # it would take the second one for hung
        os.kill(second, signal.SIGSTOP)
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
        os.kill(second, signal.SIGCONT)
        os.kill(server.pid, signal.SIGCONT)
        gate.open()
        check(answers)
    server.stop()


def test_long_jobs_after_quick_ones_raise_the_workers(server, gate):
    """The scaler has learnt that jobs take no time; those that wait behind one that does are served by another worker, also
    the one that the first worker had at hand: the broker takes it back."""
    assert [ask(server, "quick").status_code for _ in range(40)] == [200] * 40
    wait_until(lambda: wanted(server) == 1 and len(server.role("worker")) == 1, WAIT_S, "one worker")
    with concurrent.futures.ThreadPoolExecutor(9) as pool:
        held = pool.submit(ask, server, "held 0")
        wait_until(lambda: metric(server, 'jobs_running{model="poison"}') == 1, WAIT_S, "the long job's running")
        behind = [pool.submit(ask, server, "quick") for _ in range(8)]
        wait_until(lambda: all(one.done() for one in behind), WAIT_S, "all eight answers")
        assert ready(server) == 2 and not held.done()
        gate.open()
        assert {one.result().status_code for one in [held, *behind]} == {200}
    server.stop()


def test_worker_killed_while_it_drains_loses_nothing(server, gate):
    """Two jobs run at two workers. One of them goes on, by the worker that is given up or the other one, of which nobody
    knows."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        first = server.role("worker")
        answers = burst(pool, server)
        wait_ready(server, 2)
        # Whoever came behind the late ones would wait for a worker until their turn.
        wait_until(lambda: jobs(server) == JOBS, WAIT_S, "the whole burst to be in the queue")
        late = [(text, pool.submit(ask, server, text)) for text in ["held 1 a", "held 2 b"]]
        gate.open()
        check(answers)
        # Whoever was the first to be through with the others may have had both, until the other one was idle.
        wait_until(lambda: jobs(server, "RUN") == 2, WAIT_S, "both jobs to run")
        second = [pid for pid in server.role("worker") if pid not in first]
        gate.open(1)
        wait_until(lambda: "fewer workers" in server.log_text() or wanted(server) == 1, WAIT_S,
                   "the decision to have fewer workers")
        for pid in second:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        gate.open(2)
        check(late)
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "one worker")
    server.stop()


# ---- reloads -----------------------------------------------------------------------------------------


def wait_reloads(server, times):
    wait_until(lambda: server.log_text().count("msg=reloaded") == times, WAIT_S, "the end of the reload")


def test_reload_under_load_with_a_range(server, gate):
    """The reload's spare worker is none of the range's: it goes when the reload is over, and both workers are new."""
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_ready(server, 2)
        before = server.role("worker")
        answers += burst(pool, server, 1)
        server.send(signal.SIGHUP)
        gate.open(1)
        wait_reloads(server, 1)
        check(answers)
        assert not set(before) & set(server.role("worker"))
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "one worker")
    assert wanted(server) == 1
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        # The scaler knows from the jobs before how little time these take, unless they take some.
        texts = [f"slow 50 {number}" for number in range(JOBS)]
        answers = [(text, pool.submit(ask, server, text)) for text in texts]
        wait_until(lambda: server.log_text().count("more workers") >= 2, WAIT_S, "the decision to have two again")
        check(answers)
    server.stop()


def test_reload_applies_the_keys_of_the_range(start_server, gate):
    server = start_server(config=CONFIG.format(path=gate.model, keep_ms=86400000))
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_ready(server, 2)
        gate.open()
        check(answers)
    time.sleep(0.5)
    assert len(server.role("worker")) == 2
    (server.directory / "unetserve.conf").write_text(CONFIG.format(path=gate.model, keep_ms=300))
    server.send(signal.SIGHUP)
    wait_reloads(server, 1)
    wait_until(lambda: len(server.role("worker")) == 1, WAIT_S, "one worker")
    assert "count from the next start" not in server.log_text()
    server.stop()


# ---- workers that cannot be started --------------------------------------------------------------------


def test_worker_that_does_not_load_is_tried_again(server, gate, tmp_path):
    """The server goes on with those that it has; when it can be loaded, it is."""
    gate.model.rename(tmp_path / "away.so")
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_until(lambda: "program=worker" in server.log_text() and "status=66" in server.log_text(), WAIT_S,
                   "the end of a worker without its plugin")
        assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
        assert server.process.poll() is None
        (tmp_path / "away.so").rename(gate.model)
        wait_ready(server, 2)
        gate.open()
        check(answers)
    server.stop()


def tiny_group():
    """Words that run a program with a control group of 1 MiB before its eyes, in a mount namespace of its own."""
    as_root = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    words = [*as_root, "sh", "-c", "mount -t tmpfs none /sys/fs/cgroup && echo 1048576 > /sys/fs/cgroup/memory.max && "
                                   'exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace of its own here, in which to show another control group")
    return words


def test_no_worker_that_does_not_fit_into_the_memory(start_server, gate):
    server = start_server(config=CONFIG.format(path=gate.model, keep_ms=300), before=tiny_group())
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        answers = burst(pool, server)
        wait_until(lambda: "would not fit into the memory" in server.log_text(), WAIT_S, "the refusal")
        gate.open()
        check(answers)
        check(burst(pool, server))
    assert server.log_text().count("would not fit into the memory") == 1
    assert 'msg="more workers"' not in server.log_text() and len(server.role("worker")) == 1
    server.stop()
