"""Kills, stops and continues processes of a real unetserve at random, under mixed load, and checks the books.

    tests/chaos/chaos.py [--minutes N] [--seed N] [--supervisor]

What must hold: every request is answered rightly and once; a connection breaks only when a gateway was killed, or was
stopped for so long that its supervisor killed it; nobody is told 500 for kills from outside; no token that is not good gets
in, and none that is good is refused for another reason than that nobody can check it now; afterwards every slot and every
place for a connection is free, and SIGTERM leaves no process, socket or file.

With --supervisor that one is killed too, now and then: alone, or in company, which means that others are killed and
stopped shortly before, at the same time and until its last child is gone. Its children must finish what was accepted
and be gone within drain_timeout_ms. The next one is started at the same address, at once or when they are gone. What is
then answered otherwise than usual: nobody replaces a worker, so a request of one that is killed in company may be told 503
at the end of the drain. It must be told; and nobody may be if only gateways and brokers were killed.

The seed decides what is sent and what is killed, not how the processes interleave: a run is like another, not the same.
"""

import argparse
import calendar
import collections
import io
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy
import requests

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "system"))

from conftest import BUILD, CHECKOUT, Server, process_alive, process_begun  # noqa: E402
from identity_provider import IdentityProvider, Key  # noqa: E402
from load import BROKEN, JOB_S, LEFT, NOBODY, Books, HttpClient, Order, Tokens, ZmqClient  # noqa: E402
from protocol_client import endpoint_of  # noqa: E402

CONFIG = """
[server]
gateways = 2
queue_memory = 64M
log_level = info
drain_timeout_ms = {drain_ms}
max_connections_per_address = {places}
oauth_issuer = {issuer}
oauth_audience = maps
[model simple]
path = {build}/models/simple.so
route = /simple
workers = 1
timeout_ms = {job_ms}
[model unet]
path = {checkout}/tests/goldens/milesial_transposed.safetensors
route = /unet
workers = 1
timeout_ms = {job_ms}
[model poison]
path = {build}/tests/models/poison.so
route = /poison
workers = 1-2
scale_wait_ms = 20
scale_down_after_ms = 200
timeout_ms = {job_ms}
"""
ROLES = {"worker": 0.36, "gateway": 0.2, "zmq-front": 0.14, "broker": 0.2, "auth": 0.1}
PLACES = 100  # connections that our address may have
LONELY_ROUNDS = 60
LONELY_FRONTS = 30
LARGE_BYTES = 4_000_000
ORPHANS_GONE_S = 45  # the drain, the five seconds of the kernel's timer, which begins when who is stopped goes on
DRAIN_S = 30  # all that was accepted is done by then, on a machine that others use too
ORPHANS_S = 12  # at most so long others are killed beside a dead supervisor
KILL_COMES_S = 1  # a supervisor that has taken a process for stopped kills it
STOP_BORNE_S = 5  # longer than the supervisor lets a process be stopped
REFUSED_AT_END = "drain time is over, what is left is refused"
EVENT = re.compile(r"^time=(\S+) .*msg=\"?(process killed|process ready)\"? program=(\S+) seat_number=(\d+) pid=(\d+)")
DECISION = re.compile(r"^time=(\S+) .*msg=\"(?:more|fewer) workers\"")


