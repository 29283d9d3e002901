#include "gpu_roofline.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* From the first compute capability on; the last row that fits holds. */
static const struct {
    int capability;
    double tensor_flop; /* a processor and clock, dense, 16-bit factors and float sums */
    double plain_flop;  /* float */
    double bus_bytes; /* width of the memory interface of the usual board, two transfers a clock */
} rows[] = {
    {75, 1024, 128, 2 * 256 / 8.0},   /* T4 */
    {80, 2048, 128, 2 * 5120 / 8.0},  /* A100 */
    {86, 512, 256, 2 * 384 / 8.0},    /* A10, RTX 3090 */
    {89, 512, 256, 2 * 384 / 8.0},    /* RTX 4090 */
    {90, 4096, 256, 2 * 5120 / 8.0},  /* H100 */
    {100, 8192, 256, 2 * 8192 / 8.0}, /* B200 */
    {120, 512, 256, 2 * 512 / 8.0},   /* RTX 5090 */
};

int gpu_device_facts_read(const char *text, size_t size, struct gpu_device_facts *out, char *error,
                          size_t error_size)
{
    json_error_t problem;
    json_t *document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (document == NULL) {
        snprintf(error, error_size, "no JSON at line %d: %s", problem.line, problem.text);
        return -EINVAL;
    }
    json_int_t version = 0;
    json_int_t processors = 0;
    json_int_t clock_khz = 0;
    json_int_t memory_khz = 0;
    const char *name = "";
    struct gpu_device_facts facts = {{0}, 0, 0, 0, 0};
    int wrong = json_unpack_ex(document, &problem, 0, "{s:I, s:I, s:I, s:I, s:s}", "deviceVer",
                               &version, "multiProcessorCount", &processors, "smClockRateKHz",
                               &clock_khz, "memClockRateKHz", &memory_khz, "deviceName", &name);
    if (wrong != 0) {
        snprintf(error, error_size, "no description of a device: %s", problem.text);
    } else if (version < 100 || version > 10000 || processors < 1 || processors > 100000 ||
               clock_khz < 1 || clock_khz > 1000000000 || memory_khz < 1 ||
               memory_khz > 1000000000) {
        snprintf(error, error_size,
                 "no description of a device: deviceVer, multiProcessorCount "
                 "or a clock is out of range");
        wrong = -1;
    } else {
        snprintf(facts.name, sizeof facts.name, "%s", name);
        facts.capability = (int)(version / 10);
        facts.processors = (double)processors;
        facts.clock_hz = (double)clock_khz * 1e3;
        facts.memory_clock_hz = (double)memory_khz * 1e3;
        *out = facts;
    }
    json_decref(document);
    return wrong != 0 ? -EINVAL : 0;
}

struct gpu_peaks gpu_peaks_of(const struct gpu_device_facts *facts, enum gpu_type type)
{
    size_t row = 0;
    while (row + 1 < sizeof rows / sizeof rows[0] &&
           rows[row + 1].capability <= facts->capability) {
        row++;
    }
    double flop = type == GPU_F32 ? rows[row].plain_flop : rows[row].tensor_flop;
    return (struct gpu_peaks){
        .flop_per_s = flop * facts->processors * facts->clock_hz,
        .bytes_per_s = rows[row].bus_bytes * facts->memory_clock_hz,
    };
}

static double view_elements(const struct gpu_layout *layout, const struct gpu_view *view)
{
    return (double)layout->count * view->height * view->width * view->depth;
}

struct gpu_cost gpu_step_cost(const struct network *network, const struct gpu_layout *layout,
                              const struct gpu_step *step)
{
    const struct network_layer *layer = &network->layers[step->layer];
    double elements = view_elements(layout, &step->in) + view_elements(layout, &step->out) +
                      view_elements(layout, &step->second) + view_elements(layout, &step->copy);
    struct gpu_cost cost = {0, 0};
    if (step->kind == GPU_STEP_CONV) {
        bool up = layer->op == NETWORK_CONV_UP;
        double taps = up ? 1.0 : (double)layer->kernel * layer->kernel;
        uint32_t from = layer->inputs[0];
        double channels = from > 0 ? network->layers[from - 1].channels : network->in_channels;
        double pixels = (double)layout->count * step->out.height * step->out.width;
        elements += taps * step->in.depth * step->out.depth + step->out.depth;
        cost.flop = 2.0 * pixels * taps * channels * layer->channels * (up ? 4.0 : 1.0);
    }
    cost.bytes = elements * (double)gpu_type_bytes(layout->type);
    return cost;
}

double gpu_cost_seconds(const struct gpu_cost *cost, const struct gpu_peaks *peaks)
{
    double compute = cost->flop / peaks->flop_per_s;
    double memory = cost->bytes / peaks->bytes_per_s;
    return compute > memory ? compute : memory;
}
