/*
 * The slot table as a Promela model: README.md says what is checked, with which bounds, and how.
 *
 * Every step of a process is one `atomic`: a read of a slot's word, a store into one of its fields,
 * or a compare-and-swap. Between any two steps anything may happen, death included. A process only
 * steps when its next rescan of the table would find something to do, so a run ends where no rescan
 * would ever do anything more; `Judge` looks at that end. Batons and wake-ups are not modelled:
 * nothing may depend on them.
 *
 * Names follow the code: a section names the function that it mirrors.
 */
#include "states.pml"

/* ---- bounds, set by run.py ---- */
#ifndef JOBS
#define JOBS 2     /* clients, at most 3 */
#endif
#ifndef SLOTS
#define SLOTS 2    /* at most 2 */
#endif
#ifndef GATEWAYS
#define GATEWAYS 2 /* at most 2 */
#endif
#ifndef WORKERS
#define WORKERS 2  /* at most 2 */
#endif
#ifndef CLIENTS
#define CLIENTS 1  /* that one gateway serves at a time */
#endif
#ifndef BATCH
#define BATCH 1    /* jobs that wait at, and run together in, one worker: 1 or 2 */
#endif
#ifndef AHEAD
#define AHEAD 0    /* 1: a worker's jobs end one by one, and others join them meanwhile: they are pending, on a device say */
#endif
#ifndef KILLS
#define KILLS 0    /* kill -9 of a gateway, the broker or a worker */
#endif
#ifndef HEAD
#define HEAD 0     /* 1: the supervisor may die */
#endif
#ifndef LATES
#define LATES 0    /* deadlines that pass */
#endif
#ifndef LEAVES
#define LEAVES 0   /* clients that leave, bad bodies among them */
#endif
#ifndef TERMS
#define TERMS 0    /* workers that are asked to end: reload, scaling down */
#endif
#ifndef STUCK
#define STUCK 0    /* workers in uninterruptible sleep; they may wake dead, or never */
#endif
#ifndef POISON
#define POISON 0   /* the number of the job that kills its worker; 0: none */
#endif
#ifndef STREAMS
#define STREAMS 0  /* 1: the gateway may send a first byte while the job runs */
#endif
#ifndef HANDOVER
#define HANDOVER 0 /* 1: workers also take READY slots: idle ones lone jobs, only ones and orphans all */
#endif
#ifndef TAKEOVER
#define TAKEOVER 0 /* 1: the broker gives what waits at a busy worker to an idle one */
#endif
#ifndef GROWTH
#define GROWTH 0   /* bodies that outgrow their slot */
#endif
#ifndef RELOADS
#define RELOADS 0  /* models that are replaced by one of another interface */
#endif
#ifndef FLOPS
#define FLOPS 0    /* workers that do not load their model */
#endif
#ifndef STALE
#define STALE 0    /* 1: a FREE slot keeps its old fields; 0: they are zeroed, to save states */
#endif
#ifndef BUG
#define BUG 0      /* a planted bug, see README.md */
#endif

#define MAX_FAULTS 2 /* QUEUE_MAX_ATTEMPTS */
#define MAX_KILLS  3 /* QUEUE_MAX_KILLS is 20; more than a run has */

/* ---- the control word: state, owner, faults, kills, generation ---- */
#define MAKE(st, ow, fa, ki, ge) ((st) | ((ow) << 4) | ((fa) << 8) | ((ki) << 10) | ((ge) << 12))
#define STATE(w)  ((w) & 15)
#define OWNER(w)  (((w) >> 4) & 15)
#define FAULTS(w) (((w) >> 8) & 3)
#define KILLED(w) (((w) >> 10) & 3)
#define GEN(w)    ((w) >> 12)

/* ---- shared memory ---- */
short word[2];
byte reply_to[2]; /* process index */
byte cancel[2];   /* generation + 1 that it is meant for */
byte input[2];    /* number of the job whose data lies there */
byte output[2];
byte started[2];  /* started_ns: number of the job whose start it tells */
byte ring[2];     /* ring.produced: RUN_OF the run whose items lie in the output area; 0: none */
byte pinned[2];   /* model_generation */

#define INDICES 6
#define VACANT    0
#define LIVE      1
#define CONDEMNED 2
byte life[INDICES + 1];
byte role[INDICES + 1];
bool fault[INDICES + 1];    /* died_by_fault */
bool draining[INDICES + 1];
bool ready[INDICES + 1];
byte brings[INDICES + 1];   /* model_generation: of a worker's model */
byte newest;                /* the model's generation: published */
byte interface[2];          /* of generation g in [g & 1] */

/* ---- the kernel's view: seats 0, 1 gateways, 2 broker, 3, 4 workers, 5 the spare one ---- */
#define BROKER_SEAT 2
#define SPARE       5
#define SEATS       6
byte index_of[SEATS];
bool up[SEATS];      /* has a process that is not yet reaped */
bool struck[SEATS];  /* killed: takes no step more */
bool gone[SEATS];    /* its pidfd says so */
bool crashed[SEATS]; /* ended by its own fault */
bool left[SEATS];    /* ended by itself with status 0 */
byte stuck;      /* worker 3: 1 uninterruptible for a while, 2 for ever */
bool headless;   /* the supervisor is dead */

/* what may still happen */
byte kills, heads, lates, leaves, terms, stucks, grows, reloads, flops;

/* ---- supervisor/reload.c: struct reload, generations[] ---- */
#define SERVING  0
#define TRYING   1
#define OUTGOING 2
#define SWAPPING 3
#define CLOSING  4
#define ABORTING 5
#define RETURNING 6
byte phase;
bool returning; /* what was published is taken back */
byte coming;    /* generations[]: what new workers load */
byte files;     /* which interface the model's files have */
byte behind[2]; /* turns that a gateway has yet to make */
byte swapped;   /* 2 a worker's seat: it is looked at, it restarts */

/* ---- a gateway's private notes about its jobs (gateway/jobs.c: struct job) ---- */
#define NONE      0
#define RECEIVING 1
#define WAITING   2
#define FORGOTTEN 3
byte made;
byte holder[4]; /* its gateway's seat + 1 */
byte stage[4];
byte place[4];  /* its slot */
byte gen[4];
byte view[4];   /* the generation of the interface that it was read by */

/* ---- ghosts: for the properties only ---- */
bool open[4];      /* accepted, and its client waits for an answer from a gateway that lives */
bool answered[4];
bool unwanted[4];  /* its client has left or been told 504 */
bool overdue[4];   /* its deadline has passed */
bool first_byte[4];
byte form[4];      /* which interface it was read by */
byte job_in[2];
bool hurt;         /* somebody was killed */
bool given_up;     /* what was published did not load a second time */
hidden byte edge_now;

