"""The clients of the chaos run: each sends requests one after the other and tells the books how each one ended.

Each request has a token. Most are good; the others must never get in. A good one is new for every few requests, so that
it has to be checked, and not only looked up."""

import random
import socket
import threading
import time

import msgpack
import zmq

ANSWER_WAIT_S = 60
JOB_S = 40  # timeout_ms of all models
BEAT_S = 0.1
GAP_S = 1  # so much of the time between two beats counts
BROKEN = "broken by a gateway's death"
LEFT = "left by a gateway's end"
NOBODY = "not connected, nobody was there"
SURELY_ACCEPTED_S = 2.5  # longer than a gateway is stopped without being killed
REPLACED_S = 5  # after a worker's death what it ran is another's, if there is a supervisor
AT_THE_END = b"The server ends"
STOP_OVER_S = 2  # so long after a stop its process may still turn out to have been killed for it
EXPLAINED_S = 30  # so long a broken connection waits for the end of a stop
TOKEN_LASTS = 8  # requests
PAUSE_S = 0.3  # now and then between two requests on a connection: its gateway may die then


class Pulse:
    """A clock that stands still when the machine does: where it is frozen, or has too much to do, nobody gets on, and
    nothing follows from the time that passes. A thread beats; the rest of a gap that is too long does not count."""

    def __init__(self):
        self.lock = threading.Lock()
        self.awake, self.last = 0.0, time.monotonic()
        self.gaps = []  # (when it ended by this clock, how long it was, the wall time of its end)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            time.sleep(BEAT_S)
            self.now()

    def now(self):
        with self.lock:
            at = time.monotonic()
            gap, self.last = at - self.last, at
            self.awake += min(gap, GAP_S)
            if gap > GAP_S:
                self.gaps.append((self.awake, gap - GAP_S, time.time()))
            return self.awake

    def still_since(self, begun):
        """For how many seconds everything stood still after that time, which was this clock's."""
        self.now()
        with self.lock:
            return sum(length for end, length, _ in self.gaps if end > begun)

    def gaps_in_wall_time(self):
        with self.lock:
            return [(end - length, end) for _, length, end in self.gaps]

    def wait_until(self, condition, seconds, what):
        end = self.now() + seconds
        while not condition():
            assert self.now() < end, f"{what} did not come about within {seconds} s"
            time.sleep(0.02)


class End:
    """A supervisor's: when it was killed, when the next one was ready, when the last of its children was gone."""

    def __init__(self, at, alone):
        self.at, self.over, self.gone, self.alone = at, float("inf"), float("inf"), alone


