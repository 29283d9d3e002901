"""OAuth2 tokens on the running server, against an identity provider on loopback: signed ones and such that the provider
is asked about, keys that change, providers that fail, and the death of the process that checks."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import threading

import jwt
import pytest
import requests

from conftest import CHECKOUT, WAIT_S, wait_until
from identity_provider import SECRET, IdentityProvider, Key

CHECKERS = pathlib.Path(os.environ.get("UNETSERVE_CHECKERS", CHECKOUT / "build" / "checkers"))


@pytest.fixture
def provider():
    with IdentityProvider() as one:
        yield one


@pytest.fixture
def serve(start_server, simple_model, provider, tmp_path):
    """serve(SERVER KEYS, MODEL Y'S KEYS): models x at /predict and y at /other, and the provider's signed tokens."""

    def start(keys="", of_y="", issuer=True, **options):
        if "oauth_timeout_ms" not in keys:
            keys += "oauth_timeout_ms = 60000\n"
        signed = f"oauth_issuer = {provider.issuer}\noauth_audience = maps\n" if issuer else ""
        return start_server(config=f"[server]\n{signed}{keys}\n[model x]\npath = {simple_model}\nroute = /predict\n"
                                   f"[model y]\npath = {simple_model}\nroute = /other\n{of_y}\n", **options)

    return start


@pytest.fixture
def asks_provider(provider, tmp_path):
    """Keys for introspection."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    return (f"oauth_introspection_url = {provider.url}/introspect\noauth_client_id = unetserve\n"
            f"oauth_client_secret_file = {secret}\n")


def ask(server, token=None, route="/predict", headers=None):
    given = {"Authorization": f"Bearer {token}"} if token else {}
    return requests.post(server.url + route, json={"input": 4.0}, headers={**given, **(headers or {})}, timeout=WAIT_S)


def assert_served(answer):
    assert (answer.status_code, answer.text) == (200, '{"output":80.0}'), answer.headers


def assert_refused(answer, reason):
    """As RFC 6750 has it, with LitServe's body."""
    assert answer.status_code == 401, answer.text
    assert reason in answer.json()["detail"]
    assert answer.headers["WWW-Authenticate"] == (f'Bearer realm="unetserve", error="invalid_token", '
                                                  f'error_description="{answer.json()["detail"]}"')


def assert_later(answer):
    assert answer.status_code == 503, answer.text
    assert "try again later" in answer.json()["detail"]
    assert 1 <= int(answer.headers["Retry-After"]) <= 30
    assert "WWW-Authenticate" not in answer.headers


# ---- signed tokens -------------------------------------------------------------------------------------------------


def test_good_and_bad_tokens(serve, provider):
    server = serve()
    good = provider.token()
    assert_served(ask(server, good))
    nobody = ask(server)
    assert (nobody.status_code, nobody.json()) == (401, {"detail": "Not authenticated"})
    assert nobody.headers["WWW-Authenticate"] == 'Bearer realm="unetserve"'
    assert ask(server, headers={"X-API-Key": "sesame"}).status_code == 401
    assert ask(server, headers={"Authorization": "Basic eDp5"}).status_code == 401
    stranger = Key("first")
    for token, reason in (
            (provider.token(exp=1000), "expired"),
            (provider.token(exp=None), "expires"),
            (provider.token(nbf=4000000000), "not valid yet"),
            (provider.token(iss="https://id.example.org"), "issuer"),
            (provider.token(aud="other"), "audience"),
            (provider.token(aud=None), "audience"),
            (provider.token(key=stranger), "signature"),
            (provider.token(headers={"crit": ["exp"], "exp": 1}), "not known"),
            (provider.token(key=Key("no such key")), "not known"),
            (jwt.encode(provider.claims(), None, "none"), "malformed"),
            (jwt.encode(provider.claims(), "secret", "HS256", headers={"kid": "first"}), "algorithm"),
            (good[:-20], "signature"),
            (good + "A", "signature"),
            (good.split(".")[0] + ".." + good.split(".")[2], "malformed"),
            ("opaque", "malformed"),
            ("x" * 8193, "too long"),
    ):
        assert_refused(ask(server, token), reason)
    for name in ("jku", "x5u"):
        assert_refused(ask(server, provider.token(key=stranger, headers={name: provider.url + "/keys"})), "signature")
    assert_refused(ask(server, provider.token(key=stranger, headers={"jwk": stranger.jwk})), "signature")
    assert_served(ask(server, provider.token(aud=["other", "maps"])))
    assert_served(ask(server, good))
    # Pages are behind the same door, the probe and the docs are not.
    for route, status in (("/health", 200), ("/openapi.json", 200), ("/info", 401), ("/metrics", 401)):
        assert requests.get(server.url + route, timeout=WAIT_S).status_code == status, route
        with_token = requests.get(server.url + route, headers={"Authorization": f"Bearer {good}"}, timeout=WAIT_S)
        assert with_token.status_code == 200, route
    assert good not in server.log_text() and good.split(".")[2] not in server.log_text()
    server.stop()