/* queue_move, after the comparison: the edge must exist for that role, the owner must be one
 * exactly where the state has one, nothing that is waited for is dropped. */
inline move(who, q, to, owner, faults, killed)
{
	edge_now = EDGE(who, STATE(word[q]), to);
	assert(edge_now);
	c_code { edge_used[edge_now] = 1; };
	assert((owner != 0) == (OWNER_ROLE(to) != 0));
	if
	:: to == FREE -> slot_free(q)
	:: to != FREE -> word[q] = MAKE(to, owner, faults, killed, GEN(word[q]))
	fi;
	assert(to != RUN || !first_byte[job_in[q]])
}

inline move_kept(who, q, to, owner)
{
	move(who, q, to, owner, FAULTS(word[q]), KILLED(word[q]))
}

inline slot_free(q)
{
	assert(!open[job_in[q]]);
#if BUG == 1
	word[q] = MAKE(FREE, 0, 0, 0, GEN(word[q]));
#else
	word[q] = MAKE(FREE, 0, 0, 0, GEN(word[q]) + 1);
#endif
	unwanted[job_in[q]] = 0;
	overdue[job_in[q]] = 0;
	first_byte[job_in[q]] = 0;
	job_in[q] = 0;
#if !STALE
	reply_to[q] = 0; cancel[q] = 0; input[q] = 0; output[q] = 0; started[q] = 0; ring[q] = 0;
#if !RELOADS
	pinned[q] = 0
#endif
#endif
}

inline answer(n)
{
	assert(!answered[n]);
	answered[n] = 1;
	open[n] = 0
}

/* queue_cancel: a late flag does not wipe out a younger one's. */
inline flag(q, generation)
{
	if
	:: cancel[q] < (generation) + 1 -> cancel[q] = (generation) + 1
	:: else
	fi
}
#if BUG == 2
#define CANCELLED(q, w) (cancel[q] != 0)
#else
#define CANCELLED(q, w) (cancel[q] == GEN(w) + 1)
#endif

/* queue_process_is */
#if BUG == 3
#define IS(i, r) (life[i] != VACANT)
#else
#define IS(i, r) (life[i] != VACANT && role[i] == (r))
#endif
#define GATEWAY_GONE(q) (!IS(reply_to[q], GATEWAY))
#define HAS_REPLY(st)   ((st) == READY || (st) == DONE || (st) == FAILED)
#define RUNS(st)        ((st) == RUN || (st) == STREAM)
#define RUN_OF(w)       (1 + FAULTS(w) + KILLED(w)) /* a job's first run, its second */

#define SOME_SLOT(c)   (c(0) || (SLOTS > 1 && c(1)))
#define TAKE_SLOT(c)   if :: c(0) -> s = 0 :: SLOTS > 1 && c(1) -> s = 1 fi
#define SOME_JOB(c)    (c(1) || (JOBS > 1 && c(2)) || (JOBS > 2 && c(3)))
#define TAKE_JOB(c)    if :: c(1) -> j = 1 :: JOBS > 1 && c(2) -> j = 2 :: JOBS > 2 && c(3) -> j = 3 fi

/* Nobody will be killed any more. */
#define CALM (kills == 0 && heads == 0 && (stucks == 0 || headless))

/* ======== gateway/jobs.c ======== */

#define MINE(n)     (holder[n] == p + 1)
#define LOAD        ((MINE(1) -> 1 : 0) + (MINE(2) -> 1 : 0) + (MINE(3) -> 1 : 0))
#define IDLE_SLOT(q) (STATE(word[q]) == FREE)
#define RECEIVED(n) (MINE(n) && stage[n] == RECEIVING)
#define OUTGROWS(n) (RECEIVED(n) && STATE(word[1 - place[n]]) == FREE)
#define SAME(n)     (GEN(word[place[n]]) == gen[n])
#define AT(n)       STATE(word[place[n]])
/* job_look has something to do */
#if BUG == 4
#define LOOK(n)     (MINE(n) && stage[n] == WAITING && (!SAME(n) || AT(n) == DONE || AT(n) == FAILED))
#else
#define LOOK(n)     (MINE(n) && ((stage[n] == WAITING && (!SAME(n) || AT(n) == DONE || AT(n) == FAILED || OUTDATED(n))) || \
		     (stage[n] == FORGOTTEN && (!SAME(n) || HAS_REPLY(AT(n))))))
