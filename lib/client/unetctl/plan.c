#include "command.h"

#include <stdio.h>
#include <string.h>
#include <sysexits.h>

static const char help_text[] =
    "usage: unetctl plan MODEL --device-props FILE [--batch N] [--size HxW] [--precision P] "
    "[--json]\n"
    "\n"
    "Tells how a GPU would run a model, without one: for each convolution the engine that cuDNN\n"
    "chooses, what is to be known about it, its workspace, arithmetic, bytes and a bound on its\n"
    "time. Needs cuDNN 9.\n"
    "\n"
    "  --device-props FILE   the device, in cuDNN's own form (JSON)\n"
    "  --batch N             tiles at once (1)\n"
    "  --size HxW            their size (the model's)\n"
    "  --precision P         auto, bf16, f16 or f32\n";

#ifdef UNETSERVE_CUDNN

#include "workers/backends/cudnn/gpu_plan.h"
#include "workers/backends/cudnn/gpu_roofline.h"
#include "workers/models/unet/source.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdlib.h>

#define DESCRIPTION_MAX 65536
#define MOST_BATCH      4096
#define MOST_SIZE       65536
#define USUAL_TILE      256

struct wishes {
    const char *model;
    const char *device_path;
    const char *precision;
    uint32_t batch;
    uint32_t height; /* 0: the model's */
    uint32_t width;
    bool json;
};

/* Everything that is told about. */
struct planned {
    struct source source;
    struct gpu_device_facts device;
    struct gpu_place place;
    enum gpu_type type;
    struct gpu_plan plan;
};

/* ---- arguments ---- */

static bool parse_size(const char *text, uint32_t *height, uint32_t *width)
{
    char first[16];
    int64_t h = 0;
    int64_t w = 0;
    const char *cross = strchr(text, 'x');
    if (!cross || (size_t)(cross - text) >= sizeof first)
        return false;
    memcpy(first, text, (size_t)(cross - text));
    first[cross - text] = '\0';
    if (!command_parse_number(first, 1, MOST_SIZE, &h) ||
        !command_parse_number(cross + 1, 1, MOST_SIZE, &w))
        return false;
    *height = (uint32_t)h;
    *width = (uint32_t)w;
    return true;
}

static int take_option(int option, struct wishes *out)
{
    int64_t number = 0;
    switch (option) {
    case 'd': out->device_path = optarg; return EX_OK;
    case 'p': out->precision = optarg; return EX_OK;
    case 'j': out->json = true; return EX_OK;
    case 'b':
        if (!command_parse_number(optarg, 1, MOST_BATCH, &number))
            return command_fail(EX_USAGE, "--batch takes 1 to %d, not '%s'", MOST_BATCH, optarg);
        out->batch = (uint32_t)number;
        return EX_OK;
    case 's':
        if (!parse_size(optarg, &out->height, &out->width))
            return command_fail(EX_USAGE, "--size takes HxW, each 1 to %d, not '%s'", MOST_SIZE,
                                optarg);
        return EX_OK;
    default: return command_bad_option(option);
    }
}

static int parse(int argc, char **argv, struct wishes *out, bool *over)
{
    static const struct option long_options[] = {{"device-props", required_argument, NULL, 'd'},
                                                 {"batch", required_argument, NULL, 'b'},
                                                 {"size", required_argument, NULL, 's'},
                                                 {"precision", required_argument, NULL, 'p'},
                                                 {"json", no_argument, NULL, 'j'},
                                                 {"help", no_argument, NULL, 'h'},
                                                 {NULL, 0, NULL, 0}};
    int option;
    opterr = 0;
    while ((option = getopt_long(argc, argv, ":h", long_options, NULL)) != -1) {
        if (option == 'h') {
            fputs(help_text, stdout);
            *over = true;
            return EX_OK;
        }
        int code = take_option(option, out);
        if (code != EX_OK)
            return code;
    }
    if (argc - optind != 1)
        return command_fail(EX_USAGE, "plan takes one model, %d were given", argc - optind);
    if (!out->device_path)
        return command_fail(EX_USAGE, "plan needs --device-props FILE");
    out->model = argv[optind];
    return EX_OK;
}

/* ---- planning ---- */