def test_key_types_and_pinned_algorithms(serve, provider):
    rsa = Key("rsa", "RS256")
    provider.published.append(rsa)
    server = serve("oauth_algorithms = RS256\n")
    assert_served(ask(server, provider.token(key=rsa)))
    assert_refused(ask(server, provider.token()), "algorithm")
    rsa.algorithm = "RS512"
    assert_refused(ask(server, provider.token(key=rsa)), "algorithm")
    server.stop()


def test_scopes(serve, provider):
    server = serve("oauth_scope = predict\n", "scope = tiles read\n")
    assert_served(ask(server, provider.token(scope="read predict")))
    assert_served(ask(server, provider.token(scope="tiles predict read"), "/other"))
    assert_served(ask(server, provider.token(scope=None, scp=["predict"])))
    for token, route, needed in ((provider.token(scope="read"), "/predict", "predict"),
                                 (provider.token(scope=None), "/predict", "predict"),
                                 (provider.token(scope="predicts"), "/predict", "predict"),
                                 (provider.token(scope="predict read"), "/other", "tiles read"),
                                 (provider.token(scope="tiles read"), "/other", "predict")):
        answer = ask(server, token, route)
        assert (answer.status_code, answer.json()) == (403, {"detail": f"The token's scopes do not allow this; needed: {needed}"})
        assert answer.headers["WWW-Authenticate"] == (
            'Bearer realm="unetserve", error="insufficient_scope", '
            f'error_description="The token\'s scopes do not allow this", scope="{needed}"')
    server.stop()