#endif
#define PATIENT(n)  (MINE(n) && stage[n] == WAITING)
#define LATE(n)     (PATIENT(n) && overdue[n] && AT(n) != DONE && AT(n) != FAILED)
#define BUSY_JOB(n) (MINE(n) && (stage[n] == WAITING || stage[n] == RECEIVING))
/* queue_generation_is_over */
#define BRINGS(i, v) (IS(i, WORKER) && life[i] == LIVE && brings[i] == (v))
#define OVER(v)     (newest != (v) && !BRINGS(1, v) && !BRINGS(2, v) && !BRINGS(3, v) && !BRINGS(4, v) && !BRINGS(5, v) && !BRINGS(6, v))
#define OUTDATED(n) (RELOADS && SAME(n) && AT(n) == READY && OVER(view[n]))
#define STREAMABLE(n) (PATIENT(n) && SAME(n) && AT(n) == RUN && !first_byte[n] && ring[place[n]])
proctype Gateway(byte p)
{
	byte j, s, v, f; short x;
	bool closing;
again:
	{
turn:	do
	/* job_open, queue_reserve: the first slot that looks free */
	:: atomic { made < JOBS && LOAD < CLIENTS && (made || p == 0) && SOME_SLOT(IDLE_SLOT) ->
			s = (IDLE_SLOT(0) -> 0 : 1); x = word[s];
			/* models_view, in the same turn */
			v = newest; f = interface[newest & 1] };
#if BUG == 5
		atomic { reply_to[s] = index_of[p] };
#endif
		atomic {
			if
			:: word[s] == x && made < JOBS ->
				move_kept(GATEWAY, s, RECV, index_of[p]);
				made++; j = made; job_in[s] = j;
				holder[j] = p + 1; place[j] = s; gen[j] = GEN(x); view[j] = v; form[j] = f; x = 0; v = 0; f = 0
			:: else -> s = 0; x = 0; v = 0; f = 0; goto turn
			fi };
		atomic { assert(STATE(word[s]) == RECV && OWNER(word[s]) == index_of[p]);
			reply_to[s] = index_of[p]; pinned[s] = view[j]; stage[j] = RECEIVING; j = 0; s = 0 }

	/* on_turn_over: what was begun before is done */
	:: atomic { behind[p] -> behind[p]-- }

	/* job_move_slot: its body needs a larger slot; a smaller number, once its labels are counted */
	:: atomic { grows > 0 && SLOTS > 1 && SOME_JOB(OUTGROWS) -> grows--; TAKE_JOB(OUTGROWS); s = 1 - place[j]; x = word[s] };
		atomic {
			if
			:: word[s] == x -> move_kept(GATEWAY, s, RECV, index_of[p]); job_in[s] = j; x = 0
			:: else -> j = 0; s = 0; x = 0; goto turn /* 503, or another slot */
			fi };
		atomic { reply_to[s] = index_of[p] };
#if BUG == 22
		/* as it was: pinned when the old slot is given back already */
		atomic { move_kept(GATEWAY, place[j], FREE, 0) };
		atomic { pinned[s] = view[j]; place[j] = s; gen[j] = GEN(word[s]); j = 0; s = 0 }
#else
		atomic { pinned[s] = view[j] };
		atomic { assert(STATE(word[place[j]]) == RECV && OWNER(word[place[j]]) == index_of[p] && SAME(j));
			move_kept(GATEWAY, place[j], FREE, 0);
#if BUG != 23
			place[j] = s; gen[j] = GEN(word[s]);
#endif
			j = 0; s = 0 }
#endif

	/* job_feed, job_submit */
	:: atomic { SOME_JOB(RECEIVED) -> TAKE_JOB(RECEIVED); s = place[j];
			assert(STATE(word[s]) == RECV && OWNER(word[s]) == index_of[p] && SAME(j));
			input[s] = j; started[s] = 0; ring[s] = 0 };
		atomic { assert(STATE(word[s]) == RECV && OWNER(word[s]) == index_of[p] && SAME(j));
			move_kept(GATEWAY, s, READY, 0);
			open[j] = 1; stage[j] = WAITING; j = 0; s = 0 }

	/* job_look */
	:: atomic { SOME_JOB(LOOK) -> TAKE_JOB(LOOK); s = place[j]; x = word[s];
			assert(stage[j] == FORGOTTEN || SAME(j)); /* job_lost: never while its gateway lives */
			if
			:: stage[j] == FORGOTTEN -> x = 0; goto release
			:: stage[j] != FORGOTTEN && STATE(x) == READY -> goto refuse
			:: else
			fi };
		/* job_take_answer */
		atomic {
			if
			:: word[s] == x -> move_kept(GATEWAY, s, SEND, index_of[p])
			:: else -> j = 0; s = 0; x = 0; goto turn
			fi };
		atomic { assert(STATE(word[s]) == SEND && OWNER(word[s]) == index_of[p] && job_in[s] == j);
#if BUG == 6
			assert(output[s] == j);
#endif
			if
			:: STATE(x) == DONE -> assert(output[s] == j && j != POISON)
			:: STATE(x) == FAILED -> assert(j == POISON || overdue[j] || first_byte[j] || KILLED(x) >= MAX_KILLS)
			fi;
			answer(j); x = 0 };
		goto release

	/* job_check: a deadline has passed */
	:: atomic { SOME_JOB(LATE) -> TAKE_JOB(LATE); s = place[j]; x = word[s];
			if
			:: STATE(x) == READY
			:: else -> answer(j); unwanted[j] = 1; x = 0; goto release
			fi };
#if BUG == 7
		atomic { answer(j) };
#endif
		/* first the slot, then the 504 */
		atomic {
			if
			:: word[s] == x ->
#if BUG != 7
				answer(j);
#endif
				move_kept(GATEWAY, s, FREE, 0); x = 0
			:: else -> j = 0; s = 0; x = 0; goto turn
			fi };
		goto release

	/* job_drop: the client leaves, its body is bad, it is too slow */
	:: atomic { leaves > 0 && SOME_JOB(BUSY_JOB) -> leaves--; TAKE_JOB(BUSY_JOB); s = place[j];
			open[j] = 0; unwanted[j] = 1 };
		goto release

	/* job_begin_stream: the first byte of a stream goes out */
	:: atomic { STREAMS && SOME_JOB(STREAMABLE) -> TAKE_JOB(STREAMABLE); s = place[j]; x = word[s] };
#if BUG == 8
		atomic { first_byte[j] = 1; x = 0; j = 0; s = 0 }
#else
		atomic {
			if
			:: word[s] == x -> move_kept(GATEWAY, s, STREAM, OWNER(x)); first_byte[j] = 1;
				/* what it takes out from here on is of this very run */
				assert(!ring[s] || ring[s] == RUN_OF(x))
			:: else
			fi;
			x = 0; j = 0; s = 0 }
#endif

	/* on_life_over; then out when nothing is held. What connected before is still served. */
	:: atomic { headless && !closing -> closing = 1 }
	:: atomic { closing && LOAD == 0 -> ready[index_of[p]] = 0; left[p] = 1; goto end }
	/* on_drain_over: what is forgotten and never comes back is left behind */
	:: atomic { closing && CALM && LOAD && hurt &&
		    (!MINE(1) || (stage[1] == FORGOTTEN && !LOOK(1))) &&
		    (!MINE(2) || (stage[2] == FORGOTTEN && !LOOK(2))) &&
		    (!MINE(3) || (stage[3] == FORGOTTEN && !LOOK(3))) ->
			left[p] = 1; ready[index_of[p]] = 0; goto end }
	od;

	/* job_refuse_outdated: 503, and only when somebody has died, or what he asks for was taken back */
refuse: atomic {
			if
			:: word[s] == x -> assert(hurt || given_up); answer(j); move_kept(GATEWAY, s, FREE, 0); x = 0
			:: else -> j = 0; s = 0; x = 0; goto turn
			fi };
	goto forget;
	/* job_release: free what is ours to free, else ask for it back */
release: atomic { x = word[s];
			if
			:: !SAME(j) || STATE(x) == FREE -> goto forget
			:: SAME(j) && (STATE(x) == RECV || STATE(x) == SEND || HAS_REPLY(STATE(x)))
			:: else -> goto ask
			fi };
		atomic {
			if
			:: word[s] == x -> move_kept(GATEWAY, s, FREE, 0)
			:: else -> x = 0; goto release
			fi };
forget:	atomic { holder[j] = 0; stage[j] = NONE; place[j] = 0; gen[j] = 0; view[j] = 0; j = 0; s = 0; x = 0 };
	goto turn;
ask:	atomic { assert(GEN(word[s]) == GEN(x)); flag(s, GEN(x)); stage[j] = FORGOTTEN; j = 0; s = 0; x = 0 };
	goto turn
	} unless { atomic { struck[p] ->
		j = 1;
		do
		:: j <= JOBS ->
			if
			:: MINE(j) -> open[j] = 0; unwanted[j] = 1; holder[j] = 0; stage[j] = NONE; place[j] = 0; gen[j] = 0; view[j] = 0
			:: else
			fi;
			j++
		:: j > JOBS -> break
		od;
		j = 0; s = 0; x = 0; v = 0; f = 0; closing = 0; gone[p] = 1 } };
	atomic { !gone[p] -> goto again };
end:	skip
}

