"""Whole requests for the UNet: unetserve beside LitServe and mosec, one client and several, and at offered loads."""
import io
import json
import sys

import numpy as np

import environment
from plan import told
from servers import OUT, TOP, Ask, Peer, Unetserve, load, running

LEAST_EQUAL = 0.98  # see forward_section.py; that one tells engines apart, this only sees that the right tile was answered rightly


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def right_labels(read, reference):
    def right(body):
        try:
            mask = read(body)
        except (ValueError, KeyError, EOFError) as error:
            return f"{error}: {body[:80]!r}"
        if mask.shape != reference.shape:
            return f"shape {mask.shape}, expected {reference.shape}"
        equal = float((mask == reference).mean())
        return None if equal >= LEAST_EQUAL else f"only {equal:.2%} of its labels are those of float32"

    return right


def asks(tile, reference):
    """The same tile in each of the forms that somebody takes."""
    text = json.dumps({"image": tile.tolist()}).encode()
    npy = npy_bytes(tile)
    boundary = "----tile"
    multipart = (f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="tile.npy"\r\n'
                 "Content-Type: application/x-npy\r\n\r\n").encode() + npy + f"\r\n--{boundary}--\r\n".encode()
    as_json = right_labels(lambda body: np.array(json.loads(body)["output"]), reference)
    as_npy = right_labels(lambda body: np.load(io.BytesIO(body)), reference)
    return {
        "json": lambda: Ask(text, {"Content-Type": "application/json"}, as_json),
        "npy": lambda: Ask(npy, {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}, as_npy),
        "multipart": lambda: Ask(multipart, {"Content-Type": f"multipart/form-data; boundary={boundary}"}, as_npy),
    }


# name: (form of the body, peer's words or None for unetserve, whether --quick has it, whether small models have it)
CONTESTANTS = {
    "unetserve, npy": ("npy", None, True, True),
    "unetserve, JSON": ("json", None, True, True),
    "LitServe as the tutorial, JSON": ("json", ["litserve_unet.py", "tutorial"], True, True),
    "LitServe tuned, JSON": ("json", ["litserve_unet.py", "tuned-json"], False, False),
    "LitServe tuned, npy": ("multipart", ["litserve_unet.py", "tuned-npy"], False, False),
    "mosec tuned, npy": ("npy", ["mosec_server.py", "unet"], False, False),
}


def makers(plan, weights, model, form, small):
    own = []
    for name, (kind, words, quick, in_small) in CONTESTANTS.items():
        if (plan.quick and not quick) or (small and not in_small):
            continue
        if words is None:
            own.append((name, lambda: Unetserve(model)))
            continue
        if environment.python() is None:
            continue
        script = [TOP / "bench/peers" / words[0], words[1]]
        if words[0] == "mosec_server.py":
            command, path = [*script, "--address", "127.0.0.1", "--port", "PORT", "--timeout", "60000"], "/inference"
        else:
            command, path = [*script, weights, "PORT"], "/predict"
        probe = form[kind]()
        own.append((name, lambda name=name, command=command, path=path, probe=probe: Peer(
            name, command, path, (probe.body, probe.headers), {"BENCH_WEIGHTS": str(weights)})))
    return own


def breakdown(server, ask, count):
    """Milliseconds by Server-Timing's names, of each of so many requests."""
    found = {}
    for _ in range(count):
        for part in (ask.learn(server) or "").split(","):
            name, _, value = part.strip().partition(";dur=")
            if value:
                found.setdefault(name, []).append(float(value))
    return found


def offered(plan, servers, questions, capacity):
    """Open loop: shares of what unetserve's npy did with several clients, the same rates for everybody."""
    found = {server.name: [] for server in servers}
    shares = (0.3, 0.8) if plan.quick else (0.25, 0.5, 0.75, 0.9)
    for share in shares:
        for server in servers:
            rate = share * capacity
            if len(found[server.name]) > 0 and found[server.name][-1]["unanswered"] > 0:
                continue  # overloaded by less than that already
            report = load(server, questions[server.name], 16, plan.open_s, rate=rate, timeout=plan.open_s)
            found[server.name].append(report)
    return found


def measure(plan, model, weights, reference, small, trouble):
    tile = np.load(OUT / "tile.npy")
    form = asks(tile, reference)
    result = {"closed": {}, "several": {}, "open": {}, "breakdown": {}, "ready_s": {}}
    with running(makers(plan, weights, model, form, small), trouble) as servers:
        questions = {}
        for server in list(servers):
            questions[server.name] = form[CONTESTANTS[server.name][0]]()
            server.resume()
            questions[server.name].learn(server)
            server.pause()
            result["ready_s"][server.name] = server.ready_s
        for _ in range(plan.rounds):
            for server in servers:
                report = load(server, questions[server.name], 1, plan.unet_s)
                result["closed"].setdefault(server.name, []).append(report)
        for _ in range(1 if plan.quick else 2):
            for server in servers:
                slow_s = 5e-3 * result["closed"][server.name][-1]["latency_ms"]["p50"]
                report = load(server, questions[server.name], 4, min(20, max(2 * plan.unet_s, slow_s)))
                result["several"].setdefault(server.name, []).append(report)
        for server in servers:
            if server.name.startswith("unetserve"):
                result["breakdown"][server.name] = breakdown(server, questions[server.name], 10 if plan.quick else 30)
        if not small:
            best = max(report["right_per_s"] for report in result["several"]["unetserve, npy"])
            chosen = [server for server in servers if server.name != "unetserve, JSON"]
            result["open"] = offered(plan, chosen, questions, best)
    return result


def show(name, result, out=sys.stdout):
    print(f"\nrequests, {name}: one client, latency of a request; four clients, requests a second", file=out)
    for server, reports in result["closed"].items():
        medians = [report["latency_ms"]["p50"] for report in reports]
        several = [report["steady_per_s"] for report in result["several"][server]]
        print(f"  {server:32} {told(medians):32} {told(several, 'a second')}", file=out)
    for server, parts in result["breakdown"].items():
        print(f"  where the time goes, {server}: " + ", ".join(f"{part} {np.median(ms):.2f}" for part, ms in parts.items()) + " ms", file=out)
