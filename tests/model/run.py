"""Checks the slot protocol with spin: run.py small | large [--work DIR] [--jobs N] [--bug N].

small (CI): every small configuration, every planted bug, every edge used. large (make model): larger
bounds too. README.md says what each configuration is for. Fails if a configuration has an error, if a
planted bug is not found, or if some edge of include/unetserve/queue_states.h is never used.
"""
import argparse
import concurrent.futures
import os
import pathlib
import re
import resource
import shlex
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
TOP = HERE.parent.parent
MEMORY_MB = {"small": 1500, "large": 7000}
LIMIT_S = {"small": 300, "large": 5400}
DEPTH = 1_000_000

# Bounds by name; what is not named has the value at the head of slots.pml.
SMALL = [
    "JOBS=2 LATES=1 LEAVES=1 CLIENTS=2 WORKERS=1",
    "JOBS=2 KILLS=1",
    "JOBS=2 KILLS=1 STALE=1 SLOTS=1",
    "JOBS=1 KILLS=2",
    "JOBS=1 KILLS=1 LATES=1 LEAVES=1",
    "JOBS=1 KILLS=1 LEAVES=1 STREAMS=1",
    "JOBS=2 POISON=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    "JOBS=2 TERMS=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    "JOBS=3 AHEAD=1 KILLS=1 CLIENTS=2 BATCH=2 GATEWAYS=1 WORKERS=1",
    "JOBS=3 AHEAD=1 HEAD=1 CLIENTS=2 BATCH=2 GATEWAYS=1 WORKERS=1",
    "JOBS=1 STUCK=1 LEAVES=1",
    "JOBS=2 HEAD=1 CLIENTS=2",
    "JOBS=1 HEAD=1 KILLS=1 LEAVES=1",
    "JOBS=1 HEAD=1 STREAMS=1 TERMS=1 LATES=1",
    "JOBS=2 HANDOVER=1 CLIENTS=2 GATEWAYS=1",
    "JOBS=1 HANDOVER=1 KILLS=1 LEAVES=1",
    "JOBS=2 HANDOVER=1 HEAD=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1 KILLS=1",
    "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1 LATES=1 LEAVES=1",
    "JOBS=2 TAKEOVER=1 HANDOVER=1 CLIENTS=2 GATEWAYS=1 HEAD=1",
    "JOBS=3 TAKEOVER=1 AHEAD=1 CLIENTS=2 BATCH=2 GATEWAYS=1 POISON=1",
    "JOBS=2 TAKEOVER=1 RELOADS=1 CLIENTS=2 GATEWAYS=1 WORKERS=1",
    "JOBS=1 GROWTH=1 KILLS=1 LEAVES=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 TERMS=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1 FLOPS=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 HEAD=1 FLOPS=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 TERMS=1 FLOPS=1",
    "JOBS=2 RELOADS=1 GATEWAYS=1 WORKERS=1 CLIENTS=2 GROWTH=1",
]
LARGE = [
    "JOBS=3 CLIENTS=3 LATES=1 LEAVES=1",
    "JOBS=2 KILLS=1 LATES=1 LEAVES=1",
    "JOBS=2 GROWTH=1 KILLS=1",
    "JOBS=1 RELOADS=1 WORKERS=1 KILLS=1",
    "JOBS=2 RELOADS=1 WORKERS=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 KILLS=1",
    "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1 HEAD=1",
    "JOBS=1 RELOADS=2 GATEWAYS=1 WORKERS=1 KILLS=1 FLOPS=1",
    "JOBS=2 RELOADS=1 GATEWAYS=1 WORKERS=1 CLIENTS=2 GROWTH=1 KILLS=1",
    "JOBS=2 KILLS=1 STREAMS=1",
    "JOBS=2 KILLS=2",
    "JOBS=3 KILLS=1 CLIENTS=2",
    "JOBS=2 KILLS=1 STREAMS=1 LEAVES=1",
    "JOBS=2 POISON=1 KILLS=1 CLIENTS=2 BATCH=2",
    "JOBS=3 POISON=1 CLIENTS=2 BATCH=2",
    "JOBS=3 AHEAD=1 POISON=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    "JOBS=2 STUCK=1 LEAVES=1",
    "JOBS=2 STUCK=1 KILLS=1",
    "JOBS=2 HEAD=1 KILLS=1 LEAVES=1",
    "JOBS=3 HEAD=1 CLIENTS=2",
    "JOBS=2 HEAD=1 STREAMS=1 TERMS=1 LATES=1 CLIENTS=2 BATCH=2",
    "JOBS=2 TERMS=2 KILLS=1 BATCH=2 CLIENTS=2",
    "JOBS=2 HANDOVER=1 KILLS=1",
    "JOBS=1 HANDOVER=1 KILLS=1 LATES=1 LEAVES=1",
    "JOBS=1 HANDOVER=1 HEAD=1 KILLS=1",
    "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1 TERMS=1 STUCK=1",
    "JOBS=2 KILLS=1 STALE=1",
    "JOBS=3 KILLS=1 STALE=1 SLOTS=1",
]
# Searched for cycles instead: there is none, so every run comes to rest.
SMALL_ENDING = ["JOBS=1 KILLS=1 LEAVES=1", "JOBS=1 HEAD=1 TERMS=1 STREAMS=1", "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1 LEAVES=1"]
LARGE_ENDING = ["JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1", "JOBS=2 LATES=1 LEAVES=1 CLIENTS=2", "JOBS=1 KILLS=2", "JOBS=2 HEAD=1 CLIENTS=2",
                "JOBS=1 STUCK=1 KILLS=1 LEAVES=1"]
