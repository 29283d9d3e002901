"""Bugs planted in a copy of the cuDNN backend, one at a time: the tests on the double of a GPU must find each of them.

planted.py [--check] [--only WORD] [--every N]: each bug of planted_bugs.py replaces a passage in a copy of the sources under build/gpu/planted; then the
backend's own tests are built and run there, quick ones first, with streams as late as can be and, if that finds nothing, taking turns. Fails if
a bug is not found, or has no place any more. --check: only look whether each has its place.
"""
import argparse
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

from planted_bugs import BUGS

TOP = pathlib.Path(__file__).resolve().parents[2]
COPY = TOP / "build" / "gpu" / "planted"
LIMIT_S = 600
CUDNN = "workers/backends/cudnn"
TESTS = ["tests/test_gpu_waiter", "tests/test_flights", "gpu/test_kernels", "gpu/test_convs", "tests/test_gpu_layout", "tests/test_gpu_engine",
         "gpu/test_networks", "gpu/test_gpu", "gpu/test_copies", "gpu/test_tuning", "gpu/test_failures"]
TARGETS = [f"build/{test}" for test in TESTS] + ["build/gpu/double/libcuda.so.1", "build/gpu/double/libcudnn.so.9"]
FOUND = ("gpu double", "[  ERROR", "[  FAILED")


def pattern(passage):
    """The passage as formatters may break it: white space counts nowhere but between two words."""
    tokens = re.findall(r"\w+|[^\w\s]", passage)
    text = ""
    for before, token in zip([""] + tokens, tokens):
        both_words = before[-1:].isidentifier() and token[:1].isidentifier()
        text += ("" if not before else r"\s+" if both_words else r"\s*") + re.escape(token)
    return re.compile(text)


def planted(top, bug):
    """The file with the bug in it, and its text; LookupError where it has no place."""
    name, file, passage, instead = bug
    path = top / CUDNN / file
    text = path.read_text()
    places = list(pattern(passage).finditer(text))
    if len(places) != 1:
        raise LookupError(f"{name}: the passage stands {len(places)} times in {file}: {passage!r}")
    return path, text[:places[0].start()] + instead.rstrip("\n") + text[places[0].end():]


def check(top):
    """What is wrong with the list, a line each."""
    wrong = [] if len({bug[0] for bug in BUGS}) == len(BUGS) else ["two bugs have the same name"]
    for bug in BUGS:
        try:
            path, text = planted(top, bug)
            if text.split() == path.read_text().split():
                wrong.append(f"{bug[0]}: changes nothing")
        except (LookupError, OSError) as error:
            wrong.append(str(error))
    return wrong


def make():
    """A bug may leave something unused: warnings are none. Sources change too often for a cache of the compiler's."""
    return subprocess.run(["make", "-s", "-o", "build/gpu/kernels.fatbin", "CFLAGS=-Wno-error", *TARGETS], cwd=COPY, capture_output=True, text=True,
                          timeout=LIMIT_S, check=False, env={**os.environ, "CCACHE_DISABLE": "1"})


def copy_sources():
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=TOP, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source, to = TOP / name, COPY / name
        if not source.is_file() or name.startswith(("docs/", ".ci/")):
            continue
        if not to.is_file() or to.read_bytes() != source.read_bytes():  # older copies stay as they are, and so does what was built of them
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(source.read_bytes())
    # Devices have no part in this: the kernels for them are not built again.
    (COPY / "build" / "gpu").mkdir(parents=True, exist_ok=True)
    shutil.copy2(TOP / "build" / "gpu" / "kernels.fatbin", COPY / "build" / "gpu")


def run(program, order):
    """None if the tests pass, else what they say first. Whoever has said something wrong need not come to the end."""
    device = COPY / "tests" / "gpu" / "devices" / "h100.json"
    double = COPY / "build" / "gpu" / "double"
    with subprocess.Popen(["timeout", "-k", "5", str(LIMIT_S), COPY / "build" / program], cwd=COPY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True, errors="replace", start_new_session=True,
                          env={**os.environ, "LD_LIBRARY_PATH": str(double), "GPUDOUBLE_DEVICE": str(device), "GPUDOUBLE_ORDER": order}) as process:
        said = next((line for line in process.stderr if line.startswith(FOUND) and not line.startswith("gpu double: call ")), None)
        if said is not None:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    if said is None and process.returncode == 0:
        return None
    if said is None:
        said = "hangs" if process.returncode in (124, 137) else f"status {process.returncode}"
    return f"{program}, {order}: {said.strip()[:110]}"


def run_all():
    return next(filter(None, (run(test, order) for order in ("late", "mixed") for test in TESTS)), None)


def plant(bug):
    """How it is found, or None; LookupError if it has no place."""
    path, text = planted(COPY, bug)
    healthy = path.read_text()
    path.write_text(text)
    try:
        built = make()
        if built.returncode:
            raise LookupError("it does not compile: " + built.stderr.strip()[-300:])
        return run_all()
    finally:
        path.write_text(healthy)


def plant_all(chosen):
    """How many are not found."""
    bad = 0
    for bug in chosen:
        try:
            how = plant(bug)
        except LookupError as error:
            how, bad = f"CANNOT BE PLANTED: {error}", bad + 1
        else:
            bad += how is None
        print(f"{bug[0]}: {how or 'NOT FOUND'}", flush=True)
    return bad


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--every", type=int, default=1, help="one of N bugs, for a quick look")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without taking a bug out again
    wrong = check(TOP)
    print("".join(f"planted: {line}\n" for line in wrong), end="", file=sys.stderr)
    if wrong or args.check:
        return 1 if wrong else 0
    copy_sources()
    built = make()
    healthy = built.stderr[-2000:] if built.returncode else run_all()
    if healthy:
        print("planted: without a bug the tests fail already: " + healthy, file=sys.stderr)
        return 1
    chosen = [bug for bug in BUGS if args.only in bug[0]][::args.every]
    bad = plant_all(chosen)
    print(f"planted: {len(chosen) - bad} of {len(chosen)} bugs found")
    return 1 if bad or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