static int read_device(const struct wishes *wishes, struct planned *out)
{
    static char text[DESCRIPTION_MAX];
    char error[COMMAND_ERROR_MAX] = "";
    const struct gpu_cudnn *cudnn;
    FILE *file = fopen(wishes->device_path, "rb");
    if (!file)
        return command_fail(EX_NOINPUT, "cannot read '%s': %s", wishes->device_path,
                            strerror(errno));
    size_t size = fread(text, 1, sizeof text, file);
    bool whole = !ferror(file) && size < sizeof text;
    fclose(file);
    if (!whole)
        return command_fail(EX_DATAERR, "%s: cannot be read, or is %d bytes or more",
                            wishes->device_path, DESCRIPTION_MAX);
    if (gpu_device_facts_read(text, size, &out->device, error, sizeof error))
        return command_fail(EX_DATAERR, "%s: %s", wishes->device_path, error);
    if (gpu_cudnn_open(&cudnn, error, sizeof error))
        return command_fail(EX_UNAVAILABLE, "%s", error);
    if (gpu_place_read(cudnn, text, size, &out->place, error, sizeof error))
        return command_fail(EX_DATAERR, "%s: %s", wishes->device_path, error);
    return EX_OK;
}

static bool size_fits(const struct network *network, uint32_t size)
{
    return size >= network->size_min && size % network->size_multiple == 0;
}

static int make_plan(const struct wishes *wishes, struct planned *out)
{
    char error[COMMAND_ERROR_MAX] = "";
    const struct network *network = &out->source.plan;
    uint32_t usual = out->source.dir.tile ? out->source.dir.tile : USUAL_TILE;
    uint32_t height = wishes->height ? wishes->height : usual;
    uint32_t width = wishes->width ? wishes->width : usual;
    struct gpu_layout layout;
    if (!size_fits(network, height) || !size_fits(network, width))
        return command_fail(EX_USAGE, "the network takes multiples of %u, from %u",
                            network->size_multiple, network->size_min);
    if (gpu_type_choose(wishes->precision, out->device.capability, &out->type, error, sizeof error))
        return command_fail(EX_USAGE, "%s: %s", wishes->device_path, error);
    int rc = gpu_layout_create(network, out->type, wishes->batch, height, width, &layout);
    if (rc)
        return command_fail(command_exit_code(rc), "%u tiles of %u x %u are too large for one run",
                            wishes->batch, height, width);
    rc = gpu_plan_create(&out->place, network, &layout, NULL, NULL, NULL, &out->plan, error,
                         sizeof error);
    if (rc) {
        gpu_layout_free(&layout);
        return command_fail(rc == -ENOTSUP ? EX_UNAVAILABLE : command_exit_code(rc), "%s",
                            error[0] ? error : strerror(-rc));
    }
    return EX_OK;
}

/* ---- telling ---- */

/* A layer without weights has no name of its own. */
static const char *layer_name(const struct planned *planned, const struct gpu_step *step)
{
    static char number[24];
    const char *name = planned->source.plan.layers[step->layer].name;
    snprintf(number, sizeof number, "layer %u", step->layer);
    return name[0] ? name : number;
}

static const char *step_name(enum gpu_step_kind kind)
{
    static const char *const names[] = {"conv", "shuffle", "pool", "upsample", "fit", "add"};
    return names[kind];
}

static json_t *step_to_json(const struct planned *planned, size_t index)
{
    const struct gpu_step *step = &planned->plan.layout.steps[index];
    const struct gpu_conv *conv = &planned->plan.convs[index];
    const struct network *network = &planned->source.plan;
    struct gpu_peaks peaks = gpu_peaks_of(&planned->device, planned->type);
    struct gpu_cost cost = gpu_step_cost(network, &planned->plan.layout, step);
    char engine[32] = "own";
    if (conv->plan)
        snprintf(engine, sizeof engine, "%lld", (long long)conv->engine.id);
    return json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:I, s:I, s:I, s:f}", "name",
                     layer_name(planned, step), "op", step_name(step->kind), "engine", engine,
                     "type", gpu_type_name(planned->type), "tensor_core", (int)conv->tensor_core,
                     "notes", conv->notes, "workspace_bytes", (json_int_t)conv->workspace_bytes,
                     "flop", (json_int_t)cost.flop, "bytes", (json_int_t)cost.bytes, "bound_us",
                     gpu_cost_seconds(&cost, &peaks) * 1e6);
}

