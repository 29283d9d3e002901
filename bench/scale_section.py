"""How it grows: workers, gateways, connections and tile sizes; what a job costs each process where the model does nothing; and what that
says about machines that are larger than this one."""
import contextlib
import io
import json
import os
import resource
import subprocess
import sys

import numpy as np

from servers import BUILD, Ask, Unetserve, load
from unet_section import npy_bytes

WORKERS, GATEWAYS = (1, 2, 4, 8), (1, 2, 4)
CONNECTIONS = (1, 10, 100, 1000, 10000)
SIZES = (64, 128, 256, 512, 1024, 2048)
MANY = "max_connections = 12000\nmax_connections_per_address = 0"
THREADS = len(os.sched_getaffinity(0))
NOOP = (b"{}", {"Content-Type": "application/json"})


def nothing(body):
    return None if body == b"{}" else f"{body[:80]!r}"


def any_labels(size):
    def right(body):
        shape = np.load(io.BytesIO(body)).shape
        return None if shape == (size, size) else f"shape {shape}"

    return right


def allow_descriptors():
    """As many as the kernel lets us, for the servers that are started: they inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextlib.contextmanager
def serving(model, question, **more):
    server = Unetserve(model, **more)
    try:
        ask = Ask(*question)
        ask.learn(server)
        yield server, ask
    finally:
        server.stop()


def point(report, **more):
    """What is kept of a report."""
    kept = {name: report[name] for name in ("clients", "right_per_s", "sent", "right", "broken", "unanswered", "statuses", "cpu_share")}
    return dict(kept, latency_ms={name: report["latency_ms"][name] for name in ("p50", "p99", "p999", "max")}, **more)


def spent(server, ask, clients, seconds, rate=None):
    """A report, and microseconds of processor time for each job by role."""
    before = server.cpu_seconds()
    report = load(server, ask, clients, seconds, rate=rate)
    after = server.cpu_seconds()
    jobs = max(report["right"], 1)
    return point(report, cpu_us={role: 1e6 * (after[role] - before.get(role, 0)) / jobs for role in after})


def noop_points(plan):
    """By workers, by gateways and by connections, with a model that does nothing."""
    model, question = BUILD / "bench/noop.so", (*NOOP, nothing)
    found = {"workers": [], "gateways": [], "connections": [], "open": []}
    for workers in WORKERS[:2] if plan.quick else WORKERS:
        with serving(model, question, section=f"workers = {workers}") as (server, ask):
            found["workers"].append(dict(spent(server, ask, 64, plan.scale_s), workers=workers))
    for gateways in GATEWAYS[:2] if plan.quick else GATEWAYS:
        with serving(model, question, server=f"gateways = {gateways}", section="workers = 2") as (server, ask):
            found["gateways"].append(dict(spent(server, ask, 64, plan.scale_s), gateways=gateways))
    with serving(model, question, server=MANY, section="workers = 2") as (server, ask):
        for clients in CONNECTIONS[:4] if plan.quick else CONNECTIONS:
            found["connections"].append(spent(server, ask, clients, plan.scale_s))
        # The same many connections, but not all asking at once: half of what fewer of them got.
        half = max(point["right_per_s"] for point in found["connections"]) / 2
        found["open"].append(dict(spent(server, ask, clients, 2 * plan.scale_s, rate=half), offered_per_s=half))
    return found


def unet_points(plan, model):
    """By tile size, one client; and by workers, which share the cores, with eight clients."""
    found = {"sizes": [], "workers": []}
    rng = np.random.default_rng(5)
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    sizes = (64, 256, 1024) if plan.quick else SIZES
    tiles = {size: npy_bytes(rng.integers(0, 10000, (12, size, size), dtype=np.uint16)) for size in sizes}
    with serving(model, (tiles[sizes[0]], headers, any_labels(sizes[0])), server="max_body_bytes = 256M\nqueue_memory = 4G",
                 section="tile = 2048" if max(sizes) > 1024 else "tile = 1024") as (server, _):
        for size in sizes:
            ask = Ask(tiles[size], headers, any_labels(size))
            ask.learn(server)
            found["sizes"].append(point(load(server, ask, 1, 2 * plan.scale_s), size=size))
    for workers in WORKERS[:2] if plan.quick else WORKERS:
        with serving(model, (tiles[256], headers, any_labels(256)), section=f"workers = {workers}") as (server, ask):
            found["workers"].append(dict(spent(server, ask, 8, 2 * plan.scale_s), workers=workers))
    return found


def broker_points(plan):
    """The broker by itself, bench/broker/rate.c, by the number of jobs that wait at once; the best of three each."""
    found = []
    for jobs in (1, 8, 64, 256):
        runs = [json.loads(subprocess.run([BUILD / "bench/broker-rate", "--slots", "512", "--jobs", str(jobs), "--ms", str(int(500 * plan.scale_s))],
                                          check=True, capture_output=True, text=True).stdout) for _ in range(3)]
        found.append(dict(max(runs, key=lambda run: run["jobs_per_s"]), samples=[run["jobs_per_s"] for run in runs]))
    return found


def fit(noop, broker, forward_ms):
    """What larger machines would ask of the broker, and the share of what it did here in a no-op cycle with 64 jobs waiting.

    A machine asks for as many jobs a second as its cores, or GPUs, finish. Cores are taken to do what ours do, a network's time to
    grow with its pixels: a model, not a measurement."""
    busy = max((entry for entry in noop["workers"] + noop["gateways"] + noop["connections"] if entry["clients"] >= 64),
               key=lambda entry: entry["right_per_s"])
    tiles_per_core = 1e3 / forward_ms / THREADS
    return {"cpu_us": busy["cpu_us"], "jobs_per_s_here": busy["right_per_s"],
            "broker_jobs_per_s": next(entry["jobs_per_s"] for entry in broker if entry["jobs"] == 64),
            "needs": {"64 cores, 31M network, tiles of 256": 64 * tiles_per_core, "64 cores, 31M network, tiles of 64": 16 * 64 * tiles_per_core,
                      "8 GPUs that do 2,000 tiles a second each": 8 * 2000.0}}


def measure(plan, model, forward_ms):
    allow_descriptors()
    noop = noop_points(plan)
    unet = unet_points(plan, model)
    broker = broker_points(plan)
    return {"noop": noop, "unet": unet, "broker": broker, "fit": fit(noop, broker, forward_ms)}


def show(result, out=sys.stdout):
    print("\nscale: a model that does nothing", file=out)
    for kind, key in (("workers", "workers"), ("gateways", "gateways"), ("connections", "clients"), ("open", "clients")):
        for entry in result["noop"][kind]:
            cost = ", ".join(f"{role} {us:.1f}" for role, us in sorted(entry["cpu_us"].items()) if us >= 0.05)
            what = "connections, open loop" if kind == "open" else kind
            refused = f"{1 - entry['right'] / max(entry['sent'], 1):.0%} refused, " if entry["right"] < entry["sent"] else ""
            print(f"  {entry[key]:6} {what:12} {entry['right_per_s']:8.0f} a second, {refused}p50 {entry['latency_ms']['p50']:.2f}, "
                  f"p99 {entry['latency_ms']['p99']:.2f} ms; us of CPU a job: {cost}", file=out)
    print("scale: the demonstration model", file=out)
    for entry in result["unet"]["sizes"]:
        print(f"  tile {entry['size']:5} p50 {entry['latency_ms']['p50']:.2f} ms, "
              f"{entry['size'] ** 2 / 1e3 / entry['latency_ms']['p50']:.2f} megapixels a second", file=out)
    for entry in result["unet"]["workers"]:
        print(f"  {entry['workers']} workers, 8 clients: {entry['right_per_s']:.1f} a second, p99 {entry['latency_ms']['p99']:.1f} ms", file=out)
    print("scale: the broker by itself, gateway and worker doing nothing but moving slots", file=out)
    for entry in result["broker"]:
        print(f"  {entry['jobs']:4} jobs wait at once: {entry['jobs_per_s']:8.0f} a second, of each {entry['broker_us']:.2f} us in the broker", file=out)
    most = result["fit"]["broker_jobs_per_s"]
    for what, need in result["fit"]["needs"].items():
        print(f"  {what} would need {need:.0f} jobs a second, {100 * need / most:.1f} % of {most:.0f}", file=out)
