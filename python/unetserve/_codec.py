"""From a body to what decode_request gets, from what encode_response gives to a body, and from an exception to an
answer; all as LitServe and FastAPI do it."""

import inspect
import json
import sys
import traceback
import typing

INTERNAL = b'{"detail":"Internal server error"}'


class HTTPException(Exception):
    """As FastAPI's, for those who do not have that: raise HTTPException(status_code=400, detail="too dark")."""

    def __init__(self, status_code, detail=None, headers=None):
        super().__init__(status_code, detail)
        self.status_code = status_code
        self.detail = detail
        self.headers = headers


class Refusal(Exception):
    """An answer that is ready: a status and a body."""

    def __init__(self, status, body):
        super().__init__(status, body)
        self.status = status
        self.body = body


# ---- answers ----


def _plain(thing):
    """What JSON has no word for."""
    if hasattr(thing, "model_dump"):
        return thing.model_dump(mode="json")
    if hasattr(thing, "tolist"):
        return thing.tolist()
    if isinstance(thing, (set, frozenset)):
        return list(thing)
    if isinstance(thing, BaseException):
        return {}
    raise TypeError(f"{type(thing).__name__} is nothing that JSON can hold")


_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
_item_encoder = json.JSONEncoder(default=_plain)


def encode(answer):
    """The body of an answer: compact, without NaN."""
    if hasattr(answer, "model_dump_json"):
        return answer.model_dump_json().encode()
    return _encoder.encode(answer).encode()


def encode_item(item):
    """One item of a stream, in LitServe's spelling; the gateway ends the line."""
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    if hasattr(item, "model_dump_json"):
        return item.model_dump_json().encode()
    return _item_encoder.encode(item).encode()


def _http_exceptions():
    kinds = [HTTPException]
    starlette = sys.modules.get("starlette.exceptions")
    if starlette:
        kinds.append(starlette.HTTPException)
    return tuple(kinds)


def verdict(exception, hook, request_id, log):
    """(status, body) for what a hook has raised. What is not meant for the client goes to the log."""
    if isinstance(exception, Refusal):
        return exception.status, exception.body
    if isinstance(exception, _http_exceptions()) and 400 <= exception.status_code <= 599:
        return exception.status_code, encode({"detail": exception.detail})
    lines = "".join(traceback.format_exception(type(exception), exception, exception.__traceback__))
    log(3, f"{hook} raised {type(exception).__name__}", request_id, lines[-1500:])
    return 500, INTERNAL


# ---- requests ----


def _json_refusal(error):
    detail = {"type": "json_invalid", "loc": ["body", error.pos], "msg": "JSON decode error", "input": {},
              "ctx": {"error": error.msg}}
    return Refusal(422, encode({"detail": [detail]}))


def _missing():
    detail = {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}
    return Refusal(422, encode({"detail": [detail]}))


def _parse(view):
    text = bytes(view)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise _json_refusal(error) from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise _json_refusal(json.JSONDecodeError(str(error), "", 0)) from None


def _untyped(view):
    return _parse(view)


def _typed(adapter, error_kind):
    def read(view):
        if not view.nbytes:
            raise _missing()
        document = _parse(view)
        if document is None:
            raise _missing()
        try:
            return adapter.validate_python(document, from_attributes=True)
        except error_kind as error:
            details = error.errors(include_url=False)
            for detail in details:
                detail["loc"] = ("body", *detail["loc"])
            raise Refusal(422, encode({"detail": details})) from None

    return read


def _annotation(hook):
    """Of the first parameter; None where there is none."""
    names = [name for name in inspect.signature(hook).parameters if name not in ("self", "context", "kwargs")]
    if not names:
        return None
    try:
        return typing.get_type_hints(hook).get(names[0])
    except NameError as error:
        raise TypeError(f"decode_request: the type of '{names[0]}' is not known: {error}") from None


def request_reader(hook):
    """A function from a body to what the hook is given, by the annotation of its request: a pydantic model (or
    whatever else pydantic can check) is validated, and refused with 422 as FastAPI does."""
    annotation = _annotation(hook)
    if annotation in (None, typing.Any, dict, typing.Dict):
        return _untyped
    module = getattr(annotation, "__module__", "")
    if module.startswith(("starlette", "fastapi")):
        if annotation.__name__ == "Request":
            return _untyped
        raise TypeError(f"decode_request: unetserve has no {annotation.__name__}; annotate with a pydantic model")
    if annotation in (str, int, float, bool):
        raise TypeError(f"decode_request: a request of type {annotation.__name__} would be a query parameter, which "
                        "unetserve does not have; annotate with a pydantic model")
    try:
        import pydantic
        adapter = pydantic.TypeAdapter(annotation)
    except (ImportError, AttributeError):
        raise TypeError("decode_request: its request has a type, and checking that needs pydantic 2 in "
                        f"{sys.prefix}") from None
    return _typed(adapter, pydantic.ValidationError)