# A planted bug and the bounds that show it. README.md says what each is.
BUGS = {
    1: "JOBS=2 LEAVES=1 STALE=1 GATEWAYS=1 WORKERS=1 SLOTS=1",
    2: "JOBS=2 LEAVES=1 STALE=1 GATEWAYS=1 WORKERS=1 SLOTS=1",
    3: "JOBS=1 KILLS=2",
    4: "JOBS=1 LEAVES=1 GATEWAYS=1 WORKERS=1",
    5: "JOBS=2 KILLS=1 SLOTS=1",
    6: "JOBS=1 LATES=1 GATEWAYS=1 WORKERS=1",
    7: "JOBS=1 LATES=1 GATEWAYS=1 WORKERS=1",
    8: "JOBS=1 KILLS=1 STREAMS=1",
    9: "JOBS=1 HEAD=1",
    10: "JOBS=1 LEAVES=1",
    11: "JOBS=1 TERMS=1",
    12: "JOBS=2 POISON=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    13: "JOBS=1 TERMS=1",
    14: "JOBS=2 KILLS=1 STALE=1",
    15: "JOBS=1 KILLS=1",
    16: "JOBS=1 STUCK=1",
    17: "JOBS=1 KILLS=1",
    18: "JOBS=1 KILLS=1",
    19: "JOBS=2 KILLS=1 STALE=1",
    20: "JOBS=1 KILLS=2",
    21: "JOBS=1 KILLS=1 STREAMS=1",
    22: "JOBS=2 RELOADS=1 GATEWAYS=1 WORKERS=1 CLIENTS=2 GROWTH=1",
    23: "JOBS=1 GROWTH=1 GATEWAYS=1 WORKERS=1",
    24: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1",
    25: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 HANDOVER=1",
    26: "JOBS=2 POISON=1 HANDOVER=1 CLIENTS=2 BATCH=2 GATEWAYS=1",
    27: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1",
    28: "JOBS=1 HANDOVER=1 LEAVES=1 GATEWAYS=1",
    29: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1",
    30: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1 FLOPS=1",
    31: "JOBS=2 RELOADS=1 GATEWAYS=1 WORKERS=1 CLIENTS=2 GROWTH=1",
    32: "JOBS=1 RELOADS=1 GATEWAYS=1 WORKERS=1 KILLS=1",
    33: "JOBS=1 RELOADS=1 GATEWAYS=1 TERMS=1 FLOPS=1",
    34: "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1",
    35: "JOBS=2 TAKEOVER=1 CLIENTS=2 GATEWAYS=1 LEAVES=1",
}


class Failed(Exception):
    pass


def run(command, directory, limit_s, memory_mb=None):
    def limit():
        if memory_mb:
            resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    try:
        done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, timeout=limit_s, preexec_fn=limit, check=False)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{command[0]} took longer than {limit_s} s") from error
    return done.returncode, done.stdout


def run_well(command, directory, limit_s):
    status, output = run(command, directory, limit_s)
    if status:
        raise Failed(f"{shlex.join(command)}:\n{output}")
    return output


