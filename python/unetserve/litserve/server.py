"""LitServer: starts unetserve with this very file, or is the worker that unetserve has started from it."""

import logging
import os
import pathlib
import shutil
import sys
import threading

from .. import _seat
from .api import LitAPI

_DAY_MS = 24 * 3600 * 1000
# File descriptors from here on are the supervisor's to give out.
_FD_MOST = 31

_log = logging.getLogger("unetserve")


def _refuse(name, why="unetserve does not have it"):
    raise ValueError(f"{name}: {why}")


def _refuse_unusual(owner, given, usual):
    for name, value in given.items():
        if value != usual[name]:
            _refuse(f"{owner}({name}={value!r})")


# ---- devices ----


def _gpus():
    """How many torch sees, where it is there and has been imported, as LitServe decides."""
    torch = sys.modules.get("torch")
    return torch.cuda.device_count() if torch and torch.cuda.is_available() else 0


def _devices(accelerator, devices):
    """The configuration's `devices`."""
    if accelerator not in ("auto", "cpu", "cuda", "gpu", None):
        _refuse(f"LitServer(accelerator={accelerator!r})", "allowed: auto, cpu, cuda, gpu")
    if accelerator == "cpu" or (accelerator in ("auto", None) and not _gpus()):
        return "cpu"
    if devices == "auto":
        return "cuda"
    if isinstance(devices, (list, tuple)):
        if not all(isinstance(device, int) for device in devices):
            _refuse(f"LitServer(devices={devices!r})", "one worker has one device; allowed: auto, a number, a list")
        return ",".join(f"cuda:{device}" for device in devices)
    return str(int(devices))


# ---- middlewares ----


def _list_of(values):
    return "*" if "*" in values else ", ".join(values)


def _cors_keys(options):
    names = {"allow_origins": _list_of, "allow_methods": _list_of, "allow_headers": _list_of,
             "expose_headers": _list_of, "allow_credentials": lambda on: "on" if on else "off",
             "max_age": lambda seconds: str(int(seconds))}
    keys = {}
    for name, value in options.items():
        if name not in names:
            _refuse(f"CORSMiddleware({name}=...)")
        text = names[name](value)
        if text:
            keys[f"cors_{name}"] = text
    # Starlette's default is GET alone.
    if keys:
        keys.setdefault("cors_allow_methods", "GET")
    return keys


def _gzip_keys(options):
    """Starlette's GZipMiddleware: its usual values where none are given."""
    for name in options:
        if name not in ("minimum_size", "compresslevel"):
            _refuse(f"GZipMiddleware({name}=...)")
    return {"compress_min_bytes": str(int(options.get("minimum_size", 500))),
            "gzip_level": str(int(options.get("compresslevel", 9)))}


def _middleware_keys(middlewares):
    """Those that the gateway has instead, as its configuration's keys."""
    if middlewares is None:
        return {}
    if not isinstance(middlewares, list):
        raise ValueError("middlewares must be a list of ASGI middlewares, or of tuples of one and its options")
    keys = {}
    for entry in middlewares:
        kind, options = entry if isinstance(entry, tuple) else (entry, {})
        name = getattr(kind, "__name__", repr(kind))
        if name == "CORSMiddleware":
            keys.update(_cors_keys(options))
        elif name == "GZipMiddleware":
            keys.update(_gzip_keys(options))
        else:
            _refuse(f"middleware {name}",
                    "unetserve runs no ASGI middleware; of CORSMiddleware and GZipMiddleware it has its own")
    return keys


# ---- workers ----


def _workers(apis, given):
    """{route: how many on each device}, of a number, a list in the order of the APIs, or a dict by api_path."""
    paths = [api.api_path for api in apis]
    if isinstance(given, (list, tuple)):
        if len(given) != len(paths):
            _refuse(f"LitServer(workers_per_device={given!r})", f"a list has one number for each of {len(paths)} LitAPIs")
        given = dict(zip(paths, given))
    elif not isinstance(given, dict):
        given = dict.fromkeys(paths, given)
    unknown = [path for path in given if path not in paths]
    if unknown:
        _refuse(f"LitServer(workers_per_device={given!r})", f"no LitAPI has the api_path {unknown[0]}")
    counts = {path: given.get(path, 1) for path in paths}
    for count in counts.values():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            _refuse(f"LitServer(workers_per_device={count!r})", "a whole number, at least 1")
    return counts