def test_rates_are_the_holder_s(serve, provider):
    server = serve("rate_limit = 0.001\nrate_burst = 3\n")
    statuses = [ask(server, provider.token(jti=str(i))).status_code for i in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    assert ask(server, provider.token(sub="bob")).status_code == 200
    server.stop()


def test_api_keys_beside(serve, provider, tmp_path):
    (tmp_path / "keys").write_text("sesame\n")
    server = serve(f"api_key_file = {tmp_path / 'keys'}\n")
    assert_served(ask(server, headers={"X-API-Key": "sesame"}))
    assert_served(ask(server, "sesame"))
    assert_served(ask(server, provider.token()))
    assert_refused(ask(server, "simsim"), "malformed")
    wrong = ask(server, provider.token(), headers={"X-API-Key": "simsim"})
    assert (wrong.status_code, wrong.headers["WWW-Authenticate"]) == (401, "APIKey")
    assert ask(server).headers["WWW-Authenticate"] == 'APIKey, Bearer realm="unetserve"'
    server.stop()


def raw(server, head, body=b"", rest=b""):
    """What comes back until the server closes, or the first answer is whole."""
    with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as stream:
        stream.sendall(head)
        if rest:
            assert stream.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        stream.sendall(body + rest)
        stream.settimeout(WAIT_S)
        text = b""
        while True:
            part = stream.recv(65536)
            if not part:
                return text
            text += part


@pytest.mark.parametrize("form", ["body with the head", "expect", "chunked", "pipelined"])
def test_requests_that_wait_for_their_token(serve, provider, form):
    """However the body comes: it is read after the token was checked."""
    server = serve()
    body = b'{"input": 4.0}'

    def head(token, more, close=True):
        return (f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
                f"{'Connection: close' if close else 'X-Y: z'}\r\n{more}\r\n\r\n").encode()

    length = f"Content-Length: {len(body)}"
    token, bad = provider.token(), provider.token(exp=1000)
    if form == "body with the head":
        good, refused = raw(server, head(token, length) + body), raw(server, head(bad, length) + body)
    elif form == "expect":
        good = raw(server, head(token, length + "\r\nExpect: 100-continue"), rest=body)
        refused = raw(server, head(bad, length + "\r\nExpect: 100-continue"))
        assert b"100 Continue" not in refused
    elif form == "chunked":
        chunks = b"7\r\n" + body[:7] + b"\r\n7\r\n" + body[7:] + b"\r\n0\r\n\r\n"
        good = raw(server, head(token, "Transfer-Encoding: chunked"), chunks)
        refused = raw(server, head(bad, "Transfer-Encoding: chunked"), chunks)
    else:
        good = raw(server, head(token, length, False) + body + head(provider.token(jti="2"), length, False) + body +
                   head(bad, length) + body)
        refused = good[good.index(b"HTTP/1.1 401"):]
        assert good.count(b"HTTP/1.1 200") == 2 and good.count(b'{"output":80.0}') == 2
    assert good.startswith(b"HTTP/1.1 200") and b'{"output":80.0}' in good
    assert refused.startswith(b"HTTP/1.1 401") and b"expired" in refused
    server.stop()


def test_clients_that_leave_while_their_token_is_checked(serve, provider, asks_provider):
    server = serve(asks_provider + "oauth_timeout_ms = 5000\n", issuer=False)
    provider.gate.clear()
    for i in range(20):
        with socket.create_connection(("127.0.0.1", server.port), WAIT_S) as stream:
            stream.sendall(f"GET /info HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer t{i}\r\n\r\n".encode())
    wait_until(lambda: provider.asked("/introspect") >= 20, WAIT_S, "the questions")
    provider.gate.set()
    provider.opaque["t"] = {"active": True, "sub": "ada"}
    assert_served(ask(server, "t"))
    server.stop()


# ---- keys ------------------------------------------------------------------------------------------------------------


def test_rotation(serve, provider):
    server = serve("oauth_refetch_s = 1\noauth_grace_s = 0\noauth_cache_s = 0\n")
    old = provider.token()
    assert_served(ask(server, old))
    provider.rotate()
    fresh = provider.token()
    # Within a second of the last try a new name is only refused; no request waits for ever.
    wait_until(lambda: ask(server, fresh).status_code == 200, WAIT_S, "the new key")
    assert_refused(ask(server, old), "not known")
    assert_served(ask(server, fresh))
    server.stop()


def test_key_that_is_gone_may_stay_for_a_while(serve, provider):
    server = serve("oauth_refetch_s = 1\noauth_grace_s = 3600\noauth_cache_s = 0\n")
    old = provider.token()
    assert_served(ask(server, old))
    provider.rotate()
    wait_until(lambda: ask(server, provider.token()).status_code == 200, WAIT_S, "the new key")
    assert_served(ask(server, old))
    server.stop()


def test_invented_keys_make_no_storm(serve, provider):
    server = serve("oauth_refetch_s = 3600\n")
    assert_served(ask(server, provider.token()))
    before = provider.asked("/keys")
    for i in range(50):
        assert_refused(ask(server, provider.token(headers={"kid": f"invented-{i}"})), "not known")
    assert provider.asked("/keys") == before
    server.stop()


@pytest.mark.parametrize("broken", [500, b"", b"{", b'{"keys":[]}', "huge", "redirect"])
def test_broken_keys_change_nothing(serve, provider, broken):
    server = serve("oauth_refresh_s = 1\noauth_cache_s = 0\n")
    token = provider.token()
    assert_served(ask(server, token))
    provider.broken = broken
    asked = provider.asked("/keys")
    wait_until(lambda: provider.asked("/keys") > asked, WAIT_S, "another try")
    wait_until(lambda: "no keys from the identity provider" in server.log_text(), WAIT_S, "the warning")
    assert_served(ask(server, token))
    assert provider.asked("/elsewhere") == 0
    server.stop()


def test_keys_are_not_used_for_ever(serve, provider):
    server = serve("oauth_refresh_s = 1\noauth_keep_s = 1\noauth_timeout_ms = 500\noauth_cache_s = 0\n")
    token = provider.token()
    # On a busy machine they grow old between two tries.
    wait_until(lambda: ask(server, token).status_code == 200, WAIT_S, "the keys")
    provider.broken = 500
    wait_until(lambda: ask(server, token).status_code == 503, WAIT_S, "the end of the keys")
    assert_later(ask(server, token))
    provider.broken = None
    wait_until(lambda: ask(server, token).status_code == 200, WAIT_S, "new keys")
    server.stop()


# ---- the provider is not there -----------------------------------------------------------------------------------------


def test_provider_that_comes_later(serve, provider, tmp_path):
    (tmp_path / "keys").write_text("sesame\n")
    provider.stop()
    server = serve(f"api_key_file = {tmp_path / 'keys'}\n")
    assert_later(ask(server, provider.token()))
    assert_served(ask(server, headers={"X-API-Key": "sesame"}))
    provider.start()
    wait_until(lambda: ask(server, provider.token()).status_code == 200, WAIT_S, "the keys")
    server.stop()


def test_provider_that_goes(serve, provider):
    server = serve()
    assert_served(ask(server, provider.token()))
    provider.stop()
    assert_served(ask(server, provider.token(jti="a token that nobody has seen")))
    provider.start()
    server.stop()


def test_slow_provider(serve, provider):
    """Nobody waits longer than is said, and nobody gets in for it."""
    provider.gate.clear()
    server = serve("oauth_timeout_ms = 500\n")
    assert_later(ask(server, provider.token()))
    assert_later(ask(server, "opaque"))
    provider.gate.set()
    wait_until(lambda: ask(server, provider.token()).status_code == 200, WAIT_S, "the keys")
    server.stop()


def test_issuer_that_says_another_name(serve, provider):
    provider.issuer = provider.url + "/realms/maps"
    server = serve("oauth_issuer = " + provider.url + "\noauth_audience = maps\n", issuer=False)
    assert_later(ask(server, provider.token()))
    assert "not this issuer's" in server.log_text()
    server.stop()


# ---- introspection -----------------------------------------------------------------------------------------------------


def test_introspection(serve, provider, asks_provider):
    server = serve(asks_provider + "oauth_scope = predict\n", issuer=False)
    provider.opaque = {
        "good": {"active": True, "sub": "ada", "scope": "predict"},
        "weak": {"active": True, "sub": "ada", "scope": "read"},
        "over": {"active": True, "sub": "ada", "scope": "predict", "exp": 1000},
        "gone": {"active": False},
        "string": {"active": "true", "sub": "ada", "scope": "predict"},
        "odd&%=+/ü": {"active": True, "client_id": "robot", "scope": "predict"},
    }
    assert_served(ask(server, "good"))
    assert_served(ask(server, headers={"Authorization": "Bearer odd&%=+/ü".encode()}))
    assert ask(server, "weak").status_code == 403
    assert_refused(ask(server, "over"), "expired")
    assert_refused(ask(server, "gone"), "not active")
    assert_refused(ask(server, "unheard"), "not active")
    assert_later(ask(server, "string"))
    # What is known is not asked again, until it is too old.
    asked = provider.asked("/introspect")
    for _ in range(5):
        assert_served(ask(server, "good"))
        assert_refused(ask(server, "gone"), "not active")
    assert provider.asked("/introspect") == asked
    assert SECRET not in server.log_text() and "unheard" not in server.log_text()
    server.stop()


def test_what_was_told_grows_old(serve, provider, asks_provider):
    provider.opaque["t"] = {"active": True, "sub": "ada"}
    server = serve(asks_provider + "oauth_cache_s = 1\n", issuer=False)
    assert_served(ask(server, "t"))
    provider.opaque["t"] = {"active": False}
    wait_until(lambda: ask(server, "t").status_code == 401, WAIT_S, "the end of what was told")
    server.stop()


@pytest.mark.parametrize("broken", [500, 302, b"", b"[]", b'{"active":1}', b'{"active":true,"active":true}', "huge"])
def test_introspection_that_fails(serve, provider, asks_provider, broken):
    server = serve(asks_provider, issuer=False)
    provider.opaque["t"] = {"active": True, "sub": "ada"}
    provider.broken = broken
    assert_later(ask(server, "t"))
    provider.broken = None
    assert_served(ask(server, "t"))
    server.stop()


def test_both_kinds(serve, provider, asks_provider):
    server = serve(asks_provider)
    provider.opaque["t"] = {"active": True, "sub": "ada", "aud": "maps"}
    provider.opaque["u"] = {"active": True, "sub": "ada", "aud": "other"}
    assert_served(ask(server, "t"))
    assert_refused(ask(server, "u"), "audience")
    assert_served(ask(server, provider.token()))
    assert_refused(ask(server, provider.token(exp=1000)), "expired")
    assert provider.asked("/introspect") == 2
    server.stop()


def test_slow_introspection_is_bounded(serve, provider, asks_provider):
    """More clients than there is room for: each gets its answer, and the server serves on."""
    server = serve(asks_provider + "oauth_timeout_ms = 1000\n", issuer=False)
    provider.opaque["t"] = {"active": True, "sub": "ada"}
    provider.gate.clear()
    statuses = []

    def client(number):
        statuses.append(ask(server, f"token-{number}").status_code)

    clients = [threading.Thread(target=client, args=(i,)) for i in range(90)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(WAIT_S)
    assert statuses == [503] * 90
    provider.gate.set()
    assert requests.get(server.url + "/health", timeout=WAIT_S).status_code == 200
    wait_until(lambda: ask(server, "t").status_code == 200, WAIT_S, "an answer")
    server.stop()


# ---- the process -------------------------------------------------------------------------------------------------------


def test_death_under_load(serve, provider):
    """What has a right gets its answer or a 503, what has none never gets in; and then all is as before."""
    server = serve("gateways = 2\noauth_cache_s = 1\n")
    assert_served(ask(server, provider.token()))
    over = threading.Event()
    wrong = []
    served = [0]

    def client(number):
        session = requests.Session()
        count = 0
        while not over.is_set():
            count += 1
            good = count % 2 == 0
            token = provider.token(jti=f"{number}-{count}", **({} if good else {"aud": "other"}))
            answer = session.post(server.url + "/predict", json={"input": 4.0}, timeout=WAIT_S,
                                  headers={"Authorization": f"Bearer {token}"})
            served[0] += answer.status_code == 200
            if answer.status_code not in ((200, 503) if good else (401, 503)):
                wrong.append((good, answer.status_code, answer.text))

    clients = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for one in clients:
        one.start()
    for _ in range(5):
        before = served[0]
        wait_until(lambda: served[0] > before + 5, WAIT_S, "tokens that are taken")
        victim = wait_until(lambda: server.role("auth"), WAIT_S, "a process to kill")[0]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: server.role("auth") not in ([], [victim]), WAIT_S, "its successor")
    before = served[0]
    wait_until(lambda: served[0] > before + 5, WAIT_S, "tokens that are taken")
    over.set()
    for one in clients:
        one.join(WAIT_S)
    assert wrong == []
    page = requests.get(server.url + "/metrics", headers={"Authorization": f"Bearer {provider.token()}"}, timeout=WAIT_S).text
    restarts = re.search(r'^unetserve_process_restarts_total\{role="auth"\} (\d+)$', page, re.M)
    assert restarts and int(restarts.group(1)) >= 5, page
    server.stop()


def replace_auth(server):
    victim = wait_until(lambda: server.role("auth"), WAIT_S, "a process to kill")[0]
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: server.role("auth") not in ([], [victim]), WAIT_S, "its successor")


