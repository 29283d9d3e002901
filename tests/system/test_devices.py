"""GPUs found, dealt out to workers and watched, on a double of NVML (tests/gpu/double/fake_nvml.c) behind the real dlopen. What runs on them is
a model that computes nothing on a GPU."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest
import requests
from conftest import BUILD, WAIT_S, wait_until
from metrics_text import Metrics
from protocol_client import endpoint_of

UUIDS = [f"GPU-{i:08x}-1111-2222-3333-444444444444" for i in range(3)]
INSTANCES = [f"MIG-{i:08x}-5555-6666-7777-888888888888" for i in range(2)]
CORE = min(os.sched_getaffinity(0))


def gpu(number, **more):
    return {"uuid": UUIDS[number], "name": f"Double {number}", "memory": [80 << 30, number << 30], "utilization": [37, 12],
            "temperature": 41 + number, "power": 251500, "power_limit": 700000, "clock": 1980, "throttle": 0x44, "ecc": [3, 1],
            "cpus": [CORE], "nodes": [0], **more}


class Driver:
    """A directory for LD_LIBRARY_PATH, and what the driver in it tells."""

    def __init__(self, directory, devices):
        directory.mkdir()
        self.directory = directory
        for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
            shutil.copy(BUILD / "tests" / "nvml" / name, directory)
        self.world = {"driver": "580.65.06", "devices": devices}
        self.tell()

    def tell(self, **more):
        self.world.update(more)
        new = self.directory / "world.new"
        new.write_text(json.dumps(self.world))
        new.rename(self.directory / "world.json")

    @property
    def env(self):
        return {"LD_LIBRARY_PATH": str(self.directory), "NVMLDOUBLE": str(self.directory / "world.json")}


@pytest.fixture
def driver(tmp_path):
    return lambda devices: Driver(tmp_path / "driver", devices)


def listed(env, *options, code=0):
    done = subprocess.run([BUILD / "unetctl", "devices", *options], capture_output=True, text=True, timeout=WAIT_S, check=False,
                          env={**os.environ, **env})
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def indices(env):
    return [device["index"] for device in json.loads(listed(env, "--json").stdout)["devices"]]


def config(devices, **keys):
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    return f"[server]\nlisten = 127.0.0.1:0\n[model m]\npath = {BUILD / 'models' / 'simple.so'}\ndevices = {devices}\n{lines}"


def variables(pid):
    return dict(word.split("=", 1) for word in pathlib.Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in word)


def workers_of(server):
    """By their seats: devices are dealt out in that order."""
    children = server.children()
    return sorted(server.role("worker"), key=lambda pid: int(children[pid][children[pid].index("--seat") + 1]))


def metrics(server):
    return Metrics(requests.get(server.url + "/metrics", timeout=WAIT_S).text).samples


def figure(server, what, uuid=UUIDS[0], index="0", **labels):
    """None: it is missing, although there are figures of that device, but for "up"."""
    device = {"uuid": uuid, "index": index}

    def look(figure_name, **more):
        return samples.get(("unetserve_gpu_" + figure_name, tuple(sorted({**device, **more}.items()))))

    samples = metrics(server)
    while what != "up" and look("up") is None:  # they are 5 s old, on a machine that has too much to do
        wait_until(lambda: figure(server, "up", uuid, index) is not None)
        samples = metrics(server)
    return look(what, **labels)


# ---- found ----

def test_gpus_are_listed_with_what_is_near_them(driver):
    env = driver([gpu(0), gpu(1, nodes=[1], cpus=[0, 1, 2, 5])]).env
    told = json.loads(listed(env, "--json").stdout)
    assert told["driver"] == "580.65.06" and told["error"] == ""
    assert [device["uuid"] for device in told["devices"]] == UUIDS[:2]
    assert told["devices"][1] == {"uuid": UUIDS[1], "index": "1", "name": "Double 1", "memory_bytes": 80 << 30, "numa_node": 1,
                                  "cpus": [0, 1, 2, 5]}
    table = listed(env).stdout.splitlines()
    assert len(table) == 3 and UUIDS[1] in table[2] and table[2].endswith("0-2,5") and "81920" in table[2]


def test_instances_of_mig_are_dealt_instead_of_their_gpu(driver):
    mig = [{"uuid": INSTANCES[0], "name": "Double MIG 1g", "memory": [10 << 30, 0]}, None,
           {"uuid": INSTANCES[1], "name": "Double MIG 2g", "memory": [20 << 30, 0]}]
    env = driver([gpu(0), gpu(1, mig=mig, nodes=[1])]).env
    told = json.loads(listed(env, "--json").stdout)["devices"]
    assert [(device["index"], device["uuid"]) for device in told] == [("0", UUIDS[0]), ("1:0", INSTANCES[0]), ("1:2", INSTANCES[1])]
    assert told[1]["numa_node"] == 1 and told[1]["cpus"] == [CORE] and told[1]["memory_bytes"] == 10 << 30
    assert indices({**env, "CUDA_VISIBLE_DEVICES": INSTANCES[1]}) == ["1:2"]


@pytest.mark.parametrize("visible, expected", [("1", ["1"]), ("2,0", ["2", "0"]), ("1,7,0", ["1"]), ("-1", []), ("", []),
                                               (UUIDS[2], ["2"]), ("GPU-00000001", ["1"]), ("0,0,1", ["0"]), ("GPU-", [])])
def test_cuda_visible_devices_counts_as_for_cuda(driver, visible, expected):
    assert indices({**driver([gpu(i) for i in range(3)]).env, "CUDA_VISIBLE_DEVICES": visible}) == expected


def test_a_gpu_that_does_not_answer_is_left_out(driver):
    there = driver([gpu(0), {key: value for key, value in gpu(1).items() if key != "uuid"}, gpu(2)])
    assert indices(there.env) == ["0", "2"]


@pytest.mark.parametrize("change, sentence", [
    ({"codes": {"nvmlInit_v2": 9}}, "the NVIDIA driver does not answer libnvidia-ml.so.1: Driver Not Loaded"),
    ({"driver": "418.87"}, "the NVIDIA driver is version 418.87, needed is 450 or later"),
    ({"codes": {"nvmlDeviceGetCount_v2": 999}}, "the NVIDIA driver does not count its GPUs: an error"),
])
def test_why_there_are_none_is_said(driver, change, sentence):
    there = driver([gpu(0)])
    there.tell(**change)
    assert listed(there.env, code=69).stderr == f"unetctl: {sentence}\n"
    # Where GPUs are named, nothing starts; where the driver's own choice would do, it may choose.
    done = subprocess.run([BUILD / "unetserve", "--model", BUILD / "models" / "simple.so", "--device", "cuda:0", "--check"],
                          capture_output=True, text=True, timeout=WAIT_S, check=False, env={**os.environ, **there.env})
    assert done.returncode == 69 and sentence in done.stderr
    done = subprocess.run([BUILD / "unetserve", "--model", BUILD / "models" / "simple.so", "--device", "cuda", "--check"],
                          capture_output=True, text=True, timeout=WAIT_S, check=False, env={**os.environ, **there.env})
    assert done.returncode == 0 and "1 worker on cuda" in done.stdout and sentence in done.stderr


def test_without_nvml_it_is_said(tmp_path):
    assert "NVML, which comes with the NVIDIA driver, is missing" in listed({"LD_LIBRARY_PATH": str(tmp_path)}, code=69).stderr


@pytest.mark.parametrize("devices, sentence", [
    ("3", "key 'devices': 3: there are 2 GPUs here"), ("0", "a number says how many"), ("0,5", "5: no such GPU"),
    ("cuda:1,1", "1: named twice"), (UUIDS[2], "no such GPU"), ("1:0", "no such GPU")])
def test_gpus_that_are_not_there_end_the_start(driver, devices, sentence):
    done = subprocess.run([BUILD / "unetserve", "--model", BUILD / "models" / "simple.so", "--device", devices, "--check"],
                          capture_output=True, text=True, timeout=WAIT_S, check=False, env={**os.environ, **driver([gpu(0), gpu(1)]).env})
    assert done.returncode == 69 and sentence in done.stderr and done.stderr.startswith("unetserve: model 'simple': "), done.stderr


# ---- dealt out ----

@pytest.mark.parametrize("devices, per_device, expected", [
    ("cuda", 1, UUIDS[:2]), ("2", 2, UUIDS[:2] * 2), ("cuda:1", 2, UUIDS[1:2] * 2), ("1,0", 1, [UUIDS[1], UUIDS[0]]), (UUIDS[1], 1, UUIDS[1:2])])
def test_each_worker_has_its_gpu(driver, start_server, devices, per_device, expected):
    server = start_server(config=config(devices, workers_per_device=per_device), listen=None, env=driver([gpu(0), gpu(1)]).env)
    workers = workers_of(server)
    assert [variables(pid)["CUDA_VISIBLE_DEVICES"] for pid in workers] == expected
    for pid in workers:
        assert os.sched_getaffinity(pid) == {CORE}
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    assert requests.get(server.url + "/info", timeout=WAIT_S).json()["server"]["devices"] == list(dict.fromkeys(expected))
    assert requests.post(server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S).json() == {"output": 80.0}
    server.stop()


def test_memory_is_asked_for_beside_the_gpu(driver, start_server):
    server = start_server(config=config("1"), listen=None, env=driver([gpu(0)]).env)
    pid, = server.role("worker")
    assert "--memory-node" in server.children()[pid]
    log = server.log_text()
    if "cannot ask for memory near the GPU" not in log:  # a container may forbid it; then it is told
        assert " prefer" in pathlib.Path(f"/proc/{pid}/numa_maps").read_text()
    server.stop()


def test_gpus_and_cores_are_shared_out_apart(driver, start_server):
    """A worker on the CPU gets all cores, however many work on GPUs."""
    text = config("2", workers_per_device=2) + f"[model c]\npath = {BUILD / 'models' / 'simple.so'}\nroute = /c\ndevices = cpu\n"
    server = start_server(config=text, listen=None, env=driver([gpu(0), gpu(1)]).env)
    alone = [pid for pid in server.role("worker") if "CUDA_VISIBLE_DEVICES" not in variables(pid)]
    assert len(alone) == 1 and len(server.role("worker")) == 5
    words = server.children()[alone[0]]
    assert len(os.sched_getaffinity(alone[0])) == int(words[words.index("--threads") + 1])
    server.stop()


def test_a_reload_deals_the_same_gpus(driver, start_server):
    there = driver([gpu(0), gpu(1)])
    server = start_server(config=config("cuda"), listen=None, env=there.env)
    before = server.role("worker")
    path = next(server.directory.glob("*.conf"))
    path.write_text(path.read_text() + "threads = 2\n")
    server.send(signal.SIGHUP)
    wait_until(lambda: "msg=reloaded" in server.log_text())
    wait_until(lambda: len(server.role("worker")) == 2 and not set(server.role("worker")) & set(before))
    assert [variables(pid)["CUDA_VISIBLE_DEVICES"] for pid in workers_of(server)] == UUIDS[:2]
    server.stop()


# ---- watched ----

def test_figures_are_in_metrics_with_their_units(driver, start_server):
    mig = [{"uuid": INSTANCES[0], "name": "Double MIG 1g", "memory": [10 << 30, 1 << 30]}]
    there = driver([gpu(0), gpu(1, mig=mig)])
    server = start_server(config=config("cuda"), listen=None, env=there.env)
    wait_until(lambda: figure(server, "up") == 1)
    assert figure(server, "utilization_ratio") == pytest.approx(0.37)
    assert figure(server, "memory_utilization_ratio") == pytest.approx(0.12)
    assert figure(server, "memory_total_bytes") == 80 << 30 and figure(server, "memory_used_bytes") == 0
    assert figure(server, "temperature_celsius") == 41 and figure(server, "power_watts") == 251.5
    assert figure(server, "power_limit_watts") == 700 and figure(server, "clock_hertz") == 1.98e9
    on = [reason for reason in ("gpu_idle", "sw_power_cap", "hw_thermal_slowdown", "hw_slowdown") if figure(server, "clock_throttle", reason=reason)]
    assert on == ["sw_power_cap", "hw_thermal_slowdown"]
    assert figure(server, "ecc_errors_total", type="corrected") == 3 and figure(server, "ecc_errors_total", type="uncorrected") == 1
    assert figure(server, "info", name="Double 0") == 1
    # The instance has memory; the board is its GPU's.
    instance = {"uuid": INSTANCES[0], "index": "1:0"}
    wait_until(lambda: figure(server, "memory_used_bytes", **instance) == 1 << 30)
    assert figure(server, "temperature_celsius", **instance) is None
    assert figure(server, "temperature_celsius", UUIDS[1], "1") == 42
    # They move.
    there.world["devices"][0]["temperature"] = 77
    there.tell()
    wait_until(lambda: figure(server, "temperature_celsius") == 77)
    server.stop()


def test_what_a_gpu_does_not_tell_is_missing_and_a_lost_one_is_down(driver, start_server):
    there = driver([gpu(0)])
    there.tell(codes={"nvmlDeviceGetPowerUsage": 3, "nvmlDeviceGetTotalEccErrors": 3})
    server = start_server(config=config("1"), listen=None, env=there.env)
    wait_until(lambda: figure(server, "up") == 1)
    assert figure(server, "power_watts") is None and figure(server, "ecc_errors_total", type="corrected") is None
    assert figure(server, "temperature_celsius") == 41
    there.tell(codes={"nvmlDeviceGetTemperature": 15, "nvmlDeviceGetMemoryInfo": 15})
    wait_until(lambda: figure(server, "up") == 0)
    assert figure(server, "temperature_celsius") is None and figure(server, "memory_used_bytes") is None
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    server.stop()


def test_a_driver_that_hangs_stops_nobody(driver, start_server):
    there = driver([gpu(0)])
    server = start_server(config=config("1"), listen=None, env=there.env)
    wait_until(lambda: figure(server, "up") == 1)
    watcher = server.role("gpu")
    there.tell(hang="nvmlDeviceGetMemoryInfo")
    # Old figures vanish, the hanging process is replaced, and everybody else serves on.
    wait_until(lambda: figure(server, "up") is None)
    assert requests.post(server.url + "/predict", json={"input": 3.0}, timeout=WAIT_S).json() == {"output": 36.0}
    wait_until(lambda: server.role("gpu") and server.role("gpu") != watcher)
    there.tell(hang="")
    wait_until(lambda: figure(server, "up") == 1)
    server.stop()


def test_a_watcher_that_dies_is_replaced(driver, start_server):
    server = start_server(config=config("1"), listen=None, env=driver([gpu(0)]).env)
    wait_until(lambda: figure(server, "up") == 1)
    watcher, = server.role("gpu")
    os.kill(watcher, signal.SIGKILL)
    wait_until(lambda: server.role("gpu") not in ([], [watcher]))
    wait_until(lambda: figure(server, "up") == 1)
    server.stop()


def test_without_gpus_nobody_watches(start_server):
    server = start_server(config=config("cpu"), listen=None)
    assert server.role("gpu") == [] and not any(name.startswith("unetserve_gpu_") for name, _ in metrics(server))
    server.stop()


# ---- failing ----

def test_a_gpu_that_fails_rests_and_the_other_serves(driver, start_server, tmp_path):
    """Its jobs run elsewhere; workers are started on it after a second, two, four, and by one of its seats alone."""
    path = tmp_path / "fragile.so"
    shutil.copy(BUILD / "tests" / "models" / "fragile.so", path)
    for uuid in UUIDS[:2]:
        (tmp_path / f"fragile.so.{uuid}").write_text("")
    text = config("cuda", workers_per_device=2).replace(str(BUILD / "models" / "simple.so"), str(path))
    server = start_server(config=text, listen=None, env=driver([gpu(0), gpu(1)]).env)

    def device():
        answer = requests.post(server.url + "/predict", json={}, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
        return answer.json()["device"]

    def status():
        done = subprocess.run([BUILD / "unetctl", "status", "--endpoint", endpoint_of(server), "--json"], capture_output=True,
                              text=True, timeout=WAIT_S, check=True)
        return json.loads(done.stdout)

    def sample(what, uuid):
        labels = (("device", uuid), *((("reason", "other"),) if what == "failures_total" else ()))
        return metrics(server).get(("unetserve_gpu_" + what, labels))

    assert status()["failed_devices"] == []
    broken = device()
    other = UUIDS[1 - UUIDS.index(broken)]
    assert sample("resting", broken) is None
    (tmp_path / f"fragile.so.{broken}").write_text("broken")
    # Both of its workers fall, sooner or later; every request is answered, by the other GPU.
    wait_until(lambda: device() == other and sample("failures_total", broken) is not None)
    assert sample("resting", broken) == 1
    wait_until(lambda: device() == other and status()["failed_devices"][0]["failures_in_a_row"] >= 3)
    entry, = status()["failed_devices"]
    assert entry["device"] == broken and entry["reason"] == "other" and entry["resting"] and entry["failures"] >= 3
    assert f"GPU {broken}:" in subprocess.run([BUILD / "unetctl", "status", "--endpoint", endpoint_of(server)], capture_output=True,
                                              text=True, timeout=WAIT_S, check=True).stdout
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 503
    rests = [int(rest) for rest in re.findall(r"a GPU failed under its worker.*rest_ms=(\d+)", server.log_text())]
    assert rests[:3] == [1000, 2000, 4000]
    (tmp_path / f"fragile.so.{broken}").write_text("")
    wait_until(lambda: sample("resting", broken) == 0)
    assert "a GPU serves again" in server.log_text() and sample("failures_total", other) is None
    wait_until(lambda: requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200)
    assert len(server.role("worker")) == 4
    server.stop()
