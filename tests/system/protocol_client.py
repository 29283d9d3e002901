"""The client protocol in Python, written from the grammar in include/unetserve/protocol.h alone."""
import glob
import itertools
import os
import time

import msgpack
import zmq

from conftest import WAIT_S


def endpoint_of(server):
    found = glob.glob(os.path.join(str(server.run_root), "**", "client.ipc"), recursive=True)
    assert len(found) == 1, f"expected one client.ipc below {server.run_root}, found {found}"
    return "ipc://" + found[0]


class Client:
    def __init__(self, server, kind=zmq.DEALER):
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.numbers = itertools.count()
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint_of(server))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.context.term()

    def send_raw(self, frames):
        self.socket.send_multipart(frames)

    def receive(self, timeout_ms=WAIT_S * 1000):
        """Returns (head, body), or None when nothing comes."""
        if not self.socket.poll(timeout_ms):
            return None
        frames = self.socket.recv_multipart()
        if frames and frames[0] == b"":
            frames = frames[1:]
        head = msgpack.unpackb(frames[0])
        assert head["v"] == 1
        return head, frames[1] if len(frames) > 1 else b""

    def predict(self, array, **more):
        head = {"v": 1, "op": "predict", "dtype": str(array.dtype), "shape": list(array.shape), **more}
        self.send_raw([msgpack.packb(head), array.tobytes()])
        return self.receive()

    def status(self, **more):
        """Asks again now and then: a front that ends or dies may have taken the question with it."""
        end = time.monotonic() + WAIT_S
        ours = set()
        while time.monotonic() < end:
            question = {"v": 1, "op": "status", "id": f"status-{next(self.numbers)}", **more}
            ours.add(question["id"])
            self.send_raw([msgpack.packb(question)])
            answer = self.receive(2000)
            if answer and answer[0]["id"] in ours:
                return answer
        raise AssertionError(f"no status within {WAIT_S} s")
