/*
 * unetserve --probe ADDRESS: is a server there, and is it healthy? For container runtimes and
 * scripts on machines that have no HTTP client.
 */
#ifndef PROBE_H
#define PROBE_H

/* Ask "/health" at an address as the configuration writes them, with a bound on every wait. Prints
 * what came. An exit status: 0 for an answer with status 200, EX_USAGE for what is no address,
 * EX_UNAVAILABLE for anything else. */
int probe_health(const char *address);

#endif
