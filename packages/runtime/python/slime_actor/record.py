"""Results by idempotency key: of all calls with one key, one runs. See call-record.ts of @slime/runtime."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

from .errors import SlimeError
from .writer import measure

ENTRIES_MAX = 4096
BYTES_MAX = 256 * 1024 * 1024
_forgotten = {"call.cancelled", "call.deadline", "actor.busy"}


class CallRecord:
    """Bounded; the oldest finished results go first, a running call never. What was cancelled may run again."""

    def __init__(self) -> None:
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._bytes: dict[str, int] = {}
        self._total = 0

    def once(self, key: str, run: Callable[[], asyncio.Future[Any]]) -> asyncio.Future[Any]:
        """The outcome of the call with this key, which is started if there was none. Nobody may cancel it."""
        known = self._calls.get(key)
        if known is None:
            known = run()
            self._calls[key] = known
            known.add_done_callback(lambda done: self._keep(key, done))
        return known

    def _keep(self, key: str, done: asyncio.Future[Any]) -> None:
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or (isinstance(error, SlimeError) and error.code in _forgotten):
            self._calls.pop(key, None)
            return
        size = 1024 if error is not None else measure(done.result(), BYTES_MAX)
        if size > BYTES_MAX:
            replaced: asyncio.Future[Any] = done.get_loop().create_future()
            message = f"the result of call {key} was too large to keep for a repetition; return a reference instead"
            replaced.set_exception(SlimeError("object.lost", message, {"objectId": key, "reason": "not recorded"}))
            replaced.exception()
            self._calls[key], size = replaced, 1024
        self._bytes[key] = size
        self._total += size
        for old in list(self._bytes):
            if len(self._calls) <= ENTRIES_MAX and self._total <= BYTES_MAX:
                break
            self._total -= self._bytes.pop(old)
            self._calls.pop(old, None)
