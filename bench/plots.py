"""Pictures of a run: plots.py RESULTS.json DIRECTORY writes SVG. Runs in the peers' environment, which has matplotlib."""
import json
import pathlib
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def save(figure, directory, name, written):
    path = directory / f"{name}.svg"
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
    written.append(path.name)


def latency_against_load(title, found, directory, name, written):
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for server, reports in found.items():
        kept = [report for report in reports if report["answers"] > 0]
        if kept:
            line = axes.plot([report["offered_per_s"] for report in kept], [report["latency_ms"]["p50"] for report in kept], "o-", label=server)
            axes.plot([report["offered_per_s"] for report in kept], [report["latency_ms"]["p99"] for report in kept], "x:",
                      color=line[0].get_color())
    axes.set(title=title, xlabel="offered, requests a second (open loop)", ylabel="latency, ms (line: p50, dots: p99)", yscale="log")
    axes.set_xscale("log" if max((r["offered_per_s"] for rs in found.values() for r in rs), default=0) > 100 else "linear")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    save(figure, directory, name, written)


def throughput_against_clients(tiny, directory, written):
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for server, by_clients in tiny["closed"].items():
        clients = sorted(map(int, by_clients))
        rates = [[report["right_per_s"] for report in by_clients[str(count)]] for count in clients]
        middle = [statistics.median(rate) for rate in rates]
        axes.errorbar(clients, middle, [[m - min(r) for m, r in zip(middle, rates)], [max(r) - m for m, r in zip(middle, rates)]],
                      fmt="o-", capsize=3, label=server)
    axes.set(title="tiny requests, closed loop", xlabel="clients", ylabel="requests a second (median, range)", xscale="log", yscale="log")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    save(figure, directory, "tiny-throughput", written)


def time_breakdown(requests, directory, written):
    figure, axes = pyplot.subplots(figsize=(7, 3))
    bars = [(f"{network}\n{server}", parts) for network, result in requests.items() for server, parts in result["breakdown"].items()]
    # total is the sum of the others, and no part
    names = list(dict.fromkeys(name for _, parts in bars for name in parts if name != "total"))
    for row, (_, parts) in enumerate(bars):
        left = 0
        for i, name in enumerate(names):
            width = statistics.median(parts.get(name, [0]))
            axes.barh(row, width, left=left, color=f"C{i}", label=name if row == 0 else None)
            left += width
    axes.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize="small")
    axes.set(xlabel="ms, by Server-Timing (median)")
    axes.legend(fontsize="small", ncols=len(names), loc="upper center", bbox_to_anchor=(0.4, 1.2))
    save(figure, directory, "breakdown", written)


def connections(scale, directory, written):
    figure, axes = pyplot.subplots(figsize=(7, 4))
    points = scale["noop"]["connections"]
    axes.plot([p["clients"] for p in points], [p["right_per_s"] for p in points], "o-", label="requests a second")
    other = axes.twinx()
    other.plot([p["clients"] for p in points], [p["latency_ms"]["p99"] for p in points], "x:", color="C1", label="p99, ms")
    axes.set(title="connections, a model that does nothing", xlabel="connections", ylabel="requests a second", xscale="log")
    other.set(ylabel="p99, ms", yscale="log")
    save(figure, directory, "connections", written)


def main():
    results = json.loads(pathlib.Path(sys.argv[1]).read_text())
    directory, written = pathlib.Path(sys.argv[2]), []
    for network, result in results.get("requests", {}).items():
        if result["open"]:
            latency_against_load(f"UNet, {network}", result["open"], directory, "unet-latency", written)
    if results.get("requests"):
        time_breakdown(results["requests"], directory, written)
    if "tiny" in results:
        latency_against_load("tiny requests", results["tiny"]["open"], directory, "tiny-latency", written)
        throughput_against_clients(results["tiny"], directory, written)
    if "scale" in results:
        connections(results["scale"], directory, written)
    print("plots: " + ", ".join(str(pathlib.Path("build/bench") / name) for name in written))


if __name__ == "__main__":
    main()