class Books:
    """How every request ended. A violation is something that must never happen. Times are the pulse's."""

    def __init__(self):
        self.pulse = Pulse()
        self.now, self.still_since = self.pulse.now, self.pulse.still_since
        self.lock = threading.Lock()
        self.counts = {}
        self.violations = []
        self.ends = []
        self.deaths = []  # [role, until when one of them was dying]
        self.stops = []  # [role, until when one of them was stopped]
        self.started = self.now()
        self.stop = threading.Event()
        threading.excepthook = self.thread_ended

    def thread_ended(self, why):
        self.violate(f"{why.thread.name} ended: {why.exc_type.__name__}: {why.exc_value}")
        threading.__excepthook__(why)

    def count(self, kind, how):
        with self.lock:
            self.counts.setdefault(kind, {}).setdefault(how, 0)
            self.counts[kind][how] += 1

    def violate(self, text):
        with self.lock:
            self.violations.append(f"after {self.now() - self.started:.1f} s: {text}")
        self.stop.set()

    def note_death(self, front):
        """To be called before the signal is sent; what it returns is for death_over."""
        death = [front, float("inf")]
        with self.lock:
            self.deaths.append(death)
        return death

    def death_over(self, death):
        """It is gone for certain: what begins from now on, a little later, cannot have met it."""
        with self.lock:
            death[1] = self.now() + 0.1

    def died_since(self, front, since):
        with self.lock:
            return any(until >= since and name == front for name, until in self.deaths)

    def note_stop(self, role):
        stop = [role, float("inf")]
        with self.lock:
            self.stops.append(stop)
        return stop

    def stop_over(self, stop, killed):
        """killed: the supervisor had seen nothing of it for too long, which was for our stopping it."""
        if killed:
            self.death_over(self.note_death(stop[0]))
        with self.lock:
            stop[1] = self.now()

    def break_explained(self, front, since):
        """Did one of them die after that, by our kill or for our stop? Of a stop that is known a little later."""
        end = self.now() + EXPLAINED_S
        while not (died := self.died_since(front, since)) and self.now() < end:
            with self.lock:
                late = max(since, self.now() - STOP_OVER_S)
                if not any(until >= late and name == front for name, until in self.stops):
                    break
            time.sleep(0.05)
        return died

    def note_end(self, alone):
        """The supervisor is about to be killed: its gateways finish what they have accepted, and leave."""
        with self.lock:
            self.ends.append(End(self.now(), alone))
            return self.ends[-1]

    def end_over(self, end):
        with self.lock:
            end.over = self.now() + 0.1

    def end_gone(self, end):
        with self.lock:
            end.gone = self.now() + 0.1

    def nobody_since(self, begun):
        with self.lock:
            return any(end.over >= begun for end in self.ends)

    def ended_since(self, begun, sent=float("inf")):
        """Was there an end after `begun`, and was what had been `sent` not long accepted by then?"""
        with self.lock:
            return any(end.gone >= begun and sent > end.at - SURELY_ACCEPTED_S for end in self.ends)

    def hurt_since(self, begun):
        """Was there an end in company, of which workers died that nobody replaced?"""
        with self.lock:
            return any(end.gone >= begun and self.is_hurt(end) for end in self.ends)

    def may_say(self, begun, body):
        """That sentence, in a 503? A drain's time goes on while nothing else does."""
        return b"lost its slot" not in body and (AT_THE_END not in body or self.hurt_since(begun) or
                                                 (self.ended_since(begun) and self.still_since(begun) > 0))

    def may_be_late(self, begun):
        """Had a request its time, though nobody got on with it for a part of that?"""
        took, still = self.now() - begun, self.still_since(begun)
        return still > 0 and took + still >= JOB_S

    def is_hurt(self, end):
        return not end.alone and any(role == "worker" and until >= end.at - REPLACED_S for role, until in self.deaths)


class Broken(Exception):
    """The connection ended before the answer was whole."""


class Strange(Exception):
    """A head that does not say how long its body is."""

    def __init__(self, head):
        super().__init__(head)
        self.head = head


class Order:
    """One request: what is sent, what must come back."""

    def __init__(self, kind, path, content_type, body, expected, headers=(), accept="application/json"):
        self.kind, self.path, self.body, self.expected = kind, path, body, expected
        self.fields = [("Content-Type", content_type), ("Accept", accept), *headers]

    def head(self, request_id, token, close):
        lines = [f"POST {self.path} HTTP/1.1", "Host: x", f"Content-Length: {len(self.body)}",
                 f"Authorization: Bearer {token}", f"X-Request-Id: {request_id}",
                 *(f"{name}: {value}" for name, value in self.fields)]
        if close:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Tokens:
    """Of a client: good ones, and such as must not get in, by the provider's keys."""

    def __init__(self, provider, stranger, name):
        self.provider, self.stranger, self.name = provider, stranger, name
        self.made = 0
        self.good = None

    def take(self, dice):
        """(is it good, token)"""
        if dice.random() < 0.06:
            return False, self.bad(dice)
        if not self.good or dice.randrange(TOKEN_LASTS) == 0:
            self.good = self.provider.token(jti=self.next())
        return True, self.good

    def next(self):
        self.made += 1
        return f"{self.name}-{self.made}"

    def bad(self, dice):
        changes = dice.choice([{"aud": "other"}, {"exp": 1000}, {"iss": "https://id.example.org"}, {"key": self.stranger}])
        return self.provider.token(jti=self.next(), **changes)


class Connection:
    def __init__(self, port, clock):
        self.clock = clock
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_WAIT_S * 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(1)
        self.rest = b""
        self.used = clock()  # whoever has it lived after that

    def _patiently(self, act, *args):
        """Its result, or TimeoutError; Broken when the connection is."""
        end = self.clock() + ANSWER_WAIT_S
        while True:
            try:
                return act(*args)
            except TimeoutError:
                if self.clock() > end:
                    raise
            except OSError as error:
                raise Broken from error

    def send(self, data):
        while data:
            data = data[self._patiently(self.socket.send, data):]

    def _more(self):
        part = self._patiently(self.socket.recv, 1 << 16)
        if not part:
            raise Broken
        self.rest += part

    def receive(self):
        """(status, {name: value}, body)"""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, self.rest = self.rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if "content-length" not in fields:
            raise Strange(head)
        size = int(fields["content-length"])
        while len(self.rest) < size:
            self._more()
        body, self.rest = self.rest[:size], self.rest[size:]
        return int(first.split()[1]), fields, body

    def close(self):
        self.socket.close()


