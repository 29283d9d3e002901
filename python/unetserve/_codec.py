"""From a body to what decode_request gets, from what encode_response gives to a body, and from an exception to an
answer; all as LitServe and FastAPI do it."""

import base64
import inspect
import io
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


class UploadFile:
    """A form's file, as FastAPI gives it to LitServe's classes: .filename, .content_type, .file.read(), await .read()."""

    def __init__(self, file, *, size=None, filename=None, headers=None):
        self.file = file
        self.size = size
        self.filename = filename
        self.headers = headers or {}

    @property
    def content_type(self):
        return self.headers.get("content-type")

    async def read(self, size=-1):
        return self.file.read(size)

    async def seek(self, offset):
        self.file.seek(offset)

    async def close(self):
        self.file.close()

    def __repr__(self):
        return f"UploadFile(filename={self.filename!r}, size={self.size!r}, headers={self.headers!r})"


def _with_files(document):
    """A form came as the object of its fields (lib/form_document.h): its files as files."""
    if not isinstance(document, dict):
        return document
    for name, value in document.items():
        told = value.get("unetserve.UploadFile") if isinstance(value, dict) and len(value) == 1 else None
        if isinstance(told, dict) and isinstance(told.get("data"), str):
            data = base64.b64decode(told["data"])
            kind = told.get("content_type")
            document[name] = UploadFile(io.BytesIO(data), size=len(data), filename=told.get("filename"),
                                        headers={"content-type": kind} if kind else {})
    return document


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
    if isinstance(thing, UploadFile):
        return repr(thing)
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
        return _with_files(json.loads(text))
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


def annotation(hook, name=None):
    """Of the first parameter, or of name ("return"); None where there is none."""
    if not name:
        names = [name for name in inspect.signature(hook).parameters if name not in ("self", "context", "kwargs")]
        if not names:
            return None
        name = names[0]
    try:
        return typing.get_type_hints(hook).get(name)
    except NameError as error:
        if name == "return":
            return None
        raise TypeError(f"decode_request: the type of '{name}' is not known: {error}") from None


# ---- what reads requests ----


def request_reader(hook):
    """A function from a body to what the hook is given, by the annotation of its request: a pydantic model (or
    whatever else pydantic can check) is validated, and refused with 422 as FastAPI does."""
    kind = annotation(hook)
    if kind in (None, typing.Any, dict, typing.Dict):
        return _untyped
    module = getattr(kind, "__module__", "")
    if module.startswith(("starlette", "fastapi")):
        if kind.__name__ == "Request":
            return _untyped
        raise TypeError(f"decode_request: unetserve has no {kind.__name__}; annotate with a pydantic model")
    if kind in (str, int, float, bool):
        raise TypeError(f"decode_request: a request of type {kind.__name__} would be a query parameter, which "
                        "unetserve does not have; annotate with a pydantic model")
    try:
        import pydantic
        adapter = pydantic.TypeAdapter(kind)
    except (ImportError, AttributeError):
        raise TypeError("decode_request: its request has a type, and checking that needs pydantic 2 in "
                        f"{sys.prefix}") from None
    return _typed(adapter, pydantic.ValidationError)
