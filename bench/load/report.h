/* What a run of load found, as one JSON document. */
#ifndef BENCH_LOAD_REPORT_H
#define BENCH_LOAD_REPORT_H

#include "load.h"

/* One line of JSON that the caller frees; NULL without memory. Latencies are milliseconds. */
char *report_text(const struct load_settings *settings, const struct load_result *result);

#endif
