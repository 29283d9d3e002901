"""Requests a second and latency against max_batch_size: batching.py MODEL [--clients 8] [--sizes 1,2,4,8] [--seconds 4] [--rounds 5]

One server for each batch size, all of them up at the same time, asked in turns by clients that each wait for their answer
before they ask again, so that whatever else the machine does falls on all of them alike. MODEL: a UNet of 12 channels, asked with npy tiles
of 256 x 256, or a plugin that takes {"input": NUMBER} (a path that ends in .so). --wait always --timeout-ms T: LitServe's window.
"""
import argparse
import json
import math
import os
import pathlib
import re
import select
import signal
import socket
import statistics
import subprocess
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("BUILD", TOP / "build"))


class Server:
    """A unetserve with a configuration of its own on a free loopback port; always stopped by its pid."""

    def __init__(self, model, size, options):
        self.size = size
        self.directory = tempfile.TemporaryDirectory(prefix="unetserve-bench-")
        config = pathlib.Path(self.directory.name) / "unetserve.conf"
        config.write_text(f"[model m]\npath = {model}\nroute = /predict\nmax_batch_size = {size}\n"
                          f"batch_wait = {options.wait}\nbatch_timeout_ms = {options.timeout_ms}\n")
        environment = dict(os.environ, XDG_RUNTIME_DIR=self.directory.name)
        self.process = subprocess.Popen([BUILD / "unetserve", "-c", config, "--listen", "127.0.0.1:0"],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True)
        line = self.process.stdout.readline()
        if "ready on" not in line:
            raise RuntimeError(f"unetserve did not start: {line!r}")
        self.address = ("127.0.0.1", int(line.rsplit(":", 1)[1]))
        self.rates, self.waits = [], []

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.directory.cleanup()

    def batches(self):
        """How often the model ran, and on how many tiles."""
        with socket.create_connection(self.address, 10) as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        return [float(re.search(rf"unetserve_batch_tiles_{name}{{.*}} (\S+)", text)[1]) for name in ("count", "sum")]


class Client:
    """One connection that asks the same again and again."""

    def __init__(self, address, request):
        self.socket = socket.create_connection(address, 60)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request = request

    def begin(self):
        self.begun = time.perf_counter()
        self.rest = memoryview(self.request)
        self.answer = b""
        return self.send()

    def send(self):
        """True when the request is out."""
        while self.rest:
            try:
                self.rest = self.rest[self.socket.send(self.rest):]
            except BlockingIOError:
                return False
        return True

    def receive(self):
        """True when the answer is whole."""
        self.answer += self.socket.recv(1 << 20)
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found:
            return False
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self.answer[:300])
        return len(body) >= int(re.search(rb"(?i)content-length: *(\d+)", head)[1])


def load(server, request, clients, seconds):
    """Seconds of each answer within that time, and how many there were a second."""
    pool = {}
    poll = select.epoll()
    for _ in range(clients):
        client = Client(server.address, request)
        pool[client.socket.fileno()] = client
        poll.register(client.socket, select.EPOLLIN | (0 if client.begin() else select.EPOLLOUT))
    begin = time.perf_counter()
    waits = []
    while (now := time.perf_counter()) < begin + seconds:
        for fd, events in poll.poll(1):
            client = pool[fd]
            if events & select.EPOLLOUT and client.send():
                poll.modify(fd, select.EPOLLIN)
            if events & select.EPOLLIN and client.receive():
                waits.append(time.perf_counter() - client.begun)
                poll.modify(fd, select.EPOLLIN | (0 if client.begin() else select.EPOLLOUT))
    for client in pool.values():
        client.socket.close()
    poll.close()
    return waits, len(waits) / (now - begin)


def make_request(model):
    if model.endswith(".so"):
        body, kind = json.dumps({"input": 4.0}).encode(), "application/json"
    else:
        header = "{'descr': '<u2', 'fortran_order': False, 'shape': (12, 256, 256), }"
        header += " " * (-(10 + len(header) + 1) % 64) + "\n"
        pixels = bytes(i * 7919 >> 8 & 0x1f if i & 1 else i * 104729 >> 4 & 0xff for i in range(2 * 12 * 256 * 256))
        body = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + pixels
        kind = "application/x-npy\r\nAccept: application/x-npy"
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def percentile(samples, part):
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


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
    request = make_request(options.model)
    servers = [Server(os.path.abspath(options.model), int(size), options) for size in options.sizes.split(",")]
    try:
        for server in servers:
            load(server, request, options.clients, 1)
        before = [server.batches() for server in servers]
        for _ in range(options.rounds):
            for server in servers:
                waits, rate = load(server, request, options.clients, options.seconds)
                server.waits += waits
                server.rates.append(rate)
        for server, then in zip(servers, before):
            now = server.batches()
            ratios = [rate / first for rate, first in zip(server.rates, servers[0].rates)]
            print(f"max_batch_size {server.size}: {statistics.median(server.rates):8.1f} requests/s, best {max(server.rates):8.1f}, "
                  f"{statistics.median(ratios):.2f} of the first; p50 {1e3 * percentile(server.waits, .5):.1f} ms, "
                  f"p99 {1e3 * percentile(server.waits, .99):.1f} ms; {(now[1] - then[1]) / (now[0] - then[0]):.2f} tiles a run", flush=True)
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    main()
