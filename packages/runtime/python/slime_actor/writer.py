"""Writes values as plain MessagePack, arrays and long bytes as segments beside it. See value-writer.ts of @slime/rpc."""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Any, Optional

from .errors import limit, refused
from .limits import BIG_DIGITS_MAX, INLINE_BYTES_MAX, WIRE, FrameLimits
from .special import DTYPES, ActorHandle, NdArray, ObjectRef, Stored

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

SAFE_INT = 2**53 - 1
_dtype_of_code = {"b": "i1", "B": "u1", "h": "i2", "H": "u2", "f": "f4", "d": "f8"}


class Writer:
    """One message or value after another into `out`; what cannot be sent raises `codec.refused` with its path."""

    def __init__(self, limits: FrameLimits = WIRE) -> None:
        self.out = bytearray()
        #: Raw parts the messages refer to by index; views of the caller's memory.
        self.segments: list[memoryview] = []
        self.items = 0
        self.limits = limits

    def mark(self) -> tuple[int, int, int]:
        return len(self.out), len(self.segments), self.items

    def take_back(self, mark: tuple[int, int, int]) -> None:
        """Forgets what was written since the mark."""
        del self.out[mark[0] :]
        del self.segments[mark[1] :]
        self.items = mark[2]

    def value(self, value: Any, where: str = "value", depth: int = 0) -> None:
        kind = type(value)
        if value is None:
            self.out.append(0xC0)
        elif kind is bool:
            self.out.append(0xC3 if value else 0xC2)
        elif kind is int:
            self.integer(value)
        elif kind is float:
            self.out += struct.pack(">Bd", 0xCB, value)
        elif kind is str:
            self.string(value, where)
        elif kind is list or kind is tuple:
            self._deeper(where, depth)
            self.sequence(len(value))
            for i, item in enumerate(value):
                self.value(item, f"{where}[{i}]", depth + 1)
        elif kind is dict:
            self._deeper(where, depth)
            self._map(len(value))
            for key, item in value.items():
                if type(key) is not str:
                    raise refused(where, f"a key is a {type(key).__name__}; keys are strings")
                self.string("__" + key if key.startswith("__") else key, where)
                self.value(item, f"{where}.{key}", depth + 1)
        else:
            self._other(value, where, depth)

    def integer(self, value: int) -> None:
        if 0 <= value < 0x80:
            self.out.append(value)
        elif -32 <= value < 0:
            self.out.append(value & 0xFF)
        elif 0 <= value <= SAFE_INT:
            if value < 0x100:
                self.out += struct.pack(">BB", 0xCC, value)
            elif value < 0x10000:
                self.out += struct.pack(">BH", 0xCD, value)
            elif value < 0x100000000:
                self.out += struct.pack(">BI", 0xCE, value)
            else:
                self.out += struct.pack(">BQ", 0xCF, value)
        elif -SAFE_INT <= value < 0:
            if value >= -0x80:
                self.out += struct.pack(">Bb", 0xD0, value)
            elif value >= -0x8000:
                self.out += struct.pack(">Bh", 0xD1, value)
            elif value >= -0x80000000:
                self.out += struct.pack(">Bi", 0xD2, value)
            else:
                self.out += struct.pack(">Bq", 0xD3, value)
        else:
            if value.bit_length() > BIG_DIGITS_MAX * 3:
                raise refused("value", "it is an integer of more than about 3,600 digits; send its bytes")
            self._tag("__big")
            self.string(str(value))

    def string(self, text: str, where: str = "value") -> None:
        try:
            raw = text.encode("utf-8")
        except UnicodeEncodeError:
            raw = text.encode("utf-8", "replace")
        size = len(raw)
        if size > self.limits.string_bytes_max:
            raise limit(f"bytes of a string at {where}", size, self.limits.string_bytes_max)
        if size < 32:
            self.out.append(0xA0 | size)
        elif size < 0x100:
            self.out += struct.pack(">BB", 0xD9, size)
        elif size < 0x10000:
            self.out += struct.pack(">BH", 0xDA, size)
        else:
            self.out += struct.pack(">BI", 0xDB, size)
        self.out += raw

    def sequence(self, count: int) -> None:
        self._count(count)
        if count < 16:
            self.out.append(0x90 | count)
        elif count < 0x10000:
            self.out += struct.pack(">BH", 0xDC, count)
        else:
            self.out += struct.pack(">BI", 0xDD, count)

    def _map(self, count: int) -> None:
        self._count(count)
        if count < 16:
            self.out.append(0x80 | count)
        elif count < 0x10000:
            self.out += struct.pack(">BH", 0xDE, count)
        else:
            self.out += struct.pack(">BI", 0xDF, count)

    def _other(self, value: Any, where: str, depth: int) -> None:
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._bytes(memoryview(value).cast("B") if memoryview(value).contiguous else memoryview(bytes(value)))
        elif isinstance(value, NdArray):
            self._nd(value.dtype, value.shape, value.data)
        elif isinstance(value, array):
            self._array_array(value, where)
        elif numpy is not None and isinstance(value, numpy.ndarray):
            self._numpy(value, where)
        elif numpy is not None and isinstance(value, numpy.generic):
            self.value(value.item(), where, depth)
        elif isinstance(value, ObjectRef):
            self._special("__ref", value.payload, where, depth)
        elif isinstance(value, Stored):
            self._special("__stored", value.descriptor, where, depth)
        elif isinstance(value, ActorHandle):
            self._special("__actor", value.payload, where, depth)
        elif isinstance(value, (bool, int, float, str, list, tuple, dict)):
            self.value(_plain_base(value), where, depth)
        else:
            raise refused(where, _advice(value))

    def _bytes(self, raw: memoryview) -> None:
        size = raw.nbytes
        if size > INLINE_BYTES_MAX:
            self._tag("__bytes")
            self.integer(self._segment(raw))
            return
        self.out += struct.pack(">BB", 0xC4, size) if size < 0x100 else struct.pack(">BH", 0xC5, size)
        self.out += raw

    def _array_array(self, value: array[Any], where: str) -> None:
        dtype = _dtype_of_code.get(value.typecode) or {"i": "i", "I": "u", "l": "i", "L": "u", "q": "i", "Q": "u"}.get(value.typecode, "") + str(value.itemsize)
        if dtype not in DTYPES or sys.byteorder != "little":
            raise refused(where, f"an array of type code {value.typecode!r} has no counterpart; send numbers")
        self._nd(dtype, (len(value),), memoryview(value).cast("B"))

    def _numpy(self, value: Any, where: str) -> None:
        dtype = f"{value.dtype.kind}{value.dtype.itemsize}"
        if dtype not in DTYPES:
            raise refused(where, f"numpy's {value.dtype} has no counterpart; convert it with astype")
        flat = numpy.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        self._nd(dtype, value.shape, memoryview(flat.reshape(-1).view(numpy.uint8).data) if value.size else memoryview(b""))

    def _nd(self, dtype: str, shape: tuple[int, ...], raw: memoryview) -> None:
        self._tag("__nd")
        self.sequence(3)
        self.string(dtype)
        self.sequence(len(shape))
        for axis in shape:
            self.integer(axis)
        self.integer(self._segment(raw))

    def _special(self, tag: str, payload: Any, where: str, depth: int) -> None:
        self._deeper(where, depth)
        self._tag(tag)
        self.value(payload, where, depth + 1)

    def _tag(self, tag: str) -> None:
        self._map(1)
        self.string(tag)

    def _segment(self, raw: memoryview) -> int:
        if len(self.segments) >= self.limits.segments_max:
            raise limit("segments of a frame", len(self.segments) + 1, self.limits.segments_max)
        self.segments.append(raw)
        return len(self.segments) - 1

    def _deeper(self, where: str, depth: int) -> None:
        if depth >= self.limits.depth_max:
            raise refused(where[:200], f"it lies deeper than {self.limits.depth_max} levels, or is part of a cycle")

    def _count(self, items: int) -> None:
        self.items += items
        if self.items > self.limits.items_max:
            raise limit("items of a frame", self.items, self.limits.items_max)


