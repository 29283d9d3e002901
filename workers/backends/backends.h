/* The backends that are linked in, for backend.c's list. */
#ifndef BACKENDS_H
#define BACKENDS_H

#include "backend.h"

extern const struct backend backend_reference; /* plain C; defines what is right */
extern const struct backend backend_amx;       /* CPUs with tiles, in bf16 */
extern const struct backend backend_onednn;    /* CPUs, through oneDNN */
extern const struct backend backend_cudnn;     /* NVIDIA GPUs; only in builds with the toolkit */

#endif
