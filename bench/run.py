"""First figures, in one run, as ratios: the forward pass against the machine's peak, HTTP round trips against the bare forward
pass, start-up, memory. Started by `make bench`; writes build/bench/results.json with every sample.
"""
import http.client
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", "build"))
BUILD = BUILD if BUILD.is_absolute() else TOP / BUILD
OUT = BUILD / "bench"
ROUNDS = int(os.environ.get("ROUNDS", "5"))
REQUESTS = int(os.environ.get("REQUESTS", "20"))
THREADS = len(os.sched_getaffinity(0))


def cpu_name():
    for line in open("/proc/cpuinfo", encoding="utf-8"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def forward(*args):
    """Samples of bench/forward: a list of JSON documents, one a line."""
    done = subprocess.run([BUILD / "bench/forward", *args], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Server:
    """A unetserve of its own on a free loopback port; always stopped by its pid."""

    def __init__(self, model):
        self.runtime = tempfile.TemporaryDirectory(prefix="unetserve-bench-")
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.runtime.name)
        started = time.monotonic()
        self.process = subprocess.Popen(
            [BUILD / "unetserve", "--listen", "127.0.0.1:0", "--model", f"bench={model}"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        line = self.process.stdout.readline()
        self.ready_s = time.monotonic() - started
        if "ready on" not in line:
            self.process.kill()
            raise RuntimeError(f"unetserve did not start: {line!r}")
        self.port = int(line.rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.stdout.close()
        self.runtime.cleanup()

    def memory_kib(self):
        """Proportional set size of each process, by its name: shared pages are counted once."""
        pids = [self.process.pid] + [
            int(pid) for pid in os.listdir("/proc") if pid.isdigit() and parent(int(pid)) == self.process.pid]
        result = {}
        for pid in pids:
            try:
                name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
                rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            values = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
            result[f"{name}[{pid}]"] = {"rss": values["Rss"], "pss": values["Pss"]}
        return result


def parent(pid):
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(text.rsplit(")", 1)[1].split()[1])


def round_trips(port, body, headers, count):
    """Milliseconds of each request on one connection, and the server's own forward times."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    samples, forwards = [], []
    for _ in range(count):
        begin = time.perf_counter()
        connection.request("POST", "/predict", body, headers)
        answer = connection.getresponse()
        data = answer.read()
        samples.append((time.perf_counter() - begin) * 1e3)
        if answer.status != 200 or not data:
            raise RuntimeError(f"{answer.status}: {data[:200]!r}")
        timing = dict(part.strip().split(";dur=") for part in answer.headers["Server-Timing"].split(","))
        forwards.append(float(timing["forward"]))
    connection.close()
    return samples, forwards


def bodies():
    rng = np.random.default_rng(3)
    tile = rng.integers(0, 10000, (12, 256, 256), dtype=np.uint16)
    npy = b"\x93NUMPY\x01\x00"
    header = "{'descr': '<u2', 'fortran_order': False, 'shape': (12, 256, 256), }"
    header += " " * (-(len(npy) + 2 + len(header) + 1) % 64) + "\n"
    npy += len(header).to_bytes(2, "little") + header.encode() + tile.tobytes()
    return {
        "json": (json.dumps({"image": tile.tolist()}).encode(), {"Content-Type": "application/json"}),
        "npy": (npy, {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}),
    }


def bench_model(name, path, results):
    print(f"\n{name}")
    bare = [sample for sample in forward("--model", str(path), "--threads", str(THREADS), "--runs", "10")]
    results["forward"][name] = bare
    for sample in bare:
        print(f"  forward {sample['precision']}: {sample['ms']:.2f} ms, {sample['gflop']:.1f} GFLOP, "
              f"{sample['gflops']:.0f} GFLOP/s, {100 * sample['share_of_peak']:.0f} % of the measured {sample['precision']} peak")
    bare_ms = min(sample["ms"] for sample in bare)
    kinds = bodies()
    trips = {kind: [] for kind in kinds}
    inside = {kind: [] for kind in kinds}
    with Server(path) as server:
        results["ready_s"][name] = server.ready_s
        for kind, (body, headers) in kinds.items():
            round_trips(server.port, body, headers, 3)
        for _ in range(ROUNDS):
            for kind, (body, headers) in kinds.items():
                samples, forwards = round_trips(server.port, body, headers, REQUESTS)
                trips[kind] += samples
                inside[kind] += forwards
        results["memory_kib"][name] = server.memory_kib()
    results["round_trip_ms"][name] = trips
    for kind, samples in trips.items():
        median = statistics.median(samples)
        print(f"  {kind:4} round trip: median {median:.2f} ms (p95 {np.percentile(samples, 95):.2f}), "
              f"{median / bare_ms:.2f} of the bare forward, {median / statistics.median(inside[kind]):.2f} of the forward inside it")
    print(f"  start-up to ready: {results['ready_s'][name] * 1e3:.0f} ms")
    for process, value in results["memory_kib"][name].items():
        print(f"  memory {process:28} rss {value['rss'] / 1024:7.1f} MiB, pss {value['pss'] / 1024:7.1f} MiB")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    large = OUT / "random-31m.safetensors"
    if not large.exists():
        subprocess.run([sys.executable, TOP / "bench/random_unet.py", large], check=True)
    results = {"machine": cpu_name(), "cores": THREADS, "kernel": platform.release(), "forward": {}, "ready_s": {},
               "memory_kib": {}, "round_trip_ms": {}, "peak": forward("--peak", "--threads", str(THREADS))}
    print(f"{results['machine']}, {THREADS} cores")
    bench_model("demonstration model, 1.9M parameters, 12 x 256 x 256", TOP / "packaging/models/s2-worldcover", results)
    bench_model("random UNet, 31M parameters, 12 x 256 x 256", large, results)
    print("\nthe machine's peak, the highest seen in this run")
    for peak in results["peak"]:
        seen = [sample["peak_gflops"] for samples in results["forward"].values() for sample in samples
                if sample["precision"] == peak["precision"]]
        print(f"  {peak['isa']} {peak['precision']}: {max([peak['gflops'], *seen]):.0f} GFLOP/s")
    (OUT / "results.json").write_text(json.dumps(results, indent=1))
    print(f"\nevery sample: {os.path.relpath(OUT / 'results.json')}")


if __name__ == "__main__":
    main()