def test_keys_outlive_their_process(serve, provider):
    """A provider that is down is no reason to keep everybody out because a process has died."""
    server = serve("oauth_grace_s = 3600\n")
    old = provider.key
    assert_served(ask(server, provider.token()))
    provider.stop()
    for i in range(3):
        replace_auth(server)
        wait_until(lambda i=i: ask(server, provider.token(jti=str(i))).status_code == 200, WAIT_S, "keys of the process before")
        assert_refused(ask(server, provider.token(jti=str(i), aud="other")), "audience")
        assert_refused(ask(server, provider.token(jti=str(i), key=Key(old.name))), "signature")
    assert "keys that the process before had fetched" in server.log_text()
    # What the provider has taken back meanwhile is not good for any longer.
    provider.rotate()
    provider.start()
    wait_until(lambda: ask(server, provider.token(jti="new")).status_code == 200, WAIT_S, "the provider's new key")
    assert_refused(ask(server, provider.token(jti="late", key=old)), "not known")
    server.stop()


def test_stopped_process(serve, provider):
    """Nobody waits for ever for somebody who stands still; it is replaced."""
    server = serve("oauth_timeout_ms = 500\n")
    known = provider.token()
    assert_served(ask(server, known))
    victim = server.role("auth")[0]
    os.kill(victim, signal.SIGSTOP)
    assert_served(ask(server, known))
    assert ask(server, provider.token(jti="new")).status_code in (200, 503)
    wait_until(lambda: ask(server, provider.token(jti="newer")).status_code == 200, WAIT_S, "its successor")
    assert victim not in server.role("auth")
    server.stop()