static int print_json(const struct planned *planned)
{
    const struct gpu_layout *layout = &planned->plan.layout;
    struct gpu_peaks peaks = gpu_peaks_of(&planned->device, planned->type);
    json_t *layers = json_array();
    json_t *kernels = json_array();
    double bound = 0;
    for (size_t i = 0; i < layout->step_count; i++) {
        struct gpu_cost cost = gpu_step_cost(&planned->source.plan, layout, &layout->steps[i]);
        bound += gpu_cost_seconds(&cost, &peaks);
        json_array_append_new(planned->plan.convs[i].plan ? layers : kernels,
                              step_to_json(planned, i));
    }
    json_t *document = json_pack(
        "{s:s, s:s, s:i, s:i, s:i, s:I, s:I, s:I, s:f, s:o, s:o}", "device", planned->device.name,
        "type", gpu_type_name(planned->type), "batch", (int)layout->count, "height",
        (int)layout->height, "width", (int)layout->width, "cudnn_version",
        (json_int_t)planned->place.cudnn->version, "arena_bytes", (json_int_t)layout->arena_bytes,
        "workspace_bytes", (json_int_t)planned->plan.workspace_bytes, "bound_us", bound * 1e6,
        "layers", layers, "kernels", kernels);
    if (!document)
        return command_fail(EX_DATAERR, "the device or a layer has a name that is not UTF-8");
    json_dumpf(document, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(document);
    return EX_OK;
}

static void print_step(const struct planned *planned, size_t index, double *bound)
{
    const struct gpu_step *step = &planned->plan.layout.steps[index];
    const struct gpu_conv *conv = &planned->plan.convs[index];
    struct gpu_peaks peaks = gpu_peaks_of(&planned->device, planned->type);
    struct gpu_cost cost = gpu_step_cost(&planned->source.plan, &planned->plan.layout, step);
    double seconds = gpu_cost_seconds(&cost, &peaks);
    char engine[32] = "own";
    if (conv->plan)
        snprintf(engine, sizeof engine, "%lld", (long long)conv->engine.id);
    printf("%-36.36s %-8s %6s %9.2f %9.2f %9.2f %9.1f  %s\n", layer_name(planned, step),
           step_name(step->kind), engine, (double)conv->workspace_bytes / 1e6, cost.flop / 1e9,
           cost.bytes / 1e6, seconds * 1e6, conv->notes);
    *bound += seconds;
}

static int print_table(const struct planned *planned)
{
    const struct gpu_layout *layout = &planned->plan.layout;
    double bound = 0;
    printf("%s in %s, %u x %u x %u, cuDNN %zu\n", planned->device.name,
           gpu_type_name(planned->type), layout->count, layout->height, layout->width,
           planned->place.cudnn->version);
    printf("%-36s %-8s %6s %9s %9s %9s %9s  %s\n", "layer", "step", "engine", "ws MB", "GFLOP",
           "MB", "bound us", "notes");
    for (size_t i = 0; i < layout->step_count; i++)
        print_step(planned, i, &bound);
    printf("activations %.1f MB (%.1f without reuse), workspace %.1f MB, bound %.1f us\n",
           (double)layout->arena_bytes / 1e6, (double)layout->sum_bytes / 1e6,
           (double)planned->plan.workspace_bytes / 1e6, bound * 1e6);
    return EX_OK;
}

int command_plan(int argc, char **argv)
{
    static struct planned planned;
    char error[COMMAND_ERROR_MAX] = "";
    struct wishes wishes = {.precision = "auto", .batch = 1};
    bool over = false;
    int code = parse(argc, argv, &wishes, &over);
    if (over || code != EX_OK)
        return code;
    int rc = source_open(wishes.model, false, &planned.source, error, sizeof error);
    if (rc)
        return command_fail(command_exit_code(rc), "%s", error);
    code = read_device(&wishes, &planned);
    if (code == EX_OK)
        code = make_plan(&wishes, &planned);
    if (code == EX_OK) {
        code = wishes.json ? print_json(&planned) : print_table(&planned);
        gpu_plan_free(planned.place.cudnn, &planned.plan);
    }
    if (planned.place.properties)
        planned.place.cudnn->cudnnBackendDestroyDescriptor(planned.place.properties);
    source_close(&planned.source);
    return code;
}

#else

int command_plan(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--help") == 0) {
        fputs(help_text, stdout);
        return EX_OK;
    }
    return command_fail(EX_UNAVAILABLE, "plan: this unetctl was built without the CUDA toolkit and "
                                        "cuDNN's headers");
}

#endif