/* ======== broker/survey.c ======== */

#define KEEPS(i)     (IS(i, WORKER) && life[i] == LIVE && !draining[i])
#define USABLE(t)    (index_of[t] && KEEPS(index_of[t]) && ready[index_of[t]])
#define LEASES(i)    (((STATE(word[0]) == LEASED && OWNER(word[0]) == (i)) -> 1 : 0) + ((STATE(word[1]) == LEASED && OWNER(word[1]) == (i)) -> 1 : 0))
#define ROOM(t)      (USABLE(t) && LEASES(index_of[t]) < BATCH)
#define SUITS(t, q)  (ROOM(t) && brings[index_of[t]] == pinned[q])
#define WAITS(q)     (STATE(word[q]) == READY && (SUITS(3, q) || SUITS(4, q) || (RELOADS && SUITS(SPARE, q))))
#define MISPLACED(q) (STATE(word[q]) == LEASED && (!KEEPS(OWNER(word[q])) || brings[OWNER(word[q])] != pinned[q]))
/* placement_take_back; which of them is the most urgent, and how long its worker has been busy, is not what makes it safe */
#define RUNS_FOR(q, i) (RUNS(STATE(word[q])) && OWNER(word[q]) == (i))
#define BUSY(i)      (RUNS_FOR(0, i) || RUNS_FOR(1, i))
#define IDLES(t, q)  (USABLE(t) && LEASES(index_of[t]) == 0 && !BUSY(index_of[t]) && brings[index_of[t]] == pinned[q])
#define BEHIND_BUSY(q) (STATE(word[q]) == LEASED && !MISPLACED(q) && BUSY(OWNER(word[q])) && \
		      (IDLES(3, q) || IDLES(4, q) || (RELOADS && IDLES(SPARE, q))))
#define ALL_FREE     (STATE(word[0]) == FREE && (SLOTS < 2 || STATE(word[1]) == FREE))
/* Children of a dead supervisor leave in the order of its drain: gateways first. */
#define SERVES(i)     (life[i] != VACANT && role[i] == GATEWAY && ready[i])
#if BUG == 9
#define GATEWAYS_LEFT (true)
#else
#define GATEWAYS_LEFT (!SERVES(1) && !SERVES(2) && !SERVES(3) && !SERVES(4) && !SERVES(5) && !SERVES(6))
#endif
/* The drain's time-out, for what a second death has left behind; gateways have it too. */
#define OUT(seat)     (!up[seat] || left[seat] || struck[seat])
#define DRAIN_OVER    (CALM && OUT(0) && OUT(1))

proctype Broker(byte p)
{
	byte s, t; short x;
again:
	{
look:	do
	/* carry_out: the worker may be another one by the time of the move */
	:: atomic { SOME_SLOT(WAITS) ->
			TAKE_SLOT(WAITS); x = word[s];
			if
			:: SUITS(3, s) -> t = index_of[3]
			:: SUITS(4, s) -> t = index_of[4]
			:: RELOADS && SUITS(SPARE, s) -> t = index_of[SPARE]
			fi };
		atomic {
			if
#if BUG == 10
			:: word[s] = MAKE(LEASED, t, FAULTS(x), KILLED(x), GEN(x))
#else
			:: word[s] == x -> move_kept(BROKER, s, LEASED, t)
			:: else
#endif
			fi;
			x = 0; s = 0; t = 0 }
	/* read_leased: its worker drains, is condemned or gone */
	:: atomic { SOME_SLOT(MISPLACED) -> TAKE_SLOT(MISPLACED); x = word[s] };
		atomic {
			if
#if BUG == 11
			:: word[s] = MAKE(READY, 0, FAULTS(x), KILLED(x), GEN(x))
#else
			:: word[s] == x -> move_kept(BROKER, s, READY, 0)
			:: else
#endif
			fi;
			x = 0; s = 0 }
#if TAKEOVER
	/* take_over: by way of READY, whatever becomes of both workers meanwhile */
	:: atomic { SOME_SLOT(BEHIND_BUSY) -> TAKE_SLOT(BEHIND_BUSY); x = word[s];
			if
			:: IDLES(3, s) -> t = index_of[3]
			:: IDLES(4, s) -> t = index_of[4]
			:: RELOADS && IDLES(SPARE, s) -> t = index_of[SPARE]
			fi };
		atomic {
			if
#if BUG == 34
			:: word[s] = MAKE(READY, 0, FAULTS(x), KILLED(x), GEN(x)); x = word[s]
#else
			:: word[s] == x -> move_kept(BROKER, s, READY, 0); x = word[s]
			:: else -> x = 0; s = 0; t = 0; goto look
#endif
			fi };
		atomic {
			if
#if BUG == 35
			:: word[s] = MAKE(LEASED, t, FAULTS(x), KILLED(x), GEN(x))
#else
			:: word[s] == x -> move_kept(BROKER, s, LEASED, t)
			:: else
#endif
			fi;
			x = 0; s = 0; t = 0 }
#endif
	/* may_leave */
	:: atomic { headless && ((ALL_FREE && GATEWAYS_LEFT) || DRAIN_OVER) -> left[p] = 1; goto end }
	od
	} unless { atomic { struck[p] -> s = 0; x = 0; t = 0; gone[p] = 1 } };
	atomic { !gone[p] -> goto again };
end:	skip
}

/* ======== workers/run.c, workers/job.c, workers/worker_loop.c ======== */

