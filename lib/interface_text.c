#include "unetserve/interface_text.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_LIMIT    65536 /* height and width */
#define COUNT_LIMIT   65536 /* channels, tiles of a batch */
#define TIME_LIMIT_MS 3600000

/* ---- writing ---- */

static const char *kind_name(uint32_t kind)
{
    return kind == UNETSERVE_TENSOR ? "tensor" : "document";
}

static json_t *dtypes_to_json(uint32_t mask)
{
    json_t *list = json_array();
    for (uint32_t dtype = 1; dtype < 32; dtype++)
        if ((mask & UINT32_C(1) << dtype) && unetserve_dtype_size(dtype) > 0)
            json_whole_append(&list, json_string(unetserve_dtype_name(dtype)));
    return list;
}

static json_t *classes_to_json(const struct unetserve_interface *interface)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < interface->class_count && i < UNETSERVE_MAX_CLASSES; i++) {
        const struct unetserve_class *class = &interface->classes[i];
        json_whole_append(&list, json_pack("{s:o, s:i, s:[i,i,i]}", "name",
                                           json_whole_string(class->name, sizeof class->name),
                                           "code", class->code, "rgb", class->rgb[0], class->rgb[1],
                                           class->rgb[2]));
    }
    return list;
}

static const char *const field_types[] = {
    [UNETSERVE_FLOAT] = "float",
    [UNETSERVE_INT] = "int",
    [UNETSERVE_STR] = "str",
    [UNETSERVE_BOOL] = "bool",
};

enum { FIELD_TYPE_END = sizeof field_types / sizeof field_types[0] };

const char *interface_field_type(uint32_t type)
{
    return type > 0 && type < FIELD_TYPE_END ? field_types[type] : "?";
}

static json_t *fields_to_json(const struct unetserve_field *fields, uint32_t count)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < count && i < UNETSERVE_MAX_FIELDS; i++) {
        const struct unetserve_field *field = &fields[i];
        json_t *entry = json_pack(
            "{s:o, s:s, s:I}", "name", json_whole_string(field->name, sizeof field->name), "type",
            interface_field_type(field->type), "depth", (json_int_t)field->depth);
        if (field->optional && field->type == UNETSERVE_STR)
            json_whole_set(&entry, "default",
                           json_whole_string(field->fallback_text, sizeof field->fallback_text));
        else if (field->optional)
            json_whole_set(&entry, "default", json_real(field->fallback));
        if (field->or_bare)
            json_whole_set(&entry, "bare", json_true());
        json_whole_append(&list, entry);
    }
    return list;
}

/* Few models have one. */
static void schema_set(json_t **side, const char *schema)
{
    if (schema[0])
        json_whole_set(side, "schema", json_whole_string(schema, UNETSERVE_MAX_SCHEMA));
}

char *interface_to_json(const struct unetserve_interface *interface)
{
    json_t *input = json_pack(
        "{s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "kind",
        kind_name(interface->input_kind), "field",
        json_whole_string(interface->input_field, sizeof interface->input_field), "dtypes",
        dtypes_to_json(interface->input_dtypes), "channels", (json_int_t)interface->channels,
        "size_multiple", (json_int_t)interface->size_multiple, "size_min",
        (json_int_t)interface->size_min, "size_max", (json_int_t)interface->size_max, "tile",
        (json_int_t)interface->tile, "max_batch", (json_int_t)interface->max_batch,
        "batch_timeout_ms", (json_int_t)interface->batch_timeout_ms, "max_pending",
        (json_int_t)interface->max_pending, "fields",
        fields_to_json(interface->request_fields, interface->request_field_count));
    if (interface->flags & UNETSERVE_READS_ITSELF)
        json_whole_set(&input, "reads_itself", json_true());
    if (interface->flags & UNETSERVE_TAKES_FILES)
        json_whole_set(&input, "takes_files", json_true());
    schema_set(&input, interface->request_schema);
    json_t *output = json_pack(
        "{s:s, s:o, s:s, s:o, s:b, s:o}", "kind", kind_name(interface->output_kind), "field",
        json_whole_string(interface->output_field, sizeof interface->output_field), "dtype",
        unetserve_dtype_name(interface->output_dtype), "classes", classes_to_json(interface),
        "stream", (interface->flags & UNETSERVE_STREAMS) != 0, "fields",
        fields_to_json(interface->response_fields, interface->response_field_count));
    schema_set(&output, interface->response_schema);
    json_t *root = json_pack("{s:o, s:o, s:o, s:o}", "name",
                             json_whole_string(interface->name, sizeof interface->name), "version",
                             json_whole_string(interface->version, sizeof interface->version),
                             "input", input, "output", output);
    return json_whole_text(root);
}

