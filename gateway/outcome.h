/*
 * What a job's end becomes for its client: a mask in the form that it asked for, the model's own
 * document, or a sentence.
 */
#ifndef GATEWAY_OUTCOME_H
#define GATEWAY_OUTCOME_H

#include "gateway/jobs.h"

/* {"detail": sentence}. */
void outcome_say(struct job_outcome *outcome, int status, const char *sentence);

/* A slot in FAILED with those deaths on it. */
void outcome_fail(struct job_outcome *outcome, unsigned faults, unsigned kills);

/* A slot in SEND that came from DONE: encode its output. What the worker wrote there is checked;
 * adds the time to encode. */
void outcome_encode(struct job_outcome *outcome, const struct unetserve_interface *interface,
                    enum job_form form, const struct queue *queue, uint32_t slot);

#endif
