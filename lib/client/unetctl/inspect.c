#include "inspect.h"

#include "command.h"
#include "unetserve/interface_text.h"
#include "workers/backends/backend.h"
#include "workers/models/unet/family.h"
#include "workers/models/unet/model_dir.h"
#include "workers/models/unet/quantise_file.h"
#include "workers/models/unet/weights.h"

#include <dlfcn.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#define REPORT_MAX 65536

static const char help_text[] =
    "usage: unetctl inspect MODEL [--json]\n"
    "\n"
    "Tells what a model is: family, sizes, classes, cost; or which parameters are missing, are\n"
    "not known or have the wrong shape (exit code 65).\n"
    "\n"
    "  MODEL   a .safetensors or .pth file, a directory with model.json, or a plugin (.so)\n";

/* ---- UNets ---- */

/* What precision int8 would do with a network. */
struct int8_facts {
    bool there; /* and else why not: */
    char reason[512];
    size_t integers; /* convolutions that sum integers */
    size_t convolutions;
    const char *floats[NETWORK_MAX_LAYERS]; /* names of those that do not */
};

static void find_int8(const struct model_dir *dir, const struct network *network,
                      const struct packed_hash *hash, struct int8_facts *out)
{
    struct quantise_ranges ranges = {0};
    struct quantise_plan plan = {0};
    int rc = quantise_file_load(dir->weights_path, network, hash, &ranges, out->reason,
                                sizeof out->reason);
    if (rc == -EINVAL)
        snprintf(out->reason, sizeof out->reason, "no; 'unetctl calibrate' prepares it");
    out->there = rc == 0 && quantise_plan_create(network, &ranges, &plan) == 0;
    for (size_t i = 0; i < network->layer_count && out->there; i++) {
        if (!network->layers[i].weights)
            continue;
        bool integer = quantise_layer_is_integer(network, &plan, i);
        if (!integer)
            out->floats[out->convolutions - out->integers] = network->layers[i].name;
        out->integers += integer;
        out->convolutions++;
    }
    quantise_plan_free(&plan);
    quantise_ranges_free(&ranges);
}

static void print_int8(const struct int8_facts *int8)
{
    if (!int8->there) {
        printf("  int8        %s\n", int8->reason);
        return;
    }
    printf("  int8        %zu of %zu convolutions; in float:", int8->integers, int8->convolutions);
    for (size_t i = 0; i < int8->convolutions - int8->integers; i++)
        printf("%s %s", i ? "," : "", int8->floats[i]);
    putchar('\n');
}

static json_t *int8_to_json(const struct int8_facts *int8)
{
    if (!int8->there)
        return json_pack("{s:b, s:s}", "ready", 0, "reason", int8->reason);
    json_t *floats = json_array();
    for (size_t i = 0; i < int8->convolutions - int8->integers; i++)
        json_array_append_new(floats, json_string(int8->floats[i]));
    return json_pack("{s:b, s:I, s:I, s:o}", "ready", 1, "convolutions",
                     (json_int_t)int8->convolutions, "in_int8", (json_int_t)int8->integers,
                     "in_float", floats);
}

/* The precisions that a processor has, fastest last, and whether this one has them. */
static const char *const precisions[] = {"f32", "bf16", "int8"};

static bool has_precision(const struct network *network, const char *precision)
{
    char reason[512];
    const struct backend *backend = backend_choose("auto", network, precision);
    return backend && (!backend->check_precision ||
                       backend->check_precision(precision, reason, sizeof reason) == 0);
}

static void print_precisions(const struct network *network)
{
    printf("  precisions ");
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        if (has_precision(network, precisions[i]))
            printf(" %s", precisions[i]);
    printf(" on this processor; auto is %s\n", has_precision(network, "bf16") ? "bf16" : "f32");
}

static json_t *precisions_to_json(const struct network *network)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof precisions / sizeof *precisions; i++)
        if (has_precision(network, precisions[i]))
            json_array_append_new(list, json_string(precisions[i]));
    return list;
}

