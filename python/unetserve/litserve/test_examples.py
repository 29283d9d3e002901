"""LitServe's small models, to try a server with."""

from .api import LitAPI


class SimpleLitAPI(LitAPI):
    """{"input": 4.0} -> {"output": 16.0}"""

    def setup(self, device):
        self.model = lambda x: x**2

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"output": output}


class SimpleBatchedAPI(LitAPI):
    """The same with arrays of numpy, in batches."""

    def setup(self, device):
        self.model = lambda x: x**2

    def decode_request(self, request):
        import numpy
        return numpy.asarray(request["input"])

    def predict(self, x):
        return self.model(x)

    def encode_response(self, output):
        return {"output": output}


class SimpleStreamAPI(LitAPI):
    """{"input": "Hello"} -> three items."""

    def setup(self, device):
        self.model = lambda x, y: f"{x}: {y}"

    def decode_request(self, request):
        return request["input"]

    def predict(self, x):
        for i in range(3):
            yield self.model(i, x.lower() if isinstance(x, str) else x)

    def encode_response(self, output):
        for item in output:
            yield {"output": item}