class HttpClient:
    """Keeps its connection for a while, closes it, leaves in the middle, sends slowly: as its dice fall."""

    def __init__(self, books, port, orders, seed, name, tokens):
        self.books, self.port, self.orders, self.name, self.tokens = books, port, orders, name, tokens
        self.random = random.Random(f"{seed}/{name}")
        self.connection = None
        self.number = 0

    def run(self):
        while not self.books.stop.is_set():
            order = self.random.choice(self.orders)(self.random, f"{self.name}-{self.number}")
            self.number += 1
            self.request(order, f"{self.name}-{self.number}")
            if self.random.random() < 0.03:
                time.sleep(PAUSE_S)
        self.drop()

    def drop(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, order, request_id, calm=False):
        dice = 1 if calm else self.random.random()
        abort, slow, close = dice < 0.06, 0.06 <= dice < 0.12, self.random.random() < 0.1
        good, token = self.tokens.take(self.random)
        kind = ("abort " if abort else "slow " if slow else "") + (order.kind if good else "forged")
        # What a connection that is kept has met may have died since the request before.
        begun = self.books.now()
        since = self.connection.used if self.connection else begun
        self.sent = float("inf")
        try:
            if not self.connection:
                self.connection = Connection(self.port, self.books.now)
            self.connection.used = begun
            self.send(order, order.head(request_id, token, close), abort, slow)
            if abort:
                self.books.count(kind, "aborted")
                self.drop()
                return
            self.sent = self.books.now()
            status, fields, body = self.connection.receive()
            if good:
                self.judge(order, kind, request_id, begun, status, fields, body)
            else:
                self.judge_forged(kind, request_id, begun, status, fields, body)
            if close or self.connection.rest:
                self.drop()
        except Broken:
            self.drop()
            if self.books.break_explained("gateway", since):
                self.books.count(kind, BROKEN)
                return
            # One that was kept may have been idle for too long by the clock on the wall.
            if not self.books.ended_since(since, self.sent) and not (since < begun and self.books.still_since(since) > 0):
                self.books.violate(f"{kind} {request_id}: the connection broke, and no gateway had died")
            self.books.count(kind, LEFT)
        except Strange as error:
            self.drop()
            # The address may have been another program's for a while.
            if not self.books.nobody_since(begun) or b"Server: unetserve" in error.head or error.head.startswith(b"HTTP/1.1 1"):
                self.books.violate(f"{kind} {request_id}: no whole answer: {error.head}")
            self.books.count(kind, NOBODY)
        except (ConnectionRefusedError, ConnectionResetError):
            if self.books.nobody_since(begun):
                self.books.count(kind, NOBODY)
                time.sleep(0.1)
                return
            self.books.violate(f"{kind} {request_id}: connection refused, although the supervisor listens")
        except TimeoutError:
            self.drop()
            self.books.violate(f"{kind} {request_id}: no answer within {ANSWER_WAIT_S} s")

    def send(self, order, head, abort, slow):
        if abort and self.random.random() < 0.5:
            self.connection.send(head + order.body[:self.random.randrange(len(order.body))])
            time.sleep(self.random.uniform(0, 0.1))
        elif slow:
            self.connection.send(head)
            for i in range(4):
                time.sleep(self.random.uniform(0.05, 0.3))
                self.connection.send(order.body[len(order.body) * i // 4:len(order.body) * (i + 1) // 4])
        else:
            self.connection.send(head + order.body)
        if abort:
            time.sleep(self.random.uniform(0, 0.1))

    def judge(self, order, kind, request_id, begun, status, fields, body):
        took_ms = (self.books.now() - begun + self.books.still_since(begun)) * 1000
        limit_ms = int(dict(order.fields).get("X-Unetserve-Timeout-Ms", 0))
        self.books.count(kind, f"answered {status}")
        if self.connection.rest:
            self.books.violate(f"{kind} {request_id}: more than one answer: {self.connection.rest[:200]!r}")
        if fields.get("x-request-id") != request_id:
            self.books.violate(f"{kind} {request_id}: the answer of {fields.get('x-request-id')}")
        if status == 200 and body != order.expected:
            self.books.violate(f"{kind} {request_id}: a wrong answer of {len(body)} bytes: {body[:80]!r}, "
                               f"expected {order.expected[:80]!r}")
        elif status == 503 and ("retry-after" not in fields or not self.books.may_say(begun, body)):
            self.books.violate(f"{kind} {request_id}: 503 {body!r}")
        elif status == 504 and not (limit_ms and took_ms >= limit_ms) and not self.books.may_be_late(begun):
            self.books.violate(f"{kind} {request_id}: 504 after {took_ms:.0f} ms")
        elif status == 408 and self.books.still_since(begun) > 0:
            pass  # its body was too slow then
        elif status not in (200, 503, 504):
            self.books.violate(f"{kind} {request_id}: {status} {body[:200]!r}")

    def judge_forged(self, kind, request_id, begun, status, fields, body):
        """503: whoever checks tokens is not there now."""
        self.books.count(kind, f"answered {status}")
        slow = status == 408 and self.books.still_since(begun) > 0
        if (status not in (401, 503) and not slow) or (status == 503 and "retry-after" not in fields):
            self.books.violate(f"{kind} {request_id}: {status} {body[:200]!r}")


class ZmqClient:
    """Several requests under way at once over one DEALER; an answer to each comes once."""

    def __init__(self, books, endpoint, orders, seed, name):
        self.books, self.endpoint, self.orders, self.name = books, endpoint, orders, name
        self.random = random.Random(f"{seed}/{name}")
        self.context = zmq.Context()
        self.under_way, self.given_up, self.answered = {}, {}, set()
        self.number = 0

    def run(self):
        dealer = self.context.socket(zmq.DEALER)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RECONNECT_IVL, 20)
        dealer.connect(self.endpoint)
        end = None
        while self.under_way or not self.books.stop.is_set():
            if self.books.stop.is_set() and end is None:
                end = self.books.now() + ANSWER_WAIT_S
            while not self.books.stop.is_set() and len(self.under_way) < 4:
                self.send(dealer)
            if dealer.poll(50):
                self.receive(dealer)
            self.expire()
            if end and (self.books.violations or self.books.now() > end):
                break
        dealer.close()
        self.context.term()

    def send(self, dealer):
        order = self.random.choice(self.orders)(self.random, f"{self.name}-{self.number}")
        request_id = f"{self.name}-{self.number}"
        self.number += 1
        head = {"v": 1, "op": "predict", "id": request_id, "model": order.path.strip("/"), "accept": "npy", **dict(order.zmq)}
        self.under_way[request_id] = (self.books.now(), order)
        dealer.send_multipart([msgpack.packb(head), order.raw])

    def receive(self, dealer):
        head, *body = dealer.recv_multipart()
        reply = msgpack.unpackb(head)
        begun, order = self.under_way.pop(reply["id"], None) or self.given_up.pop(reply["id"], (None, None))
        if begun is None:
            self.books.violate(f"zmq {reply['id']}: answered " +
                               ("twice" if reply["id"] in self.answered else "although nobody had asked"))
            return
        self.answered.add(reply["id"])
        self.books.count("zmq " + order.kind, f"answered {reply['status']}")
        if reply["status"] == 200 and (not body or body[0] != order.expected):
            self.books.violate(f"zmq {order.kind} {reply['id']}: a wrong answer: {body and body[0][:80]!r}")
        elif reply["status"] == 503:
            time.sleep(0.02)
        late = reply["status"] == 504 and self.books.may_be_late(begun)
        if (reply["status"] not in (200, 503) and not late) or not self.books.may_say(begun, b"".join(body)):
            self.books.violate(f"zmq {order.kind} {reply['id']}: {reply['status']} {body!r}")

    def expire(self):
        """What a front had when it died is never answered; nothing but time tells what that was. It tells no more
        than that: an answer that comes after all is counted too, once."""
        now = self.books.now()
        for request_id, (begun, order) in list(self.under_way.items()):
            died, ended = self.books.died_since("zmq-front", begun), self.books.ended_since(begun, begun)
            if now - begun > ANSWER_WAIT_S and not died and not ended:
                self.books.violate(f"zmq {order.kind} {request_id}: no answer within {ANSWER_WAIT_S} s")
            elif now - begun < 12 or not (died or ended):
                continue
            else:
                self.books.count("zmq " + order.kind, BROKEN if died else LEFT)
            self.given_up[request_id] = self.under_way.pop(request_id)
