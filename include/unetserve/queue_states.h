/*
 * The states of a slot and every edge between them, once. lib/queue.c compiles the edges into a
 * table that each move is checked against, tests/unit/test_queue.c walks all pairs, and documents
 * may be generated from it. The reasons are in ARCHITECTURE.md ("The slot table"); the table was
 * model-checked, so change it there first.
 */
#ifndef QUEUE_STATES_H
#define QUEUE_STATES_H

/* name, who the word's owner is in this state: 0 nobody, GATEWAY its gateway, WORKER its worker */
#define QUEUE_STATES(X)                                                                            \
    X(FREE, NOBODY)                                                                                \
    X(RECV, GATEWAY)                                                                               \
    X(READY, NOBODY)                                                                               \
    X(LEASED, WORKER)                                                                              \
    X(RUN, WORKER)                                                                                 \
    X(STREAM, WORKER)                                                                              \
    X(DONE, NOBODY)                                                                                \
    X(FAILED, NOBODY)                                                                              \
    X(SEND, GATEWAY)

/* from, to, who may do it */
#define QUEUE_EDGES(X)                                                                             \
    X(FREE, RECV, GATEWAY)        /* head admitted, before the body is read */                     \
    X(RECV, FREE, GATEWAY)        /* bad body, client left, too slow */                            \
    X(RECV, READY, GATEWAY)       /* body whole and right: this is "accepted" */                   \
    X(READY, LEASED, BROKER)      /* given to a live worker that is not condemned */               \
    X(READY, RUN, WORKER)         /* a lone job handed over directly; an orphan: any */            \
    X(LEASED, RUN, WORKER)        /* it starts */                                                  \
    X(LEASED, READY, BROKER)      /* the worker drains, is condemned, gone or busy */              \
    X(LEASED, READY, SUPERVISOR)  /* the worker is condemned or gone */                            \
    X(READY, FREE, GATEWAY)       /* client left, or deadline passed */                            \
    X(RUN, DONE, WORKER)          /* output area written */                                        \
    X(RUN, FAILED, WORKER)        /* cancelled, or cannot go on */                                 \
    X(RUN, STREAM, GATEWAY)       /* before the first byte of a stream goes out */                 \
    X(STREAM, DONE, WORKER)       /* end of the stream */                                          \
    X(STREAM, FAILED, WORKER)     /* broken stream */                                              \
    X(RUN, READY, SUPERVISOR)     /* worker gone: once more */                                     \
    X(RUN, FAILED, SUPERVISOR)    /* worker gone: enough deaths */                                 \
    X(STREAM, FAILED, SUPERVISOR) /* worker gone after a byte was out */                           \
    X(DONE, SEND, GATEWAY)        /* reply going out */                                            \
    X(FAILED, SEND, GATEWAY)      /* the gateway words the answer */                               \
    X(SEND, FREE, GATEWAY)        /* the output has been copied out */                             \
    X(DONE, FREE, GATEWAY)        /* nobody waits any more */                                      \
    X(FAILED, FREE, GATEWAY)      /* the same */                                                   \
    X(RECV, FREE, SUPERVISOR)     /* its gateway is gone, here and below */                        \
    X(SEND, FREE, SUPERVISOR)                                                                      \
    X(READY, FREE, SUPERVISOR)                                                                     \
    X(DONE, FREE, SUPERVISOR)                                                                      \
    X(FAILED, FREE, SUPERVISOR)

#endif
