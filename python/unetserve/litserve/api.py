"""LitAPI: what a model's class inherits."""

import inspect
import warnings

_DTYPES = {"uint8": 1, "int8": 2, "uint16": 3, "int16": 4, "float16": 5, "float32": 6}


class Tensor:
    """Declares that requests are images: the gateway reads JSON, npy and raw bodies, decode_request gets a read-only
    array, C x H x W, that is the slot's own memory, and encode_response gives labels (uint8, H x W), which are
    answered as JSON, npy or PNG.

    classes: (name, code, (red, green, blue)) of each label."""

    def __init__(self, channels, field="image", output_field="output", dtypes=("float32",), multiple=1, tile=256,
                 classes=()):
        unknown = [name for name in dtypes if name not in _DTYPES]
        if unknown:
            raise ValueError(f"dtypes: {unknown[0]} is none of {', '.join(_DTYPES)}")
        if channels < 1:
            raise ValueError("channels must be greater than 0")
        self.channels = channels
        self.field = field
        self.output_field = output_field
        self.dtypes = tuple(dtypes)
        self.multiple = multiple
        self.tile = tile
        self.classes = tuple(classes)

    def describe(self):
        return {
            "channels": self.channels,
            "input_field": self.field,
            "output_field": self.output_field,
            "dtypes": sum(1 << _DTYPES[name] for name in set(self.dtypes)),
            "multiple": self.multiple,
            "tile": self.tile,
            "classes": [(name, code, *rgb) for name, code, rgb in self.classes],
        }


class LitAPI:
    """LitServe's LitAPI. A model needs setup and predict; the other hooks have LitServe's defaults."""

    tensor = None
    base = None
    recorder = None

    def __init__(self, max_batch_size=1, batch_timeout=0.0, enable_async=False, api_path="/predict", stream=False,
                 loop="auto", spec=None, mcp=None):
        if max_batch_size <= 0:
            raise ValueError("max_batch_size must be greater than 0")
        if batch_timeout < 0:
            raise ValueError("batch_timeout must be greater than or equal to 0")
        if not api_path.startswith("/"):
            raise ValueError("api_path must start with '/'")
        for name, value, usual in (("loop", loop, "auto"), ("spec", spec, None), ("mcp", mcp, None)):
            if value != usual:
                raise ValueError(f"LitAPI({name}=...): unetserve does not have it")
        self.max_batch_size = max_batch_size
        self.batch_timeout = batch_timeout
        self.enable_async = enable_async
        self.api_path = api_path
        self.stream = stream
        self.device = None
        self.check_async()

    def __getattr__(self, name):
        # A class that has its own __init__ and forgets super().
        usual = {"max_batch_size": 1, "batch_timeout": 0.0, "enable_async": False, "api_path": "/predict",
                 "stream": False, "device": None}
        if name in usual:
            return usual[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    # ---- hooks ----

    def setup(self, device):
        raise NotImplementedError("setup is not implemented")

    def decode_request(self, request, **kwargs):
        return request

    def batch(self, inputs):
        if hasattr(inputs[0], "__torch_function__"):
            import torch
            return torch.stack(inputs)
        if type(inputs[0]).__name__ == "ndarray":
            import numpy
            return numpy.stack(inputs)
        return inputs

    def predict(self, x, **kwargs):
        raise NotImplementedError("predict is not implemented")

    def unbatch(self, output):
        if isinstance(output, str):
            warnings.warn("'predict' returned a string where a list of predictions was expected: each of its "
                          "characters becomes one", UserWarning)
        return list(output)

    def encode_response(self, output, **kwargs):
        return output

    def health(self):
        return True

    def log(self, key, value):
        """A number becomes the gauge unetserve_model_KEY at /metrics (where KEY is a-z, 0-9 and _), anything else a
        line in the log."""
        if self.recorder:
            self.recorder(key, value)

    # ---- what fits together ----

    def check_async(self):
        if not self.enable_async:
            return
        for name in ("decode_request", "predict", "encode_response"):
            hook = getattr(self, name)
            if not (inspect.iscoroutinefunction(hook) or inspect.isasyncgenfunction(hook)):
                raise ValueError(f"LitAPI(enable_async=True): {name} must be a coroutine (async def)")

    def check(self):
        """What unetserve cannot do is said before a request comes."""
        name = type(self).__name__
        if type(self).predict is LitAPI.predict:
            raise ValueError(f"{name}: predict is not implemented")
        if hasattr(type(self), "authorize"):
            raise ValueError(f"{name}.authorize: unetserve has no FastAPI dependencies; keys are given with "
                             "UNETSERVE_API_KEY, LIT_SERVER_API_KEY or the configuration's api_key_file")
        for hook in ("step", "prefill", "has_capacity", "add_request"):
            if hasattr(type(self), hook):
                raise ValueError(f"{name}.{hook}: unetserve has no continuous batching")
        if self.max_batch_size > 1 and self.enable_async:
            raise ValueError(f"{name}: enable_async and max_batch_size > 1 do not go together")
        if self.max_batch_size > 1 and self.stream:
            raise ValueError(f"{name}: unetserve does not batch streams; set max_batch_size=1")
        if self.tensor and (self.stream or self.enable_async):
            raise ValueError(f"{name}: `tensor` goes neither with stream nor with enable_async")
        generates = any(inspect.isgeneratorfunction(getattr(self, hook)) or
                        inspect.isasyncgenfunction(getattr(self, hook)) for hook in ("predict", "encode_response"))
        if generates and not self.stream:
            raise ValueError(f"{name}: predict or encode_response yields; say stream=True")
        if self.stream and not generates:
            raise ValueError(f"{name}: stream=True, but neither predict nor encode_response yields")


LitAPI.base = LitAPI
