"""unetserve --probe: what container runtimes ask."""

import socket
import subprocess
import threading

import pytest

from conftest import BUILD, WAIT_S


def probe(address):
    return subprocess.run([BUILD / "unetserve", "--probe", address], capture_output=True, text=True, timeout=WAIT_S, check=False)


def test_a_healthy_server_is_0(start_server, simple_model, tmp_path):
    server = start_server(simple_model, extra_args=("--listen", f"unix:{tmp_path}/s"))
    for address in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", f"unix:{tmp_path}/s"):
        done = probe(address)
        assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    server.stop()


@pytest.mark.parametrize("answer, words", [
    (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nnot ready", "not ready"),
    (b"220 mail.example.org ESMTP\r\n", "does not speak HTTP"),
    (b"HTTP/1.1 200 OK\r\n", "does not speak HTTP"),
    (b"", "does not speak HTTP"),
    (None, "no answer"),
])
def test_anything_else_is_69(answer, words):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(WAIT_S)
        done = threading.Event()

        def serve():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                if answer is None:
                    done.wait(WAIT_S)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = probe(f"127.0.0.1:{listener.getsockname()[1]}")
        done.set()
        thread.join()
    assert result.returncode == 69 and words in result.stdout + result.stderr


def test_nobody_there_is_69_and_no_address_is_64():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        done = probe(f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 69 and "refused" in done.stderr
    done = probe("http://127.0.0.1:8000")
    assert done.returncode == 64 and done.stderr.count("\n") == 1
