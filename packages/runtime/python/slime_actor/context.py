"""What an actor knows of itself and of the call it runs."""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Callable, Mapping, Optional, Sequence

from .special import ObjectRef

if TYPE_CHECKING:
    from .object_store import ObjectStore


class CallContext:
    """The call whose code runs. A method that is not async cannot be interrupted: it asks `cancelled` now and then."""

    def __init__(self, method: str, deadline_ms: Optional[int], trace_id: Optional[str], op_id: Optional[str]) -> None:
        self.method = method
        self.trace_id = trace_id
        #: The gang operation or retried call this is; None for a call without a key.
        self.op_id = op_id
        self._until = None if deadline_ms is None else time.monotonic() + deadline_ms / 1000
        self._cancelled = threading.Event()

    @property
    def cancelled(self) -> bool:
        """True once nobody waits for the result."""
        return self._cancelled.is_set()

    def wait_cancelled(self, seconds: float) -> bool:
        """Sleeps, but wakes up and returns True when the call is cancelled."""
        return self._cancelled.wait(seconds)

    @property
    def deadline_ms(self) -> Optional[int]:
        """Milliseconds left; None without a deadline."""
        return None if self._until is None else max(0, int((self._until - time.monotonic()) * 1000))

    def cancel(self) -> None:
        self._cancelled.set()


class ActorContext:
    """`ctx()` gives it. Ids, resources, and what an actor may tell or ask its host."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        cluster_id: str,
        node_id: str,
        store: "ObjectStore",
        on_phase: Callable[[str, Optional[str]], None],
        on_exit: Callable[[], None],
    ) -> None:
        env: Mapping[str, str] = spec.get("env") or {}
        self.actor_id: str = spec["actorId"]
        self.job_id: str = spec["jobId"]
        self.node_id = node_id
        self.cluster_id = cluster_id
        #: Counts the actor's lives, from 1.
        self.incarnation: int = spec["incarnation"]
        #: Assigned GPUs as {"index", "uuid"}, in rank order.
        self.gpus: Sequence[Mapping[str, Any]] = spec.get("gpus") or []
        self.placement: Optional[Mapping[str, Any]] = spec.get("placement")
        #: Its place in a gang; None outside one.
        self.rank: Optional[int] = int(env["SLIME_GANG_RANK"]) if "SLIME_GANG_RANK" in env else None
        self.gang_size: Optional[int] = int(env["SLIME_GANG_SIZE"]) if "SLIME_GANG_SIZE" in env else None
        #: Set when the actor is asked to end.
        self.ending = threading.Event()
        self._store = store
        self._on_phase = on_phase
        self._on_exit = on_exit

    @property
    def call(self) -> Optional[CallContext]:
        """The call this code runs for; None in the constructor and in threads of the actor's own."""
        return _call.get()

    def phase(self, text: str, waiting_for: Optional[str] = None) -> None:
        """Says what the actor does and whom it waits for; shown by `slime status` and to whoever waits for this actor."""
        self._on_phase(text, waiting_for)

    def put(self, value: Any) -> ObjectRef:
        """Stores a value for the job; the reference may be returned. It lives until freed or until the job ends."""
        descriptor = self._store.put(self.job_id, value)
        return ObjectRef({"kind": "stored", "id": descriptor["objectId"], "object": descriptor}, self._store.get)

    def exit(self) -> None:
        """Ends the actor in order: calls that wait are finished first; it is not restarted."""
        self._on_exit()


_call: ContextVar[Optional[CallContext]] = ContextVar("slime_call", default=None)
_hosted: Optional[ActorContext] = None


def ctx() -> ActorContext:
    """The actor whose code runs. Raises outside an actor."""
    if _hosted is None:
        raise RuntimeError("ctx() was read outside an actor: it exists in constructors and methods only")
    return _hosted


def set_hosted(context: Optional[ActorContext]) -> None:
    """A host has one actor."""
    global _hosted
    _hosted = context


def set_call(call: Optional[CallContext]) -> None:
    """For the current task, or the current thread's context."""
    _call.set(call)
