#include "gateway/openapi.h"

#include "gateway/docs_files.h"

#include "lib/config_oauth.h"
#include "lib/json_whole.h"
#include "lib/model_facts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- schemas ---- */

static json_t *schema_of_type(const char *type)
{
    return json_pack("{s:s}", "type", type);
}

static json_t *schema_reference(const char *kind, const char *name)
{
    char text[160];
    snprintf(text, sizeof text, "#/components/%s/%s", kind, name);
    return json_pack("{s:s}", "$ref", text);
}

/* most 0: any number. */
static json_t *schema_list(json_t *items, uint32_t least, uint32_t most)
{
    json_t *list = json_pack("{s:s, s:o}", "type", "array", "items", items);
    if (least)
        json_whole_set(&list, "minItems", json_integer(least));
    if (most)
        json_whole_set(&list, "maxItems", json_integer(most));
    return list;
}

static json_t *schema_either(json_t *one, json_t *other)
{
    return json_pack("{s:[o, o]}", "anyOf", one, other);
}

/* "request_id" is titled "Request Id", as pydantic does it. */
static json_t *title_of(const char *name, size_t size)
{
    char title[64];
    bool first = true;
    size_t length = strnlen(name, size < sizeof title ? size : sizeof title - 1);
    for (size_t i = 0; i < length; i++) {
        char letter = name[i] == '_' ? ' ' : name[i];
        title[i] = (char)(first ? toupper((unsigned char)letter) : letter);
        first = letter == ' ';
    }
    return json_whole_string(title, length);
}

static json_t *field_default(const struct unetserve_field *field)
{
    switch (field->type) {
    case UNETSERVE_INT: return json_integer((json_int_t)field->fallback);
    case UNETSERVE_BOOL: return json_boolean(field->fallback != 0);
    case UNETSERVE_STR: return json_whole_string(field->fallback_text, sizeof field->fallback_text);
    default: return json_real(field->fallback);
    }
}

static json_t *schema_field(const struct unetserve_field *field)
{
    static const char *const types[] = {[UNETSERVE_FLOAT] = "number",
                                        [UNETSERVE_INT] = "integer",
                                        [UNETSERVE_STR] = "string",
                                        [UNETSERVE_BOOL] = "boolean"};
    const char *type =
        types[field->type <= UNETSERVE_BOOL && field->type ? field->type : UNETSERVE_FLOAT];
    json_t *schema = schema_of_type(type);
    for (uint32_t i = 0; i < field->depth && i < UNETSERVE_MAX_DEPTH; i++)
        schema = schema_list(schema, 0, 0);
    if (field->or_bare)
        schema = schema_either(schema_of_type(type), schema);
    json_whole_set(&schema, "title", title_of(field->name, sizeof field->name));
    if (field->optional)
        json_whole_set(&schema, "default", field_default(field));
    return schema;
}

static json_t *schema_object(json_t *properties, json_t *required)
{
    return json_pack("{s:s, s:o, s:o}", "type", "object", "properties", properties, "required",
                     required);
}

/* Neither fields nor a schema: any document. */
static json_t *schema_document(const struct unetserve_field *fields, uint32_t count,
                               const char *schema)
{
    if (count == 0)
        return model_facts_schema(schema);
    json_t *properties = json_object();
    json_t *required = json_array();
    for (uint32_t i = 0; i < count && i < UNETSERVE_MAX_FIELDS; i++) {
        json_whole_set(&properties, fields[i].name, schema_field(&fields[i]));
        if (!fields[i].optional)
            json_whole_append(&required, json_string(fields[i].name));
    }
    return schema_object(properties, required);
}

/* An object with one key, of which one image is one, and several are a list of such. */
static json_t *schema_images(const char *key, size_t key_size, json_t *one, json_t *another,
                             uint32_t most)
{
    json_t *name = json_whole_string(key, key_size);
    json_t *properties = json_object();
    json_t *several = most > 1 ? schema_list(another, 1, most) : another;
    json_t *value = most > 1 ? schema_either(one, several) : one;
    if (most <= 1)
        json_decref(several);
    if (name)
        json_whole_set(&properties, json_string_value(name), value);
    else
        json_decref(value);
    return schema_object(properties, json_pack("[o]", name));
}

/* Rows of values, of the sides that the model takes. */
static json_t *schema_pixels(const struct unetserve_interface *interface, json_t *value)
{
    uint32_t least = interface->size_min ? interface->size_min : 1;
    return schema_list(schema_list(value, least, interface->size_max), least, interface->size_max);
}