/* ---- reading ---- */

static int text_read(const json_t *object, const char *key, char *out, size_t size)
{
    const json_t *value = json_object_get(object, key);
    size_t length = json_string_length(value);
    if (!json_is_string(value) || length >= size)
        return -EBADMSG;
    memcpy(out, json_string_value(value), length + 1);
    return 0;
}

static int number_read(const json_t *object, const char *key, json_int_t least, json_int_t most,
                       uint32_t *out)
{
    const json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most)
        return -EBADMSG;
    *out = (uint32_t)number;
    return 0;
}

static int kind_read(const json_t *object, uint32_t *out)
{
    char kind[16];
    if (text_read(object, "kind", kind, sizeof kind))
        return -EBADMSG;
    if (strcmp(kind, "tensor") == 0)
        *out = UNETSERVE_TENSOR;
    else if (strcmp(kind, "document") == 0)
        *out = UNETSERVE_DOCUMENT;
    else
        return -EBADMSG;
    return 0;
}

static int dtypes_read(const json_t *list, uint32_t *mask)
{
    if (!json_is_array(list) || json_array_size(list) > 31)
        return -EBADMSG;
    *mask = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        enum unetserve_dtype dtype = name ? unetserve_dtype_parse(name) : UNETSERVE_NONE;
        if (dtype == UNETSERVE_NONE)
            return -EBADMSG;
        *mask |= UINT32_C(1) << dtype;
    }
    return 0;
}

static int class_read(const json_t *object, struct unetserve_class *class)
{
    const json_t *rgb = json_object_get(object, "rgb");
    uint32_t code;
    if (text_read(object, "name", class->name, sizeof class->name) ||
        number_read(object, "code", 0, UINT16_MAX, &code) || json_array_size(rgb) != 3)
        return -EBADMSG;
    class->code = (uint16_t)code;
    for (size_t i = 0; i < 3; i++) {
        const json_t *part = json_array_get(rgb, i);
        if (!json_is_integer(part) || json_integer_value(part) < 0 ||
            json_integer_value(part) > UINT8_MAX)
            return -EBADMSG;
        class->rgb[i] = (uint8_t)json_integer_value(part);
    }
    return 0;
}

static int fallback_read(const json_t *value, struct unetserve_field *out)
{
    if (!value)
        return 0;
    out->optional = 1;
    if (out->type != UNETSERVE_STR) {
        out->fallback = json_number_value(value);
        return json_is_number(value) ? 0 : -EBADMSG;
    }
    size_t length = json_string_length(value);
    if (!json_is_string(value) || length >= sizeof out->fallback_text)
        return -EBADMSG;
    memcpy(out->fallback_text, json_string_value(value), length + 1);
    return 0;
}

static int field_read(const json_t *object, struct unetserve_field *out)
{
    char type[16];
    if (text_read(object, "name", out->name, sizeof out->name) ||
        text_read(object, "type", type, sizeof type) ||
        number_read(object, "depth", 0, UNETSERVE_MAX_DEPTH, &out->depth))
        return -EBADMSG;
    out->or_bare = json_is_true(json_object_get(object, "bare"));
    for (uint32_t i = 1; i < FIELD_TYPE_END; i++)
        if (strcmp(type, field_types[i]) == 0)
            out->type = i;
    return out->type ? fallback_read(json_object_get(object, "default"), out) : -EBADMSG;
}

