"""unetctl client: the Python program that it writes, run with nothing but Python's own library."""

import subprocess

import pytest

from conftest import BUILD, WAIT_S
from rasters import write_tif

numpy = pytest.importorskip("numpy")
KEY = "open-sesame"


def write(server, path, *more):
    return subprocess.run([BUILD / "unetctl", "client", "--url", server.url, "-o", path, *more], capture_output=True,
                          text=True, timeout=WAIT_S, check=False)


def run(path, *words, env=None):
    return subprocess.run(["/usr/bin/python3", "-I", path, *map(str, words)], capture_output=True, text=True, timeout=WAIT_S,
                          env={"PATH": "/usr/bin", **(env or {})}, check=False)


def test_the_tutorials_lines(start_server, tmp_path):
    server = start_server(BUILD / "models" / "typed.so", env={"UNETSERVE_API_KEY": KEY})
    client = tmp_path / "client.py"
    assert write(server, client).returncode == 0
    done = run(client, env={"UNETSERVE_API_KEY": KEY})
    assert (done.returncode, done.stdout) == (0, 'Status: 200\nResponse:\n {"output":80.0}\n'), done.stderr
    assert '{"output":12.0}' in run(client, '{"input": 2}', env={"UNETSERVE_API_KEY": KEY}).stdout
    refused = run(client)
    assert refused.returncode == 1 and "Status: 401" in refused.stdout
    # The server takes a key as a bearer token, too. The command line goes before the environment.
    wrong = {"UNETSERVE_API_KEY": "wrong", "UNETSERVE_TOKEN": "wrong"}
    for words, env in ((["--key", KEY], wrong), (["--token", KEY], wrong), ([], {"UNETSERVE_TOKEN": KEY, "UNETSERVE_API_KEY": "wrong"})):
        done = run(client, *words, env=env)
        assert (done.returncode, done.stdout) == (0, 'Status: 200\nResponse:\n {"output":80.0}\n'), (words, done.stdout, done.stderr)
    assert "Status: 401" in run(client, "--token", "wrong", env={"UNETSERVE_API_KEY": KEY}).stdout
    assert run(client, "--token", KEY, "--key", KEY).returncode == 2
    broken = run(client, "--key", "two\nlines")
    assert broken.returncode == 1 and "Traceback" not in broken.stderr and "header" in broken.stderr
    before = client.read_bytes()
    again = write(server, client)
    assert again.returncode == 73 and "--force" in again.stderr and client.read_bytes() == before
    assert write(server, client, "--force").returncode == 0


def test_a_tile_becomes_a_mask(start_server, demo_model, scene, tmp_path):
    server = start_server(demo_model)
    client = tmp_path / "client.py"
    assert write(server, client).returncode == 0
    numpy.save(tmp_path / "tile.npy", scene.astype("uint16"))
    done = run(client, tmp_path / "tile.npy", "-o", tmp_path / "mask.npy")
    assert done.returncode == 0, done.stdout + done.stderr
    mask = numpy.load(tmp_path / "mask.npy")
    assert mask.shape == scene.shape[1:] and "mask: 96 x 112" in done.stdout
    assert f"{100 * (mask == mask[0, 0]).mean():5.1f} %" in done.stdout
    write_tif(tmp_path / "tile.tif", scene.astype("uint16"))
    done = run(client, tmp_path / "tile.tif", "-o", tmp_path / "again.npy")
    assert done.returncode == 0 and numpy.array_equal(numpy.load(tmp_path / "again.npy"), mask), done.stdout + done.stderr
    for words in ((tmp_path / "none.npy",), (tmp_path / "tile.npy", "-o", tmp_path / "none" / "mask.npy")):
        done = run(client, *words)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "No such file" in done.stderr, done.stderr
    made_up = run(client)
    assert made_up.returncode == 0 and "mask: 256 x 256" in made_up.stdout, made_up.stderr


def test_streams_and_several_models(start_server, tmp_path):
    server = start_server([f"typed={BUILD}/models/typed.so", f"stream={BUILD}/models/streaming.so"])
    client = tmp_path / "client.py"
    assert write(server, client).returncode == 0
    done = run(client, "--route", "/predict/stream")
    assert done.returncode == 0 and done.stdout.count('"output"') == 10, done.stdout + done.stderr


def test_the_server_writes_one_at_its_start(start_server, tmp_path):
    client = tmp_path / "client.py"
    server = start_server(BUILD / "models" / "typed.so", extra_args=["--client-file", client])
    done = run(client)
    assert (done.returncode, done.stdout) == (0, 'Status: 200\nResponse:\n {"output":80.0}\n'), done.stderr
    assert "client file written" in server.log_text()
    server.stop()
    # Where one lies already, it may have been changed.
    client.write_text("mine")
    server = start_server(BUILD / "models" / "typed.so", extra_args=["--client-file", client])
    assert client.read_text() == "mine" and "left as it is" in server.log_text()
    server.stop()
    server = start_server(BUILD / "models" / "typed.so", extra_args=["--client-file", tmp_path / "none" / "client.py"])
    assert "cannot write the client file" in server.log_text()
    server.stop()


def test_all_addresses_are_asked_here(start_server, tmp_path):
    server = start_server(BUILD / "models" / "typed.so", listen="0.0.0.0:0", extra_args=["--client-file", tmp_path / "c.py"])
    assert '"http://127.0.0.1:' in (tmp_path / "c.py").read_text()
    assert run(tmp_path / "c.py").returncode == 0
    server.stop()


def test_without_a_server(start_server, tmp_path):
    model, client = BUILD / "models" / "typed.so", tmp_path / "client.py"
    with_server = start_server(model)
    words = [BUILD / "unetctl", "client", "--url", with_server.url, "-o", client]
    for more, code in (["--model", model], 0), (["--model", model], 73), (["--model", model, "--force"], 0):
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert done.returncode == code, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["client.py"]
    offline = client.read_text()
    assert write(with_server, client, "--force").returncode == 0 and client.read_text() == offline
    assert run(client).stdout == 'Status: 200\nResponse:\n {"output":80.0}\n'
    done = subprocess.run([*words, "--model", tmp_path / "none.so", "--force"], capture_output=True, text=True, timeout=WAIT_S,
                          check=False)
    assert done.returncode == 66 and client.read_text() == offline and len(list(tmp_path.iterdir())) == 1


def test_no_server(tmp_path):
    done = subprocess.run([BUILD / "unetctl", "client", "--url", "http://127.0.0.1:9", "-o", tmp_path / "client.py"],
                          capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert done.returncode not in (0, 64) and done.stderr.count("\n") == 1 and not (tmp_path / "client.py").exists()