static json_t *schema_channels(const struct unetserve_interface *interface)
{
    return schema_list(schema_pixels(interface, schema_of_type("number")), interface->channels,
                       interface->channels);
}

static json_t *schema_labels(const struct unetserve_interface *interface)
{
    uint32_t most = interface->class_count ? interface->class_count - 1 : 255;
    return schema_pixels(interface, json_pack("{s:s, s:i, s:I}", "type", "integer", "minimum", 0,
                                              "maximum", (json_int_t)most));
}

static json_t *schema_request(const struct unetserve_interface *interface)
{
    if (interface->input_kind != UNETSERVE_TENSOR)
        return schema_document(interface->request_fields, interface->request_field_count,
                               interface->request_schema);
    return schema_images(interface->input_field, sizeof interface->input_field,
                         schema_channels(interface), schema_channels(interface),
                         interface->max_batch);
}

static json_t *schema_answer(const struct unetserve_interface *interface)
{
    if (interface->output_kind != UNETSERVE_TENSOR)
        return schema_document(interface->response_fields, interface->response_field_count,
                               interface->response_schema);
    return schema_images(interface->output_field, sizeof interface->output_field,
                         schema_labels(interface), schema_labels(interface), interface->max_batch);
}

/* ---- one model's route ---- */

struct names {
    char request[96], answer[96]; /* of the schemas */
};

static json_t *content_json(const char *schema)
{
    return json_pack("{s:o}", "schema", schema_reference("schemas", schema));
}

static json_t *content_binary(const char *description)
{
    return json_pack("{s:{s:s, s:s, s:s}}", "schema", "type", "string", "format", "binary",
                     "description", description);
}

/* One file, under the model's own name. */
static json_t *content_upload(const struct unetserve_interface *interface)
{
    json_t *name = json_whole_string(interface->input_field, sizeof interface->input_field);
    json_t *properties = json_object();
    if (name)
        json_whole_set(&properties, json_string_value(name),
                       json_pack("{s:s, s:s, s:s}", "type", "string", "format", "binary",
                                 "description", "A TIFF, PNG or npy file"));
    return json_pack("{s:o}", "schema", schema_object(properties, json_pack("[o]", name)));
}

/* Fields are text there, and converted as they would be in JSON. */
static void add_forms(json_t **content, const struct names *names)
{
    json_whole_set(content, "application/x-www-form-urlencoded", content_json(names->request));
    json_whole_set(content, "multipart/form-data", content_json(names->request));
}

static json_t *request_body(const struct unetserve_interface *interface, const struct names *names)
{
    json_t *content = json_pack("{s:o}", "application/json", content_json(names->request));
    if (interface->input_kind == UNETSERVE_TENSOR) {
        json_whole_set(&content, "application/x-npy",
                       content_binary("One npy array, C x H x W, in C order"));
        json_whole_set(
            &content, "image/tiff",
            content_binary("A TIFF or GeoTIFF of C bands, any layout; not compressed, or "
                           "with LZW, deflate, PackBits or zstd"));
        json_whole_set(&content, "image/png",
                       content_binary("8 or 16 bits, as many channels as the model takes"));
        json_whole_set(&content, "multipart/form-data", content_upload(interface));
        json_whole_set(&content, "application/octet-stream",
                       content_binary("Little-endian elements in C order; X-Unetserve-Shape and "
                                      "X-Unetserve-Dtype say of what"));
    } else
        add_forms(&content, names);
    json_t *body = json_pack("{s:b, s:o}", "required", 1, "content", content);
    if (interface->input_kind == UNETSERVE_TENSOR)
        json_whole_set(&body, "description",
                       json_string("In JSON a string may stand for the array: a TIFF, PNG or npy "
                                   "file in base64. {\"image_data\": \"...\"} is answered with a "
                                   "PNG file in base64, {\"image\": \"...\"}"));
    return body;
}

static json_t *answer_content(const struct unetserve_interface *interface,
                              const struct names *names)
{
    if (interface->flags & UNETSERVE_STREAMS)
        return json_pack("{s:{s:{s:s, s:s}}, s:{s:{s:s, s:s}}}", "application/x-ndjson", "schema",
                         "type", "string", "description", "A JSON document a line, as it is made",
                         "text/event-stream", "schema", "type", "string", "description",
                         "The same documents as server-sent events");
    json_t *content = json_pack("{s:o}", "application/json", content_json(names->answer));
    if (interface->output_kind == UNETSERVE_TENSOR) {
        json_whole_set(&content, "application/x-npy", content_binary("uint8, H x W"));
        json_whole_set(&content, "image/png",
                       content_binary("Indexed, in the classes' colours; of one tile only"));
    }
    return content;
}

