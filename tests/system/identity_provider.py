"""An identity provider on loopback: discovery, keys, introspection, and the ways in which providers fail.

    with IdentityProvider() as provider:
        token = provider.token(scope="predict")      # signed by the current key
        provider.rotate()                            # another key, under another name
        provider.broken = 500                        # every answer, until it is None again
"""

import base64
import contextlib
import http.server
import json
import threading
import time
import urllib.parse

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from conftest import WAIT_S, reserved_port

SECRET = "between the two of us"


def number(value, size):
    return base64.urlsafe_b64encode(value.to_bytes(size, "big")).rstrip(b"=").decode()


class Key:
    """A key pair with its public half as a JWK."""

    def __init__(self, name, algorithm="ES256"):
        self.name = name
        self.algorithm = algorithm
        if algorithm.startswith("ES"):
            self.private = ec.generate_private_key(ec.SECP256R1())
            numbers = self.private.public_key().public_numbers()
            self.jwk = {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}
        else:
            self.private = rsa.generate_private_key(65537, 2048)
            numbers = self.private.public_key().public_numbers()
            self.jwk = {"kty": "RSA", "n": number(numbers.n, 256), "e": "AQAB"}
        self.jwk.update(kid=name, use="sig")

    def sign(self, claims, headers=None):
        return jwt.encode(claims, self.private, self.algorithm, headers={"kid": self.name, **(headers or {})})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def give(self, document):
        provider = self.server.provider
        provider.gate.wait(WAIT_S)
        if provider.broken == "redirect":
            self.answer(302, b"", [("Location", provider.url + "/elsewhere")])
        elif provider.broken == "huge":
            self.answer(200, b" " * (1 << 20))
        elif isinstance(provider.broken, bytes):
            self.answer(200, provider.broken)
        elif provider.broken:
            self.answer(provider.broken, b"{}")
        else:
            self.answer(200, json.dumps(document).encode())

    def do_GET(self):
        provider = self.server.provider
        provider.count(self.path)
        if self.path == "/.well-known/openid-configuration":
            self.give({"issuer": provider.issuer, "jwks_uri": provider.url + "/keys"})
        elif self.path == "/keys":
            self.give({"keys": [key.jwk for key in provider.published]})
        else:
            self.answer(404, b"")

    def do_POST(self):
        provider = self.server.provider
        provider.count(self.path)
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        expected = "Basic " + base64.b64encode(f"unetserve:{SECRET}".encode()).decode()
        if self.path != "/introspect" or self.headers["Authorization"] != expected:
            self.answer(401, b"{}")
            return
        self.give(provider.opaque.get(form["token"][0], {"active": False}))


class IdentityProvider:
    def __init__(self):
        self.gate = threading.Event()  # closed: requests wait
        self.gate.set()
        self.broken = None
        self.counts = {}
        self.lock = threading.Lock()
        self.opaque = {}
        self.key = Key("first")
        self.published = [self.key]
        self.server = None
        self.holder = contextlib.ExitStack()  # nobody else gets the port while this one is down
        self.port = self.holder.enter_context(reserved_port())
        self.start()
        self.issuer = self.url

    def start(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.server.daemon_threads = True
        self.server.provider = self
        self.url = f"http://127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(WAIT_S)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.gate.set()
        self.stop()
        self.holder.close()

    def count(self, path):
        with self.lock:
            self.counts[path] = self.counts.get(path, 0) + 1

    def asked(self, path):
        with self.lock:
            return self.counts.get(path, 0)

    def claims(self, **changes):
        claims = {"iss": self.issuer, "aud": "maps", "sub": "ada", "exp": int(time.time()) + 3600, "scope": "predict"}
        claims.update(changes)
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, key=None, headers=None, **changes):
        return (key or self.key).sign(self.claims(**changes), headers)

    def rotate(self, name="second", keep=False):
        self.key = Key(name)
        self.published = (self.published if keep else []) + [self.key]
