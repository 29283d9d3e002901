"""Tiles a second by how many run together, in one thread and in all, for the large and the small network: is there a size that the machine
likes?"""
import json
import statistics
import subprocess
import sys

from servers import BUILD

SIZES = (1, 2, 4, 8)
NOTICEABLE = 1.03  # what a larger size must bring in tiles a second before it counts as liked


def one(model, precision, threads, size, runs):
    """Milliseconds a tile."""
    done = subprocess.run([BUILD / "bench/forward", "--model", model, "--precision", precision, "--threads", str(threads), "--batch", str(size),
                           "--runs", str(runs)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[0])["ms_a_tile"]


def measure(plan, networks, precisions, cores):
    """[{network, precision, threads, ms_a_tile: {size: [ms of each round]}}, ...]; the sizes take turns."""
    found = []
    for name, model, runs in networks:
        for precision in precisions:
            for threads in sorted({1, cores}):
                entry = {"network": name, "precision": precision, "threads": threads, "ms_a_tile": {str(size): [] for size in SIZES}}
                for _ in range(plan.batch_rounds):
                    for size in SIZES:
                        entry["ms_a_tile"][str(size)].append(one(model, precision, threads, size, runs))
                found.append(entry)
    return found


def rates(entry):
    """{size: [tiles a second of each round]}"""
    return {size: [1e3 / ms for ms in samples] for size, samples in entry["ms_a_tile"].items()}


def liked(entry):
    """The smallest size that no larger one beats by a noticeable share, in the median of rounds side by side."""
    by_size = rates(entry)
    sizes = list(by_size)

    def gain(over, under):
        return statistics.median(a / b for a, b in zip(by_size[over], by_size[under]))

    return next(size for i, size in enumerate(sizes) if all(gain(larger, size) < NOTICEABLE for larger in sizes[i + 1:]))


def show(found, out=sys.stdout):
    print(f"\ntiles a second, {', '.join(map(str, SIZES))} at once", file=out)
    for entry in found:
        told = ", ".join(f"{statistics.median(samples):.2f}" for samples in rates(entry).values())
        threads = f"{entry['threads']} thread{'s' if entry['threads'] != 1 else ''}"
        print(f"  {entry['network']}, {entry['precision']}, {threads}: {told}; {liked(entry)} at once will do", file=out)
