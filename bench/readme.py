"""README's figures from a run: readme.py RESULTS.json README.md rewrites what stands between the two markers there. What unetserve loses
at is found in the same figures, not chosen."""
import json
import pathlib
import statistics
import sys

import batch_section
import ratios
from plan import spread

BEGIN, END = "<!-- figures: made by make bench-figures -->", "<!-- end of figures -->"
ENGINE_NAMES = {"torch-f32": "torch, eager, f32", "torch-bf16": "torch, eager, bf16", "torch-tuned": "torch.compile, frozen, bf16",
                "openvino-bf16": "OpenVINO, bf16", "openvino-f32": "OpenVINO, f32",
                "openvino-int8": "OpenVINO, int8 by NNCF", "onnxruntime-f32": "ONNX Runtime, f32"}


def number(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(samples, unit=""):
    s = spread(samples)
    return f"{number(s['median'])}{unit} ({number(s['least'])} to {number(s['most'])})"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def intro(results):
    about = results["machine"]
    run = "a short run (`make bench-quick`: few rounds, and not all peers)" if results["quick"] else "one run of `make bench`"
    lines = [f"From {run} ({about['when']}, {about['commit']}) on {about['cores']} cores of an {about['cpu']} ({about['isa'].replace('_', ' ').upper()}; a virtual",
             "machine). Median, and range over interleaved rounds. Ratios carry over to other machines, milliseconds do not. Tiles are 12 x 256 x 256, the same",
             "weights for everybody, every answer checked; [bench/README.md](bench/README.md) says how, and what is unfair to whom."]
    if about["load_before"] > 0.5 * about["cores"]:
        lines.append(f"**Others used the machine during this run (load {about['load_before']:.0f} on {about['cores']} cores): read only the ratios, and those with care.**")
    return [*lines, ""]


def forward_rows(results):
    names = list(results["forward"])
    engines = dict.fromkeys(engine for found in results["forward"].values() for engine in found)
    rows = []
    for engine in engines:
        cells = []
        for name in names:
            entry = results["forward"][name].get(engine)
            cells.append("-" if entry is None else cell([min(group) for group in entry["rounds"]], " ms")
                         + (f", {max(entry['share_of_peak']):.2f} of the peak" if "share_of_peak" in entry else ""))
        label = f"**unetserve, {engine.removeprefix('unetserve-')}**" if engine.startswith("unetserve-") else ENGINE_NAMES.get(engine, engine)
        rows.append([label, *cells])
    return table(["bare forward pass", *names], rows)


def request_rows(results):
    names = list(results["requests"])
    servers = dict.fromkeys(server for found in results["requests"].values() for server in found["closed"])
    head = ["whole request", *[f"{name}, one client" for name in names], f"{names[0]}, four clients"]
    rows = []
    for server in servers:
        cells = []
        for name in names:
            reports = results["requests"][name]["closed"].get(server)
            cells.append(cell([report["latency_ms"]["p50"] for report in reports], " ms") if reports else "-")
        several = results["requests"][names[0]]["several"].get(server)
        # Results of before have no steady rate.
        cells.append(cell([report.get("steady_per_s", report["right_per_s"]) for report in several], " a second") if several else "-")
        rows.append([f"**{server}**" if server.startswith("unetserve") else server, *cells])
    return table(head, rows)


def tiny_rows(results):
    rows = []
    closed = results["tiny"]["closed"]
    for server, found in closed.items():
        row = [f"**{server}**" if server == "unetserve" else server, cell([r["latency_ms"]["p50"] for r in found["1"]], " ms")]
        for clients in ("1", "64"):
            bare = [r["right_per_s"] for r in closed["bare libmicrohttpd"][clients]]
            own = [r["right_per_s"] for r in found[clients]]
            row.append(f"{number(statistics.median(own))} a second, {ratios.of_pairs(own, bare):.2f} of bare")
        rows.append(row)
    return table(["x² + x³", "one client, p50", "one client", "64 clients"], rows)


def cold_lines(results):
    cold = results["cold"]
    memory = cold["next"][-1]["memory_mib"]
    first, after = ([entry["ready_s"] for entry in cold[kind]] for kind in ("first", "next"))
    own = ", ".join(f"{role} {mib['uss']:.0f}" for role, mib in memory.items())
    return [f"From nothing to ready with the 31M network: {cell(first, ' s')} the first time, when the weights are packed, {cell(after, ' s')} from then on. "
            f"Memory of its own, MiB: {own}.", ""]


def scale_lines(results):
    scale = results["scale"]
    fit, most, quiet = scale["fit"], scale["noop"]["connections"][-1], scale["noop"]["open"][-1]
    refused = f", {1 - most['right'] / most['sent']:.0%} of the requests refused with 503 since the queue is bounded," if most["right"] < most["sent"] else ""
    cost = ", ".join(f"{role} {us:.1f}" for role, us in sorted(fit["cpu_us"].items()) if us >= 0.05)
    return [f"A model that does nothing, over HTTP: {number(fit['jobs_per_s_here'])} jobs a second on this machine, load generator included (microseconds of processor "
            f"time a job: {cost}). {most['clients']} connections that all ask at once: {number(most['right_per_s'])} answered{refused} with a p99 of "
            f"{number(most['latency_ms']['p99'])} ms; {number(quiet['offered_per_s'])} a second spread over as many: p99 {number(quiet['latency_ms']['p99'])} ms. The broker by itself, "
            f"64 jobs waiting, gateway and worker doing nothing but moving slots: {number(fit['broker_jobs_per_s'])} a second.", ""]


def batch_rows(results):
    entries = results["batch"]
    sizes = list(entries[0]["ms_a_tile"])
    rows = []
    for entry in entries:
        rates = batch_section.rates(entry)
        threads = f"{entry['threads']} thread{'s' if entry['threads'] != 1 else ''}"
        rows.append([f"{entry['network']}, {entry['precision']}, {threads}", *[number(statistics.median(rates[size])) for size in sizes],
                     batch_section.liked(entry)])
    return table(["tiles a second, so many at once", *sizes, "enough"], rows)


# ---- where others are ahead ----


def forward_losses(results):
    found = []
    for name, forward in results.get("forward", {}).items():
        for engine, entry in forward.items():
            ours = ratios.counterpart(engine, forward)
            if not engine.startswith("unetserve-") and ours is not None and ratios.best(entry) < ratios.best(ours):
                found.append(f"{ENGINE_NAMES.get(engine, engine)} runs the {name} in {ratios.best(entry) / ratios.best(ours):.2f} of our time in "
                             f"{ratios.name_of(ours, forward).removeprefix('unetserve-')}")
    return found


def medians(by_server, value):
    return {server: statistics.median(value(report) for report in reports) for server, reports in by_server.items() if reports}


def our_form(server, servers):
    """Which of ours a peer is held against: what is asked in the same form, or all of them."""
    form = server.rpartition(", ")[2]
    same = [own for own in servers if own.startswith("unetserve") and own.rpartition(", ")[2] == form]
    return same or [own for own in servers if own.startswith("unetserve")]


def compared(by_server, value, more_is_better):
    """[(peer, its ratio to the best of ours in its form), ...] of those that are ahead."""
    middle = medians(by_server, value)
    found = []
    for server, theirs in middle.items():
        ours = [middle[own] for own in our_form(server, middle)]
        if server.startswith("unetserve") or not ours:
            continue
        best = max(ours) if more_is_better else min(ours)
        if best > 0 and (theirs > best) == more_is_better and theirs != best:
            found.append((server, theirs / best))
    return found


def latency(part):
    return lambda report: report["latency_ms"][part]


def at_load(by_server, index):
    """Of an open loop's reports those of one offered load, by server, where nothing was left unanswered."""
    return {server: [reports[index]] for server, reports in by_server.items()
            if len(reports) > index and reports[index]["unanswered"] == 0 and reports[index]["latency_ms"]["p50"] is not None}


def open_losses(by_server, what):
    found = []
    loads = [report["offered_per_s"] for report in by_server.get("unetserve, npy", by_server.get("unetserve", []))]
    for index, rate in enumerate(loads):
        for part in ("p50", "p99"):
            found += [f"{server} answers {what} with a {part} of {ratio:.2f} of ours when {number(rate)} a second are offered"
                      for server, ratio in compared(at_load(by_server, index), latency(part), False)]
    return found


def request_losses(results):
    found = []
    for name, requests in results.get("requests", {}).items():
        found += [f"{server} answers for the {name} in {ratio:.2f} of our time, one client" for server, ratio in compared(requests["closed"], latency("p50"), False)]
        found += [f"{server} has a p99 of {ratio:.2f} of ours for the {name}, one client" for server, ratio in compared(requests["closed"], latency("p99"), False)]
        found += [f"{server} answers {ratio:.2f} times as many requests for the {name}, four clients"
                  for server, ratio in compared(requests["several"], lambda report: report["right_per_s"], True)]
        found += open_losses(requests["open"], f"for the {name}")
        ready = {server: [seconds] for server, seconds in requests["ready_s"].items()}
        found += [f"{server} is ready for the {name} in {ratio:.2f} of our time" for server, ratio in compared(ready, float, False)]
    return found


def tiny_losses(results):
    tiny = results.get("tiny", {"closed": {}, "open": {}})
    closed, found = tiny["closed"], []
    for server, by_clients in closed.items():
        for clients, reports in by_clients.items():
            ratio = ratios.of_pairs([r["right_per_s"] for r in reports], [r["right_per_s"] for r in closed["unetserve"][clients]])
            if server != "unetserve" and ratio > 1:
                found.append(f"{server} answers {ratio:.2f} times as many tiny requests with {clients} client{'s' if clients != '1' else ''}")
    alone = {server: by_clients["1"] for server, by_clients in closed.items()}
    found += [f"{server} has a {part} of {ratio:.2f} of ours for tiny requests, one client"
              for part in ("p50", "p99") for server, ratio in compared(alone, latency(part), False)]
    return found + open_losses(tiny["open"], "tiny requests")


def losses(results):
    """Sentences: everything that any peer is ahead of unetserve at in this run."""
    return forward_losses(results) + request_losses(results) + tiny_losses(results)


def section(results):
    lines = intro(results)
    for key, make in (("forward", forward_rows), ("requests", request_rows), ("tiny", tiny_rows), ("cold", cold_lines), ("scale", scale_lines), ("batch", batch_rows)):
        if key in results:
            lines += make(results)
    lost = losses(results)
    lines.append("**Where others are ahead** in these figures: " + ("; ".join(lost) if lost else "nowhere, which says more about the choice of peers than about us") + ".")
    trouble = {name: why.splitlines()[0] for name, why in results["trouble"].items() if why}
    if trouble:
        lines += ["", "Not in them: " + "; ".join(f"{name} ({why})" for name, why in trouble.items()) + "."]
    return "\n".join(lines)


def main():
    results = json.loads(pathlib.Path(sys.argv[1]).read_text())
    path = pathlib.Path(sys.argv[2])
    text = path.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f"readme: {path} has not the two markers {BEGIN!r} and {END!r}, each once")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{section(results)}\n{END}{after}")
    print(f"{path}: figures of {results['machine']['when']}")


if __name__ == "__main__":
    main()
