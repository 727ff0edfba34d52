"""An actor for the tests of the Python host."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

from slime_actor import ObjectRef, SlimeError, ctx


class Counter:
    method_groups = {"look": "reads"}

    def __init__(self, start: int, options: Any = None) -> None:
        if start < 0:
            raise ValueError(f"cannot start at {start}")
        self.value = start
        self.options = options
        self.thread = threading.get_ident()
        self.log: list[str] = []
        self.release = threading.Event()

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    async def add_later(self, amount: int, seconds: float = 0.0) -> int:
        await asyncio.sleep(seconds)
        return self.add(amount)

    def look(self) -> int:
        return self.value

    def echo(self, value: Any) -> Any:
        return value

    def total(self, numbers: Any) -> float:
        return float(sum(numbers))

    def zeros(self, count: int) -> Any:
        return {"bytes": bytes(count), "kind": "zeros"}

    def same_thread(self) -> bool:
        return threading.get_ident() == self.thread

    def boom(self) -> None:
        try:
            os.environ["MISSING_FROM_ENVIRONMENT"]
        except KeyError as error:
            raise RuntimeError("it broke") from error

    def refuse(self) -> None:
        raise SlimeError("engine.state", "not now", {"engine": "e", "state": "paused", "wanted": "running"})

    def unsendable(self) -> Any:
        return {"deep": [1, {2, 3}]}

    def wait_for_cancel(self) -> str:
        call = ctx().call
        assert call is not None
        self.log.append("waiting")
        ended = call.wait_cancelled(10)
        self.log.append("cancelled" if ended else "not cancelled")
        return "too late"

    async def sleep_until_cancelled(self) -> None:
        self.log.append("sleeping")
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            self.log.append("woken")
            raise

    def history(self) -> list[str]:
        return self.log

    def who(self) -> dict[str, Any]:
        me, call = ctx(), ctx().call
        assert call is not None
        ctx().phase("looking in the mirror", waiting_for="nobody")
        return {
            "actorId": me.actor_id,
            "jobId": me.job_id,
            "incarnation": me.incarnation,
            "rank": me.rank,
            "gpus": list(me.gpus),
            "method": call.method,
            "traceId": call.trace_id,
            "hasDeadline": call.deadline_ms is not None,
            "env": os.environ.get("FIXTURE_COLOR"),
        }

    def keep(self, value: Any) -> ObjectRef:
        return ctx().put(value)

    def open_ref(self, box: dict[str, ObjectRef]) -> Any:
        return box["ref"].get()

    def busy(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds

    def leave(self) -> None:
        ctx().exit()

    def on_shutdown(self) -> None:
        print("shutdown hook ran", flush=True)


class Broken:
    def __init__(self) -> None:
        raise OSError("no such engine")
