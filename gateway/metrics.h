/*
 * What a gateway counts, and the page that shows what all of them, the workers and the supervisor
 * have counted. Counting is a few plain additions to this seat's block in shared memory
 * (unetserve/counters.h); it never fails, and before metrics_open it counts to nowhere.
 *
 * A request is counted once: when its answer is handed to the front (so a client that has an answer
 * finds it counted), or as abandoned when it ends without one. `model` is the index in the model
 * table, or COUNTERS_NO_MODEL.
 */
#ifndef GATEWAY_METRICS_H
#define GATEWAY_METRICS_H

#include "gateway/jobs.h"
#include "gateway/models.h"

#include <stddef.h>
#include <stdio.h>

#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Count in this seat's block from now on. The gauges begin at 0. */
void metrics_open(const struct seat *seat);

/* ---- counting ---- */

void metrics_connections(uint32_t open); /* how many there are now */
void metrics_connection_made(void);
void metrics_received(size_t bytes);
void metrics_body(uint64_t bytes, uint64_t copied); /* of an accepted request */

void metrics_request_begun(void);
/* answered: it was counted by metrics_answered, for itself or for its connection. */
void metrics_request_ended(uint32_t model, bool answered);

void metrics_answered(uint32_t model, int status, size_t body_bytes);

/* More bytes of an answer that metrics_answered has counted: a stream. */
void metrics_streamed(size_t bytes);

/* A request was refused before it was accepted; its answer is counted apart from this. */
void metrics_refused(enum counters_refusal why);

/* The same because the model's workers do not keep up: SLOTS, RECEIVING, WAIT. It has arrived. */
void metrics_turned_away(uint32_t model, enum counters_refusal why);

/* The same for a job that was not opened, fed or submitted, by its problem's status: 413 is its
 * size, 503 the slots; what is wrong with the input itself is no refusal of this kind. */
void metrics_job_refused(uint32_t model, int status);

/* A job was accepted. */
void metrics_accepted(uint32_t model);

/* An accepted job has its outcome. */
void metrics_job(uint32_t model, uint64_t begun_ns, const struct job_outcome *outcome);

/* ---- showing ---- */

/* The blocks of all seats added up; gauges of the dead left out. */
void metrics_total(const struct queue *queue, struct counters *total);

/* All of it in Prometheus' text format 0.0.4. malloc'd, *size without the final NUL; NULL without
 * memory. */
char *metrics_page(const struct models *models, size_t *size);

/* Part of the page: what GPUs are doing, where somebody tells; nothing otherwise. */
void metrics_write_gpus(const struct queue *queue, FILE *out);

#endif