# ---- TLS ----


def _tls_keys(options):
    """What uvicorn calls ssl_certfile and ssl_keyfile; the rest of its options is refused."""
    names = {"ssl_certfile": "tls_certificate", "ssl_keyfile": "tls_key"}
    for name in options:
        if name not in names:
            _refuse(f"LitServer.run({name}=...)", "that is uvicorn's, and there is no uvicorn here")
    if options and len(options) < len(names):
        _refuse(f"LitServer.run({next(iter(options))}=...)", "ssl_certfile and ssl_keyfile go together")
    return {names[name]: os.path.abspath(path) for name, path in options.items()}


# ---- the server ----


def _program():
    """unetserve: beside this package in a build tree or an installation, else in PATH."""
    package = pathlib.Path(__file__).resolve().parents[1]
    for place in (package.parents[1] / "unetserve", package.parents[3] / "bin" / "unetserve"):
        if place.is_file() and os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("unetserve")
    if not found:
        raise FileNotFoundError("the program 'unetserve' is neither beside this package nor in PATH:"
                                " make install puts it there, or add the build directory to PATH")
    return found


def _main_file():
    main = sys.modules["__main__"]
    if getattr(main, "__spec__", None) is not None:
        _refuse("python -m", "unetserve starts the file again for each worker; start it as `python FILE.py`")
    path = getattr(main, "__file__", None)
    if not path or not path.endswith(".py"):
        _refuse("LitServer.run()", "it must be called by a file, started as `python FILE.py`")
    return os.path.realpath(path)


