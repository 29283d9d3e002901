"""The client protocol in Python, written from the grammar in include/unetserve/protocol.h alone."""
import glob
import os

import msgpack
import zmq


def endpoint_of(server):
    found = glob.glob(os.path.join(str(server.run_root), "**", "client.ipc"), recursive=True)
    assert len(found) == 1, f"expected one client.ipc below {server.run_root}, found {found}"
    return "ipc://" + found[0]


class Client:
    def __init__(self, server, kind=zmq.DEALER):
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(endpoint_of(server))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.context.term()

    def send_raw(self, frames):
        self.socket.send_multipart(frames)

    def receive(self, timeout_ms=30000):
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
        self.send_raw([msgpack.packb({"v": 1, "op": "status", **more})])
        return self.receive()
