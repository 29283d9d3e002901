#include "onednn_precision.h"

#include "onednn_isa.h"

#include <errno.h>
#include <oneapi/dnnl/dnnl.h>
#include <stdio.h>
#include <string.h>

static bool has_bf16(void)
{
    struct onednn_isa isa = onednn_isa_detect();
    unsigned wanted = (unsigned)dnnl_cpu_isa_avx512_core_bf16;
    bool library = ((unsigned)dnnl_get_effective_cpu_isa() & wanted) == wanted;
    return library && (isa.avx512_bf16 || isa.amx_bf16);
}

/* Without these instructions sums of two products would be cut off at 16 bits. */
static bool has_vnni(void)
{
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa();
    unsigned wide = (unsigned)dnnl_cpu_isa_avx512_core_vnni;
    unsigned narrow = (unsigned)dnnl_cpu_isa_avx2_vnni;
    return (isa & wide) == wide || (isa & narrow) == narrow;
}

static int check_int8(const struct network *network, const struct backend_options *options,
                      char *error, size_t error_size)
{
    if (!has_vnni()) {
        snprintf(error, error_size,
                 "this CPU has neither AVX512-VNNI nor AVX-VNNI, which precision int8 needs");
        return -EINVAL;
    }
    return backend_check_ranges(network, options, error, error_size);
}

static int choose_floats(const char *precision, enum onednn_type *out, char *error,
                         size_t error_size)
{
    if (strcmp(precision, "auto") == 0 || strcmp(precision, "int8") == 0) {
        *out = has_bf16() ? ONEDNN_BF16 : ONEDNN_F32;
    } else if (strcmp(precision, "f32") == 0) {
        *out = ONEDNN_F32;
    } else if (strcmp(precision, "bf16") != 0) {
        snprintf(error, error_size,
                 "the onednn backend has no precision %s: auto, f32, bf16 or int8", precision);
        return -EINVAL;
    } else if (!has_bf16()) {
        snprintf(error, error_size,
                 "this CPU has neither AVX512-BF16 nor AMX-BF16, which precision bf16 needs");
        return -EINVAL;
    } else {
        *out = ONEDNN_BF16;
    }
    return 0;
}

int onednn_precision_choose(const struct network *network, const struct backend_options *options,
                            struct onednn_precision *out, char *error, size_t error_size)
{
    struct onednn_precision precision = {.integer = strcmp(options->precision, "int8") == 0};
    int code = precision.integer ? check_int8(network, options, error, error_size) : 0;
    if (code == 0) {
        code = choose_floats(options->precision, &precision.type, error, error_size);
    }
    if (code == 0) {
        *out = precision;
    }
    return code;
}