/* is_mine */
#if BUG == 24
#define OF_MINE(q)  (true)
#else
#define OF_MINE(q)  (pinned[q] == brings[index_of[p]])
#endif
#define FOR_ME(q)   (STATE(word[q]) == LEASED && OWNER(word[q]) == index_of[p] && OF_MINE(q))
/* collect_line, handover_may_take. Others may be in the line, and other workers there: that is not what makes it safe. */
#define ORPHANED    (HANDOVER && headless)
#define MAY_TAKE    (HANDOVER && ready[index_of[p]] && !draining[index_of[p]] && LEASES(index_of[p]) == 0)
#if BUG == 25
#define LONE(q)     (STATE(word[q]) == READY && (ORPHANED || (MAY_TAKE && UNHURT(word[q]))))
#else
#define LONE(q)     (STATE(word[q]) == READY && OF_MINE(q) && (ORPHANED || (MAY_TAKE && UNHURT(word[q]))))
#endif
#define STARTS(q)   (FOR_ME(q) || LONE(q))
#define UNHURT(w)   (FAULTS(w) == 0 && KILLED(w) == 0)
/* job_batches_with. A lease may have come since it looked, and it may be asked to end. */
#define IN_LINE(q)  (HANDOVER && STATE(word[q]) == READY && OF_MINE(q))
#if BUG == 12
#define JOINS(q, o) (BATCH > 1 && SLOTS > 1 && b == (1 << (o)) && FOR_ME(q))
#elif BUG == 26
#define JOINS(q, o) (BATCH > 1 && SLOTS > 1 && b == (1 << (o)) && (IN_LINE(q) || (FOR_ME(q) && UNHURT(word[q]) && UNHURT(e[o]))))
#else
#define JOINS(q, o) (BATCH > 1 && SLOTS > 1 && b == (1 << (o)) && (FOR_ME(q) || IN_LINE(q)) && UNHURT(word[q]) && UNHURT(e[o]))
#endif
#define HOLDS(q)    (RUNS(STATE(word[q])) && OWNER(word[q]) == index_of[p] && GEN(word[q]) == GEN(e[q]))
#define IN_BATCH(q) (b & (1 << (q)))
#define WORK_REMAINS(q) (STATE(word[q]) == RECV || STATE(word[q]) == READY || STATE(word[q]) == LEASED)

#define LOADS       (RELOADS > 0)
#define SERVES_IT   16
#define SERVING_NOW (!LOADS || ready[index_of[p]])
#define READ_BY(q)  (!LOADS || form[job_in[q]] + 1 + SERVES_IT == has)

#define FEEDS(q) (STREAMS && IN_BATCH(q) && !CANCELLED(q, e[q]) && ring[q] != RUN_OF(e[q]))

proctype Worker(byte p)
{
	byte b, s, v; short x; short e[2];
	/* its model: 0 none yet, else 1 + which interface; SERVES_IT: published */
	byte has = (LOADS && p != SPARE -> 1 + SERVES_IT : 0);
#if RELOADS
	if :: gone[p] -> goto await :: else fi;
#endif
again:
	{
	do
	/* workers/program.c: set_up, publish, seat_ready */
	:: atomic { LOADS && has == 0 -> has = 1 + files }
	:: atomic { has && !(has & SERVES_IT) -> s = brings[index_of[p]];
			if
			:: s > newest -> interface[s & 1] = has - 1; newest = s; has = has | SERVES_IT
#if BUG == 27
			/* as it was: nobody looked at what is published after it */
			:: s < newest -> has = has | SERVES_IT
			:: s == newest && interface[s & 1] == has - 1 -> has = has | SERVES_IT
			:: s == newest && interface[s & 1] != has - 1 -> struck[p] = 1
#else
			:: s <= newest && s + 1 >= newest && interface[s & 1] == has - 1 -> has = has | SERVES_IT
			:: s <= newest && (s + 1 < newest || interface[s & 1] != has - 1) -> struck[p] = 1
#endif
			fi;
			s = 0 }
	:: atomic { (has & SERVES_IT) && !ready[index_of[p]] -> ready[index_of[p]] = 1 }
	/* it cannot be loaded */
	:: atomic { flops && has && !(has & SERVES_IT) -> flops--; struck[p] = 1 }
	/* collect_leased, job_start */
	:: atomic { SERVING_NOW && b == 0 && SOME_SLOT(STARTS) -> TAKE_SLOT(STARTS); x = word[s] };
take:
#if BUG == 13
		/* as it was: the time stored before the move, while the broker may take the lease back */
		atomic { assert(FOR_ME(s)); started[s] = input[s] };
#endif
		atomic {
			if
#if BUG == 28
			:: STATE(x) == READY -> word[s] = MAKE(RUN, index_of[p], FAULTS(x), KILLED(x), GEN(x)); e[s] = word[s]; b = b | (1 << s)
#endif
			:: word[s] == x -> move_kept(WORKER, s, RUN, index_of[p]); e[s] = word[s]; b = b | (1 << s)
			:: else -> goto took
			fi };
		atomic { assert(HOLDS(s)); started[s] = input[s] };
took:		atomic { x = 0; s = 0 }
	/* take_batch: jobs without a death share a run; room_for: also with what is pending */
	:: atomic { JOINS(0, 1) || JOINS(1, 0) ->
			if :: JOINS(0, 1) -> s = 0 :: JOINS(1, 0) -> s = 1 fi; x = word[s] };
		goto take

	/* stream_emit: the first item, in whatever state its gateway has the slot */
	:: atomic { FEEDS(0) || FEEDS(1) -> s = (FEEDS(0) -> 0 : 1);
			assert(HOLDS(s)); ring[s] = RUN_OF(e[s]); s = 0 }

	/* run_batch: predict reads every input; one of them may kill the process */
	:: atomic { b ->
			assert(!IN_BATCH(0) || (HOLDS(0) && input[0] == job_in[0] && READ_BY(0)));
			assert(!IN_BATCH(1) || (HOLDS(1) && input[1] == job_in[1] && READ_BY(1)));
			if
			:: POISON && ((IN_BATCH(0) && input[0] == POISON) || (IN_BATCH(1) && input[1] == POISON)) ->
				crashed[p] = 1; struck[p] = 1
			:: else
			fi };
settle:		atomic {
			s = (IN_BATCH(0) -> 0 : 1);
			if
			:: CANCELLED(s, e[s]) -> assert(unwanted[job_in[s]]); v = FAILED; goto finish
			:: overdue[job_in[s]] -> v = FAILED; goto finish /* admit: not to be started any more */
			:: v = DONE
			fi };
		atomic { assert(HOLDS(s)); output[s] = input[s] };
		/* finish: out of RUN; if its gateway has begun to stream, out of STREAM */
finish:		atomic {
			if
			:: word[s] == e[s] -> move_kept(WORKER, s, v, 0); e[s] = 0; b = b & ~(1 << s); goto finished
			:: else -> assert(HOLDS(s)); x = word[s]
			fi };
		atomic { assert(word[s] == x && STATE(x) == STREAM);
			move_kept(WORKER, s, v, 0); e[s] = 0; b = b & ~(1 << s) };
finished:	atomic { x = 0; s = 0; v = 0; if :: b && !AHEAD -> goto settle :: else fi }

	/* may_leave: told to end, or the supervisor is gone */
	:: atomic { b == 0 && draining[index_of[p]] && !SOME_SLOT(FOR_ME) -> ready[index_of[p]] = 0; left[p] = 1; goto ended }
	:: atomic { headless && b == 0 && !draining[index_of[p]] && ((!SOME_SLOT(WORK_REMAINS) && GATEWAYS_LEFT) || DRAIN_OVER) ->
			left[p] = 1; goto ended }
	od
	} unless { struck[p] || (p == 3 && stuck) };
	/* Until it is gone the kernel may still write for it. */
	atomic { struck[p] ->
		assert(!IN_BATCH(0) || HOLDS(0)); assert(!IN_BATCH(1) || HOLDS(1));
		b = 0; s = 0; v = 0; x = 0; e[0] = 0; e[1] = 0; has = 0; gone[p] = 1 };
	goto await;
ended:	atomic { has = 0; gone[p] = 1 };
await:	atomic { !gone[p] -> goto again }
}

