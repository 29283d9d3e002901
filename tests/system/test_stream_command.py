"""unetctl stream: messages on standard input, answers in their order on standard output."""
import fcntl
import io
import json
import os
import signal
import subprocess
import threading

import numpy
import pytest

from conftest import BUILD, WAIT_S
from protocol_client import endpoint_of

F_SETPIPE_SZ = 1031  # fcntl names it from Python 3.10 on


def stream(*words, given=b"", code=0):
    done = subprocess.run([BUILD / "unetctl", "stream", *map(str, words)], input=given, capture_output=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == code, (done.returncode, done.stdout[:1000], done.stderr)
    return done


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


def arrays(data):
    file = io.BytesIO(data)
    while file.tell() < len(data):
        yield numpy.load(file)


@pytest.fixture
def server(start_server, demo_model):
    return start_server(demo_model)


@pytest.fixture
def typed(start_server):
    return start_server(BUILD / "models" / "typed.so")


@pytest.mark.parametrize("transport", ["zeromq", "http"])
def test_arrays(server, scene, tmp_path, transport):
    where = ["--url", server.url] if transport == "http" else ["--endpoint", endpoint_of(server)]
    tiles = [numpy.roll(scene, 9 * i, axis=2) for i in range(9)]
    tiles[4] = scene[:3]
    tiles[6] = scene.astype(">u2")
    done = stream(*where, given=b"".join(map(npy, tiles)), code=65)
    masks = list(arrays(done.stdout))
    assert [mask.shape for mask in masks] == [(0, 0) if i == 4 else scene.shape[1:] for i in range(9)]
    assert b"message 5: " in done.stderr and b"12" in done.stderr and done.stderr.count(b"\n") == 1
    for i in (0, 6, 8):
        numpy.save(tmp_path / "t.npy", scene if i == 6 else tiles[i])
        subprocess.run([BUILD / "unetctl", "predict", tmp_path / "t.npy", "-o", tmp_path / "m.npy", *where], check=True,
                       stdout=subprocess.DEVNULL, timeout=WAIT_S)
        assert (numpy.load(tmp_path / "m.npy") == masks[i]).all()


def test_lines_of_json_keep_their_order(typed):
    lines = [f'{{"input": {i}}}' for i in range(200)]
    lines[7] = '{"input": "x"}'
    lines[9] = "no JSON"
    done = stream("--url", typed.url, "--jobs", 8, given="\n".join(lines).replace("9}\n", "9}\r\n\n").encode(), code=65)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 200
    for i, answer in enumerate(answers):
        if i in (7, 9):
            assert answer["status"] == 422 and answer["detail"][0]["type"] in ("float_parsing", "json_invalid")
        else:
            assert answer == {"output": float(i**2 + i**3)}
    assert b"message 8: " in done.stderr and b"message 10: " in done.stderr


def test_paths_become_masks_and_lines(server, scene, tmp_path):
    for i in range(3):
        numpy.save(tmp_path / f"t{i}.npy", scene)
    given = "".join(f"{tmp_path}/{name}.npy\n" for name in ("t0", "none", "t2")).encode()
    for states in (["done", "failed", "done"], ["skipped", "failed", "skipped"]):
        done = stream("--url", server.url, "-o", tmp_path / "masks", given=given, code=65)
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert [one["state"] for one in told] == states and "none.npy" in told[1]["error"]
    assert sorted(path.name for path in (tmp_path / "masks").glob("*.tif")) == ["t0.npy.tif", "t2.npy.tif"]


def test_answers_come_before_the_input_ends(typed):
    """A conversation: each message is written after the last one's answer was read."""
    with subprocess.Popen([BUILD / "unetctl", "stream", "--url", typed.url], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        for i in range(20):
            process.stdin.write(b'{"input": %d}\n' % i)
            process.stdin.flush()
            assert json.loads(process.stdout.readline()) == {"output": float(i**2 + i**3)}
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


def test_who_does_not_read_holds_back_who_writes(typed):
    """Nobody reads the answers: the program stops reading messages, and holds a bounded number of them."""
    with subprocess.Popen([BUILD / "unetctl", "stream", "--url", typed.url, "--jobs", "2"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        written = 0
        fcntl.fcntl(process.stdout.fileno(), F_SETPIPE_SZ, 4096)
        os.set_blocking(process.stdin.fileno(), False)
        line = b'{"input": 1, "more": "%s"}\n' % (b"x" * 3000)
        quiet = threading.Event()
        idle = 0
        # Answers are 15 bytes: 4 KiB of pipe take 273 of them, then the ring and the input's pipe fill up.
        while idle < 20:
            try:
                written += os.write(process.stdin.fileno(), line)
                idle = 0
                assert written < 100 << 20, "it reads on and on"
            except BlockingIOError:
                quiet.wait(0.2)
                idle += 1
        os.set_blocking(process.stdin.fileno(), True)
        answers = []
        reader = threading.Thread(target=lambda: answers.extend(process.stdout))
        reader.start()
        process.stdin.close()
        reader.join(WAIT_S)
        assert process.wait(WAIT_S) in (0, 65)
        assert len(answers) >= written // len(line)


def test_sigterm_answers_what_was_read(typed):
    with subprocess.Popen([BUILD / "unetctl", "stream", "--url", typed.url], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as process:
        process.stdin.write(b'{"input": 2}\n{"inp')
        process.stdin.flush()
        assert process.stdout.readline() == b'{"output":12.0}\n'
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == 0


def test_a_broken_stream_ends_after_its_good_part(server, scene):
    good = npy(scene)
    for bad, words in ((b"\x93NUMPX" + bytes(100), b"message 2"), (good[:500], b"cut short")):
        done = stream("--url", server.url, given=good + bad, code=65)
        assert len(list(arrays(done.stdout))) == 1 and words in done.stderr


def test_a_lost_server_and_a_full_disk(typed, tmp_path):
    with subprocess.Popen([BUILD / "unetctl", "stream", "--url", typed.url, "--patience", "300"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b'{"input": 1}\n')
        process.stdin.flush()
        assert process.stdout.readline() == b'{"output":2.0}\n'
        typed.stop()
        process.stdin.write(b'{"input": 1}\n')
        process.stdin.flush()
        assert process.wait(WAIT_S) == 69  # though its input goes on
        assert process.stdout.read() == b"" and process.stderr.read().startswith(b"unetctl: message 2: ")


def test_an_output_that_cannot_be_written(typed):
    with open("/dev/full", "wb") as full, subprocess.Popen([BUILD / "unetctl", "stream", "--url", typed.url], stdout=full,
                                                           stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdin.write(b'{"input": 1}\n')
        process.stdin.flush()
        assert process.wait(WAIT_S) == 74
        assert b"standard output" in process.stderr.read()


def test_wrong_use_is_said(tmp_path):
    for words in (["x"], ["--format", "jpg"], ["--json"], ["--jobs", "0"]):
        assert len(stream(*words, code=64).stderr.splitlines()) == 1
    assert stream("--url", "http://127.0.0.1:9", code=69).stdout == b""
