"""How long each process takes to be back after kill -9: figures, no test.

    tests/chaos/recovery.py [--kills N]

One process of a kind is killed on an otherwise idle server, and as soon as it is gone somebody asks what it is needed for: what is
measured is the time from the signal to the answer. Worker and broker are asked by a request that was accepted without them.
The next kill comes when the server has been whole for SETTLED_S, so that no restart is put off.
"""
import argparse
import io
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import time

import msgpack
import numpy
import requests
import zmq

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

from chaos import launch  # noqa: E402
from conftest import BUILD, CHECKOUT, WAIT_S, Server, process_alive, wait_until  # noqa: E402
from protocol_client import endpoint_of  # noqa: E402

# Jobs of a model with a window go by way of the broker.
CONFIG = """
[server]
gateways = 1
queue_memory = 256M
[model simple]
path = {build}/models/simple.so
route = /simple
workers = 1
[model unet]
path = {checkout}/packaging/models/s2-worldcover
route = /unet
workers = 1
[model brokered]
path = {build}/tests/models/poison.so
route = /brokered
workers = 1
max_batch_size = 2
batch_timeout_ms = 1
"""
SETTLED_S = 2
JSON = {"Content-Type": "application/json"}
NPY = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}


def post(path, body, headers):
    def ask(server):
        answer = requests.post(server.url + path, data=body, headers=headers, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
    return ask


def ask_front(server):
    """A client that comes now: who had connected before waits until ZeroMQ tries again."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RECONNECT_IVL, 1)
        dealer.connect(endpoint_of(server))
        dealer.send(msgpack.packb({"v": 1, "op": "status", "id": "recovery"}))
        assert dealer.poll(WAIT_S * 1000), "no answer"
        assert msgpack.unpackb(dealer.recv_multipart()[0])["status"] == 200


def kinds():
    scene = io.BytesIO()
    numpy.save(scene, numpy.load(CHECKOUT / "tests" / "goldens" / "scene_96x112.input.npy"))
    simple = post("/simple", b'{"input": 4.0}', JSON)
    return [  # name, program, words of its command line, who asks
        ("broker", "broker", "", post("/brokered", b'"x"', JSON)),
        ("gateway", "gateway", "", simple),
        ("ZeroMQ front", "gateway", "--front zmq", ask_front),
        ("simple worker", "worker", "--model 0", simple),
        ("UNet worker", "worker", "--model 1", post("/unet", scene.getvalue(), NPY)),
    ]


def find(server, program, words):
    """The pid of the process with these words; the gateway without any is the HTTP one."""
    found = [pid for pid in server.role(program) if (line := " ".join(server.children()[pid])) and
             (words in line if words else "--front" not in line)]
    assert len(found) == 1, f"{program} {words}: {found} of {server.children()}"
    return found[0]


def whole(server, count):
    return len(server.children()) == count and requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200


def measure(server, pid, ask, count):
    """Milliseconds from the signal to the answer."""
    begun = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while process_alive(pid):
        pass
    ask(server)
    took = time.monotonic() - begun
    wait_until(lambda: whole(server, count), WAIT_S, "every process")
    time.sleep(SETTLED_S)
    return took * 1000


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=12, help="of each process")
    options = parser.parse_args()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="us-recovery-", dir="/tmp"))
    (directory / "unetserve.conf").write_text(CONFIG.format(build=BUILD, checkout=CHECKOUT))
    server = Server(launch(directory, "127.0.0.1:0"), directory)
    try:
        server.wait_ready()
        count = len(server.children())
        for name, program, words, ask in kinds():
            ask(server)
            usual = time.monotonic()
            ask(server)
            usual = (time.monotonic() - usual) * 1000
            took = [measure(server, find(server, program, words), ask, count) for _ in range(options.kills)]
            print(f"{name:14} median {statistics.median(took):6.0f} ms, worst {max(took):6.0f} ms, of {len(took)} kills; an answer "
                  f"takes {usual:.1f} ms otherwise", flush=True)
    finally:
        server.kill_leftovers()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