static json_t *answer_ok(const struct unetserve_interface *interface, const struct names *names)
{
    return json_pack(
        "{s:s, s:{s:o, s:o}, s:o}", "description",
        interface->flags & UNETSERVE_STREAMS ? "The items of the stream" : "What the model says",
        "headers", "X-Request-Id", schema_reference("headers", "RequestId"), "Server-Timing",
        schema_reference("headers", "ServerTiming"), "content", answer_content(interface, names));
}

static void add_statuses(json_t **responses, const char *const *statuses, size_t count)
{
    for (size_t i = 0; i < count; i++)
        json_whole_set(responses, statuses[i], schema_reference("responses", statuses[i]));
}

#define ADD_STATUSES(responses, ...)                                                               \
    add_statuses(responses, (const char *const[]){__VA_ARGS__},                                    \
                 sizeof(const char *const[]){__VA_ARGS__} / sizeof(const char *))

/* What any request may be answered with. */
static void add_common(json_t **responses, bool keys)
{
    ADD_STATUSES(responses, "400", "405", "408", "413", "414", "429", "431");
    if (keys)
        ADD_STATUSES(responses, "401", "403");
}

static json_t *model_responses(const struct unetserve_interface *interface,
                               const struct names *names, bool keys)
{
    json_t *responses = json_pack("{s:o}", "200", answer_ok(interface, names));
    add_common(&responses, keys);
    ADD_STATUSES(&responses, "403", "404", "406", "415", "422", "500", "503", "504");
    /* A model may refuse with any of them, and a document of its own. */
    json_whole_set(&responses, "4XX",
                   json_pack("{s:s, s:{s:{}}}", "description", "The model refuses this request",
                             "content", "application/json"));
    return responses;
}

static json_t *model_parameters(const struct unetserve_interface *interface)
{
    json_t *parameters = json_array();
    json_whole_append(&parameters, schema_reference("parameters", "RequestId"));
    json_whole_append(&parameters, schema_reference("parameters", "Timeout"));
    json_whole_append(&parameters, schema_reference("parameters", "Priority"));
    if (interface->input_kind == UNETSERVE_TENSOR) {
        json_whole_append(&parameters, schema_reference("parameters", "Shape"));
        json_whole_append(&parameters, schema_reference("parameters", "Dtype"));
    }
    return parameters;
}

/* One of these opens. */
static json_t *security(bool keys, const struct config_oauth *oauth)
{
    json_t *list = json_array();
    if (keys)
        json_whole_append(&list, json_pack("{s:[]}", "ApiKey"));
    json_whole_append(&list, json_pack("{s:[]}", "Bearer"));
    if (oauth->issuer[0])
        json_whole_append(&list, json_pack("{s:[]}", "OpenId"));
    return list;
}

static json_t *open_id(const struct config_oauth *oauth)
{
    char url[sizeof oauth->issuer + 40];
    size_t length = strlen(oauth->issuer);
    snprintf(url, sizeof url, "%.*s/.well-known/openid-configuration",
             (int)(length - (length > 0 && oauth->issuer[length - 1] == '/')), oauth->issuer);
    return json_pack("{s:s, s:s, s:s}", "type", "openIdConnect", "openIdConnectUrl", url,
                     "description",
                     "A signed token of this provider, as Authorization: Bearer TOKEN");
}

/* What opens here of the schemes that there are. */
static bool fill_schemes(json_t *schemes, bool keys, const struct config *config)
{
    bool tokens = config_has_oauth(config);
    bool whole = keys || json_object_del(schemes, "ApiKey") == 0;
    if (tokens)
        whole = whole &&
                json_object_set_new(json_object_get(schemes, "Bearer"), "description",
                                    json_string(keys ? "An API key, or a token"
                                                     : "A token of the identity provider")) == 0;
    if (config->oauth.issuer[0])
        whole = whole && json_object_set_new(schemes, "OpenId", open_id(&config->oauth)) == 0;
    return whole;
}

static json_t *model_operation(const struct config_model *model,
                               const struct unetserve_interface *interface,
                               const struct names *names, bool keys)
{
    char id[80];
    snprintf(id, sizeof id, "predict_%s", model->name);
    return json_pack("{s:[s], s:s, s:s, s:o, s:o, s:o, s:o}", "tags", "models", "operationId", id,
                     "summary", model->name, "parameters", model_parameters(interface),
                     "requestBody", request_body(interface, names), "responses",
                     model_responses(interface, names, keys), "x-unetserve-model",
                     model_facts(interface));
}

