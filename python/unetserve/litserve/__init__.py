"""LitServe's classes on unetserve: `import unetserve.litserve as ls` in place of `import litserve as ls`.

docs/python.md says what is the same, what is better and what is refused."""

from .. import _seat  # first: it tells a worker from a script
from .._codec import HTTPException, UploadFile
from . import test_examples
from .api import LitAPI, Tensor
from .server import LitServer

__all__ = ["HTTPException", "LitAPI", "LitServer", "Tensor", "UploadFile", "test_examples"]
