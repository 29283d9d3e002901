/* Header values, one a line: Content-Type, Content-Encoding, Accept, X-Unetserve-Timeout-Ms,
 * X-Request-Id. The answer is within bounds, or a refusal that is JSON; ids are such that logs and
 * headers can carry them. */
#include "gateway/decoding.h"
#include "gateway/negotiate.h"

#include "lib/json_scan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int condition)
{
    if (!condition)
        abort();
}

static void check_refusal(const struct problem *problem)
{
    check(problem->status >= 400 && problem->status < 500);
    check(json_is_valid(problem->body, strlen(problem->body)));
}

static void try_values(const struct unetserve_interface *interface, char *const *values)
{
    struct problem problem;
    enum body_format format;
    enum job_form form;
    uint64_t timeout_ms;
    enum body_coding coding;
    if (negotiate_format(interface, values[0], &format, &problem) == 0)
        check(format <= BODY_URLENCODED);
    else
        check_refusal(&problem);
    if (decoding_choose(values[1], &coding, &problem) == 0)
        check(coding <= BODY_ZSTD);
    else
        check_refusal(&problem);
    if (negotiate_form(interface, values[2], &form, &problem) == 0)
        check(form <= JOB_PNG);
    else
        check_refusal(&problem);
    if (negotiate_timeout(values[3], &timeout_ms, &problem) == 0)
        check(timeout_ms <= NEGOTIATE_TIMEOUT_MAX_MS);
    else
        check_refusal(&problem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct unetserve_interface interfaces[] = {
        {.input_kind = UNETSERVE_TENSOR, .output_kind = UNETSERVE_TENSOR, .input_field = "image"},
        {.input_kind = UNETSERVE_DOCUMENT, .output_kind = UNETSERVE_DOCUMENT},
    };
    char *text = malloc(size + 1), *rest = text;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    char *values[5] = {NULL};
    for (size_t i = 0; i < 5; i++)
        values[i] = strsep(&rest, "\n");
    for (size_t i = 0; i < sizeof interfaces / sizeof interfaces[0]; i++)
        try_values(&interfaces[i], values);
    char id[64];
    negotiate_request_id(values[4], id);
    check(id[0] && strlen(id) < sizeof id);
    for (const char *at = id; *at; at++)
        check(*at > ' ' && *at < 0x7f && *at != '"' && *at != '\\');
    free(text);
    return 0;
}
