/*
 * The broker's look at the queue: read the process and slot tables, take back what is leased to
 * workers that will not run it, lease what waits, give what waits behind a busy worker to an idle
 * one, wake the workers concerned. Nothing is remembered from one look to the next, so a broker
 * that has just been restarted knows as much as its predecessor.
 */
#ifndef SURVEY_H
#define SURVEY_H

#include "unetserve/queue.h"

#include <stdbool.h>

struct survey; /* working memory of a look */

struct survey_result {
    bool busy;           /* some slot is not FREE */
    uint32_t leased;     /* READY -> LEASED in this look */
    uint32_t taken_back; /* LEASED -> READY in this look */
    uint64_t look_ns;    /* jobs are held back: look again then; 0: none is */
};

/* Memory for a queue of that size, or NULL. Freed with survey_free. */
struct survey *survey_create(const struct queue *queue);
void survey_free(struct survey *survey);

/* One look. remind: also wake workers that hold leases and run nothing, whose wake-up may have been
 * lost with an earlier broker. Does not block. */
struct survey_result survey_look(struct survey *survey, struct queue *queue, bool remind);

#endif
