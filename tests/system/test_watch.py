"""unetctl watch: tiles that come into a directory, half-written ones, servers and watchers that come and go."""
import json
import os
import signal
import subprocess

import numpy
import pytest

from conftest import BUILD, WAIT_S, wait_until
from protocol_client import endpoint_of


@pytest.fixture
def server(start_server, demo_model):
    return start_server(demo_model)


@pytest.fixture
def watch(tmp_path):
    """watch("--url", ...) -> the process, its masks in tmp_path/out."""
    (tmp_path / "in").mkdir()
    running = []

    def start(*words, directory=tmp_path / "in"):
        process = subprocess.Popen([BUILD / "unetctl", "watch", directory, "-o", tmp_path / "out", "--format", "npy",
                                    *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate(timeout=WAIT_S)


def end(process, code=0, number=signal.SIGTERM):
    process.send_signal(number)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == code, (out, err)
    return out, err


def masks(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").glob("*"))


def wait_for(tmp_path, *names):
    wanted = sorted(f"{name}.npy" for name in names)
    while (there := masks(tmp_path)) != wanted:
        wait_until(lambda: masks(tmp_path) != there, what=f"another mask than {len(there)} of {len(wanted)}")


@pytest.mark.parametrize("transport", ["zeromq", "http"])
def test_files_are_taken_as_they_come(server, watch, tmp_path, scene, transport):
    tiles = tmp_path / "in"
    numpy.save(tiles / "before.npy", scene)
    process = watch(*(["--url", server.url] if transport == "http" else ["--endpoint", endpoint_of(server)]))
    wait_for(tmp_path, "before.npy")
    numpy.save(tiles / "written.npy", numpy.roll(scene, 9, axis=2))
    numpy.save(tiles / ".hidden.npy", scene)
    (tiles / "note.txt").write_text("no tile")
    (tiles / "directory.npy").mkdir()
    wait_for(tmp_path, "before.npy", "written.npy")
    (tiles / ".hidden.npy").rename(tiles / "renamed.npy")
    wait_for(tmp_path, "before.npy", "written.npy", "renamed.npy")
    assert (numpy.load(tmp_path / "out" / "before.npy.npy") == numpy.load(tmp_path / "out" / "renamed.npy.npy")).all()
    out, err = end(process)
    assert sorted(set(out.split())) == ["before.npy", "renamed.npy", "written.npy"] and "0 failed" in err


def test_nothing_is_read_before_it_is_whole(server, watch, tmp_path, scene):
    """A file that is open for writing when the watcher begins, and one that grows meanwhile."""
    tiles = tmp_path / "in"
    numpy.save(tmp_path / "t.npy", scene)
    whole = (tmp_path / "t.npy").read_bytes()
    with open(tiles / "slow.npy", "wb") as slow:
        slow.write(whole[:5000])
        slow.flush()
        process = watch("--url", server.url, "--json")
        with open(tiles / "quick.npy", "wb") as quick:
            quick.write(whole[:5000])
            quick.flush()
            quick.write(whole[5000:])
        wait_for(tmp_path, "quick.npy")
        slow.write(whole[5000:])
    wait_for(tmp_path, "quick.npy", "slow.npy")
    told = [json.loads(line) for line in end(process)[0].splitlines()]
    assert all(line["state"] == "done" for line in told) and {line["file"] for line in told} == {"quick.npy", "slow.npy"}


def test_a_file_that_is_written_again_gets_a_new_mask(server, watch, tmp_path, scene):
    tile, mask = tmp_path / "in" / "t.npy", tmp_path / "out" / "t.npy.npy"
    numpy.save(tile, scene)
    process = watch("--url", server.url)
    wait_for(tmp_path, "t.npy")
    first = numpy.load(mask)
    # Older than the mask, as files that are moved in may be.
    numpy.save(tmp_path / "u.npy", numpy.roll(scene, 40, axis=2))
    os.utime(tmp_path / "u.npy", (1, 1))
    (tmp_path / "u.npy").rename(tile)
    wait_until(lambda: (numpy.load(mask) != first).any(), WAIT_S, "the new mask")
    assert set(end(process)[0].split()) == {"t.npy"}


def test_a_new_watcher_goes_on_where_the_last_one_ended(server, watch, tmp_path, scene):
    for i in range(40):
        numpy.save(tmp_path / "in" / f"t{i}.npy", scene)
    process = watch("--url", server.url, "--jobs", 1)
    wait_until(lambda: (tmp_path / "out").is_dir() and masks(tmp_path), WAIT_S, "the first mask")
    process.kill()
    process.communicate(timeout=WAIT_S)
    made = {name for name in masks(tmp_path)}
    process = watch("--url", server.url)
    wait_for(tmp_path, *(f"t{i}.npy" for i in range(40)))
    told = set(end(process)[0].split())
    assert {f"{name}.npy" for name in told} | made == set(masks(tmp_path)) and len(told) < 40


def test_more_files_than_the_list_holds(server, watch, tmp_path, scene):
    """Back-pressure: what the list has no room for waits, nothing is lost."""
    process = watch("--url", server.url, "--jobs", 2)
    wait_until((tmp_path / "out").is_dir, WAIT_S, "the watcher")
    names = [f"t{i}.npy" for i in range(700)]
    for name in names:
        numpy.save(tmp_path / "in" / f".{name}", scene[:, :16, :16])
        (tmp_path / "in" / f".{name}").rename(tmp_path / "in" / name)
    wait_for(tmp_path, *names)
    assert "0 failed" in end(process)[1]


def test_count(server, watch, tmp_path, scene):
    for i in range(8):
        numpy.save(tmp_path / "in" / f"t{i}.npy", scene)
    process = watch("--url", server.url, "--count", 3, "--jobs", 4)
    out, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0 and "3 done, 0 failed" in err
    assert len(out.split()) == 3 == len(masks(tmp_path))


def test_bad_files_fail_alone(server, watch, tmp_path, scene):
    process = watch("--url", server.url, "--jobs", 1)
    wait_until((tmp_path / "out").is_dir, WAIT_S, "the watcher")
    (tmp_path / "in" / "bad.npy").write_bytes(b"noise")
    numpy.save(tmp_path / "in" / "good.npy", scene)
    wait_for(tmp_path, "good.npy")
    out, err = end(process)
    assert out.split() == ["good.npy"] and "bad.npy: " in err


def test_a_server_that_restarts_is_waited_for(start_server, other_port, demo_model, watch, tmp_path, scene):
    address = f"127.0.0.1:{other_port}"
    server = start_server(demo_model, listen=address)
    process = watch("--url", f"http://{address}")
    numpy.save(tmp_path / "in" / "one.npy", scene)
    wait_for(tmp_path, "one.npy")
    server.stop()
    numpy.save(tmp_path / "in" / "two.npy", scene)
    start_server(demo_model, listen=address)
    wait_for(tmp_path, "one.npy", "two.npy")
    assert "0 failed" in end(process)[1]


def test_a_directory_that_goes_away_ends_it(server, watch, tmp_path, scene):
    process = watch("--url", server.url)
    wait_until((tmp_path / "out").is_dir, WAIT_S, "the watcher")
    numpy.save(tmp_path / "in" / "t.npy", scene)
    wait_for(tmp_path, "t.npy")
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    _, err = process.communicate(timeout=WAIT_S)
    assert process.returncode == 66 and "went away" in err


def test_wrong_use_is_said(tmp_path):
    for words in ([], [tmp_path], [tmp_path, "-o", tmp_path], [tmp_path, "-o", tmp_path / "o", "--count", "0"],
                  [tmp_path, "-o", tmp_path / "o", "--format", "jpg"]):
        done = subprocess.run([BUILD / "unetctl", "watch", *map(str, words)], capture_output=True, text=True, timeout=WAIT_S,
                              check=False)
        assert (done.returncode, len(done.stderr.splitlines())) == (64, 1), (words, done.stderr)
    done = subprocess.run([BUILD / "unetctl", "watch", tmp_path / "none", "-o", tmp_path / "o"], capture_output=True,
                          text=True, timeout=WAIT_S, check=False)
    assert done.returncode == 66
