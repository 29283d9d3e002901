/* What it means for a command that the server's answer is not 200. */
#ifndef REFUSAL_H
#define REFUSAL_H

#include "unetserve/client.h"

/* One sentence with the status and what the error document says: {"detail": "..."}, pydantic's list
 * of them, or else its bytes. */
void refusal_explain(const struct unetserve_answer *answer, char *error, size_t error_size);

/* How a refusal ends the program: busy servers may be asked again, bad tiles not. status 0 or 200:
 * it was none, and rc counts (command_exit_code). */
int refusal_exit_code(int rc, int status);

#endif
