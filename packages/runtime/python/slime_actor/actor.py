"""One life of an actor: its instance, and the handler that answers its callers. See hosted-actor.ts of @slime/runtime."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Mapping, Optional

from .context import ActorContext, CallContext, set_call
from .errors import SlimeError, refused
from .executor import Executor, Group
from .limits import INLINE_VALUE_BYTES_MAX
from .log import Log
from .object_store import ObjectStore
from .peer import Call
from .record import CallRecord
from .special import ObjectRef, Stored
from .writer import measure

HIDDEN = {"on_shutdown", "onShutdown"}


class HostedActor:
    def __init__(self, instance: Any, executor: Executor, context: ActorContext, spec: Mapping[str, Any], store: ObjectStore, log: Log) -> None:
        self._instance = instance
        self._executor = executor
        self._context = context
        self._spec = spec
        self._store = store
        self._log = log
        self._record = CallRecord()
        self._methods = methods_of(instance)
        self._method_groups: Mapping[str, str] = getattr(type(instance), "method_groups", None) or {}
        self._running: dict[int, str] = {}
        self._runs = 0
        self._admits = "all"
        self.phase: tuple[str, Optional[str]] = ("", None)

    def handle(self, call: Call) -> Any:
        """Answers one call of the actor's socket."""
        if call.method == "slime.ping":
            return call.args
        if call.method == "slime.describe":
            return self._describe()
        name, _, chosen = call.method.partition("@")
        group = self._group(chosen or self._method_groups.get(name), call.urgent)
        method = self._methods.get(name)
        class_name, actor_id = self._spec["exportName"], self._spec["actorId"]
        if method is None:
            has = sorted(self._methods)
            raise SlimeError("actor.no_method", f"{class_name} has no method {name}; it has {', '.join(has)}", {"actorId": actor_id, "method": name, "has": has})
        if self._admits == "none" or (self._admits == "urgent" and not call.urgent):
            details = {"actorId": actor_id, "incarnation": self._spec["incarnation"], "reason": "it is ending"}
            raise SlimeError("actor.unavailable", f"{class_name} {actor_id} is ending", details)
        if not isinstance(call.args, list):
            raise refused(call.method, "arguments travel as an array")
        if call.idempotency_key is None:
            return self._start(call, name, group, method)
        # Whoever repeats the call waits for the same outcome, so one waiter's end must not cancel it.
        return asyncio.shield(self._record.once(call.idempotency_key, lambda: self._start(call, name, group, method)))

    async def drain(self) -> None:
        """Admits only urgent calls, and returns when those in progress and waiting are done."""
        if self._admits == "all":
            self._admits = "urgent"
        await self._executor.idle()

    async def shutdown(self) -> None:
        """Tells what runs to stop, then runs the actor's `on_shutdown`."""
        self._admits = "none"
        self._context.ending.set()
        hook = getattr(self._instance, "on_shutdown", None) or getattr(self._instance, "onShutdown", None)
        if hook is None:
            return
        try:
            # Its own thread: the actor's may be stuck in a call.
            result = await asyncio.to_thread(hook)
            if inspect.isawaitable(result):
                await result
        except Exception as error:
            self._log.error("actor.shutdown_failed", error=repr(error))

    def _start(self, call: Call, name: str, group: Group, method: Callable[..., Any]) -> asyncio.Future[Any]:
        if self._executor.full(group):
            pending, most = self._executor.pending, self._executor.pending_max
            message = f"{self._spec['exportName']} has {pending} calls waiting; wait for results, or raise its pending limit"
            raise SlimeError("actor.busy", message, {"actorId": self._spec["actorId"], "pending": pending, "pendingMax": most})
        seen = CallContext(name, call.deadline_ms, call.trace_id, call.idempotency_key)
        outcome = self._executor.submit(group, lambda threads: self._run(seen, name, method, call.args, threads))

        def on_abort() -> None:
            # The caller of a call with a key may come back for its result after its connection broke.
            if call.disconnected and call.idempotency_key is not None:
                return
            seen.cancel()
            outcome.cancel()

        call.on_abort = on_abort
        return outcome

    async def _run(self, seen: CallContext, name: str, method: Callable[..., Any], args: list[Any], threads: ThreadPoolExecutor) -> Any:
        loop = asyncio.get_running_loop()
        self._runs += 1
        run = self._runs
        self._running[run] = name
        try:
            set_call(seen)
            if any(isinstance(arg, (Stored, ObjectRef)) for arg in args):
                args = await loop.run_in_executor(threads, lambda: [self._read(arg) for arg in args])
            if inspect.iscoroutinefunction(method):
                result = await method(*args)
            else:
                context = contextvars.copy_context()
                work = loop.run_in_executor(threads, lambda: context.run(method, *args))
                try:
                    result = await asyncio.shield(work)
                except asyncio.CancelledError:
                    # A thread cannot be stopped: the call has failed, its group stays taken until the method returns.
                    await asyncio.wait([work])
                    work.exception()
                    raise
                if inspect.isawaitable(result):
                    result = await result
            if measure(result, INLINE_VALUE_BYTES_MAX) > INLINE_VALUE_BYTES_MAX:
                return Stored(await loop.run_in_executor(threads, self._store.put, self._context.job_id, result))
            return result
        finally:
            del self._running[run]

    def _read(self, arg: Any) -> Any:
        if isinstance(arg, Stored):
            return self._store.get(arg.descriptor)
        return arg.get() if isinstance(arg, ObjectRef) else arg

    def _group(self, name: Optional[str], urgent: bool) -> Group:
        if urgent:
            return self._executor.urgent
        if name is None:
            return self._executor.common
        group = self._executor.groups.get(name)
        if group is None:
            issue = f"{self._spec['exportName']} has no concurrency group {name}; give it in the actor's concurrencyGroups"
            raise SlimeError("config.invalid", issue, {"issues": [issue]})
        return group

    def _describe(self) -> dict[str, Any]:
        return {
            "actorId": self._spec["actorId"],
            "incarnation": self._spec["incarnation"],
            "className": self._spec["exportName"],
            "methods": sorted(self._methods),
            "pending": self._executor.pending,
            "running": list(self._running.values()),
            "phase": self.phase[0],
            "waitsFor": self.phase[1],
        }


def methods_of(instance: Any) -> dict[str, Callable[..., Any]]:
    """Public methods of the class; properties are not run, attributes of the instance are not offered."""
    found: dict[str, Callable[..., Any]] = {}
    for name in dir(type(instance)):
        if name.startswith("_") or name in HIDDEN:
            continue
        if isinstance(inspect.getattr_static(type(instance), name), property):
            continue
        value = getattr(instance, name, None)
        if inspect.isroutine(value):
            found[name] = value
    return found
