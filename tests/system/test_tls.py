"""TLS in the gateway: the head gate, refusals, leavers and slow clients over it, certificates, reloads.

The certificates are made here, by openssl."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest
import requests

import test_http_gate as gate
from conftest import BUILD, CHECKOUT, WAIT_S, wait_until
from http_cases import CASES
from metrics_text import Metrics
from test_http_api import stopped

HEALTH = gate.HEALTH

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make certificates with")


class Certificates:
    """A certificate authority in a directory."""

    def __init__(self, directory):
        self.directory = directory
        self.ca = self._make("ca", "/CN=test authority", None)

    def _openssl(self, *words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=WAIT_S)

    def _make(self, name, subject, usage):
        path = self.directory / name
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{path}.key")
        if usage is None:
            self._openssl("req", "-x509", *key, "-subj", subject, "-days", 2, "-out", f"{path}.pem")
            return pathlib.Path(f"{path}.pem")
        pathlib.Path(f"{path}.ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        self._openssl("req", *key, "-subj", subject, "-out", f"{path}.csr")
        self._openssl("x509", "-req", "-in", f"{path}.csr", "-CA", self.ca, "-CAkey", self.directory / "ca.key", "-days", 2,
                      "-set_serial", time.monotonic_ns(), "-extfile", f"{path}.ext", "-out", f"{path}.pem")
        return pathlib.Path(f"{path}.pem"), pathlib.Path(f"{path}.key")

    def server(self, name="server"):
        return self._make(name, f"/CN={name}", "serverAuth")

    def client(self, name="client", usage="clientAuth"):
        return self._make(name, f"/CN={name}", usage)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("ca"))


class Secure:
    """A server and what a client needs to speak to it."""

    def __init__(self, server, authority, client=None):
        self.server = server
        self.authority = str(authority)
        self.client = client and tuple(map(str, client))
        self.url = next(address for address in server.addresses if address.startswith("https://"))
        self.port = int(self.url.rpartition(":")[2])

    def post(self, route="/predict", **more):
        return requests.post(self.url + route, verify=self.authority, cert=self.client, timeout=WAIT_S,
                             **{"json": {"input": 4.0}, **more})

    def get(self, path):
        return requests.get(self.url + path, verify=self.authority, cert=self.client, timeout=WAIT_S)

    def value(self, name, **labels):
        return Metrics(self.get("/metrics").text).value(name, **labels)

    def connect(self, version=None):
        context = ssl.create_default_context(cafile=self.authority)
        if self.client:
            context.load_cert_chain(*self.client)
        if version:
            context.minimum_version = context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # An end that was not announced is an error: answers must not be cut by whoever likes.
        return context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=False)


@pytest.fixture
def serve(start_server, certificates, tmp_path):
    def start(model, more="", client=None, gateways=1):
        for source, name in zip(certificates.server(), ("server.pem", "server.key")):
            shutil.copy(source, tmp_path / name)
        server = start_server(listen="https://127.0.0.1:0,127.0.0.1:0", config=f"""[server]
