/* Whether this process can run on tiles. */
#include "amx_kernels.h"

#include "workers/backends/onednn/onednn_isa.h"

#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_TILE_DATA  18

const struct amx_kernels *amx_kernels_here(char *error, size_t error_size)
{
    struct onednn_isa isa = onednn_isa_detect();
    if (!isa.amx_bf16 || !isa.amx_int8 || !isa.avx512_bf16) {
        snprintf(error, error_size,
                 "this CPU has no AMX-BF16 and AMX-INT8, or the kernel does not save its tiles");
        return NULL;
    }
    /* Linux hands the tiles' 8 KiB of state only to processes that ask. */
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_TILE_DATA) != 0) {
        snprintf(error, error_size, "the kernel does not let this process use AMX's tiles");
        return NULL;
    }
    if (!amx_kernels_are_right(&amx_hardware)) {
        snprintf(error, error_size, "AMX's tiles do not sum as they should here");
        return NULL;
    }
    return &amx_hardware;
}