def test_reload(serve, provider, simple_model):
    server = serve()
    token = provider.token()
    assert_served(ask(server, token))
    first = server.role("auth")

    def reload(text):
        (server.directory / "unetserve.conf").write_text(text + f"[model x]\npath = {simple_model}\nroute = /predict\n"
                                                         f"[model y]\npath = {simple_model}\nroute = /other\n")
        told = server.log_text().count('"reloaded"') + len(re.findall(r"\breloaded\b", server.log_text()))
        server.send(signal.SIGHUP)
        wait_until(lambda: len(re.findall(r"\breloaded\b", server.log_text())) > told, WAIT_S, "the reload")

    signed = f"[server]\noauth_issuer = {provider.issuer}\noauth_timeout_ms = 60000\n"
    reload(signed + "oauth_audience = maps\n")
    assert server.role("auth") == first
    assert_served(ask(server, token))
    # What was said by the old rules does not count.
    reload(signed + "oauth_audience = tiles\n")
    wait_until(lambda: ask(server, token).status_code == 401, WAIT_S, "the new audience")
    assert_served(ask(server, provider.token(aud="tiles")))
    assert first != server.role("auth")
    reload("[server]\n")
    wait_until(lambda: server.role("auth") == [], WAIT_S, "its end")
    wait_until(lambda: ask(server).status_code == 200, WAIT_S, "the open door")
    reload(signed + "oauth_audience = maps\n")
    wait_until(lambda: ask(server).status_code == 401, WAIT_S, "the door")
    wait_until(lambda: ask(server, token).status_code == 200, WAIT_S, "the keys")
    server.stop()