def launch(directory, address):
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(directory)}
    command = [str(BUILD / "unetserve"), "-c", str(directory / "unetserve.conf"), "--listen", address]
    with open(directory / "stderr.log", "ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment)


def start(provider):
    directory = pathlib.Path(tempfile.mkdtemp(prefix="us-chaos-", dir="/tmp"))
    (directory / "unetserve.conf").write_text(CONFIG.format(
        build=BUILD, checkout=CHECKOUT, drain_ms=DRAIN_S * 1000, job_ms=JOB_S * 1000, places=PLACES, issuer=provider.issuer))
    server = Server(launch(directory, "127.0.0.1:0"), directory)
    server.wait_ready()
    return server


def orphans_left(begun):
    """Of {pid: when it was started}. A pid may be another process's by now."""
    return [pid for pid, at in begun.items() if process_alive(pid) and process_begun(pid) == at]


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_again(server):
    """The same server with a new supervisor, at the same address."""
    server.process.stdout.close()
    server.process = launch(server.directory, f"127.0.0.1:{server.port}")
    server.pid = server.process.pid
    server.wait_ready()


# ---- what is asked -------------------------------------------------------------------------------


def npy(array):
    out = io.BytesIO()
    numpy.save(out, array)
    return out.getvalue()


def tiles(server, provider):
    """Several inputs and what the undisturbed server answers to each; the first is compared with the golden."""
    goldens = CHECKOUT / "tests" / "goldens"
    first = numpy.load(goldens / "milesial_transposed.input.npy")
    first = first[0] if first.ndim == 4 else first
    made = []
    for i in range(8):
        tile = numpy.ascontiguousarray(numpy.roll(first, 3 * i, axis=2) * (1 - i / 16)).astype(numpy.float32)
        answer = requests.post(server.url + "/unet", data=npy(tile), timeout=300,
                               headers={"Content-Type": "application/x-npy", "Accept": "application/x-npy",
                                        "Authorization": f"Bearer {provider.token()}"})
        assert answer.status_code == 200, answer.text
        made.append((tile, answer.content))
    assert len({answer for _, answer in made}) == len(made), "inputs that cannot be told apart"
    return made


def make_orders(made):
    def simple(dice, _name):
        x = dice.randrange(-1000, 1000) / 4
        text = json.dumps({"input": x}).encode()
        order = Order("simple", "/simple", "application/json", text,
                      b'{"output":%s}' % repr(x ** 2 + x ** 3).encode())
        order.zmq, order.raw = {}, text
        return order

    def unet(dice, _name):
        tile, answer = dice.choice(made)
        order = Order("unet", "/unet", "application/x-npy", npy(tile), answer, accept="application/x-npy")
        order.zmq, order.raw = {"dtype": "float32", "shape": list(tile.shape)}, tile.tobytes()
        return order

    def echo(dice, name):
        word = dice.choice(["slow", "drip"])
        text = f"{word} {dice.choice([0, 5, 20, 100])} {name} {dice.random()}".encode()
        order = Order("echo", "/poison", "application/json", text, text)
        order.zmq, order.raw = {}, text
        return order

    def large(dice, name):
        text = f"echo {name} ".encode() + dice.randbytes(20000).hex().encode()
        order = Order("large", "/poison", "application/json", text, text)
        order.zmq, order.raw = {}, text
        return order

    def hurried(dice, name):
        text = f"slow 30 {name} {dice.random()}".encode()
        return Order("hurried", "/poison", "application/json", text, text,
                     headers=[("X-Unetserve-Timeout-Ms", str(dice.choice([20, 60, 200])))])

    def lasting(dice, name):
        text = f"slow {dice.choice([2500, 3500])} {name} {dice.random()}".encode()
        return Order("lasting", "/poison", "application/json", text, text)

    return [simple, simple, unet, unet, echo, echo, large], [hurried], [lasting]


# ---- what is done to the processes -----------------------------------------------------------------


class Faults:
    def __init__(self, server, books, seed, with_supervisor):
        self.server, self.books, self.with_supervisor = server, books, with_supervisor
        self.drains_s = []
        self.random = random.Random(f"{seed}/faults")
        self.kills = []  # (wall time, role, pid) of those that a supervisor replaces
        self.blind = []  # [from, until] in wall time: the supervisor was stopped
        self.counts = collections.Counter()
        self.threads = []

    def pick(self):
        role = self.random.choices(list(ROLES), list(ROLES.values()))[0]
        found = [pid for pid, words in self.server.children().items() if self.role_of(words) == role]
        return role, self.random.choice(sorted(found)) if found else None

    @staticmethod
    def role_of(words):
        name = words[0].rpartition("unetserve-")[2] if words else ""
        return "zmq-front" if name == "gateway" and "zmq" in words else name

    def kill(self, role, pid, replaced=True):
        death = self.books.note_death(role)
        try:
            os.kill(pid, signal.SIGKILL)
            if replaced:
                self.kills.append((time.time(), role, pid))
            self.counts[f"{role} killed" + ("" if replaced else " as an orphan")] += 1
            self.books.pulse.wait_until(lambda: not process_alive(pid), 20, "the end of a killed process")
        except ProcessLookupError:
            pass
        self.books.death_over(death)

    def stop(self, role, pid, seconds):
        """For as long as the supervisor bears it, or until it kills the process: then that is a death too."""
        death = self.books.note_death(role) if seconds > STOP_BORNE_S else None
        stop = self.books.note_stop(role)
        killed = False
        try:
            os.kill(pid, signal.SIGSTOP)
            self.counts[f"{role} stopped" + (" for good" if death else "")] += 1
            end = self.books.now() + seconds
            while self.books.now() < end and process_alive(pid):
                time.sleep(0.01)
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            killed = True
        if death:
            self.books.death_over(death)
        else:
            killed = killed or self.killed_for_it(pid)
            self.counts[f"{role} stopped, and killed meanwhile"] += killed
        self.books.stop_over(stop, killed)

    def killed_for_it(self, pid):
        """On a machine with too much to do a process may have been silent before, this thread may sleep for too long, and
        the next stop may come before the process has had a turn. The supervisor's kill is under way then."""
        end = self.books.now() + KILL_COMES_S
        while self.books.now() < end and process_alive(pid):
            time.sleep(0.02)
        return not process_alive(pid)

    def stop_supervisor(self):
        """Who dies meanwhile is missed later; nothing else may change."""
        blind = [time.time(), float("inf")]
        self.blind.append(blind)
        self.stop("supervisor", self.server.pid, self.random.uniform(0.005, 1.5))
        blind[1] = time.time()

    def kill_orphans(self, roles, seconds):
        """Kills and stops of what the supervisor has left behind, until the last of it is gone."""
        end = self.books.now() + seconds
        threads = []
        while self.books.now() < end and (left := [pid for pid in roles if process_alive(pid)]):
            pid = self.random.choice(sorted(left))
            dice = self.random.random()
            if dice < 0.3:
                threads.append(threading.Thread(target=self.kill, args=(roles[pid], pid, False)))
                threads[-1].start()
            elif dice < 0.5:
                threads.append(threading.Thread(target=self.stop,
                                                args=(roles[pid], pid, self.random.uniform(0.005, 1.5))))
                threads[-1].start()
            time.sleep(min(self.random.expovariate(1.5), 2))
        if self.random.random() < 0.7:  # nobody waits for anything any more: the others leave at once
            for pid, role in roles.items():
                if role in ("gateway", "zmq-front") and process_alive(pid):
                    threads.append(threading.Thread(target=self.kill, args=(role, pid, False)))
                    threads[-1].start()
        for thread in threads:
            thread.join()

    def end_supervisor(self):
        """Alone: everybody else is well, and stays so until the last orphan is gone."""
        for thread in self.threads:
            thread.join()
        self.books.pulse.wait_until(lambda: settled_processes(self.server), 30, "every process ready before the supervisor's end")
        self.outlive(None, self.random.random() < 0.5)

    def end_in_company(self):
        roles = {pid: self.role_of(words) for pid, words in self.server.children().items()}
        for _ in range(self.random.randrange(3)):
            pid = self.random.choice(sorted(roles))
            self.threads.append(threading.Thread(target=self.kill, args=(roles[pid], pid, False)))
            self.threads[-1].start()
            time.sleep(self.random.choice([0, 0, self.random.uniform(0, 0.2)]))
        self.outlive(roles, self.random.random() < 0.5)

    def outlive(self, roles, at_once):
        """Kill the supervisor, with company if there are roles; start the next one, at once or when all are gone."""
        old, told = {pid: process_begun(pid) for pid in self.server.children()}, self.server.log_text().count(REFUSED_AT_END)
        before = self.counts.copy()
        end = self.books.note_end(alone=not roles)
        self.server.process.kill()
        self.server.process.wait()
        self.kills.append((time.time(), "supervisor", self.server.pid))
        self.counts["supervisor killed" + (" in company" if roles else "")] += 1
        begun = self.books.now()
        company = threading.Thread(target=self.kill_orphans, args=(roles or {}, self.random.uniform(0, ORPHANS_S)))
        company.start()
        if at_once:
            self.books.pulse.wait_until(lambda: not listens(self.server.port), DRAIN_S, "the address to be free")
            start_again(self.server)
            self.books.end_over(end)
        while orphans_left(old) and self.books.now() < begun + ORPHANS_GONE_S:
            time.sleep(0.02)
        company.join()
        self.drains_s.append(self.books.now() - begun)
        if left := orphans_left(old):
            self.books.violate(f"{ORPHANS_GONE_S} s after the supervisor's death there still is {left}")
        refused = self.server.log_text().count(REFUSED_AT_END) > told
        if refused and not self.books.is_hurt(end) and not self.books.still_since(end.at):
            self.books.violate(f"a gateway refused what it had accepted, and no worker had died: {self.counts - before}")
        if not at_once:
            start_again(self.server)
            self.books.end_over(end)
        self.books.end_gone(end)

    def strike(self):
        dice = self.random.random()
        if self.with_supervisor and dice < 0.08:
            if dice < 0.02:
                self.end_supervisor()
            else:
                self.end_in_company()
            return
        role, pid = self.pick()
        if dice < 0.96 and pid is None:
            return
        if dice >= 0.96:
            thread = threading.Thread(target=self.stop_supervisor)
        elif (dice := self.random.random()) < 0.6:
            thread = threading.Thread(target=self.kill, args=(role, pid))
        else:
            seconds = 2 * STOP_BORNE_S if dice > 0.95 else self.random.uniform(0.005, 1.5)
            thread = threading.Thread(target=self.stop, args=(role, pid, seconds))
        thread.start()
        self.threads.append(thread)

    def run(self, seconds):
        end = self.books.now() + seconds
        while self.books.now() < end and not self.books.stop.is_set():
            for _ in range(1 if self.random.random() < 0.85 else self.random.randrange(2, 5)):
                self.strike()
            time.sleep(min(self.random.expovariate(2.5), 3))
        for thread in self.threads:
            thread.join()


def lonely_rounds(server, books, faults, order_maker, seed, tokens):
    """One request and one kill at a time. Under load the next request's messages make good what a death has lost;
    here nothing does."""
    dice = random.Random(f"{seed}/lonely")
    client = HttpClient(books, server.port, [], seed, "lonely", tokens)
    took_ms = []
    for i in range(LONELY_ROUNDS):
        role = dice.choice(["broker", "worker"])
        pids = [pid for pid, words in server.children().items() if faults.role_of(words) == role]
        if books.violations or not pids:
            continue
        killer = threading.Timer(dice.uniform(0, 0.01), faults.kill, (role, dice.choice(pids)))
        killer.start()
        begun = books.now()
        client.request(order_maker(dice, f"lonely-{i}"), f"lonely-{i}", calm=True)
        took_ms.append((books.now() - begun) * 1000)
        killer.join()
    client.drop()
    lonely_fronts(server, books, faults, seed, tokens)
    if took_ms:
        print(f"lonely requests, each with a kill: answered within median {statistics.median(took_ms):.0f} ms, "
              f"worst {max(took_ms):.0f} ms")


def lonely_fronts(server, books, faults, seed, tokens):
    """All gateways are killed at any moment of a request that has much to copy, so that they also die between two moves
    of its slot that are usually close together. Its slot must be free in the end, whatever its state was."""
    dice = random.Random(f"{seed}/fronts")
    client = HttpClient(books, server.port, [], seed, "front", tokens)
    seconds = 0.05
    for i in range(LONELY_FRONTS):
        pids = [pid for pid, words in server.children().items() if faults.role_of(words) == "gateway"]
        if books.violations:
            break
        killers = [threading.Timer(dice.uniform(0, 1.5) * seconds, faults.kill, ("gateway", pid)) for pid in pids]
        text = f"echo {i} ".encode() + b"x" * LARGE_BYTES
        begun = books.now()
        if i % 4:  # the others tell how long it takes
            for killer in killers:
                killer.start()
        client.request(Order("huge", "/poison", "application/json", text, text), f"front-{i}", calm=True)
        client.drop()
        if i % 4:
            for killer in killers:
                killer.join()
        else:
            seconds = books.now() - begun
        books.pulse.wait_until(lambda: settled_processes(server), 30, "new gateways")


# ---- what came of it -------------------------------------------------------------------------------


def seconds_of(stamp):
    whole, fraction = stamp.rstrip("Z").split(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float("0." + fraction)


def recoveries(server, faults):
    """{role: [milliseconds from the kill to the successor's being ready]}, from the log's own clock. Where the
    autoscaler has decided something in between, the seat may have been down because it was not wanted; where the
    supervisor was stopped or killed in between, or the machine stood still, it could do nothing."""
    away = faults.blind + faults.books.pulse.gaps_in_wall_time() + [(at, at) for at, role, _ in faults.kills if role == "supervisor"]
    events, decisions = [], []
    for line in server.log_text().splitlines():
        match = EVENT.match(line)
        if match:
            events.append((seconds_of(match[1]), match[2], match[3], int(match[4]), int(match[5])))
        elif match := DECISION.match(line):
            decisions.append(seconds_of(match[1]))
    took = collections.defaultdict(list)
    for at, role, pid in faults.kills:
        own = [event for event in events if event[4] == pid]  # and of others that have had that pid
        seat = min(own, key=lambda event: abs(event[0] - at))[3] if own else None
        ready = [event[0] for event in events
                 if event[1] == "process ready" and event[3] == seat and event[0] > at and event[4] != pid]
        if not ready or any(begun < min(ready) and over > at - 0.2 for begun, over in away):
            continue
        if role != "worker" or not any(at < decision < min(ready) for decision in decisions):
            took[role].append((min(ready) - at) * 1000)
    return took


def fd_count(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def status_of(server):
    done = subprocess.run([str(BUILD / "unetctl"), "status", "--endpoint", endpoint_of(server), "--json"],
                          capture_output=True, text=True, timeout=300, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return None


def settled_processes(server):
    status = status_of(server)
    return status and status["ready"] and all(process["ready"] for process in status["processes"])


def settled(server):
    status = status_of(server)
    return status and status["ready"] and status["slots"]["FREE"] == status["slots"]["total"]


def places_free(server):
    """Are there as many places for connections as at the beginning, and no more?"""
    lines, statuses = [], []
    try:
        for _ in range(PLACES + 1):
            lines.append(socket.create_connection(("127.0.0.1", server.port), 300))
            lines[-1].sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            statuses.append(lines[-1].recv(65536).split(b" ", 2)[1])
    finally:
        for line in lines:
            line.close()
    return statuses == [b"200"] * PLACES + [b"429"]


def check_end(server, books, fds_before):
    """Everybody is back, every slot and every place is free; SIGTERM ends it with nothing left."""
    try:
        wait_until = books.pulse.wait_until
        wait_until(lambda: settled(server), 30, "all slots free and all workers ready")
        wait_until(lambda: places_free(server), 30, "all places for connections free")
        wait_until(lambda: fd_count(server.pid) == fds_before, 10,
                   f"the supervisor's {fds_before} descriptors (it has {fd_count(server.pid)})")
        server.stop()
    except (AssertionError, subprocess.TimeoutExpired) as error:
        books.violate(f"at the end: {str(error)[-1500:]}")


def report(seed, seconds, books, faults, took, decisions):
    print(f"seed {seed}, {seconds:.0f} s of load and faults")
    total = collections.Counter()
    for kind in sorted(books.counts):
        print(f"  {kind:14}", ", ".join(f"{count} {how}" for how, count in sorted(books.counts[kind].items())))
        total.update(books.counts[kind])
    answered = sum(count for how, count in total.items() if how.startswith("answered"))
    print(f"  sent {sum(total.values())} = answered {answered} + aborted {total['aborted']} + "
          f"broken by a gateway's death {total[BROKEN]} + by its end {total[LEFT]} + not connected {total[NOBODY]}")
    if faults.drains_s:
        print(f"  gone after the supervisor's death: median {statistics.median(faults.drains_s):.1f} s, worst "
              f"{max(faults.drains_s):.1f} s, of {len(faults.drains_s)}")
    if gaps := books.pulse.gaps_in_wall_time():
        print(f"  the machine stood still {len(gaps)} times, for {sum(end - begun for begun, end in gaps):.0f} s")
    print(f"  the autoscaler decided {decisions} times")
    print("  faults:", ", ".join(f"{count} x {what}" for what, count in sorted(faults.counts.items())))
    for role, times in sorted(took.items()):
        print(f"  {role} back after: median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms, "
              f"of {len(times)}")
    for violation in books.violations[:20]:
        print("  VIOLATION", violation)


def http_clients(books, server, provider, seed, groups):
    """Of each group (what they ask, their name, how many)."""
    stranger = Key(provider.key.name)
    return [HttpClient(books, server.port, orders, seed, f"{name}{i}", Tokens(provider, stranger, f"{name}{i}"))
            for orders, name, count in groups for i in range(count)]


def chaos(server, provider, seed, seconds, with_supervisor):
    made = tiles(server, provider)
    usual, hurried, lasting = make_orders(made)
    fds_before = fd_count(server.pid)
    books = Books()
    faults = Faults(server, books, seed, with_supervisor)
    clients = http_clients(books, server, provider, seed, [(usual, "http", 7), (hurried, "hurried", 1)])
    if with_supervisor:
        clients += http_clients(books, server, provider, seed, [(lasting, "lasting", 2)])
    clients += [ZmqClient(books, endpoint_of(server), usual, seed, f"zmq{i}") for i in range(2)]
    threads = [threading.Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    faults.run(seconds)
    books.stop.set()
    for thread in threads:
        thread.join()
    lonely_rounds(server, books, faults, usual[4], seed, Tokens(provider, Key(provider.key.name), "lonely"))
    fault_seconds = books.now() - books.started
    took = recoveries(server, faults)
    check_end(server, books, fds_before)
    decisions = sum(1 for line in server.log_text().splitlines() if DECISION.match(line))
    report(seed, fault_seconds, books, faults, took, decisions)
    return not books.violations


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--supervisor", action="store_true", help="kill the supervisor too")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"chaos: seed {seed}, {options.minutes} minutes; again with SEED={seed}", flush=True)
    good = False
    with IdentityProvider() as provider:
        server = start(provider)
        try:
            good = chaos(server, provider, seed, options.minutes * 60, options.supervisor)
        finally:
            if not good:
                print(server.log_text()[-30000:])
            server.kill_leftovers()
            shutil.rmtree(server.directory, ignore_errors=True)
    print("chaos: nothing was lost" if good else "chaos: FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
