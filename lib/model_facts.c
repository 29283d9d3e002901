#include "lib/model_facts.h"

#include "lib/json_whole.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

json_t *model_facts_classes(const struct unetserve_interface *interface)
{
    json_t *classes = json_array();
    for (uint32_t i = 0; i < interface->class_count && i < UNETSERVE_MAX_CLASSES; i++) {
        const struct unetserve_class *class = &interface->classes[i];
        char color[8];
        snprintf(color, sizeof color, "#%02x%02x%02x", class->rgb[0], class->rgb[1], class->rgb[2]);
        json_whole_append(&classes, json_pack("{s:o, s:i, s:s}", "name",
                                              json_whole_string(class->name, sizeof class->name),
                                              "code", (int)class->code, "color", color));
    }
    return classes;
}

json_t *model_facts_example(const struct unetserve_field *field)
{
    json_t *value;
    switch (field->type) {
    case UNETSERVE_INT: value = json_integer(4); break;
    case UNETSERVE_STR: value = json_string("text"); break;
    case UNETSERVE_BOOL: value = json_true(); break;
    default: value = json_real(4.0); break;
    }
    for (uint32_t i = 0; i < field->depth && i < UNETSERVE_MAX_DEPTH; i++) {
        json_t *list = json_array();
        json_whole_append(&list, value);
        value = list;
    }
    return value;
}

json_t *model_facts_schema(const char *text)
{
    json_error_t error;
    if (!text[0])
        return json_object();
    json_t *schema = json_whole_load(text, strnlen(text, UNETSERVE_MAX_SCHEMA), 0, &error);
    if (json_is_object(schema) || (!schema && errno == ENOMEM))
        return schema;
    json_decref(schema);
    return json_object();
}

/* The first that the schema has. */
static json_t *schema_example(const char *text)
{
    json_t *schema = model_facts_schema(text);
    if (!schema)
        return NULL;
    json_t *first = json_incref(json_array_get(json_object_get(schema, "examples"), 0));
    json_decref(schema);
    return first ? first : json_object();
}

static json_t *example(const struct unetserve_interface *interface)
{
    if (interface->request_schema[0] && !interface->request_field_count)
        return schema_example(interface->request_schema);
    json_t *document = json_object();
    for (uint32_t i = 0; i < interface->request_field_count && i < UNETSERVE_MAX_FIELDS; i++)
        json_whole_set(&document, interface->request_fields[i].name,
                       model_facts_example(&interface->request_fields[i]));
    /* Who declares nothing may still take what the tutorial's programs take. */
    if (!interface->request_field_count)
        json_whole_set(&document, "input", json_real(4.0));
    return document;
}

static json_t *dtypes(const struct unetserve_interface *interface)
{
    json_t *names = json_array();
    for (uint32_t dtype = UNETSERVE_U8; dtype <= UNETSERVE_F64; dtype++)
        if (interface->input_dtypes & (1u << dtype))
            json_whole_append(&names, json_string(unetserve_dtype_name(dtype)));
    return names;
}

static void set_number(json_t **object, const char *key, uint32_t number)
{
    json_whole_set(object, key, json_integer(number));
}

static void set_tensor(json_t **facts, const struct unetserve_interface *interface)
{
    json_whole_set(facts, "request_key",
                   json_whole_string(interface->input_field, sizeof interface->input_field));
    set_number(facts, "channels", interface->channels);
    set_number(facts, "size_multiple", interface->size_multiple);
    set_number(facts, "size_min", interface->size_min);
    set_number(facts, "size_max", interface->size_max);
    set_number(facts, "tile", interface->tile);
    set_number(facts, "max_batch", interface->max_batch);
    json_whole_set(facts, "dtypes", dtypes(interface));
}

json_t *model_facts(const struct unetserve_interface *interface)
{
    bool tensor = interface->input_kind == UNETSERVE_TENSOR;
    bool labels = interface->output_kind == UNETSERVE_TENSOR;
    bool told = interface->request_field_count || interface->request_schema[0];
    json_t *facts = json_pack("{s:o, s:o, s:s, s:s, s:b}", "name",
                              json_whole_string(interface->name, sizeof interface->name), "version",
                              json_whole_string(interface->version, sizeof interface->version),
                              "request",
                              tensor ? "tensor"
                              : told ? "fields"
                                     : "document",
                              "answer", labels ? "labels" : "document", "streams",
                              (interface->flags & UNETSERVE_STREAMS) != 0);
    if (tensor)
        set_tensor(&facts, interface);
    else
        json_whole_set(&facts, "example", example(interface));
    if (!labels)
        return facts;
    json_whole_set(&facts, "answer_key",
                   json_whole_string(interface->output_field, sizeof interface->output_field));
    json_whole_set(&facts, "classes", model_facts_classes(interface));
    return facts;
}
