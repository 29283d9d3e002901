"""Tiny requests, x^2 + x^3: what a server adds when the model is nothing. The unit is bare libmicrohttpd."""
import json
import sys

import environment
from plan import told
from servers import BUILD, TOP, Ask, Bare, Peer, Unetserve, load, running

CLIENTS = (1, 8, 64)
BODY, HEADERS = b'{"input": 4.0}', {"Content-Type": "application/json"}


def eighty(body):
    try:
        return None if json.loads(body) == {"output": 80.0} else f"{body[:80]!r}"
    except ValueError:
        return f"{body[:80]!r}"


def makers():
    own = [("bare libmicrohttpd", Bare), ("unetserve", lambda: Unetserve(BUILD / "models/simple.so"))]
    if environment.python() is not None:
        probe = (BODY, HEADERS)
        own += [("mosec", lambda: Peer("mosec", [TOP / "bench/peers/mosec_server.py", "tiny", "--address", "127.0.0.1", "--port", "PORT"],
                                       "/inference", probe)),
                ("LitServe", lambda: Peer("LitServe", [TOP / "bench/peers/litserve_tiny.py", "PORT"], "/predict", probe))]
    return own


def measure(plan, trouble):
    result = {"closed": {}, "open": {}}
    with running(makers(), trouble) as servers:
        ask = {server.name: Ask(BODY, HEADERS, eighty) for server in servers}
        for server in servers:
            server.resume()
            ask[server.name].learn(server)
            server.pause()
        for _ in range(plan.rounds):
            for clients in CLIENTS:
                for server in servers:
                    report = load(server, ask[server.name], clients, plan.tiny_s)
                    result["closed"].setdefault(server.name, {}).setdefault(str(clients), []).append(report)
        for rate in ((1000, 5000) if plan.quick else (500, 1000, 2000, 5000, 10000, 20000)):
            for server in servers:
                reports = result["open"].setdefault(server.name, [])
                if not reports or reports[-1]["right_per_s"] > 0.9 * reports[-1]["offered_per_s"]:
                    reports.append(load(server, ask[server.name], 64, plan.open_s, rate=rate, timeout=2))
    return result


def show(result, out=sys.stdout):
    print("\ntiny requests (x^2 + x^3): one client, latency; 64 clients, requests a second", file=out)
    for server, found in result["closed"].items():
        latency = told([report["latency_ms"]["p50"] for report in found["1"]], digits=3)
        rate = told([report["right_per_s"] for report in found["64"]], "a second", digits=0)
        print(f"  {server:20} {latency:34} {rate:36}", file=out)
