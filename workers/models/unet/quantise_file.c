#include "quantise_file.h"

#include "lib/json_whole.h"
#include "model_dir.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT       1
#define CHANNELS_MAX 65536
#define HEX_DIGITS   16

struct complaint {
    char *error;
    size_t size;
};

static int refuse(const struct complaint *to, const char *text)
{
    snprintf(to->error, to->size, "%s", text);
    return -EBADMSG;
}

static int no_memory(const struct complaint *to)
{
    snprintf(to->error, to->size, "out of memory");
    return -ENOMEM;
}

static int cannot_unpack(const json_error_t *problem, const struct complaint *to)
{
    if (json_error_code(problem) == json_error_out_of_memory)
        return no_memory(to);
    return refuse(to, problem->text);
}

void quantise_file_free(struct quantise_file *file)
{
    for (size_t i = 0; file->entries && i < file->count; i++)
        free(file->entries[i].channels);
    free(file->entries);
    *file = (struct quantise_file){0};
}

/* ---- reading ---- */

static bool take_hash(const char *text, struct packed_hash *out)
{
    char high[HEX_DIGITS + 1] = "";
    if (strlen(text) != 2 * HEX_DIGITS ||
        strspn(text, "0123456789abcdef") != (size_t)(2 * HEX_DIGITS))
        return false;
    memcpy(high, text, HEX_DIGITS);
    out->high = strtoull(high, NULL, 16);
    out->low = strtoull(text + HEX_DIGITS, NULL, 16);
    return true;
}

static bool take_channel(const json_t *triple, struct quantise_channel *out)
{
    double numbers[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *number = json_array_get(triple, i);
        if (!json_is_number(number))
            return false;
        numbers[i] = json_number_value(number);
    }
    out->low = (float)numbers[0];
    out->high = (float)numbers[1];
    out->mean = (float)numbers[2];
    return json_array_size(triple) == 3 && isfinite(out->low) && isfinite(out->high) &&
           isfinite(out->mean) && out->low <= 0 && out->high >= 0 && out->low <= out->mean &&
           out->mean <= out->high;
}

static int take_channels(const json_t *channels, struct quantise_entry *out,
                         const struct complaint *to)
{
    size_t count = json_array_size(channels);
    if (!channels)
        return 0;
    if (count == 0 || count > CHANNELS_MAX)
        return refuse(to, "\"channels\" must be an array of [low, high, mean], one a channel");
    out->channels = calloc(count, sizeof *out->channels);
    if (!out->channels)
        return no_memory(to);
    out->channel_count = (uint32_t)count;
    for (size_t i = 0; i < count; i++) {
        if (!take_channel(json_array_get(channels, i), &out->channels[i])) {
            snprintf(to->error, to->size,
                     "\"channels\"[%zu]: want [low, high, mean], low at most 0, high at least 0, "
                     "and mean between them",
                     i);
            return -EBADMSG;
        }
    }
    return 0;
}

/* What it has of out is freed with the file. */
static int take_entry(json_t *value, size_t index, struct quantise_entry *out,
                      const struct complaint *to)
{
    json_error_t problem;
    json_int_t layer = -1;
    const char *name = NULL;
    double low = 0;
    double high = 0;
    int keep = 0;
    const json_t *channels = json_object_get(value, "channels");
    if (json_unpack_ex(value, &problem, 0, "{s:I, s:s, s:F, s:F, s?b}", "layer", &layer, "name",
                       &name, "low", &low, "high", &high, "float", &keep) < 0)
        return cannot_unpack(&problem, to);
    size_t known = 4 + (json_object_get(value, "float") ? 1 : 0) + (channels ? 1 : 0);
    if (json_object_size(value) != known)
        return refuse(to, "an entry of \"layers\" has a key that is not known (known: layer, name, "
                          "low, high, float, channels)");
    struct quantise_entry entry = {.layer = (uint32_t)layer, .keep = keep != 0};
    entry.low = (float)low;
    entry.high = (float)high;
    bool good = layer >= 0 && layer < NETWORK_MAX_LAYERS && strlen(name) < sizeof entry.name &&
                isfinite(entry.low) && isfinite(entry.high) && low <= 0 && high >= 0;
    if (!good) {
        snprintf(to->error, to->size,
                 "\"layers\"[%zu]: want a layer's number below %d, its name, \"low\" of at most 0 "
                 "and \"high\" of at least 0",
                 index, NETWORK_MAX_LAYERS);
        return -EBADMSG;
    }
    snprintf(entry.name, sizeof entry.name, "%s", name);
    *out = entry;
    return take_channels(channels, out, to);
}

