"""Values that mean more than data: references, stored values, handles, arrays without numpy."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Optional, Sequence

#: Element types that travel raw, by numpy's short names: (bytes, struct and array code).
DTYPES: dict[str, tuple[int, str]] = {
    "i1": (1, "b"),
    "u1": (1, "B"),
    "i2": (2, "h"),
    "u2": (2, "H"),
    "i4": (4, "i"),
    "u4": (4, "I"),
    "i8": (8, "q"),
    "u8": (8, "Q"),
    "f4": (4, "f"),
    "f8": (8, "d"),
    "f2": (2, "e"),
    "b1": (1, "?"),
}


class NdArray:
    """An array as it travels, row-major and little-endian: what arrays of more than one axis are where numpy is missing."""

    def __init__(self, dtype: str, shape: Sequence[int], data: memoryview) -> None:
        elements = 1
        for axis in shape:
            elements *= axis
        if dtype not in DTYPES or elements * DTYPES[dtype][0] != data.nbytes:
            raise ValueError(f"{data.nbytes} bytes do not hold {dtype}{list(shape)}")
        self.dtype = dtype
        self.shape = tuple(shape)
        #: The raw bytes; `.cast(code)` gives the elements.
        self.data = data.cast("B")

    def elements(self) -> memoryview:
        """The elements in order, without a copy."""
        code: Any = DTYPES[self.dtype][1]
        return self.data.cast(code)


class Stored:
    """The very value lies in the object store; the host reads it before user code sees it."""

    def __init__(self, descriptor: Mapping[str, Any]) -> None:
        self.descriptor = dict(descriptor)


class ObjectRef:
    """A reference to a value. `get()` reads it; passing it on passes the reference, not the value."""

    def __init__(self, payload: Mapping[str, Any], read: Optional[Callable[[Mapping[str, Any]], Any]] = None) -> None:
        self.payload = dict(payload)
        self._read = read

    @property
    def id(self) -> str:
        return str(self.payload.get("id"))

    def get(self) -> Any:
        """The value; reading a stored one copies it. Raises SlimeError `object.lost` when it was freed."""
        if self.payload.get("kind") == "inline":
            return self.payload.get("value")
        if self._read is None:
            raise RuntimeError(f"{self.id} lies in the object store, which only an actor host reads")
        return self._read(self.payload["object"])

    def __repr__(self) -> str:
        return f"ObjectRef({self.id})"


class ActorHandle:
    """Another actor's handle, carried and passed on; calling it is for TypeScript."""

    def __init__(self, payload: Any) -> None:
        self.payload = payload
