/*
 * The broker's life after start: wait for a baton, a worker's wake-up or the next rescan, and look
 * at the slot table.
 */
#ifndef BROKER_LOOP_H
#define BROKER_LOOP_H

#include "unetserve/seat.h"

#include "broker/inbox.h"

/* Serve until told to stop (SIGTERM, which must be blocked) or until the supervisor is gone, then
 * until every slot is free or drain_timeout_ms have passed: jobs that were accepted need a broker
 * to the last. 0, or a negative errno. */
int broker_loop(struct seat *seat, struct inbox *inbox, uint32_t drain_timeout_ms);

#endif