/* ======== the supervisor: lib/queue.c (standing rules, indices), supervisor/seats.c ======== */

#if BUG == 14
#define FREED_FOR_DEAD(q) (STATE(word[q]) == SEND && !IS(OWNER(word[q]), GATEWAY) || ((HAS_REPLY(STATE(word[q])) || STATE(word[q]) == RECV) && GATEWAY_GONE(q)))
#elif BUG == 19
#define FREED_FOR_DEAD(q) (((STATE(word[q]) == RECV || STATE(word[q]) == SEND) && !IS(OWNER(word[q]), GATEWAY)) || (reply_to[q] != 0 && GATEWAY_GONE(q)))
#elif BUG == 15
#define FREED_FOR_DEAD(q) (((STATE(word[q]) == RECV || STATE(word[q]) == SEND) && !IS(OWNER(word[q]), GATEWAY)) || ((HAS_REPLY(STATE(word[q])) || STATE(word[q]) == LEASED) && GATEWAY_GONE(q)))
#else
#define FREED_FOR_DEAD(q) (((STATE(word[q]) == RECV || STATE(word[q]) == SEND) && !IS(OWNER(word[q]), GATEWAY)) || (HAS_REPLY(STATE(word[q])) && GATEWAY_GONE(q)))
#endif
#if BUG == 16
#define ORPHAN_RUN(q) (RUNS(STATE(word[q])) && (!IS(OWNER(word[q]), WORKER) || life[OWNER(word[q])] == CONDEMNED))
#elif BUG == 17
#define ORPHAN_RUN(q) (RUNS(STATE(word[q])) && ((index_of[3] == OWNER(word[q]) && struck[3]) || (index_of[4] == OWNER(word[q]) && struck[4]) || !IS(OWNER(word[q]), WORKER)))
#else
#define ORPHAN_RUN(q) (RUNS(STATE(word[q])) && !IS(OWNER(word[q]), WORKER))
#endif
#define BACK(q)       (STATE(word[q]) == LEASED && (!IS(OWNER(word[q]), WORKER) || life[OWNER(word[q])] == CONDEMNED))
#define UNFLAGGED(q)  ((STATE(word[q]) == LEASED || RUNS(STATE(word[q]))) && GATEWAY_GONE(q) && !CANCELLED(q, word[q]))
#if BUG == 18
#define NAMED(q, i)   (false)
#else
#define NAMED(q, i)   (OWNER(word[q]) == (i) || (STATE(word[q]) != FREE && reply_to[q] == (i)))
#endif
#define VACANT_SOME   (life[1] == VACANT || life[2] == VACANT || life[3] == VACANT || life[4] == VACANT || life[5] == VACANT || life[6] == VACANT)
#define FITS(i)       (life[i] == VACANT && !NAMED(0, i) && !NAMED(1, i))
#define SOME_FITS     (FITS(1) || FITS(2) || FITS(3) || FITS(4) || FITS(5) || FITS(6))

/* gateways_behind, slots_outgoing */
#define BEHIND(g)     (up[g] && behind[g])
#define OUTGOES(q)    ((STATE(word[q]) == RECV || STATE(word[q]) == READY || STATE(word[q]) == LEASED || STATE(word[q]) == RUN) && pinned[q] != coming)
/* to look is worth while: what is there may move on */
#define MAY_CLEAR(q)  (!OUTGOES(q) || STATE(word[q]) == RECV)
#define STARTED_FOR(t, g) (index_of[t] && brings[index_of[t]] == (g) && life[index_of[t]] == LIVE)
#define STARTING_FOR(t, g) (STARTED_FOR(t, g) && !ready[index_of[t]])
#define SWAPPED(t)    (((t) == 4 && WORKERS < 2) || (up[t] && ready[index_of[t]] && !draining[index_of[t]]))

inline bury(seat)
{
	atomic { up[seat] && gone[seat] ->
		up[seat] = 0;
		if
		:: seat != BROKER_SEAT ->
			fault[index_of[seat]] = crashed[seat];
			life[index_of[seat]] = VACANT; ready[index_of[seat]] = 0; brings[index_of[seat]] = 0; index_of[seat] = 0
		:: else
		fi }
}

inline wish(seat, wanted)
{
	atomic { wanted && !up[seat] && SOME_FITS -> n = seat; c = 0 }
}