def test_not_started_where_there_is_no_provider(start_server, simple_model):
    server = start_server(simple_model)
    assert server.role("auth") == []
    server.stop()


def test_secret_that_cannot_be_read(serve, provider, asks_provider, tmp_path):
    (tmp_path / "secret").write_text("\n")
    server = serve(asks_provider, issuer=False, wait_ready=False)
    assert server.wait() == 78
    assert "cannot read the client's secret" in server.log_text()
    (tmp_path / "secret").unlink()
    server = serve(asks_provider, issuer=False, wait_ready=False)
    assert server.wait() == 66
    assert "key 'oauth_client_secret_file'" in server.log_text()


@pytest.mark.parametrize("keys, named", [
    ("oauth_issuer = http://id.example.org\noauth_audience = a", "oauth_issuer"),
    ("oauth_issuer = https://id.example.org", "oauth_audience"),
    ("oauth_audience = a", "oauth_audience"),
    ("oauth_jwks_url = https://id.example.org/keys", "oauth_issuer"),
    ("oauth_introspection_url = https://id.example.org/i", "oauth_client_id"),
    ("oauth_introspection_url = https://id.example.org/i\noauth_client_id = a", "oauth_client_secret_file"),
    ("oauth_client_id = a", "oauth_introspection_url"),
    ("oauth_algorithms = none", "oauth_algorithms"),
    ("oauth_algorithms = RS256, HS256", "oauth_algorithms"),
    ("oauth_scope = a", "oauth_scope"),
    ("oauth_scope = a  b", "oauth_scope"),
])
def test_configurations_that_are_refused(run_unetserve, simple_model, tmp_path, keys, named):
    (tmp_path / "c").write_text(f"[server]\n{keys}\n[model x]\npath = {simple_model}\n")
    done = run_unetserve("-c", tmp_path / "c", "--check")
    assert done.returncode == 78
    assert f"key '{named}'" in done.stderr, done.stderr


