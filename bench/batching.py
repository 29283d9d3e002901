"""Requests a second and latency against max_batch_size: batching.py MODEL [--clients 8] [--sizes 1,2,4,8] [--seconds 4] [--rounds 5]

One server for each batch size, all of them up at the same time, asked in turns by clients that each wait for their answer
before they ask again, so that whatever else the machine does falls on all of them alike. MODEL: a UNet of 12 channels, asked with npy tiles
of 256 x 256, or a plugin that takes {"input": NUMBER} (a path that ends in .so). --wait always --timeout-ms T: LitServe's window.
"""
import argparse
import os
import re
import statistics
import urllib.request

import numpy as np

from servers import Ask, Unetserve, load
from unet_section import npy_bytes


def batches(server):
    """How often the model ran, and on how many tiles."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return [float(re.search(rf"unetserve_batch_tiles_{name}{{.*}} (\S+)", text)[1]) for name in ("count", "sum")]


def make_ask(model):
    """Answers must all be the first one: a tile's labels do not depend on whom it shares a batch with."""
    if model.endswith(".so"):
        return Ask(b'{"input": 4.0}', {"Content-Type": "application/json"}, lambda body: None)
    tile = np.random.default_rng(3).integers(0, 10000, (12, 256, 256), dtype=np.uint16)
    return Ask(npy_bytes(tile), {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}, lambda body: None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--sizes", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--wait", default="receiving")
    parser.add_argument("--timeout-ms", type=float, default=0)
    options = parser.parse_args()
    os.environ["no_proxy"] = "*"
    servers, asks, reports = [], [], []
    try:
        for size in options.sizes.split(","):
            servers.append(Unetserve(options.model, f"max_batch_size {size}",
                                     section=f"max_batch_size = {size}\nbatch_wait = {options.wait}\nbatch_timeout_ms = {options.timeout_ms:g}"))
            asks.append(make_ask(options.model))
            asks[-1].learn(servers[-1])
            load(servers[-1], asks[-1], options.clients, 1)
            reports.append([])
        before = [batches(server) for server in servers]
        for _ in range(options.rounds):
            for server, ask, own in zip(servers, asks, reports):
                own.append(load(server, ask, options.clients, options.seconds))
        for server, own, then in zip(servers, reports, before):
            now = batches(server)
            rates = [report["right_per_s"] for report in own]
            ratios = [rate / first["right_per_s"] for rate, first in zip(rates, reports[0])]
            p50, p99 = (statistics.median(report["latency_ms"][part] for report in own) for part in ("p50", "p99"))
            print(f"{server.name}: {statistics.median(rates):8.1f} requests/s, best {max(rates):8.1f}, {statistics.median(ratios):.2f} of the first; "
                  f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; {(now[1] - then[1]) / (now[0] - then[0]):.2f} tiles a run", flush=True)
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