proctype Supervisor()
{
	byte s, c, n; short x;
	{
watch:	do
	:: bury(0)
	:: bury(1)
	:: bury(2)
	:: bury(3)
	:: bury(4)
#if RELOADS
	:: bury(SPARE)
#endif
	/* watch_condemn: killed, and it does not go */
	:: atomic { stuck && !struck[3] && index_of[3] && life[index_of[3]] == LIVE -> life[index_of[3]] = CONDEMNED }
	/* seat_want(false): reload */
	:: atomic { terms > 0 && up[4] && !draining[index_of[4]] -> terms--; draining[index_of[4]] = 1 }

	/* slot_apply_rules: the word first, then what it names */
	:: atomic { SOME_SLOT(FREED_FOR_DEAD) -> TAKE_SLOT(FREED_FOR_DEAD);
#if BUG == 19
			x = 0 };
		atomic { x = word[s];
			if
			:: HAS_REPLY(STATE(x)) || ((STATE(x) == RECV || STATE(x) == SEND) && !IS(OWNER(x), GATEWAY))
			:: else -> s = 0; x = 0; goto watch
			fi };
#else
			x = word[s] };
		atomic {
			if
			:: HAS_REPLY(STATE(x)) && !GATEWAY_GONE(s) -> s = 0; x = 0; goto watch
			:: else
			fi };
#endif
		atomic {
			if
			:: word[s] == x -> move_kept(SUPERVISOR, s, FREE, 0)
			:: else
			fi;
			x = 0; s = 0 }
	:: atomic { SOME_SLOT(ORPHAN_RUN) -> TAKE_SLOT(ORPHAN_RUN); x = word[s];
			n = (fault[OWNER(x)] -> 1 : 0);
#if BUG != 21
			/* rule_run: items that nobody has seen; the gateway may move the word all the same */
			if :: STATE(x) == RUN -> ring[s] = 0 :: else fi
#endif
			};
		atomic {
			if
			:: word[s] != x
			:: word[s] == x && STATE(x) == STREAM -> move_kept(SUPERVISOR, s, FAILED, 0)
#if BUG == 20
			:: word[s] == x && STATE(x) == RUN && FAULTS(x) + KILLED(x) + 1 >= MAX_FAULTS ->
				move(SUPERVISOR, s, FAILED, 0, FAULTS(x) + n, KILLED(x) + 1 - n)
#endif
			:: word[s] == x && STATE(x) == RUN && (FAULTS(x) + n >= MAX_FAULTS || KILLED(x) + 1 - n >= MAX_KILLS || CANCELLED(s, x)) ->
				move(SUPERVISOR, s, FAILED, 0, FAULTS(x) + n, KILLED(x) + 1 - n)
			:: else ->
				/* rule_run: the start that it tells is over */
				started[s] = 0;
				move(SUPERVISOR, s, READY, 0, FAULTS(x) + n, KILLED(x) + 1 - n)
			fi;
			x = 0; s = 0; n = 0 }
	:: atomic { SOME_SLOT(BACK) -> TAKE_SLOT(BACK); x = word[s] };
		atomic {
			if
			:: word[s] == x -> move_kept(SUPERVISOR, s, READY, 0)
			:: else
			fi;
			x = 0; s = 0 }
	/* rule_cancel */
	:: atomic { SOME_SLOT(UNFLAGGED) -> TAKE_SLOT(UNFLAGGED); x = word[s] };
		atomic {
			if
			:: word[s] == x && GATEWAY_GONE(s)
			:: else -> x = 0; s = 0; goto watch
			fi };
		atomic { flag(s, GEN(x)); x = 0; s = 0 }

	/* restarts; the broker's index is in no slot */
	:: atomic { !up[BROKER_SEAT] -> struck[BROKER_SEAT] = 0; left[BROKER_SEAT] = 0; gone[BROKER_SEAT] = 0; up[BROKER_SEAT] = 1 }
	:: wish(0, true) -> goto enter
	:: wish(1, GATEWAYS > 1) -> goto enter
	:: wish(3, true) -> goto enter
	:: wish(4, WORKERS > 1) -> goto enter
#if RELOADS
	:: wish(SPARE, phase >= TRYING && phase <= SWAPPING && newest == coming && !returning) -> goto enter

	/* ---- supervisor/reload.c ---- */
	/* try_model */
	:: atomic { reloads && phase == SERVING && SOME_FITS -> reloads--;
			files = 1 - files; coming++; phase = TRYING; n = SPARE; c = 0 };
		goto enter
	/* step_trying */
	:: atomic { phase == TRYING && up[SPARE] && ready[index_of[SPARE]] -> phase = OUTGOING;
#if BUG != 29
			behind[0] = (up[0] -> 2 : 0); behind[1] = (up[1] -> 2 : 0)
#endif
		}
	/* abort_model: what new workers load is the old model again */
	:: atomic { phase == TRYING && !up[SPARE] && newest != coming -> phase = ABORTING;
			coming--; files = 1 - files;
#if BUG != 30
			/* others that came up meanwhile bring what is not to be */
			if :: STARTED_FOR(3, coming + 1) -> draining[index_of[3]] = 1 :: else fi;
			if :: STARTED_FOR(4, coming + 1) -> draining[index_of[4]] = 1 :: else fi
#endif
		}
	/* abort_model: it never loads at the spare seat, and another has published it */
	:: atomic { phase == TRYING && !up[SPARE] && newest == coming -> phase = ABORTING; returning = 1;
			given_up = 1; coming--; files = 1 - files }
	/* take_back: nobody publishes it again; those who serve it stay until nothing is pinned to it */
#if BUG == 33
	:: atomic { phase == ABORTING && returning ->
#else
	:: atomic { phase == ABORTING && returning && !STARTING_FOR(3, coming + 1) && !STARTING_FOR(4, coming + 1) ->
#endif
			newest = coming; phase = OUTGOING;
			behind[0] = (up[0] -> 2 : 0); behind[1] = (up[1] -> 2 : 0) }
	/* step_returning */
	:: atomic { phase == RETURNING && STARTED_FOR(3, coming + 1) && !draining[index_of[3]] -> draining[index_of[3]] = 1 }
	:: atomic { phase == RETURNING && STARTED_FOR(4, coming + 1) && !draining[index_of[4]] -> draining[index_of[4]] = 1 }
	:: atomic { phase == RETURNING && !STARTED_FOR(3, coming + 1) && !STARTED_FOR(4, coming + 1) -> phase = SERVING; returning = 0 }
	/* step_aborting: one of them was faster, so it is to be after all */
#if BUG == 30
	:: atomic { phase == ABORTING && !returning -> phase = SERVING }
#else
	:: atomic { phase == ABORTING && !returning && !STARTED_FOR(3, coming + 1) && !STARTED_FOR(4, coming + 1) ->
			if
			:: newest > coming -> coming++; files = 1 - files; phase = TRYING
			:: else -> phase = SERVING
			fi }
#endif
	/* step_outgoing: the gateways, then slot by slot, twice: a job may move to a smaller number */
	:: atomic { phase == OUTGOING && !BEHIND(0) && !BEHIND(1) && !OUTGOES(0) && MAY_CLEAR(1) };
		if
		:: atomic { !OUTGOES(1) }
		:: atomic { OUTGOES(1) -> goto watch }
		fi;
#if BUG != 31
		if
		:: atomic { !OUTGOES(0) }
		:: atomic { OUTGOES(0) -> goto watch }
		fi;
		if
		:: atomic { !OUTGOES(1) }
		:: atomic { OUTGOES(1) -> goto watch }
		fi;
#endif
		atomic { phase = (returning -> RETURNING : SWAPPING); swapped = 0 }
	/* step_swapping: those that were there before, also if they are only starting */
	:: atomic { phase == SWAPPING && swapped < 4 && !(swapped & 1) ->
			s = 3 + swapped / 2;
			if
#if BUG == 32
			/* as it was: one that is starting loads the new files by itself */
			:: up[s] && ready[index_of[s]] && !draining[index_of[s]] -> draining[index_of[s]] = 1
#else
			:: up[s] && brings[index_of[s]] != coming && !draining[index_of[s]] -> draining[index_of[s]] = 1
#endif
			:: else
			fi;
			swapped++; s = 0 }
	:: atomic { phase == SWAPPING && (swapped & 1) && SWAPPED(3 + swapped / 2) -> swapped++ }
	:: atomic { phase == SWAPPING && swapped == 4 -> phase = CLOSING; swapped = 0;
			if :: up[SPARE] -> draining[index_of[SPARE]] = 1 :: else fi }
	:: atomic { phase == CLOSING && !up[SPARE] -> phase = SERVING }
#endif
	od;
	/* queue_process_enter: slot by slot */
enter:	atomic { c++;
		if
		:: c > INDICES -> c = 0; n = 0; goto watch
		:: c <= INDICES && life[c] != VACANT -> goto enter
		:: else
		fi;
		if :: NAMED(0, c) -> goto enter :: else fi };
	atomic {
		if :: NAMED(1, c) -> goto enter :: else fi;
		life[c] = LIVE; role[c] = (n < BROKER_SEAT -> GATEWAY : WORKER);
		fault[c] = 0; draining[c] = 0; ready[c] = (n < BROKER_SEAT || !LOADS); brings[c] = (n < BROKER_SEAT -> 0 : coming);
		index_of[n] = c; struck[n] = 0; crashed[n] = 0; left[n] = 0;
		if :: n == 3 -> stuck = 0 :: else fi;
		if :: n < BROKER_SEAT -> behind[n] = 0 :: else fi;
		up[n] = 1; gone[n] = 0; c = 0; n = 0 };
	goto watch
	} unless { headless }
}

