/* The destination of a body that is being decoded. */
#ifndef BODY_SINK_H
#define BODY_SINK_H

#include "unetserve/body_reader.h"

/* Room for at least needed bytes, keeping the first used ones. 0, or -1 with *problem from whoever
 * was asked for more. */
int body_sink_reserve(struct body_sink *sink, size_t used, size_t needed, struct problem *problem);

#endif
