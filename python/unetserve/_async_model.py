"""A LitAPI whose hooks are coroutines: an asyncio loop in a thread of its own runs as many requests at once as the worker
holds. What a stream makes is sent on the worker's thread."""

import asyncio
import collections
import errno
import inspect
import threading

from . import _codec, _worker
from ._model import Model, Request

# Items of one request that wait to be sent, at most.
WAITING_MOST = 16
# How soon a slow reader's stream is looked at again.
LOOK_AGAIN_S = 0.02


class AsyncRequest(Request):
    __slots__ = ("task", "items", "room", "end", "gone")


async def settle(result):
    """Of a hook that may be a coroutine function or a plain one."""
    return await result if inspect.isawaitable(result) else result


async def each(items):
    """Of generators of either kind, and of what is a single thing."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    elif inspect.isgenerator(items):
        for item in items:
            yield item
    else:
        yield await settle(items)


class AsyncModel(Model):
    is_async = True

    def __init__(self, apis):
        super().__init__(apis)
        self._loop = None
        self._running = {}
        self._sending = {}

    def _prepare(self, api):
        super()._prepare(api)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="unetserve-asyncio", daemon=True).start()

    def health(self):
        try:
            well = self._api.health()
            if inspect.isawaitable(well):
                well = asyncio.run_coroutine_threadsafe(settle(well), self._loop).result(10)
            return bool(well)
        except Exception as error:  # pylint: disable=broad-except
            _codec.verdict(error, "health", "", _worker.log)
            return False

    # ---- on the worker's thread ----

    def decode(self, handle, view, request_id, dtype, shape):
        try:
            value = self._read(view)
        except Exception as error:  # pylint: disable=broad-except
            return _codec.verdict(error, "decode_request", request_id, _worker.log)
        request = AsyncRequest(handle, request_id, value, {})
        request.items = collections.deque()
        request.end = None
        request.gone = False
        return 200, request

    def predict(self, requests):
        for request in requests:
            self._loop.call_soon_threadsafe(self._start, request)

    def cancel(self, handle):
        self._loop.call_soon_threadsafe(self._stop, handle)

    def woken(self):
        super().woken()
        for request in list(self._sending.values()):
            self._send(request)

    def _send(self, request):
        while request.items and not request.gone:
            error = _worker.emit(request.handle, request.items[0])
            if error == -errno.EAGAIN:
                self._loop.call_soon_threadsafe(self._loop.call_later, LOOK_AGAIN_S, _worker.wake)
                return
            if error:
                request.gone = True
            else:
                request.items.popleft()
        self._loop.call_soon_threadsafe(request.room.set)
        if request.gone:
            self.cancel(request.handle)
            request.items.clear()
        if request.end and not request.items:
            self._sending.pop(request.handle, None)
            _worker.complete(request.handle, *request.end)

    # ---- in the asyncio thread ----

    def _start(self, request):
        run = self._stream if self._api.stream else self._answer
        request.room = asyncio.Event()
        request.task = self._loop.create_task(self._run(run, request))
        self._running[request.handle] = request

    def _stop(self, handle):
        request = self._running.get(handle)
        if request:
            request.task.cancel()

    async def _run(self, run, request):
        end = 500, _codec.INTERNAL
        try:
            end = 200, await run(request)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # pylint: disable=broad-except
            # A hook that exits does not take the other requests with it.
            end = _codec.verdict(error, "a coroutine", request.request_id, _worker.log)
        finally:
            del self._running[request.handle]
            if self._api.stream:
                request.end = end
                self._sending[request.handle] = request
                _worker.wake()
            else:
                _worker.complete(request.handle, *end)

    async def _answer(self, request):
        value = await settle(self._call("decode_request", request.value, request.context))
        value = await settle(self._call("predict", value, request.context))
        return _codec.encode(await settle(self._call("encode_response", value, request.context)))

    async def _stream(self, request):
        value = await settle(self._call("decode_request", request.value, request.context))
        outputs = self._call("predict", value, request.context)
        async for output in each(outputs):
            # As LitServe 0.2: each output comes as a list of one.
            async for item in each(self._call("encode_response", [output], request.context)):
                await self._put(request, _codec.encode_item(item))
        return b""

    async def _put(self, request, item):
        while len(request.items) >= WAITING_MOST and not request.gone:
            request.room.clear()
            if len(request.items) >= WAITING_MOST:
                await request.room.wait()
        request.items.append(item)
        self._sending[request.handle] = request
        _worker.wake()
