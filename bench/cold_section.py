"""Cold start and memory of the 31M network: the first worker packs the weights, the next ones map what it left."""
import pathlib
import re
import sys
import tempfile

from plan import told
from servers import Unetserve

SET_UP = re.compile(r'msg="model set up".* seconds=(\S+)')


def start(model, cache):
    """Seconds: until unetserve is ready, and of these in the worker's own set-up."""
    server = Unetserve(model, cache=cache)
    try:
        return {"ready_s": server.ready_s, "setup_s": float(SET_UP.search(server.log())[1]), "memory_mib": server.memory_mib()}
    finally:
        server.stop()


def measure(plan, model):
    result = {"first": [], "next": [], "workers": []}
    for _ in range(plan.colds):
        with tempfile.TemporaryDirectory(prefix="unetserve-bench-", dir="/tmp") as cache:
            result["first"].append(start(model, cache))
            result["next"].append(start(model, cache))
            if not any(pathlib.Path(cache).glob("packed-*")):
                raise RuntimeError("no packed weights were left: 'next' would be another first")
    return result


def show(result, out=sys.stdout):
    print("\ncold start, 31M parameters", file=out)
    for kind in ("first", "next"):
        print(f"  {kind:6} ready {told([entry['ready_s'] * 1e3 for entry in result[kind]], digits=0)}, "
              f"of these the worker's set-up {told([entry['setup_s'] * 1e3 for entry in result[kind]], digits=0)}", file=out)
    memory = result["next"][-1]["memory_mib"]
    for role, mib in memory.items():
        print(f"  memory, {role:10} its own {mib['uss']:6.1f} MiB, resident {mib['rss']:6.1f} MiB", file=out)