def _plain_base(value: Any) -> Any:
    """A subclass (an IntEnum, a named tuple, a defaultdict) as its plain base, whatever its own conversions say."""
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    return dict(value) if isinstance(value, dict) else list(value)


def _advice(value: Any) -> str:
    name = type(value).__name__
    if isinstance(value, (set, frozenset)):
        return "it is a set; send a list of its members"
    if callable(value):
        return f"it is a function or class ({getattr(value, '__name__', name)}); those stay in their process"
    if hasattr(value, "__dataclass_fields__"):
        return f"it is a dataclass ({name}); send dataclasses.asdict(value)"
    if hasattr(value, "isoformat"):
        return f"it is a {name}; send its isoformat() or timestamp()"
    if hasattr(value, "__array__"):
        return f"it is a {name}; send it as a numpy array"
    return f"it is an instance of {name}; send plain data"


def measure(value: Any, stop_at: Optional[int] = None, depth: int = 0) -> int:
    """A first estimate of a value's bytes, which stops counting past `stop_at`."""
    if isinstance(value, str):
        return len(value) + 5
    if isinstance(value, (bytes, bytearray)):
        return len(value) + 5
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size + 64
    if isinstance(value, array):
        return len(value) * value.itemsize + 64
    if isinstance(value, NdArray):
        return value.data.nbytes + 64
    total = 9
    if depth > WIRE.depth_max:
        return total
    if isinstance(value, dict):
        for key, item in value.items():
            total += len(str(key)) + measure(item, None if stop_at is None else stop_at - total, depth + 1)
            if stop_at is not None and total > stop_at:
                break
    elif isinstance(value, (list, tuple)):
        for item in value:
            total += measure(item, None if stop_at is None else stop_at - total, depth + 1)
            if stop_at is not None and total > stop_at:
                break
    return total
