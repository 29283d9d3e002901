"""Counts the instructions of the hot paths under callgrind and compares them with counts.json.

What is counted are our own program's instructions, not those of the libraries that it calls (which the C library chooses by
processor), so equal code gives equal counts, whatever else the machine does. They depend on the compiler and on the instructions that
our code chooses by processor: counts.json says with which it was made, and others are not compared.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "counts.json"
TOLERANCE = 0.05
SLACK = 1000  # instructions that nobody feels, whatever share they are of a short path
LIMIT_S = 300


def conditions(compiler):
    """What counts depend on besides the code."""
    major = subprocess.run([*compiler.split(), "-dumpversion"], check=True, capture_output=True, text=True).stdout
    name = subprocess.run([*compiler.split(), "--version"], check=True, capture_output=True, text=True).stdout
    flags = open("/proc/cpuinfo", encoding="utf-8").read().split()
    return {"compiler": ("clang " if "clang" in name else "gcc ") + major.split(".")[0].strip(),
            # valgrind shows programs no more than that
            "instructions": "AVX2" if "avx2" in flags else "AVX" if "avx" in flags else "SSE"}


def own_instructions(path, program):
    """Sum of what callgrind wrote for functions of that program itself."""
    total, ours, called = 0, False, False
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("ob="):
            ours = line[3:] == program
        elif line.startswith("calls="):
            called = True  # the next line is the cost of what was called: counted there
        elif line[:1].isdigit() or line[:1] in "+-*":
            cost = line.split()[1:]  # left out where it is 0
            total += int(cost[0]) if cost and ours and not called else 0
            called = False
    return total


def measure(driver):
    program = str(driver.resolve())
    environment = {"PATH": os.environ["PATH"], "LD_BIND_NOW": "1", "LC_ALL": "C"}
    with tempfile.TemporaryDirectory(prefix="unetserve-counts-") as directory:
        out = pathlib.Path(directory) / "out"
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--toggle-collect=counted_run", "--dump-after=counted_run",
             "--compress-strings=no", "--compress-pos=no", f"--callgrind-out-file={out}", program],
            env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        names = done.stdout.splitlines()
        if done.returncode or not names:
            sys.exit(f"counts: the driver failed:\n{done.stdout}{done.stderr[-3000:]}")
        return {name: own_instructions(pathlib.Path(f"{out}.{i + 1}"), program) for i, name in enumerate(names)}


def compare(before, now):
    """Prints what moved, more and less. How many paths take more than the tolerance allows, or came or went."""
    worse = 0
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            worse += 1
            print(f"FAIL {name}: " + ("is not in counts.json" if old is None else "is gone"))
            continue
        change = new / old - 1
        moved = abs(new - old) > max(TOLERANCE * old, SLACK)
        worse += moved and new > old
        print(f"{'ok  ' if not moved else 'FAIL' if new > old else 'less'} {new:>12,} instructions {change:+8.2%}  {name}")
    return worse


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--driver", type=pathlib.Path, required=True)
    parser.add_argument("--compiler", default="gcc")
    parser.add_argument("--update", action="store_true", help="write counts.json")
    options = parser.parse_args()
    under = conditions(options.compiler)
    noted = {} if options.update else json.loads(FILE.read_text(encoding="utf-8"))
    noted_under = {key: noted.get(key) for key in under}
    if not options.update and under != noted_under:
        print(f"counts: made with {noted_under}, here is {under}: not compared")
        return 0
    now = measure(options.driver)
    if not all(now.values()):
        sys.exit("counts: a path without an instruction: " + ", ".join(name for name in now if not now[name]))
    if options.update:
        FILE.write_text(json.dumps({**under, "counts": now}, indent=1) + "\n", encoding="utf-8")
        print(f"counts: wrote {FILE.relative_to(HERE.parent.parent)}")
        return 0
    worse = compare(noted["counts"], now)
    if worse:
        print(f"counts: {worse} paths take over {TOLERANCE:.0%} more than bench/counts/counts.json says, or are new. If that is meant, say why in the "
              "commit, and write it down: make counts UPDATE=1")
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