# ---- somebody else's provider ------------------------------------------------------------------------------------------

MOCK = r"""
import sys, oidc_provider_mock
with oidc_provider_mock.run_server_in_thread() as server:
    print(server.server_port, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def mock_provider():
    """oidc-provider-mock, which is made of authlib: its URL."""
    python = CHECKERS / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-W", "ignore", "-c", "import oidc_provider_mock"], capture_output=True,
                                             check=False, timeout=WAIT_S).returncode:
        pytest.skip("no oidc-provider-mock: make checkers")
    process = subprocess.Popen([python, "-W", "ignore", "-c", MOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    try:
        yield f"http://localhost:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(WAIT_S)
        process.stdout.close()


def id_token(url, subject, client="maps"):
    """By the authorization code flow, as a browser and a web application go through it."""
    back = "http://localhost:1/back"
    asked = requests.post(url + "/oauth2/authorize", data={"sub": subject}, allow_redirects=False, timeout=WAIT_S,
                          params={"client_id": client, "redirect_uri": back, "response_type": "code", "scope": "openid"})
    assert asked.status_code == 302, asked.text
    code = re.search(r"[?&]code=([^&]+)", asked.headers["Location"]).group(1)
    told = requests.post(url + "/oauth2/token", auth=(client, "any"), timeout=WAIT_S,
                         data={"grant_type": "authorization_code", "code": code, "redirect_uri": back})
    return told.json()["id_token"]


def test_provider_made_of_authlib(start_server, simple_model, mock_provider):
    server = start_server(config=f"[server]\noauth_issuer = {mock_provider}\noauth_audience = maps\n"
                                 f"[model x]\npath = {simple_model}\n")
    assert_served(ask(server, id_token(mock_provider, "ada")))
    assert_refused(ask(server, id_token(mock_provider, "ada", "other")), "audience")
    server.stop()