static json_t *classes_to_json(const struct model_dir *dir)
{
    json_t *classes = json_array();
    for (uint32_t i = 0; i < dir->class_count; i++) {
        const struct unetserve_class *class = &dir->classes[i];
        char color[8];
        snprintf(color, sizeof color, "#%02x%02x%02x", class->rgb[0], class->rgb[1], class->rgb[2]);
        json_array_append_new(classes, json_pack("{s:s, s:i, s:s}", "name", class->name, "code",
                                                 (int)class->code, "color", color));
    }
    return classes;
}

static uint32_t tile_of(const struct model_dir *dir)
{
    return dir->tile ? dir->tile : 256;
}

static int print_network_json(const struct model_dir *dir, const struct network *network,
                              const struct int8_facts *int8)
{
    uint32_t tile = tile_of(dir);
    json_t *document = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:i, s:o}", "name",
        dir->name, "version", dir->version, "weights", dir->weights_path, "family", network->family,
        "up", network->up, "parameters", (json_int_t)network->parameters, "depth",
        (int)network->depth, "base_width", (int)network->base_width, "in_channels",
        (int)network->in_channels, "class_count", (int)network->classes, "size_multiple",
        (int)network->size_multiple, "size_min", (int)network->size_min, "layers",
        (int)network->layer_count, "gflop", (double)network_flop(network, tile, tile) / 1e9, "tile",
        (int)tile, "classes", classes_to_json(dir));
    if (!document)
        return command_fail(EX_DATAERR, "model.json has text that is not UTF-8");
    json_object_set_new(document, "int8", int8_to_json(int8));
    json_object_set_new(document, "precisions_here", precisions_to_json(network));
    json_dumpf(document, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(document);
    return EX_OK;
}

static int print_network(const struct model_dir *dir, const struct network *network,
                         const struct int8_facts *int8)
{
    uint32_t tile = tile_of(dir);
    printf("%s\n", dir->weights_path);
    printf("  name        %s%s%s\n", dir->name, dir->version[0] ? ", version " : "", dir->version);
    printf("  family      %s, %s upsampling\n", network->family, network->up);
    printf("  parameters  %llu in %zu layers\n", (unsigned long long)network->parameters,
           network->layer_count);
    printf("  depth       %u, base width %u\n", network->depth, network->base_width);
    printf("  channels    %u in, %u out\n", network->in_channels, network->classes);
    if (network->size_multiple > 1)
        printf("  sizes       multiples of %u, from %u\n", network->size_multiple,
               network->size_min);
    else
        printf("  sizes       any, from %u\n", network->size_min);
    printf("  cost        %.2f GFLOP for %u x %u\n",
           (double)network_flop(network, tile, tile) / 1e9, tile, tile);
    print_precisions(network);
    print_int8(int8);
    for (uint32_t i = 0; i < dir->class_count; i++)
        printf("  %-11s %3u  %3u  #%02x%02x%02x  %s\n", i == 0 ? "classes" : "", i,
               dir->classes[i].code, dir->classes[i].rgb[0], dir->classes[i].rgb[1],
               dir->classes[i].rgb[2], dir->classes[i].name);
    return EX_OK;
}

static int inspect_network(const struct model_dir *dir, bool json)
{
    static char report[REPORT_MAX];
    struct weights weights;
    struct network network;
    int rc = weights_open(dir->weights_path, &weights, report, sizeof report);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", report);
    const struct family_wish wish = {.family = dir->family, .concat = dir->concat};
    rc = family_build(&weights, &wish, &network, report, sizeof report);
    const struct packed_hash hash = weights_file_hash(&weights);
    weights_close(&weights);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s: %s", dir->weights_path, report);
    int code = EX_OK;
    uint32_t labels = network.classes == 1 ? 2 : network.classes; /* one channel: no and yes */
    if (dir->class_count > 0 && dir->class_count != labels)
        code = command_fail(EX_DATAERR, "%s: model.json names %u classes, the weights have %u",
                            dir->weights_path, dir->class_count, labels);
    else if (dir->in_channels > 0 && dir->in_channels != network.in_channels)
        code = command_fail(EX_DATAERR, "%s: model.json says %u channels, the weights have %u",
                            dir->weights_path, dir->in_channels, network.in_channels);
    if (code == EX_OK) {
        static struct int8_facts int8;
        find_int8(dir, &network, &hash, &int8);
        code = json ? print_network_json(dir, &network, &int8)
                    : print_network(dir, &network, &int8);
    }
    network_free(&network);
    return code;
}