static int take_entries(const json_t *layers, struct quantise_file *out, const struct complaint *to)
{
    size_t count = json_array_size(layers);
    if (!json_is_array(layers) || count == 0 || count > NETWORK_MAX_LAYERS)
        return refuse(to, "\"layers\" must be an array of entries, one a layer at most");
    out->entries = calloc(count, sizeof *out->entries);
    if (!out->entries)
        return no_memory(to);
    out->count = count;
    for (size_t i = 0; i < count; i++) {
        int rc = take_entry(json_array_get(layers, i), i, &out->entries[i], to);
        if (rc < 0)
            return rc;
        if (i > 0 && out->entries[i].layer <= out->entries[i - 1].layer)
            return refuse(to, "\"layers\" must be in the order of their numbers");
    }
    return 0;
}

static int take_document(json_t *document, struct quantise_file *out, const struct complaint *to)
{
    json_error_t problem;
    json_int_t format = 0;
    const char *weights = NULL;
    const char *method = "";
    json_t *layers = NULL;
    if (json_unpack_ex(document, &problem, 0, "{s:I, s:s, s?s, s:o}", "format", &format, "weights",
                       &weights, "method", &method, "layers", &layers) < 0)
        return cannot_unpack(&problem, to);
    if (json_object_size(document) != (json_object_get(document, "method") ? 4 : 3))
        return refuse(to, "a key is not known (known: format, weights, method, layers)");
    if (format != FORMAT)
        return refuse(to, "\"format\" is not 1, the only one that this program knows");
    if (!take_hash(weights, &out->weights))
        return refuse(to, "\"weights\" must be 32 hexadecimal digits");
    if (strlen(method) >= sizeof out->method)
        return refuse(to, "\"method\" is too long");
    snprintf(out->method, sizeof out->method, "%s", method);
    return take_entries(layers, out, to);
}

int quantise_file_parse(const char *text, size_t size, struct quantise_file *out, char *error,
                        size_t error_size)
{
    struct complaint to = {error, error_size};
    json_error_t problem;
    json_t *document = json_whole_load(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!document && errno == ENOMEM)
        return no_memory(&to);
    if (!document) {
        snprintf(error, error_size, "line %d: %s", problem.line, problem.text);
        return -EBADMSG;
    }
    struct quantise_file file = {0};
    int rc = take_document(document, &file, &to);
    json_decref(document);
    if (rc < 0) {
        quantise_file_free(&file);
        return rc;
    }
    *out = file;
    return 0;
}

/* ---- writing ---- */

static json_t *print_channels(const struct quantise_entry *entry)
{
    json_t *channels = json_array();
    for (uint32_t i = 0; i < entry->channel_count; i++) {
        const struct quantise_channel *channel = &entry->channels[i];
        json_array_append_new(channels, json_pack("[f, f, f]", (double)channel->low,
                                                  (double)channel->high, (double)channel->mean));
    }
    if (json_array_size(channels) == entry->channel_count)
        return channels;
    json_decref(channels);
    return NULL;
}

