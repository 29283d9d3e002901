"""What a class's pydantic models look like, for those who write clients: /openapi.json, /docs and client.py show it."""

import json
import typing

from . import _codec

FLOAT, INT, STR, BOOL = 1, 2, 3, 4
_TYPES = {float: FLOAT, int: INT, str: STR, bool: BOOL}
_FIELDS_MOST, _DEPTH_MOST, _NAME_MOST, _TEXT_MOST = 8, 4, 47, 31


def _declared_field(name, field):
    """(name, type, depth, optional, fallback, its text), or None: there is no word for it in unetserve's interfaces."""
    kind, depth = field.annotation, 0
    while typing.get_origin(kind) is list and depth < _DEPTH_MOST:
        kind, depth = typing.get_args(kind)[0], depth + 1
    if kind not in _TYPES or len(name.encode()) > _NAME_MOST or (depth and kind not in (float, int)):
        return None
    number, text = 0.0, ""
    optional = not field.is_required()
    if optional:
        value = field.default
        if depth or type(value) not in (kind, int if kind is float else kind):
            return None
        if kind is str:
            text = value
        else:
            number = float(value)
        if len(text.encode()) > _TEXT_MOST or number in (float("inf"), float("-inf")) or number != number:
            return None
    return name, FLOAT if depth else _TYPES[kind], depth, int(optional), number, text


def _declared_fields(model):
    """Of a pydantic model with plain fields. [] where one of them is more than there are words for."""
    fields = getattr(model, "model_fields", None)
    if not isinstance(fields, dict) or len(fields) > _FIELDS_MOST:
        return []
    told = [_declared_field(field.alias or name, field) for name, field in fields.items()]
    return [] if None in told else told


# ---- JSON Schema, where there are no such words ----

_SCHEMA_MOST, _NODES_MOST, _DEPTH_OF_SCHEMA = 8191, 2000, 40  # the first is UNETSERVE_MAX_SCHEMA's


class _Whole:
    """One schema without references: what they name is put in their place."""

    def __init__(self, schema):
        self._named = schema.get("$defs", {})
        self._left = _NODES_MOST
        self.schema = self._walk({key: value for key, value in schema.items() if key != "$defs"}, ())

    def _walk(self, node, inside):
        self._left -= 1
        if self._left < 0 or len(inside) > _DEPTH_OF_SCHEMA:
            raise ValueError("the schema is too large")
        if isinstance(node, list):
            return [self._walk(one, inside) for one in node]
        if not isinstance(node, dict):
            return node
        named = node.get("$ref")
        if isinstance(named, str):  # else a property has that name
            name = named.rpartition("/")[2]
            if name in inside:
                return {}  # a model within itself: whatever there is
            rest = {key: value for key, value in node.items() if key != "$ref"}
            return {**self._walk(self._named[name], (*inside, name)), **self._walk(rest, inside)}
        return {key: self._walk(value, inside) for key, value in node.items() if not _is_mapping(key, value)}


def _is_mapping(key, value):
    """What tells the members of a union apart names them by reference."""
    return key == "discriminator" and isinstance(value, dict) and "propertyName" in value


def _without_words(node):
    if isinstance(node, list):
        return [_without_words(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_words(value) for key, value in node.items()
            if not (key in ("title", "description") and isinstance(value, str))}


def _number(node):
    least = node.get("minimum", node.get("exclusiveMinimum", 3) + 1)
    most = node.get("maximum", node.get("exclusiveMaximum", 5) - 1)
    step = node.get("multipleOf", 1)
    return -(-max(least, min(4, most)) // step) * step


def _example(node):
    """A value that fits, in most cases."""
    if node.get("examples"):
        return node["examples"][0]
    for key in ("default", "const"):
        if key in node:
            return node[key]
    for key in ("enum", "anyOf", "oneOf", "allOf"):
        if node.get(key):
            return node[key][0] if key == "enum" else _example(node[key][0])
    kind = node.get("type")
    if kind == "object":
        return {name: _example(node["properties"][name]) for name in node.get("required", ())}
    if kind == "array" and "prefixItems" in node:
        return [_example(one) for one in node["prefixItems"]]
    if kind == "array":
        return [_example(node.get("items", {}))] * min(max(1, node.get("minItems", 1)), 16)
    if kind == "string":
        return "text".ljust(min(node.get("minLength", 0), 64), "x")[:node.get("maxLength", 64)]
    return {"number": lambda: float(_number(node)), "integer": lambda: _number(node), "boolean": lambda: True}.get(
        kind, lambda: None)()


def _with_example(schema, adapter):
    if "examples" not in schema:
        example = _example(schema)
        try:
            adapter.validate_python(example)
        except ValueError:  # pydantic's is one
            return schema
        schema["examples"] = [example]
    return schema


def _schema(kind, mode):
    """As text; "": there is none that is worth showing."""
    try:
        import pydantic
        adapter = pydantic.TypeAdapter(kind)
        schema = _Whole(adapter.json_schema(mode=mode)).schema
        if mode == "validation":
            schema = _with_example(schema, adapter)
        for told in (schema, _without_words(schema)):
            text = json.dumps(told, separators=(",", ":"), allow_nan=False)
            if len(text) <= _SCHEMA_MOST:
                return "" if told == {} else text
    except Exception:  # pylint: disable=broad-except
        pass  # many things are no JSON, and each has an error of its own: then any document it is
    return ""


def declared(api):
    """What its hooks' annotations say, in the words of python/extension/interface_dict.c."""
    told = {}
    for side, kind, mode in (("request", _codec.annotation(api.decode_request), "validation"),
                             ("response", _codec.annotation(api.encode_response, "return"), "serialization")):
        fields = _declared_fields(kind)
        told[side + "_fields"] = fields
        if not fields and kind not in (None, typing.Any, dict, typing.Dict) and not (side == "response" and api.stream):
            told[side + "_schema"] = _schema(kind, mode)
    return told
