/* What a class takes and gives, from Python's words to the plugin interface's. */
#include "python/extension/extension.h"

#include <stdio.h>
#include <string.h>

static int text_take(PyObject *dict, const char *key, char *out, size_t size)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    if (!value)
        return 0;
    PyObject *text = PyUnicode_AsUTF8String(value);
    const char *bytes = text ? PyBytes_AsString(text) : NULL;
    int failed = bytes ? 0 : -1;
    if (bytes) {
        size_t length = strlen(bytes) < size ? strlen(bytes) : size - 1;
        memcpy(out, bytes, length);
        out[length] = '\0';
    }
    Py_XDECREF(text);
    return failed;
}

int interface_number(PyObject *dict, const char *key, uint32_t *out)
{
    PyObject *value = PyDict_GetItemString(dict, key);
    if (!value)
        return 0;
    unsigned long number = PyLong_AsUnsignedLong(value);
    if (PyErr_Occurred())
        return -1;
    *out = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
    return 0;
}

/* Each a tuple: name, code, red, green, blue. */
static int classes_take(PyObject *list, struct unetserve_interface *out)
{
    Py_ssize_t count = list ? PyList_Size(list) : 0;
    if (count < 0 || count > UNETSERVE_MAX_CLASSES) {
        PyErr_SetString(PyExc_ValueError, "classes: a list of at most 256");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct unetserve_class *to = &out->classes[i];
        const char *name;
        unsigned code, red, green, blue;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "sIIII", &name, &code, &red, &green, &blue))
            return -1;
        snprintf(to->name, sizeof to->name, "%s", name);
        to->code = (uint16_t)code;
        to->rgb[0] = (uint8_t)red;
        to->rgb[1] = (uint8_t)green;
        to->rgb[2] = (uint8_t)blue;
    }
    out->class_count = (uint32_t)count;
    return 0;
}

/* Each a tuple: name, type, depth, optional, fallback, fallback_text. */
static int fields_take(PyObject *list, struct unetserve_field *fields, uint32_t *out)
{
    Py_ssize_t count = list ? PyList_Size(list) : 0;
    if (count < 0 || count > UNETSERVE_MAX_FIELDS) {
        PyErr_SetString(PyExc_ValueError, "fields: a list of at most 8");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        struct unetserve_field *to = &fields[i];
        const char *name, *text;
        if (!PyArg_ParseTuple(PyList_GetItem(list, i), "sIIIds", &name, &to->type, &to->depth,
                              &to->optional, &to->fallback, &text))
            return -1;
        snprintf(to->name, sizeof to->name, "%s", name);
        snprintf(to->fallback_text, sizeof to->fallback_text, "%s", text);
    }
    *out = (uint32_t)count;
    return 0;
}

static int tensor_take(PyObject *dict, struct unetserve_interface *out)
{
    out->input_kind = UNETSERVE_TENSOR;
    out->output_kind = UNETSERVE_TENSOR;
    out->output_dtype = UNETSERVE_U8;
    out->size_multiple = 1;
    out->size_min = 1;
    if (interface_number(dict, "channels", &out->channels) ||
        interface_number(dict, "dtypes", &out->input_dtypes) ||
        interface_number(dict, "multiple", &out->size_multiple) ||
        interface_number(dict, "tile", &out->tile) ||
        text_take(dict, "input_field", out->input_field, sizeof out->input_field) ||
        text_take(dict, "output_field", out->output_field, sizeof out->output_field))
        return -1;
    return classes_take(PyDict_GetItemString(dict, "classes"), out);
}

int interface_from_dict(PyObject *dict, struct unetserve_interface *out)
{
    struct unetserve_interface interface = {
        .input_kind = UNETSERVE_DOCUMENT, .output_kind = UNETSERVE_DOCUMENT, .max_batch = 1};
    uint32_t streams = 0;
    if (!PyDict_Check(dict)) {
        PyErr_SetString(PyExc_TypeError, "expected a dict");
        return -1;
    }
    if (text_take(dict, "name", interface.name, sizeof interface.name) ||
        text_take(dict, "version", interface.version, sizeof interface.version) ||
        interface_number(dict, "streams", &streams) ||
        interface_number(dict, "max_batch", &interface.max_batch) ||
        interface_number(dict, "batch_timeout_ms", &interface.batch_timeout_ms) ||
        interface_number(dict, "max_pending", &interface.max_pending))
        return -1;
    if (fields_take(PyDict_GetItemString(dict, "request_fields"), interface.request_fields,
                    &interface.request_field_count) ||
        fields_take(PyDict_GetItemString(dict, "response_fields"), interface.response_fields,
                    &interface.response_field_count) ||
        text_take(dict, "request_schema", interface.request_schema, UNETSERVE_MAX_SCHEMA) ||
        text_take(dict, "response_schema", interface.response_schema, UNETSERVE_MAX_SCHEMA))
        return -1;
    interface.flags = UNETSERVE_READS_ITSELF | (streams ? UNETSERVE_STREAMS : 0);
    if (!PyDict_GetItemString(dict, "channels"))
        interface.flags |= UNETSERVE_TAKES_FILES;
    else if (tensor_take(dict, &interface))
        return -1;
    *out = interface;
    return 0;
}