char *quantise_file_print(const struct quantise_file *file)
{
    char hash[2 * HEX_DIGITS + 1];
    snprintf(hash, sizeof hash, "%016" PRIx64 "%016" PRIx64, file->weights.high, file->weights.low);
    json_t *layers = json_array();
    for (size_t i = 0; i < file->count; i++) {
        const struct quantise_entry *entry = &file->entries[i];
        json_t *value = json_pack("{s:i, s:s, s:f, s:f}", "layer", (int)entry->layer, "name",
                                  entry->name, "low", (double)entry->low, "high",
                                  (double)entry->high);
        if (entry->keep)
            json_object_set_new(value, "float", json_true());
        if (entry->channel_count > 0)
            json_object_set_new(value, "channels", print_channels(entry));
        json_array_append_new(layers, value);
    }
    json_t *document = json_pack("{s:i, s:s, s:s, s:o}", "format", FORMAT, "weights", hash,
                                 "method", file->method, "layers", layers);
    bool whole = document && json_array_size(layers) == file->count;
    char *text = whole ? json_dumps(document, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(document);
    return text;
}

/* ---- binding ---- */

static bool fits(const struct quantise_entry *entry, const struct network *network,
                 const struct complaint *to)
{
    if (entry->layer >= network->layer_count ||
        strcmp(entry->name, network->layers[entry->layer].name) != 0) {
        snprintf(to->error, to->size, "the network's layer %u is not called '%s'", entry->layer,
                 entry->name);
        return false;
    }
    uint32_t channels = network->layers[entry->layer].channels;
    if (entry->channel_count == 0 || entry->channel_count == channels)
        return true;
    snprintf(to->error, to->size, "the network's layer '%s' has %u channels, not %u", entry->name,
             channels, entry->channel_count);
    return false;
}

/* Room for all. */
static int make_ranges(const struct quantise_file *file, size_t layers, struct quantise_ranges *out)
{
    size_t channels = 0;
    for (size_t i = 0; i < file->count; i++)
        channels += file->entries[i].channel_count;
    *out = (struct quantise_ranges){.layer_count = layers};
    out->layers = calloc(layers, sizeof *out->layers);
    out->channels = calloc(channels + 1, sizeof *out->channels);
    if (out->layers && out->channels)
        return 0;
    quantise_ranges_free(out);
    return -ENOMEM;
}

int quantise_file_bind(const struct quantise_file *file, const struct network *network,
                       const struct packed_hash *weights, struct quantise_ranges *out, char *error,
                       size_t error_size)
{
    struct complaint to = {error, error_size};
    if (memcmp(&file->weights, weights, sizeof *weights) != 0)
        return refuse(&to, "it was made for other weights; 'unetctl calibrate' makes it anew");
    struct quantise_ranges ranges;
    if (make_ranges(file, network->layer_count, &ranges) < 0)
        return no_memory(&to);
    struct quantise_channel *next = ranges.channels;
    for (size_t i = 0; i < file->count; i++) {
        const struct quantise_entry *entry = &file->entries[i];
        if (!fits(entry, network, &to)) {
            quantise_ranges_free(&ranges);
            return -EBADMSG;
        }
        ranges.layers[entry->layer] = (struct quantise_range){.low = entry->low,
                                                              .high = entry->high,
                                                              .known = true,
                                                              .keep = entry->keep,
                                                              .channel_count = entry->channel_count,
                                                              .channels = next};
        if (entry->channel_count > 0)
            memcpy(next, entry->channels, entry->channel_count * sizeof *next);
        next += entry->channel_count;
    }
    quantise_ranges_seal(&ranges);
    *out = ranges;
    return 0;
}

static int load(const char *path, const struct network *network, const struct packed_hash *weights,
                struct quantise_ranges *out, char *error, size_t error_size)
{
    char *text = NULL;
    size_t bytes = 0;
    int rc = model_dir_read_text(path, &text, &bytes, error, error_size);
    if (rc < 0)
        return rc;
    struct quantise_file file = {0};
    size_t used = (size_t)snprintf(error, error_size, "%s: ", path);
    used = used < error_size ? used : error_size;
    rc = quantise_file_parse(text, bytes, &file, error + used, error_size - used);
    free(text);
    if (rc == 0)
        rc = quantise_file_bind(&file, network, weights, out, error + used, error_size - used);
    quantise_file_free(&file);
    return rc;
}

int quantise_file_load(const char *weights_path, const struct network *network,
                       const struct packed_hash *weights, struct quantise_ranges *out, char *error,
                       size_t error_size)
{
    char path[PATH_MAX];
    const char *slash = strrchr(weights_path, '/');
    int head = slash ? (int)(slash - weights_path) + 1 : 0;
    int length = snprintf(path, sizeof path, "%.*s%s", head, weights_path, QUANTISE_FILE_NAME);
    if (length < 0 || (size_t)length >= sizeof path) {
        snprintf(error, error_size, "%.200s: the path is too long", weights_path);
        return -ENAMETOOLONG;
    }
    int rc = load(path, network, weights, out, error, error_size);
    if (rc == -ENOENT) {
        snprintf(error, error_size,
                 "precision int8 needs %s: 'unetctl calibrate %s TILES... -o DIR' makes a model "
                 "directory that has it",
                 path, weights_path);
        return -EINVAL;
    }
    return rc;
}
