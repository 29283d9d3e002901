"""unetserve's Python side: models that are Python classes (unetserve.litserve)."""

__version__ = "0.1.0"