static json_t *titled(json_t *schema, const char *title)
{
    json_whole_set(&schema, "title", json_string(title));
    return schema;
}

static void add_model(json_t **paths, json_t **schemas, const struct config_model *model,
                      const struct unetserve_interface *interface, bool keys)
{
    struct names names;
    snprintf(names.request, sizeof names.request, "%s-request", model->name);
    snprintf(names.answer, sizeof names.answer, "%s-answer", model->name);
    json_whole_set(schemas, names.request, titled(schema_request(interface), names.request));
    json_whole_set(schemas, names.answer, titled(schema_answer(interface), names.answer));
    json_whole_set(paths, model->route,
                   json_pack("{s:o}", "post", model_operation(model, interface, &names, keys)));
}

/* False: there is no memory. */
static bool add_models(json_t **paths, json_t **schemas, struct models *models, bool keys)
{
    for (uint32_t i = 0; i < models->config->model_count; i++) {
        struct model_view *view = models_view(models, i);
        if (!view && atomic_load(&models->queue->models[i].generation))
            return false;
        if (!view)
            continue;
        add_model(paths, schemas, &models->config->models[i], &view->interface, keys);
        model_view_drop(view);
    }
    return true;
}

/* ---- the whole ---- */

/* Of the server's own pages those that are not open (which say so by an empty list in "security")
 * may be answered with 401 too. False: there is no memory. */
static bool add_key_to_pages(json_t *paths)
{
    const char *path;
    json_t *item;
    json_object_foreach(paths, path, item)
    {
        json_t *operation = json_object_get(item, "get");
        json_t *responses = json_object_get(operation, "responses");
        if (!json_object_get(operation, "security") &&
            (json_object_set_new(responses, "401", schema_reference("responses", "401")) ||
             json_object_set_new(responses, "403", schema_reference("responses", "403"))))
            return false;
    }
    return true;
}

static bool fill(json_t *document, struct models *models, bool keys)
{
    json_t *all_paths = json_object_get(document, "paths");
    json_t *components = json_object_get(document, "components");
    json_t *info = json_object_get(document, "info");
    json_t *paths = json_object();
    json_t *schemas = json_object();
    bool closed = keys || config_has_oauth(models->config);
    bool whole = json_object_set_new(info, "version", json_string(UNETSERVE_VERSION)) == 0;
    if (closed)
        whole = whole &&
                json_object_set_new(document, "security", security(keys, &models->config->oauth)) ==
                    0 &&
                fill_schemes(json_object_get(components, "securitySchemes"), keys,
                             models->config) &&
                add_key_to_pages(all_paths);
    else
        whole = whole && json_object_del(components, "securitySchemes") == 0;
    whole = add_models(&paths, &schemas, models, closed) && whole && paths && schemas &&
            json_object_update(json_object_get(components, "schemas"), schemas) == 0 &&
            json_object_update(all_paths, paths) == 0;
    json_decref(paths);
    json_decref(schemas);
    return whole;
}

char *openapi_make(struct models *models, bool keys)
{
    struct docs_file base = docs_file(DOCS_OPENAPI);
    json_t *document = json_whole_load(base.text, base.size, 0, NULL);
    if (document && !fill(document, models, keys)) {
        json_decref(document);
        document = NULL;
    }
    return json_whole_text(document);
}

/* ---- kept ---- */

static uint32_t generation_of(const struct models *models, uint32_t model)
{
    return atomic_load_explicit(&models->queue->models[model].generation, memory_order_acquire);
}

static bool is_true(const struct openapi *openapi, const struct models *models, bool keys)
{
    if (!openapi->text || openapi->keys != keys ||
        openapi->tokens != config_oauth_mark(models->config))
        return false;
    for (uint32_t i = 0; i < models->config->model_count; i++)
        if (openapi->generations[i] != generation_of(models, i))
            return false;
    return true;
}

char *openapi_page(struct openapi *openapi, struct models *models, bool keys)
{
    if (!is_true(openapi, models, keys)) {
        /* Read before the models are: one that changes meanwhile is seen the next time. */
        for (uint32_t i = 0; i < models->config->model_count; i++)
            openapi->generations[i] = generation_of(models, i);
        openapi_close(openapi);
        openapi->keys = keys;
        openapi->tokens = config_oauth_mark(models->config);
        openapi->text = openapi_make(models, keys);
    }
    return openapi->text ? strdup(openapi->text) : NULL;
}

void openapi_close(struct openapi *openapi)
{
    free(openapi->text);
    openapi->text = NULL;
}