class LitServer:
    """LitServe's LitServer. run_timeout (seconds that one call of predict may take) and max_response_bytes (the
    longest answer) are unetserve's own."""

    def __init__(self, lit_api, accelerator="auto", devices="auto", workers_per_device=1, timeout=30, stream=None,
                 middlewares=None, max_batch_size=None, batch_timeout=None, api_path=None, max_payload_size=None,
                 track_requests=False, model_metadata=None, spec=None, callbacks=None, loggers=None, loop="auto",
                 healthcheck_path="/health", info_path="/info", shutdown_path="/shutdown", enable_shutdown_api=False,
                 fast_queue=False, disable_openapi_url=False, restart_workers=True, run_timeout=60,
                 max_response_bytes=1 << 20):
        del track_requests, fast_queue, restart_workers  # always so: /metrics, shared memory, workers come back
        _refuse_unusual("LitServer", {"model_metadata": model_metadata, "spec": spec, "callbacks": callbacks,
                                      "loggers": loggers, "loop": loop, "healthcheck_path": healthcheck_path,
                                      "info_path": info_path, "shutdown_path": shutdown_path,
                                      "enable_shutdown_api": enable_shutdown_api},
                        {"model_metadata": None, "spec": None, "callbacks": None, "loggers": None, "loop": "auto",
                         "healthcheck_path": "/health", "info_path": "/info", "shutdown_path": "/shutdown",
                         "enable_shutdown_api": False})
        self.apis = list(lit_api) if isinstance(lit_api, (list, tuple)) else [lit_api]
        if not self.apis or not all(isinstance(api, LitAPI) for api in self.apis):
            raise ValueError("lit_api must be an instance of LitAPI, or a list of them")
        for api in self.apis:
            self._settle(api, {"stream": stream, "max_batch_size": max_batch_size, "batch_timeout": batch_timeout,
                               "api_path": api_path})
            if timeout not in (False, None, -1) and api.batch_timeout > timeout:
                raise ValueError("batch_timeout must be less than timeout")
        if len({api.api_path for api in self.apis}) < len(self.apis):
            raise ValueError("each LitAPI must have an api_path of its own")
        if max_payload_size is not None and not isinstance(max_payload_size, (int, float)):
            _refuse(f"LitServer(max_payload_size={max_payload_size!r})", "a number of bytes")
        self._keys = _middleware_keys(middlewares)
        if disable_openapi_url:
            self._keys["docs"] = "off"
        self._workers = _workers(self.apis, workers_per_device)
        if max_payload_size is not None:
            self._keys["max_body_bytes"] = str(int(max_payload_size))
        self._model_keys = {
            "devices": _devices(accelerator, devices),
            "timeout_ms": str(_DAY_MS if timeout in (False, None, -1) else max(1, int(timeout * 1000))),
            "run_timeout_ms": str(max(1, int(run_timeout * 1000))),
            "max_response_bytes": str(int(max_response_bytes)),
        }

    @staticmethod
    def _settle(api, given):
        for name, value in given.items():
            if value is not None:
                setattr(api, name, value)
        api.check()

    def run(self, host="0.0.0.0", port=8000, num_api_servers=None, log_level="info", generate_client_file=True,
            api_server_worker_type=None, pretty_logs=False, **kwargs):
        """Serves until it is told to end; does not return."""
        self._keys.update(_tls_keys(kwargs))
        _refuse_unusual("LitServer.run", {"pretty_logs": pretty_logs}, {"pretty_logs": False})
        if api_server_worker_type not in (None, "process"):
            _refuse(f"LitServer.run(api_server_worker_type={api_server_worker_type!r})", "they are processes")
        if threading.current_thread() is not threading.main_thread():
            _refuse("LitServer.run()", "it must be called from the main thread")
        if _seat.words:
            self._work()
        scheme = "https://" if kwargs else ""
        self._serve(scheme + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), num_api_servers or 1, log_level,
                    ["--client-file", "client.py"] if generate_client_file else [])

    def _work(self):
        from .. import _worker
        from .._async_model import AsyncModel
        from .._model import Model, StreamingModel

        words, _seat.words = _seat.words, None
        api = self.apis[0]
        kinds = {(a.enable_async, bool(a.stream) and not a.enable_async) for a in self.apis}
        if len(kinds) > 1:
            _refuse("LitServer([...])", "of several LitAPIs all or none are async, all or none stream")
        kind = AsyncModel if api.enable_async else StreamingModel if api.stream else Model
        paths = {sys.prefix, sys.base_prefix, *(path for path in sys.path if os.path.isabs(path))}
        status = _worker.run(words, kind({a.api_path: a for a in self.apis}), ":".join(sorted(paths)))
        sys.stdout.flush()
        if status == os.EX_IOERR:
            os._exit(status)  # the device is lost: nothing that ends in order would end
        sys.exit(status)

    def configuration(self, listen, gateways, log_level):
        path = _main_file()
        lines = ["[server]", f"listen = {listen}", f"gateways = {gateways}", f"log_level = {log_level}"]
        lines += [f"{key} = {value}" for key, value in self._keys.items()]
        names = set()
        for api in self.apis:
            name = type(api).__name__
            while name in names:
                name += "-"
            names.add(name)
            lines += [f"[model {name}]", f"path = {path}", f"python = {sys.executable}", f"route = {api.api_path}"]
            lines += [f"workers_per_device = {self._workers[api.api_path]}"]
            lines += [f"{key} = {value}" for key, value in self._model_keys.items()]
        return "\n".join(lines) + "\n"

    def _serve(self, listen, gateways, log_level, options):
        """This process becomes unetserve: signals and exit status need nobody to pass them on."""
        program = _program()
        text = self.configuration(listen, gateways, "info" if log_level in ("trace", "critical") else log_level)
        fd = os.memfd_create("unetserve.conf")
        os.write(fd, text.encode())
        if fd > _FD_MOST:
            fd = os.dup2(fd, _FD_MOST)
        os.set_inheritable(fd, True)
        _seat.keep_arguments()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(program, ["unetserve", "-c", f"/proc/self/fd/{fd}", *options])