/* ---- plugins ---- */

/* "a tensor, 'image'", or "a document of input: float, values: list of float". */
static void print_side(const char *title, uint32_t kind, const char *tensor_field,
                       const struct unetserve_field *fields, uint32_t count)
{
    printf("  %-11s ", title);
    if (kind == UNETSERVE_TENSOR) {
        printf("a tensor, '%s'\n", tensor_field);
        return;
    }
    printf("a document");
    for (uint32_t i = 0; i < count && i < UNETSERVE_MAX_FIELDS; i++) {
        printf("%s%s: ", i ? ", " : " of ", fields[i].name);
        for (uint32_t depth = 0; depth < fields[i].depth; depth++)
            printf("list of ");
        printf("%s%s", interface_field_type(fields[i].type),
               fields[i].optional ? " or nothing" : "");
    }
    printf("\n");
}

static void print_interface(const char *path, const char *plugin,
                            const struct unetserve_interface *interface)
{
    printf("%s\n", path);
    printf("  plugin      %s\n", plugin);
    printf("  name        %s\n", interface->name);
    print_side("takes", interface->input_kind, interface->input_field, interface->request_fields,
               interface->request_field_count);
    print_side("gives", interface->output_kind, interface->output_field, interface->response_fields,
               interface->response_field_count);
}

static int inspect_plugin(const char *path, bool json)
{
    static struct unetserve_interface interface;
    char error[1024];
    char full[PATH_MAX];
    if (!realpath(path, full))
        return command_fail(EX_NOINPUT, "cannot read '%s': %s", path, strerror(errno));
    void *library = dlopen(full, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return command_fail(EX_DATAERR, "'%s' is no plugin: %s", path, dlerror());
    const struct unetserve_model_ops *(*entry)(void) = NULL;
    *(void **)&entry = dlsym(library, "unetserve_model");
    const struct unetserve_model_ops *ops = entry ? entry() : NULL;
    int code = EX_OK;
    const struct unetserve_setup setup = {.abi = UNETSERVE_MODEL_ABI,
                                          .path = full,
                                          .device = "cpu",
                                          .precision = "auto",
                                          .backend = "auto",
                                          .threads = 1};
    int rc = 0;
    if (!ops)
        code = command_fail(EX_DATAERR, "'%s' is no plugin: it exports no unetserve_model", path);
    else if (ops->abi != UNETSERVE_MODEL_ABI)
        code = command_fail(EX_DATAERR, "'%s' has plugin ABI %u, expected %d", path, ops->abi,
                            UNETSERVE_MODEL_ABI);
    else if ((rc = ops->describe(&setup, &interface, error, sizeof error)) < 0)
        code = command_fail(command_exit_code(rc), "%s", error);
    else if (json) {
        char *text = interface_to_json(&interface);
        printf("%s\n", text ? text : "{}");
        free(text);
    } else {
        print_interface(path, ops->name, &interface);
    }
    dlclose(library);
    return code;
}

/* ---- the command ---- */

int inspect_model(const char *path, bool json)
{
    if (command_has_suffix(path, ".so"))
        return inspect_plugin(path, json);
    static struct model_dir dir;
    char error[COMMAND_ERROR_MAX];
    int rc = model_dir_load(path, &dir, error, sizeof error);
    if (rc < 0)
        return command_fail(command_exit_code(rc), "%s", error);
    return inspect_network(&dir, json);
}

int command_inspect(int argc, char **argv)
{
    bool json = false;
    int code = EX_OK;
    const char *path = command_one_file(argc, argv, "model", help_text, &json, &code);
    if (!path)
        return code;
    return inspect_model(path, json);
}
