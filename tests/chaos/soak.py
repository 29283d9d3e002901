"""Mixed load and no faults, for a long time: nothing grows.

    tests/chaos/soak.py [--minutes N] [--seed N]

After a warm-up of a tenth of the time (at least 20 s), and again at the end, the load stops, all slots become free and
every process is looked at: its resident memory and its descriptors. What is private to a process may grow by GROWTH_MIB
and GROWTH_SHARE, its descriptors by GROWTH_FDS; nobody may have ended unless the autoscaler had told him to. Shared memory is only printed: slots and
weights are touched as they are used.
"""

import argparse
import random
import re
import shutil
import sys
import threading
import time

import requests

import chaos
from load import Books, ZmqClient
from identity_provider import IdentityProvider
from protocol_client import endpoint_of

GROWTH_MIB, GROWTH_SHARE = 4, 0.1
GROWTH_FDS = 2  # a connection that lingers for a moment


def memory_kib(pid):
    """(private, shared) of what is resident."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        found = dict(re.findall(r"^(Rss\w+):\s+(\d+) kB$", file.read(), re.MULTILINE))
    return int(found["RssAnon"]), int(found["RssFile"]) + int(found["RssShmem"])


def look(server):
    """{pid: (what it is, private KiB, shared KiB, descriptors)}"""
    processes = {server.pid: "supervisor"}
    for pid, words in server.children().items():
        model = f" {words[words.index('--model') + 1]}" if "--model" in words else ""
        processes[pid] = chaos.Faults.role_of(words) + model
    return {pid: (name, *memory_kib(pid), chaos.fd_count(pid)) for pid, name in processes.items()}


def load(server, provider, orders, seed, seconds):
    books = Books()
    usual, hurried, _ = orders
    clients = chaos.http_clients(books, server, provider, seed, [(usual, "http", 6), (hurried, "hurried", 1)])
    clients += [ZmqClient(books, endpoint_of(server), usual, seed, f"zmq{i}") for i in range(2)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    books.stop.wait(seconds)
    books.stop.set()
    for thread in threads:
        thread.join()
    books.pulse.wait_until(lambda: chaos.settled(server), 30, "all slots free")
    return books


def deaths(server, provider):
    """How many have ended although nobody asked them to."""
    page = requests.get(server.url + "/metrics", timeout=60, headers={"Authorization": f"Bearer {provider.token()}"}).text
    return sum(map(int, re.findall(r"^unetserve_process_restarts_total\{.*\} (\d+)$", page, re.MULTILINE)))


def compare(before, after, books):
    print(f"{'process':16} {'private MiB':>20} {'shared MiB':>20} {'descriptors':>14}")
    for pid in before.keys() & after.keys():
        name, private, shared, fds = before[pid]
        _, private_after, shared_after, fds_after = after[pid]
        print(f"{name:16} {private / 1024:8.1f} -> {private_after / 1024:8.1f} {shared / 1024:8.1f} -> "
              f"{shared_after / 1024:8.1f} {fds:5} -> {fds_after:5}")
        if private_after > private * (1 + GROWTH_SHARE) + GROWTH_MIB * 1024:
            books.violate(f"{name}: {private} KiB became {private_after} KiB")
        if fds_after > fds + GROWTH_FDS:
            books.violate(f"{name}: {fds} descriptors became {fds_after}")


def soak(server, provider, seed, seconds):
    orders = chaos.make_orders(chaos.tiles(server, provider))
    load(server, provider, orders, f"{seed}/warm", max(20, seconds / 10))
    before, begun = look(server), time.monotonic()
    books = load(server, provider, orders, seed, seconds)
    after = look(server)
    if died := deaths(server, provider):
        books.violate(f"{died} processes have died, and nobody had killed them")
    answered = sum(count for kind in books.counts.values() for how, count in kind.items() if how.startswith("answered"))
    print(f"{time.monotonic() - begun:.0f} s of load, {answered} requests answered")
    compare(before, after, books)
    server.stop()
    for violation in books.violations[:20]:
        print("  VIOLATION", violation)
    return not books.violations


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"soak: seed {seed}, {options.minutes} minutes", flush=True)
    good = False
    with IdentityProvider() as provider:
        server = chaos.start(provider)
        try:
            good = soak(server, provider, seed, options.minutes * 60)
        finally:
            if not good:
                print(server.log_text()[-6000:])
            server.kill_leftovers()
            shutil.rmtree(server.directory, ignore_errors=True)
    print("soak: nothing grew" if good else "soak: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
