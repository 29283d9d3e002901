"""unetctl batch: whole directories, resumed, in shards, through busy servers, bad files and signals."""
import http.server
import json
import os
import signal
import subprocess
import threading

import numpy
import pytest

from conftest import BUILD, WAIT_S, wait_until
from protocol_client import endpoint_of


def batch(*words, code=0):
    done = subprocess.run([BUILD / "unetctl", "batch", *map(str, words)], capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def summary(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def tiles(tmp_path, scene):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for i in range(6):
        numpy.save(tmp_path / "in" / f"t{i}.npy", numpy.roll(scene, 9 * i, axis=2))
    numpy.save(tmp_path / "in" / "deep" / "t.npy", scene)
    return tmp_path / "in"


@pytest.fixture
def server(start_server, demo_model):
    return start_server(demo_model)


@pytest.mark.parametrize("transport", ["zeromq", "http"])
def test_a_directory_and_again(server, tiles, tmp_path, transport):
    where = ["--url", server.url] if transport == "http" else ["--endpoint", endpoint_of(server)]
    words = [tiles, "-o", tmp_path / "out", "--format", "npy", "--json", *where]
    first = summary(batch(*words))
    assert (first["done"], first["skipped"], first["failed"], first["left"]) == (6, 0, 0, 0)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"t{i}.npy.npy" for i in range(6)]
    one = tmp_path / "one.npy"
    subprocess.run([BUILD / "unetctl", "predict", tiles / "t3.npy", "-o", one, *where], check=True, timeout=WAIT_S,
                   stdout=subprocess.DEVNULL)
    assert (numpy.load(one) == numpy.load(tmp_path / "out" / "t3.npy.npy")).all()
    (tmp_path / "out" / "t2.npy.npy").unlink()
    os.utime(tmp_path / "out" / "t4.npy.npy", (1, 1))
    again = summary(batch(*words))
    assert (again["done"], again["skipped"]) == (2, 4)
    assert summary(batch(*words, "--force"))["done"] == 6
    deep = summary(batch(*words, "--recursive"))
    assert (deep["done"], deep["skipped"]) == (1, 6) and (tmp_path / "out" / "deep" / "t.npy.npy").exists()


def test_bad_files_fail_alone(server, tiles, tmp_path):
    (tiles / "t1.npy").write_bytes(b"noise")
    numpy.save(tiles / "t2.npy", numpy.zeros((3, 32, 32), numpy.uint8))
    done = batch(tiles, "-o", tmp_path / "out", "--url", server.url, code=65)
    assert "4 done, 0 skipped, 2 failed" in done.stdout
    assert "t1.npy: " in done.stderr and "t2.npy: " in done.stderr and "12" in done.stderr
    assert len(list((tmp_path / "out").glob("t*.tif"))) == 4 and not list((tmp_path / "out").glob(".*"))


def test_shards_are_disjoint_whole_and_stable(server, tiles, tmp_path):
    def members(i):
        done = batch(tiles, "-o", tmp_path / "out", "--url", server.url, "--shard", f"{i}/3", "--json", "--force")
        return {json.loads(line)["file"] for line in done.stdout.splitlines()[:-1]}
    before = [members(i) for i in (1, 2, 3)]
    assert sum(map(len, before)) == 6 and len(set.union(*before)) == 6
    numpy.save(tiles / "added.npy", numpy.load(tiles / "t0.npy"))
    after = [members(i) for i in (1, 2, 3)]
    assert [part - {"added.npy"} for part in after] == before and sum(map(len, after)) == 7


def test_a_bar_on_a_terminal_and_a_summary(server, tiles, tmp_path):
    ours, its = os.openpty()
    with subprocess.Popen([BUILD / "unetctl", "batch", tiles, "-o", tmp_path / "out", "--url", server.url], stderr=its,
                          stdout=subprocess.PIPE, text=True) as process:
        os.close(its)
        shown = b""
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:
            pass  # the last one to hold the terminal has gone
        os.close(ours)
        out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and "6 done, 0 skipped, 0 failed" in out
    bars = shown.decode().split("\r")[1:]
    assert [bar.rpartition("] ")[2] for bar in bars] == [f"{i} of 6" for i in range(1, 7)]
    assert bars[2].startswith("[" + "#" * 20 + " " * 20 + "]") and "#" * 40 in bars[-1]


class Busy(http.server.BaseHTTPRequestHandler):
    """Says 503 as often as told, then answers a mask."""
    refusals = 0
    priority = None

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, b"{}")

    def do_POST(self):
        Busy.priority = self.headers["X-Unetserve-Priority"]
        self.rfile.read(int(self.headers["Content-Length"]))
        if Busy.refusals > 0:
            Busy.refusals -= 1
            self.answer(503, b'{"detail": "full"}', Retry_After="1")
            return
        head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (16, 16), }".ljust(117) + b"\n"
        self.answer(200, b"\x93NUMPY\x01\x00v\x00" + head + bytes(256))


@pytest.fixture
def busy():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Busy) as stand_in:
        threading.Thread(target=stand_in.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{stand_in.server_address[1]}"
        stand_in.shutdown()


def test_busy_servers_are_asked_again(busy, tmp_path):
    (tmp_path / "in").mkdir()
    numpy.save(tmp_path / "in" / "a.npy", numpy.zeros((1, 16, 16), numpy.uint8))
    Busy.refusals = 2
    assert summary(batch(tmp_path / "in", "-o", tmp_path / "out", "--url", busy, "--json"))["done"] == 1
    assert Busy.refusals == 0 and Busy.priority is None
    batch(tmp_path / "in", "-o", tmp_path / "out", "--url", busy, "--force", "--priority", "-3")
    assert Busy.priority == "-3"
    Busy.refusals = 1000
    done = batch(tmp_path / "in", "-o", tmp_path / "out", "--url", busy, "--force", "--patience", 500, code=65)
    assert "full" in done.stderr and Busy.refusals == 999


def test_sigint_finishes_and_says_how_to_go_on(server, tiles, tmp_path):
    for i in range(100):
        os.link(tiles / "t0.npy", tiles / f"l{i}.npy")
    words = [tiles, "-o", tmp_path / "out", "--format", "npy", "--jobs", "1", "--url", server.url]
    with subprocess.Popen([BUILD / "unetctl", "batch", *map(str, words)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: list((tmp_path / "out").glob("*.npy")), WAIT_S, "the first mask")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 75 and "goes on" in err
    finished = len(list((tmp_path / "out").glob("*.npy")))
    assert f"{finished} done" in out and 0 < finished < 106 and not list((tmp_path / "out").glob(".*"))
    done = batch(*words)
    assert f"{106 - finished} done, {finished} skipped, 0 failed" in done.stdout


def test_wrong_use_is_said(tmp_path):
    for words in ([], [tmp_path], [tmp_path, "-o", tmp_path], [tmp_path, "-o", tmp_path / "o", "--shard", "4/3"],
                  [tmp_path, "-o", tmp_path / "o", "--format", "jpg"], [tmp_path, "-o", tmp_path / "o", "--jobs", "0"],
                  [tmp_path, "-o", tmp_path / "o", "--priority", "-1"],
                  [tmp_path, "-o", tmp_path / "o", "--url", "http://127.0.0.1:9", "--priority", "10"]):
        assert len(batch(*words, code=64).stderr.splitlines()) == 1
    batch(tmp_path / "none", "-o", tmp_path / "o", code=66)
