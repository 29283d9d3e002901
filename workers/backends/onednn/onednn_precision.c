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
                 "this CPU has neither AVX512-BF16 nor AMX-BF16, which precision bf16 needs: auto "
                 "is f32 here");
        return -EINVAL;
    } else {
        *out = ONEDNN_BF16;
    }
    return 0;
}

static int choose(const char *precision, struct onednn_precision *out, char *error,
                  size_t error_size)
{
    out->integer = strcmp(precision, "int8") == 0;
    if (out->integer && !has_vnni()) {
        snprintf(error, error_size,
                 "this CPU has neither AVX512-VNNI nor AVX-VNNI, which precision int8 needs: auto "
                 "is %s here, and backend reference computes int8, slowly",
                 has_bf16() ? "bf16" : "f32");
        return -EINVAL;
    }
    return choose_floats(precision, &out->type, error, error_size);
}

int onednn_precision_check(const char *precision, char *error, size_t error_size)
{
    struct onednn_precision chosen;
    return choose(precision, &chosen, error, error_size);
}

/* f32 that was asked for is what it has always been, bit by bit, unless Winograd is asked for, too.
 */
static bool wants_winograd(const struct backend_options *options,
                           const struct onednn_precision *precision)
{
    if (precision->type != ONEDNN_F32 || precision->integer) {
        return false;
    }
    if (options->convolution == NULL || strcmp(options->convolution, "auto") == 0) {
        return strcmp(options->precision, "auto") == 0;
    }
    return strcmp(options->convolution, "winograd") == 0;
}

int onednn_precision_choose(const struct network *network, const struct backend_options *options,
                            struct onednn_precision *out, char *error, size_t error_size)
{
    struct onednn_precision chosen;
    int code = choose(options->precision, &chosen, error, error_size);
    if (code == 0 && chosen.integer) {
        code = backend_check_ranges(network, options, error, error_size);
    }
    if (code == 0) {
        chosen.winograd = wants_winograd(options, &chosen);
        *out = chosen;
    }
    return code;
}