gateways = {gateways}
tls_certificate = {tmp_path}/server.pem
tls_key = {tmp_path}/server.key
{more}
[model simple]
path = {model}
route = /predict
""")
        return Secure(server, certificates.ca, client)

    return start


def read_all(client):
    answer = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            answer += piece
    return answer


def exchange(secure, pieces, version=None):
    with secure.connect(version) as client:
        with contextlib.suppress(OSError):
            for piece in pieces:
                client.sendall(piece)
        return read_all(client)


# ---- the head gate ----


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_gate_cases(serve, simple_model, version):
    secure = serve(simple_model)
    for name, raw, good in CASES:
        if not good:
            gate.assert_one_refusal(name, exchange(secure, [raw], version))
            continue
        answer = exchange(secure, [raw.replace(b"POST / ", b"POST /nothing ") + HEALTH], version)
        assert answer.startswith(b"HTTP/1.1 404 ") and answer.count(b"HTTP/1.") == 2, (name, answer)
        assert answer.endswith(b"\r\n\r\nok"), (name, answer)
    secure.server.stop()


def test_gate_cases_byte_by_byte(serve, simple_model):
    """Each byte is a record of its own."""
    secure = serve(simple_model)
    for name, raw, good in CASES[:10]:
        if not good:
            gate.assert_one_refusal(name, exchange(secure, gate.single_bytes(raw)))
            continue
        answer = exchange(secure, gate.single_bytes(raw.replace(b"POST / ", b"POST /nothing ") + HEALTH))
        assert answer.startswith(b"HTTP/1.1 404 ") and answer.endswith(b"\r\n\r\nok"), (name, answer)
    secure.server.stop()


def test_gate_cases_after_a_good_request(serve, simple_model):
    secure = serve(simple_model)
    for name, raw, good in CASES:
        if good:
            continue
        answer = exchange(secure, [HEALTH.replace(b"Connection: close\r\n", b"") + raw])
        first, rest = answer.split(b"\r\n\r\nok", 1)
        assert first.startswith(b"HTTP/1.1 200 "), (name, answer)
        gate.assert_one_refusal(name, rest)
    secure.server.stop()


# ---- requests ----


def test_answers_keep_alive_and_plain_beside(serve, simple_model):
    secure = serve(simple_model, gateways=2)
    with requests.Session() as session:
        session.trust_env = False
        session.verify = secure.authority
        for i in range(20):
            answer = session.post(secure.url + "/predict", json={"input": float(i)}, timeout=WAIT_S)
            assert answer.json() == {"output": float(i * i + i * i * i)}
    assert requests.post(secure.server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S).json() == {"output": 80.0}
    assert secure.value("requests_total", model="simple", code="200") == 21
    # Who mistakes one for the other gets nothing, and the server does not mind.
    with pytest.raises(requests.ConnectionError):
        requests.get(secure.url.replace("https", "http") + "/health", timeout=WAIT_S)
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(secure.server.url.replace("http", "https") + "/health", verify=secure.authority, timeout=WAIT_S)
    assert secure.get("/health").text == "ok"
    secure.server.stop()


@pytest.mark.parametrize("size", [16384, 16385, 40000, 300000])
def test_large_bodies_both_ways(serve, size):
    """Bodies and answers of many records, in odd portions, in one connection."""
    secure = serve(BUILD / "models" / "batched.so")
    numbers = [float(i % 1000) for i in range(size // 8)]
    with requests.Session() as session:
        session.trust_env = False
        session.verify = secure.authority
        for _ in range(3):
            answer = session.post(secure.url + "/predict", json={"input": numbers}, timeout=WAIT_S)
            assert answer.json() == {"output": [number * number for number in numbers]}
        answer = session.post(secure.url + "/predict", timeout=WAIT_S,
                              data=iter([json.dumps({"input": numbers[:100]}).encode()[i:i + 7] for i in range(0, 1000, 7)]))
        assert answer.status_code in (200, 422)
    secure.server.stop()


def test_streams(serve):
    secure = serve(BUILD / "models" / "streaming.so")
    answer = secure.post(json={"input": 4.0}, stream=True)
    lines = [json.loads(line) for line in answer.iter_lines()]
    assert len(lines) == 10
    secure.server.stop()


# ---- refusals in the middle, leavers, slow clients ----


def test_an_early_refusal_is_read(serve, simple_model):
    """The answer is there although the client still sends what nobody wants."""
    secure = serve(simple_model, "max_body_bytes = 1024")
    body = io.BytesIO(b" " * (8 << 20))
    with secure.connect() as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n")
        with contextlib.suppress(OSError):
            while piece := body.read(65536):
                client.sendall(piece)
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert answer.endswith(b'{"detail":"Payload too large"}')
    secure.server.stop()


def test_a_cut_request_is_told_so(serve, simple_model):
    """close_notify within a body, the socket open: 400. A socket that just ends: nothing is left of it."""
    secure = serve(simple_model)
    part = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context(cafile=secure.authority)
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT_S) as client:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
                incoming.write(client.recv(65536))
        tls.write(part)
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.unwrap()  # writes close_notify, and waits for the other
        client.sendall(outgoing.read())
        while piece := client.recv(65536):
            incoming.write(piece)
    # Nothing more can be read through this session; that the gateway has refused, its counts say.
    wait_until(lambda: secure.value("refused_total", reason="cut") == 1, WAIT_S, "the refusal")
    with secure.connect() as client:
        client.sendall(part)
        socket.socket.shutdown(client, socket.SHUT_WR)
    wait_until(lambda: secure.value("refused_total", reason="cut") == 2, WAIT_S, "the second refusal")
    secure.server.stop()


def test_a_half_closed_client_gets_its_answer(serve, simple_model):
    """It is probed by 100 Continue while it waits: inside TLS, or nothing of the answer could be read."""
    secure = serve(simple_model)
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 14\r\n\r\n"
    with secure.connect() as client:
        with stopped(secure.server):
            client.sendall(head + b'{"input": 4.0}')
            socket.socket.shutdown(client, socket.SHUT_WR)
            assert client.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        answer = read_all(client)
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b'\r\n\r\n{"output":80.0}'), answer
    secure.server.stop()


def cpu_s(server):
    """Processor seconds of the gateway."""
    words = pathlib.Path(f"/proc/{server.role('gateway')[0]}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def test_slow_heads_and_handshakes(serve, simple_model):
    secure = serve(simple_model, "header_timeout_ms = 10000")
    with secure.connect() as client:
        client.sendall(b"GET /health HT")
        answer = read_all(client)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
    before = secure.value("refused_total", reason="slow")
    used = cpu_s(secure.server)
    with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT_S) as client:
        client.sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a handshake
        assert read_all(client)[:1] in (b"", b"\x15")  # perhaps an alert, and the end
    assert cpu_s(secure.server) - used < 1  # its gateway slept meanwhile
    assert secure.value("refused_total", reason="slow") > before
    secure.server.stop()


def test_rubbish_instead_of_a_handshake(serve, simple_model):
    secure = serve(simple_model)
    for rubbish in (HEALTH, b"\0" * 100, b"\x16\x03\x01\xff\xff" + b"a" * 70000, b"\x15\x03\x03\x00\x02\x02\x28"):
        with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT_S) as client:
            with contextlib.suppress(OSError):
                client.sendall(rubbish)
                client.shutdown(socket.SHUT_WR)
            assert b"HTTP" not in read_all(client)
    # Records that were changed on their way, after a good handshake.
    with secure.connect() as client:
        plain = socket.socket(fileno=client.detach())
        plain.settimeout(WAIT_S)
        with plain:
            plain.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            assert b"HTTP" not in read_all(plain)
    assert secure.get("/health").text == "ok"
    secure.server.stop()


def test_old_versions_are_refused(serve, simple_model):
    secure = serve(simple_model)
    context = ssl.create_default_context(cafile=secure.authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", secure.port), timeout=WAIT_S) as plain:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
    secure.server.stop()


# ---- certificates ----


def test_mutual(serve, simple_model, certificates, tmp_path):
    client = certificates.client()
    other = tmp_path / "other"
    other.mkdir()
    secure = serve(simple_model, f"tls_client_ca = {certificates.ca}", client)
    assert secure.post().json() == {"output": 80.0}
    strangers = (None, Certificates(other).client(), certificates.client("wrong", "serverAuth"))
    for stranger in strangers:
        refused = Secure(secure.server, certificates.ca, stranger)
        with pytest.raises(requests.ConnectionError):
            refused.get("/health")
    assert secure.get("/health").text == "ok"
    assert requests.get(secure.server.url + "/health", timeout=WAIT_S).text == "ok"
    secure.server.stop()


def shown(secure):
    with secure.connect() as client:
        return dict(pair[0] for pair in client.getpeercert()["subject"])["commonName"]


def test_certificates_are_read_again(serve, simple_model, certificates, tmp_path):
    secure = serve(simple_model)
    gateways = secure.server.role("gateway")
    assert shown(secure) == "server"
    with secure.connect() as old:
        for source, name in zip(certificates.server("renewed"), ("server.pem", "server.key")):
            shutil.copy(source, tmp_path / "fresh")
            (tmp_path / "fresh").replace(tmp_path / name)
        secure.server.send(signal.SIGHUP)
        wait_until(lambda: shown(secure) == "renewed", WAIT_S, "the new certificate")
        old.sendall(HEALTH)
        assert read_all(old).endswith(b"\r\n\r\nok")
    # One that does not fit its key leaves what there is.
    shutil.copy(certificates.server("third")[0], tmp_path / "server.pem")
    secure.server.send(signal.SIGHUP)
    wait_until(lambda: "cannot read the certificates" in secure.server.log_text(), WAIT_S, "the complaint")
    assert shown(secure) == "renewed"
    assert secure.server.role("gateway") == gateways
    secure.server.stop()


@pytest.mark.parametrize("text, key", [
    ("listen = https://127.0.0.1:0", "'tls_certificate'"),
    ("listen = https://127.0.0.1:0\ntls_certificate = /c", "'tls_key'"),
    ("tls_certificate = /c\ntls_key = /k", "'listen'"),
    ("listen = https://127.0.0.1:81, 127.0.0.1:81\ntls_certificate = /c\ntls_key = /k", "'listen'"),
    ("listen = https://unix", "'listen'"), ("listen = https://https://127.0.0.1:0", "'listen'"),
    ("tls_key = k", "'tls_key'"),
])
def test_configurations_that_make_no_sense(run_unetserve, simple_model, tmp_path, text, key):
    (tmp_path / "c.conf").write_text(f"[server]\n{text}\n[model x]\npath = {simple_model}\n")
    done = run_unetserve("--check", "-c", tmp_path / "c.conf")
    assert done.returncode == 78 and f"key {key}" in done.stderr, done.stderr


def test_certificates_that_are_none_end_the_start(run_unetserve, simple_model, tmp_path):
    for name in ("c", "k"):
        (tmp_path / name).write_text("no certificate\n")
    (tmp_path / "c.conf").write_text(f"""[server]
listen = https://127.0.0.1:0
tls_certificate = {tmp_path}/c
tls_key = {tmp_path}/k
[model x]
path = {simple_model}
""")
    done = run_unetserve("-c", tmp_path / "c.conf")
    assert done.returncode == 78 and "cannot read the certificates" in done.stderr, done.stderr


def test_unetctl_trusts_whom_it_is_told(serve, demo_model, certificates, tmp_path):
    secure = serve(demo_model)
    words = [BUILD / "unetctl", "predict", CHECKOUT / "tests" / "goldens" / "scene_96x112.input.npy", "-o", tmp_path / "m.npy",
             "--url", secure.url]
    for told, status in ((None, 76), (certificates.ca, 0)):
        environment = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
        done = subprocess.run(words, env={**environment, **({"SSL_CERT_FILE": str(told)} if told else {})}, capture_output=True,
                              text=True, timeout=WAIT_S, check=False)
        assert done.returncode == status, done.stderr
