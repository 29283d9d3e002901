#include "report.h"

#include <jansson.h>
#include <stdio.h>

static json_t *latency(const struct histogram *ns)
{
    static const struct {
        const char *name;
        double part;
    } marks[] = {{"p50", .5},  {"p75", .75}, {"p90", .9},
                 {"p95", .95}, {"p99", .99}, {"p999", .999}};
    json_t *object = json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)ns->count, "min",
                               (double)ns->least * 1e-6, "mean", histogram_mean(ns) * 1e-6, "max",
                               (double)ns->most * 1e-6);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        double ms = (double)histogram_percentile(ns, marks[i].part) * 1e-6;
        json_object_set_new(object, marks[i].name, json_real(ms));
    }
    return object;
}

static json_t *statuses(const struct load_result *result)
{
    json_t *object = json_object();
    for (int status = 0; status < 600; status++) {
        char name[8];
        if (result->statuses[status] > 0) {
            snprintf(name, sizeof name, "%d", status);
            json_object_set_new(object, name, json_integer((json_int_t)result->statuses[status]));
        }
    }
    return object;
}

/* Between the first answer and the last, so that a few long ones are not counted by whole numbers a
 * second; 0: there are not two. */
static double steady(const struct load_result *result)
{
    int64_t ns = result->last_ns - result->first_ns;
    return ns > 0 ? (double)(result->in_time - 1) / ((double)ns * 1e-9) : 0;
}

char *report_text(const struct load_settings *settings, const struct load_result *result)
{
    double seconds = result->seconds > 0 ? result->seconds : 1e-9;
    json_t *object = json_pack(
        "{s:s, s:f, s:i, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, "
        "s:f, "
        "s:f, s:o, s:o}",
        "mode", settings->per_second > 0 ? settings->poisson ? "poisson" : "even" : "closed",
        "offered_per_s", settings->per_second, "clients", (int)settings->clients, "seconds",
        result->seconds, "connect_s", result->connect_s, "right_per_s",
        (double)result->in_time / seconds, "steady_per_s", steady(result), "sent",
        (json_int_t)result->sent, "answers", (json_int_t)result->answers, "right",
        (json_int_t)result->right, "wrong", (json_int_t)result->wrong, "malformed",
        (json_int_t)result->malformed, "broken", (json_int_t)result->broken, "unanswered",
        (json_int_t)result->unanswered, "reconnects", (json_int_t)result->reconnects, "bytes_in",
        (json_int_t)result->bytes_in, "bytes_out", (json_int_t)result->bytes_out, "cpu_seconds",
        result->cpu_seconds, "cpu_share", result->cpu_seconds / seconds, "statuses",
        statuses(result), "latency_ms", latency(&result->latency_ns));
    char *text = json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(7));
    json_decref(object);
    return text;
}
