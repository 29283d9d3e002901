"""A LitAPI as the worker sees it: the methods that the extension calls, with requests that are decoded, run and encoded
one by one or in batches. No exception of the class goes further than here."""

import inspect
import numbers
import threading

from . import _codec, _schema, _worker

DTYPES = {1: "uint8", 2: "int8", 3: "uint16", 4: "int16", 5: "float16", 6: "float32", 7: "float64"}
FORMATS = {1: "B", 2: "b", 3: "H", 4: "h", 6: "f", 7: "d"}


class Request:
    """One request between its hooks."""

    __slots__ = ("handle", "request_id", "value", "context")

    def __init__(self, handle, request_id, value, context):
        self.handle = handle
        self.request_id = request_id
        self.value = value
        self.context = context


def takes_context(hook):
    return "context" in inspect.signature(hook).parameters


def tensor_view(view, dtype, shape):
    """The memory of the slot itself as an array; numpy's where that is there."""
    try:
        import numpy
    except ImportError:
        if dtype not in FORMATS:
            raise TypeError("float16 needs numpy") from None
        return view.cast(FORMATS[dtype], shape)
    return numpy.frombuffer(view, DTYPES[dtype]).reshape(shape)


def labels_bytes(answer):
    """What a model with `tensor` gives: H x W or N x H x W labels of uint8."""
    shape = tuple(getattr(answer, "shape", ()))
    if len(shape) not in (2, 3) or str(getattr(answer, "dtype", "")).rpartition(".")[2] != "uint8":
        raise TypeError("encode_response: a model with `tensor` gives an array of uint8, H x W or N x H x W")
    if hasattr(answer, "cpu"):
        answer = answer.cpu().numpy()
    return answer.tobytes(), shape


class Model:
    """apis: {route: LitAPI}."""

    is_async = False

    def __init__(self, apis):
        self._apis = apis
        self._api = None
        self._later = []
        self._thread = threading.get_ident()

    # ---- what it is ----

    def _choose(self, route):
        if self._api is None:
            self._api = self._apis.get(route) if len(self._apis) > 1 else next(iter(self._apis.values()))
        return self._api

    def describe(self, route):
        """A dict, or a sentence that says what is wrong."""
        api = self._choose(route)
        if api is None:
            return f"no LitAPI has the route {route}; there are: {', '.join(self._apis)}"
        described = {
            "name": type(api).__name__,
            "version": str(getattr(api, "version", "")),
            "streams": int(api.stream),
            "max_batch": api.max_batch_size,
            "batch_timeout_ms": int(api.batch_timeout * 1000 + 0.5),
            "is_async": int(self.is_async),
            "watches_self": int(type(api).health is not api.base.health),
        }
        if not api.tensor:
            described.update(_schema.declared(api))
        else:
            described.update(api.tensor.describe())
        return described

    def setup(self, device, max_batch):
        """None, or a sentence that says what is wrong."""
        api = self._api
        try:
            api.max_batch_size = max_batch
            api.check()
            self._prepare(api)
            api.recorder = self._record
            api.device = device
            api.setup(device)
        except Exception as error:  # pylint: disable=broad-except
            _codec.verdict(error, "setup", "", _worker.log)
            return f"{type(api).__name__}: {type(error).__name__}: {error}"
        return None

    def _prepare(self, api):
        self._read = None if api.tensor else _codec.request_reader(api.decode_request)
        self._hooks = {name: (getattr(api, name), takes_context(getattr(api, name)))
                       for name in ("decode_request", "predict", "encode_response")}
        self._batched = api.max_batch_size > 1

    def health(self):
        try:
            return bool(self._api.health())
        except Exception as error:  # pylint: disable=broad-except
            _codec.verdict(error, "health", "", _worker.log)
            return False

    # ---- numbers that the class tells ----

    def _record(self, key, value):
        if not isinstance(value, numbers.Real):
            _worker.log(6, str(key), "", str(value))
        elif threading.get_ident() == self._thread:
            self._gauge(key, value)
        else:
            self._later.append((key, value))
            _worker.wake()

    @staticmethod
    def _gauge(key, value):
        if _worker.gauge(str(key), float(value)):
            _worker.log(6, str(key), "", str(value))

    def woken(self):
        later, self._later = self._later, []
        for key, value in later:
            self._gauge(key, value)

    # ---- one request ----

    def _call(self, name, value, context):
        hook, with_context = self._hooks[name]
        return hook(value, context=context) if with_context else hook(value)

    def decode(self, handle, view, request_id, dtype, shape):
        """(200, Request) or a refusal."""
        context = {}
        try:
            value = self._read(view) if self._read else tensor_view(view, dtype, shape)
            return 200, Request(handle, request_id, self._call("decode_request", value, context), context)
        except Exception as error:  # pylint: disable=broad-except
            return _codec.verdict(error, "decode_request", request_id, _worker.log)

    def predict(self, requests):
        """A verdict for each, or None: all of them failed together."""
        try:
            if self._batched:
                return self._predict_batch(requests)
            request = requests[0]
            request.value = self._call("predict", request.value, request.context)
            return [(200, request)]
        except Exception as error:  # pylint: disable=broad-except
            if len(requests) > 1:
                _codec.verdict(error, "predict (of a batch)", requests[0].request_id, _worker.log)
                return None
            return [_codec.verdict(error, "predict", requests[0].request_id, _worker.log)]

    def _predict_batch(self, requests):
        inputs = self._api.batch([request.value for request in requests])
        outputs = self._api.unbatch(self._call("predict", inputs, [request.context for request in requests]))
        if len(outputs) != len(requests):
            _worker.log(3, "predict gave another number of outputs than it had inputs", requests[0].request_id,
                        f"{len(outputs)} for {len(requests)}")
            return [(500, b'{"detail":"Batch size mismatch"}')] * len(requests)
        for request, output in zip(requests, outputs):
            request.value = output
        return [(200, request) for request in requests]

    def encode(self, request):
        """(200, bytes), of labels (200, (bytes, shape)), or a refusal."""
        try:
            answer = self._call("encode_response", request.value, request.context)
            return 200, labels_bytes(answer) if self._api.tensor else _codec.encode(answer)
        except Exception as error:  # pylint: disable=broad-except
            return _codec.verdict(error, "encode_response", request.request_id, _worker.log)


class StreamingModel(Model):
    """predict yields, encode_response takes the generator and yields what is sent."""

    def predict(self, requests):
        request = requests[0]
        items = None
        try:
            outputs = self._call("predict", request.value, request.context)
            items = self._call("encode_response", outputs, request.context)
            for item in items:
                if _worker.emit(request.handle, _codec.encode_item(item)):
                    break  # nobody waits for it any more
            return [(200, request)]
        except Exception as error:  # pylint: disable=broad-except
            return [_codec.verdict(error, "predict", request.request_id, _worker.log)]
        finally:
            if hasattr(items, "close"):
                items.close()