def search(work, name, bounds, size, ending=False, bug=0):
    """One configuration: (errors, states, seconds, edges used, the line about the error)."""
    directory = work / name
    directory.mkdir()
    for source in ("slots.pml", "states.pml"):
        (directory / source).symlink_to((HERE if source == "slots.pml" else work) / source)
    defines = [f"-D{bound}" for bound in bounds.split()] + ([f"-DBUG={bug}"] if bug else [])
    run_well(["spin", *defines, "-a", "slots.pml"], directory, 60)
    # In small searches the compiler is what takes time. With -O2 gcc takes minutes.
    optimize = "-O0" if bug or size == "small" else "-O1"
    run_well([os.environ.get("CC", "gcc"), optimize, "-w", "-DCOLLAPSE",
              "-DNP" if ending else "-DSAFETY", "-o", "pan", "pan.c"], directory, 600)
    begin = time.monotonic()
    _, output = run(["./pan", "-E", "-n", f"-m{DEPTH}", *(["-l"] if ending else [])], directory,
                    LIMIT_S[size], MEMORY_MB[size])
    seconds = time.monotonic() - begin
    errors = re.search(r"errors: (\d+)", output)
    states = re.search(r"(\d+) states, stored", output)
    if not errors or not states:
        raise Failed(f"{bounds}: pan did not finish:\n{output[-1500:]}")
    if "max search depth too small" in output or "out of memory" in output:
        raise Failed(f"{bounds}: the search was cut short:\n{output[-1500:]}")
    complaint = re.search(r"^pan:1: (.*)$", output, re.MULTILINE)
    edges = set(re.findall(r"^edge (.*)$", output, re.MULTILINE))
    (directory / "pan").unlink()
    return int(errors[1]), int(states[1]), seconds, edges, complaint[1] if complaint else ""


def edges_of_list(work):
    """Every edge that the code has, as make_states printed them."""
    text = (work / "states.pml").read_text(encoding="ascii")
    return set(re.findall(r'"(\w+ \w+ \w+)"', text))


def prepare(work):
    run_well([os.environ.get("CC", "gcc"), "-std=c11", "-D_GNU_SOURCE", f"-I{TOP / 'include'}", "-o",
              "make_states", str(HERE / "make_states.c")], work, 60)
    (work / "states.pml").write_text(run_well(["./make_states"], work, 10), encoding="ascii")


def plan(size, only_bug):
    """(name, bounds, ending, bug) of each search."""
    if only_bug:
        return [(f"bug-{only_bug}", BUGS[only_bug], False, only_bug)]
    configurations = SMALL + (LARGE if size == "large" else [])
    ending = SMALL_ENDING + (LARGE_ENDING if size == "large" else [])
    searches = [(f"run-{i}", bounds, False, 0) for i, bounds in enumerate(configurations)]
    searches += [(f"end-{i}", bounds, True, 0) for i, bounds in enumerate(ending)]
    searches += [(f"bug-{bug}", bounds, False, bug) for bug, bounds in BUGS.items()]
    return searches


def judge(search_plan, result):
    """One line for people, and whether it is as it must be."""
    _, bounds, ending, bug = search_plan
    errors, states, seconds, _, complaint = result
    good = (errors > 0) == bool(bug)
    kind = f"bug {bug:2d}" if bug else "ending" if ending else "safety"
    verdict = "found" if errors else "no error"
    line = f"{'ok  ' if good else 'FAIL'} {kind}  {verdict:8s} {states:>11,} states {seconds:7.1f} s  {bounds}"
    return good, line if good or not complaint else f"{line}\n     {complaint[:200]}"


def check(work, size, jobs, only_bug):
    prepare(work)
    failed, used = 0, set()
    searches = plan(size, only_bug)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(search, work, name, bounds, size, ending, bug)
                   for name, bounds, ending, bug in searches]
        for search_plan, future in zip(searches, futures):
            try:
                result = future.result()
            except Failed as error:
                failed += 1
                print(f"FAIL {search_plan[1]}: {error}", flush=True)
                continue
            good, line = judge(search_plan, result)
            failed += not good
            print(line, flush=True)
            if not search_plan[3]:
                used |= result[3]
    unused = set() if only_bug else edges_of_list(work) - used
    for edge in sorted(unused):
        print(f"FAIL edge never used: {edge}")
    print(f"model: {len(searches)} searches, {len(used)} edges used, {failed + len(unused)} failures")
    return failed + len(unused) == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=("small", "large"))
    parser.add_argument("--work", help="keep what is made here (a new directory)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--bug", type=int, choices=sorted(BUGS), default=0)
    options = parser.parse_args()
    if options.work:
        work = pathlib.Path(options.work)
        work.mkdir(parents=True)
        return 0 if check(work.resolve(), options.size, options.jobs, options.bug) else 1
    with tempfile.TemporaryDirectory(prefix="unetserve-model-") as directory:
        return 0 if check(pathlib.Path(directory), options.size, options.jobs, options.bug) else 1


if __name__ == "__main__":
    sys.exit(main())
