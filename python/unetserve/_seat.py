"""Has unetserve started this interpreter as a worker? Then its command line lies in the environment.

It is taken out of there at once, so that whatever the model starts is not taken for a worker."""

import os
import sys

_WORKER = "UNETSERVE_WORKER"
_ARGUMENTS = "UNETSERVE_SCRIPT_ARGUMENTS"


def _take():
    text = os.environ.pop(_WORKER, None)
    if text is None:
        return None
    arguments = os.environ.get(_ARGUMENTS)
    if arguments:
        sys.argv[1:] = arguments.split("\n")
    # A log is read while it is written.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True)
    return text.split("\n")


def keep_arguments():
    """The script's own, for the workers."""
    if len(sys.argv) > 1:
        os.environ[_ARGUMENTS] = "\n".join(sys.argv[1:])
    else:
        os.environ.pop(_ARGUMENTS, None)


words = _take()
