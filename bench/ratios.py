"""Ratios of one run, which carry over to other machines better than milliseconds do, and what moved against a committed baseline:
ratios.py RESULTS.json [--write BASELINE.json]
"""
import argparse
import json
import pathlib
import statistics
import sys

BASELINE = pathlib.Path(__file__).with_name("baseline.json")
# By how much a ratio may move before it is told, and whether more of it is better. The parts of the name before the first colon.
TOLERANCES = {"forward": 0.15, "request": 0.2, "tiny": 0.3, "cold": 0.4}
# What depends on which instructions the processor has: judged only where it has those of the baseline's.
OF_PROCESSORS = ("forward", "request", "cold")


def best(entry):
    """The least of each round, and of these the median: what the machine does when it is left alone, but not by luck."""
    return statistics.median(min(group) for group in entry["rounds"])


def of_pairs(over, under):
    """Median of the ratios of rounds that were measured side by side."""
    return statistics.median(a / b for a, b in zip(over, under) if b > 0)


def counterpart(engine, found):
    """Our own forward pass in a peer's precision; what `precision = auto` serves (bf16 where the processor has it, else f32 with Winograd's
    convolutions) for anything else."""
    own = f"unetserve-{engine[-4:].lstrip('-')}" if engine.endswith(("f32", "int8")) else "unetserve-bf16"
    return found.get(own, found.get("unetserve-f32-winograd", found.get("unetserve-f32")))


def name_of(entry, found):
    return next(name for name, value in found.items() if value is entry)


def forward_ratios(name, found):
    ratios = {}
    for engine, entry in found.items():
        if engine.startswith("unetserve-"):
            ratios[f"forward: {name}, {engine.removeprefix('unetserve-')}, share of the measured peak"] = (max(entry["share_of_peak"]), True)
            against, more_is_better = counterpart("auto", found), False
        else:
            against, more_is_better = counterpart(engine, found), True
        if against is not None and against is not entry:
            least = [[min(group) for group in side["rounds"]] for side in (entry, against)]
            ratios[f"forward: {name}, {engine} / {name_of(against, found)}"] = (of_pairs(*least), more_is_better)
    return ratios


def request_ratios(name, forward, requests):
    bare = best(counterpart("auto", forward))
    ratios = {}
    medians = {server: [report["latency_ms"]["p50"] for report in reports] for server, reports in requests["closed"].items()}
    for server, own in medians.items():
        if server.startswith("unetserve"):
            ratios[f"request: {name}, {server} / bare forward"] = (min(own) / bare, False)
        else:
            ratios[f"request: {name}, {server} / unetserve, JSON"] = (of_pairs(own, medians["unetserve, JSON"]), True)
    return ratios


def tiny_ratios(tiny):
    closed = tiny["closed"]
    ratios = {}
    for server in closed:
        if server == "bare libmicrohttpd":
            continue
        for clients in closed[server]:
            rates = [[report["right_per_s"] for report in closed[which][clients]] for which in (server, "bare libmicrohttpd")]
            ratios[f"tiny: {server}, {clients} clients, rate / bare libmicrohttpd"] = (of_pairs(*rates), True)
        p50 = [[report["latency_ms"]["p50"] for report in closed[which]["1"]] for which in (server, "bare libmicrohttpd")]
        ratios[f"tiny: {server}, one client, p50 / bare libmicrohttpd"] = (of_pairs(*p50), False)
    return ratios


def ratios(results):
    """{name: (value, more is better)}"""
    found = {}
    for name, forward in results.get("forward", {}).items():
        found |= forward_ratios(name, forward)
        if name in results.get("requests", {}):
            found |= request_ratios(name, forward, results["requests"][name])
    if "tiny" in results:
        found |= tiny_ratios(results["tiny"])
    if "cold" in results:
        ready = [[entry["ready_s"] for entry in results["cold"][kind]] for kind in ("next", "first")]
        found["cold: next worker / first worker, ready"] = (of_pairs(*ready), False)
    return found


def compare(found, baseline, same_isa=True):
    """Sentences about what moved beyond its tolerance: [(worse, sentence), ...]. Peers' own ratios move too: only ours are judged, and of
    those only what the processor's instructions do not decide, where they are not the baseline's."""
    moved = []
    for name, (value, more_is_better) in sorted(found.items()):
        if name not in baseline:
            continue
        was = baseline[name]
        change = value / was - 1
        if abs(change) <= TOLERANCES[name.split(":")[0]]:
            continue
        peer = name.startswith("tiny: ") and not name.startswith("tiny: unetserve")
        other = not same_isa and name.split(":")[0] in OF_PROCESSORS
        worse = (change < 0) == more_is_better and not peer and not other
        verdict = "another server" if peer else "another processor" if other else "worse" if worse else "better"
        moved.append((worse, f"{name}: {was:.3f} -> {value:.3f}, {change:+.0%}, {verdict}"))
    return moved


def report(results, out=sys.stdout):
    """Print what moved; the number of ratios that became worse."""
    found = ratios(results)
    if not BASELINE.exists():
        print("\nno baseline to compare with", file=out)
        return 0
    baseline = json.loads(BASELINE.read_text())
    same_isa = baseline["isa"] == results["machine"]["isa"]
    if not same_isa:
        print(f"\nthe baseline is of {baseline['isa']}, this machine has {results['machine']['isa']}: only tiny requests are judged", file=out)
    if baseline["load"] > 1:
        print(f"\nthe baseline was taken while others used the machine (load {baseline['load']}): make bench-baseline on a quiet one", file=out)
    moved = compare(found, baseline["ratios"], same_isa)
    print(f"\nagainst bench/baseline.json: {len(found)} ratios, {len(moved)} moved beyond "
          + ", ".join(f"{kind} {share:.0%}" for kind, share in TOLERANCES.items()), file=out)
    for worse, sentence in sorted(moved, reverse=True):
        print(f"  {'! ' if worse else '  '}{sentence}", file=out)
    return sum(worse for worse, _ in moved)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("results")
    parser.add_argument("--write")
    options = parser.parse_args()
    results = json.loads(pathlib.Path(options.results).read_text())
    if options.write:
        kept = {name: float(f"{value:.4g}") for name, (value, _) in sorted(ratios(results).items())}
        pathlib.Path(options.write).write_text(json.dumps({"isa": results["machine"]["isa"], "load": round(results["machine"]["load_before"], 1),
                                                              "ratios": kept}, indent=1) + "\n")
        return 0
    return 1 if report(results) else 0


if __name__ == "__main__":
    sys.exit(main())