/* Held by a worker that sleeps for ever, or the supervisor is dead and so is somebody else: then
 * a 504 is the best that can be had. */
#define HOPELESS(n) (open[n] && !overdue[n] && CALM && \
		     ((headless && hurt) || (stuck == 2 && OWNER(word[place[n]]) == index_of[3])))

#define STRIKE(seat) atomic { kills > 0 && up[seat] && !struck[seat] && !left[seat] && !(seat == 3 && stuck) -> kills--; hurt = 1; struck[seat] = 1 }

proctype Fate()
{
	byte j;
	do
	:: STRIKE(0)
	:: STRIKE(1)
	:: STRIKE(2)
	:: STRIKE(3)
	:: STRIKE(4)
#if RELOADS
	:: STRIKE(SPARE)
#endif
	:: atomic { heads > 0 -> heads--; headless = 1 }
	:: atomic { lates > 0 && (open[1] || open[2] || open[3]) -> lates--;
		if :: open[1] -> overdue[1] = 1 :: open[2] -> overdue[2] = 1 :: open[3] -> overdue[3] = 1 fi }
	:: atomic { stucks > 0 && up[3] && !struck[3] && !left[3] -> stucks--; hurt = 1; if :: stuck = 1 :: stuck = 2 fi }
	:: atomic { stuck == 1 && !struck[3] -> struck[3] = 1 }
	/* a deadline that comes at last to a job whose holder will never move it */
	:: atomic { HOPELESS(1) || HOPELESS(2) || HOPELESS(3) ->
		if :: HOPELESS(1) -> overdue[1] = 1 :: HOPELESS(2) -> overdue[2] = 1 :: HOPELESS(3) -> overdue[3] = 1 fi }
	od
}

/* At rest: nothing that was accepted waits, no slot is stuck, orphans have gone. */
#define ETERNAL(q) (RUNS(STATE(word[q])) && stuck == 2 && OWNER(word[q]) == index_of[3])
#define AT_END(seat) (!up[seat] || struck[seat] || left[seat] || (seat == 3 && stuck))

#define AT_WORK(seat) (!up[seat] || (ready[index_of[seat]] && brings[index_of[seat]] == newest) || (seat == 3 && stuck))

proctype Judge()
{
	timeout ->
	atomic {
		assert(!open[1] && !open[2] && !open[3]);
		assert(headless || ((STATE(word[0]) == FREE || ETERNAL(0)) && (STATE(word[1]) == FREE || ETERNAL(1))));
		assert(!headless || hurt || (STATE(word[0]) == FREE && STATE(word[1]) == FREE));
		assert(!headless || (AT_END(0) && AT_END(1) && AT_END(2) && AT_END(3) && AT_END(4) && AT_END(SPARE)));
		/* a reload is over: every worker brings what new requests ask for */
		assert(headless || (phase == SERVING && !up[SPARE] && newest == coming));
		assert(headless || (AT_WORK(3) && AT_WORK(4)))
	}
}

inline seat_fill(seat, i, r)
{
	index_of[seat] = i; life[i] = LIVE; role[i] = r; ready[i] = 1; up[seat] = 1
}

init {
	atomic {
		c_code { edges_begin(); };
		select(kills : 0 .. KILLS);
		select(heads : 0 .. HEAD);
		select(lates : 0 .. LATES);
		select(leaves : 0 .. LEAVES);
		select(terms : 0 .. TERMS);
		select(stucks : 0 .. STUCK);
		select(grows : 0 .. GROWTH);
		select(reloads : 0 .. RELOADS);
		select(flops : 0 .. FLOPS);
		seat_fill(0, 1, GATEWAY);
		if :: GATEWAYS > 1 -> seat_fill(1, 2, GATEWAY) :: else fi;
		seat_fill(3, 3, WORKER);
		if :: WORKERS > 1 -> seat_fill(4, 4, WORKER) :: else fi;
		up[BROKER_SEAT] = 1;
		run Gateway(0);
		if :: GATEWAYS > 1 -> run Gateway(1) :: else fi;
		run Broker(BROKER_SEAT);
		run Worker(3);
		if :: WORKERS > 1 -> run Worker(4) :: else fi;
		if :: RELOADS > 0 -> gone[SPARE] = 1; run Worker(SPARE) :: else fi;
		run Supervisor(); run Fate(); run Judge()
	}
}
