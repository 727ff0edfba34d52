"""Hosts a Python class as an actor of a slime cluster. Standard library only; faster with numpy and msgpack.

An actor's module imports what it needs from here and is otherwise plain Python::

    from slime_actor import ctx

    class Counter:
        def __init__(self, start: int) -> None:
            self.value = start

        def add(self, amount: int) -> int:
            ctx().phase("adding")
            self.value += amount
            return self.value
"""

from .context import ActorContext, CallContext, ctx
from .errors import SlimeError
from .special import ActorHandle, NdArray, ObjectRef

__all__ = ["ActorContext", "ActorHandle", "CallContext", "NdArray", "ObjectRef", "SlimeError", "ctx"]