static int fields_read(const json_t *list, struct unetserve_field *fields, uint32_t *count)
{
    size_t size = json_array_size(list);
    if (!json_is_array(list) || size > UNETSERVE_MAX_FIELDS)
        return -EBADMSG;
    for (size_t i = 0; i < size; i++)
        if (field_read(json_array_get(list, i), &fields[i]))
            return -EBADMSG;
    *count = (uint32_t)size;
    return 0;
}

static int schema_read(const json_t *object, char *out)
{
    return json_object_get(object, "schema")
               ? text_read(object, "schema", out, UNETSERVE_MAX_SCHEMA)
               : 0;
}

static int input_read(const json_t *object, struct unetserve_interface *out)
{
    int bad = kind_read(object, &out->input_kind) |
              text_read(object, "field", out->input_field, sizeof out->input_field) |
              dtypes_read(json_object_get(object, "dtypes"), &out->input_dtypes) |
              number_read(object, "channels", 0, COUNT_LIMIT, &out->channels) |
              number_read(object, "size_multiple", 0, SIZE_LIMIT, &out->size_multiple) |
              number_read(object, "size_min", 0, SIZE_LIMIT, &out->size_min) |
              number_read(object, "size_max", 0, SIZE_LIMIT, &out->size_max) |
              number_read(object, "tile", 0, SIZE_LIMIT, &out->tile) |
              number_read(object, "max_batch", 1, COUNT_LIMIT, &out->max_batch) |
              number_read(object, "batch_timeout_ms", 0, TIME_LIMIT_MS, &out->batch_timeout_ms) |
              number_read(object, "max_pending", 0, COUNT_LIMIT, &out->max_pending) |
              fields_read(json_object_get(object, "fields"), out->request_fields,
                          &out->request_field_count) |
              schema_read(object, out->request_schema);
    if (json_is_true(json_object_get(object, "reads_itself")))
        out->flags |= UNETSERVE_READS_ITSELF;
    if (json_is_true(json_object_get(object, "takes_files")))
        out->flags |= UNETSERVE_TAKES_FILES;
    /* A tensor model says what it takes. */
    if (!bad && out->input_kind == UNETSERVE_TENSOR)
        bad = out->channels == 0 || out->input_dtypes == 0 || out->size_multiple == 0;
    return bad ? -EBADMSG : 0;
}

static int output_read(const json_t *object, struct unetserve_interface *out)
{
    char dtype[16];
    if (kind_read(object, &out->output_kind) ||
        text_read(object, "field", out->output_field, sizeof out->output_field) ||
        text_read(object, "dtype", dtype, sizeof dtype))
        return -EBADMSG;
    out->output_dtype = unetserve_dtype_parse(dtype);
    if (out->output_kind == UNETSERVE_TENSOR && out->output_dtype == UNETSERVE_NONE)
        return -EBADMSG;
    const json_t *classes = json_object_get(object, "classes");
    if (!json_is_array(classes) || json_array_size(classes) > UNETSERVE_MAX_CLASSES)
        return -EBADMSG;
    out->class_count = (uint32_t)json_array_size(classes);
    for (uint32_t i = 0; i < out->class_count; i++)
        if (class_read(json_array_get(classes, i), &out->classes[i]))
            return -EBADMSG;
    const json_t *stream = json_object_get(object, "stream");
    out->flags |= json_is_true(stream) ? UNETSERVE_STREAMS : 0;
    if (!json_is_boolean(stream) || schema_read(object, out->response_schema))
        return -EBADMSG;
    return fields_read(json_object_get(object, "fields"), out->response_fields,
                       &out->response_field_count);
}

int interface_from_json(const char *text, size_t size, struct unetserve_interface *out)
{
    json_error_t where;
    json_t *root = json_whole_load(text, size, JSON_REJECT_DUPLICATES, &where);
    struct unetserve_interface *interface = calloc(1, sizeof *interface);
    int error = -EBADMSG;
    if (root && interface && !text_read(root, "name", interface->name, sizeof interface->name) &&
        !text_read(root, "version", interface->version, sizeof interface->version) &&
        !input_read(json_object_get(root, "input"), interface) &&
        !output_read(json_object_get(root, "output"), interface)) {
        *out = *interface;
        error = 0;
    }
    free(interface);
    json_decref(root);
    return error;
}
