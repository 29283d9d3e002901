"""Connections that drip: heads and bodies that never end, a byte a second each, from several addresses, made anew when they are
closed. As a program it measures what that does to an honest client of a server that runs:

    tests/system/slow_loris.py PORT [CONNECTIONS] [SECONDS]
"""

import contextlib
import json
import resource
import selectors
import socket
import sys
import threading
import time

import requests

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = HEAD + b"Content-Length: 4000\r\n\r\n"
ADDRESSES = 8
RECONNECTS_A_TURN = 200


def files_allowed():
    """How many descriptors this process may have, after asking for all of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Loris(contextlib.AbstractContextManager):
    """Half of the connections drip heads, half bodies, until the block ends."""

    def __init__(self, port, connections):
        self.port, self.wanted = port, connections
        self.lines, self.made, self.closed = {}, 0, 0
        self.selector = selectors.DefaultSelector()
        self.end = threading.Event()
        self.full = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        for line in list(self.lines):
            line.close()
        self.selector.close()

    def _connect(self):
        line = socket.socket()
        line.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            line.bind((f"127.0.0.{2 + self.made % ADDRESSES}", 0))
            line.connect(("127.0.0.1", self.port))
        self.lines[line] = HEAD if self.made // ADDRESSES % 2 else BODY
        self.made += 1
        self.selector.register(line, selectors.EVENT_READ)

    def _drop(self, line):
        self.selector.unregister(line)
        del self.lines[line]
        line.close()
        self.closed += 1

    def _read(self, seconds):
        for key, _ in self.selector.select(seconds):
            line = key.fileobj
            try:
                if not line.recv(65536):
                    self._drop(line)
            except BlockingIOError:
                pass
            except OSError:
                self._drop(line)

    def _drip(self):
        for line, rest in list(self.lines.items()):
            try:
                if rest:
                    line.send(rest)
                    self.lines[line] = b""
                else:
                    line.send(b"a")
            except BlockingIOError:
                pass
            except OSError:
                self._drop(line)

    def _run(self):
        due = time.monotonic()
        while not self.end.is_set():
            for _ in range(min(RECONNECTS_A_TURN, self.wanted - len(self.lines))):
                self._connect()
            self._read(0.05)
            if time.monotonic() >= due:
                due = time.monotonic() + 1
                self._drip()
                if self.made >= self.wanted:
                    self.full.set()


def honest(port, seconds, body, most=100_000):
    """Ask again and again, alternately on a new connection and an old one: [(status, seconds)]."""
    answers, end = [], time.monotonic() + seconds
    with requests.Session() as kept:
        while time.monotonic() < end and len(answers) < most:
            asker = kept if len(answers) % 2 else requests
            begun = time.perf_counter()
            answer = asker.post(f"http://127.0.0.1:{port}/predict", data=body, timeout=60,
                                headers={"Content-Type": "application/json"})
            answers.append((answer.status_code, time.perf_counter() - begun))
    return answers


def percentile(answers, share):
    times = sorted(took for _, took in answers)
    return times[min(len(times) - 1, int(len(times) * share))]


def main(port, connections=2000, seconds=20):
    assert files_allowed() > connections + 100, "too few descriptors"
    body = json.dumps({"input": 4.0}).encode()
    honest(port, 1, body)
    for name, dripping in (("without", 0), (f"with {connections}", connections), ("without", 0)):
        with Loris(port, dripping) as loris:
            while dripping and not loris.full.wait(1):
                pass
            answers = honest(port, seconds, body)
        codes = {code: sum(1 for status, _ in answers if status == code) for code in {status for status, _ in answers}}
        print(f"{name}: {len(answers)} requests, {codes}, p50 {percentile(answers, 0.5) * 1e3:.2f} ms, "
              f"p99 {percentile(answers, 0.99) * 1e3:.2f} ms, max {percentile(answers, 1) * 1e3:.2f} ms; "
              f"{loris.made} dripping connections made, {loris.closed} closed by the server")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
