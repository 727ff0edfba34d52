"""Reads plain MessagePack strictly: limits before allocation, no extension types. See msgpack-reader.ts of @slime/rpc."""

from __future__ import annotations

import array
import struct
import sys
from typing import Any, Callable, Optional

from .errors import SlimeError, limit, refused
from .limits import BIG_DIGITS_MAX, WIRE, FrameLimits
from .special import DTYPES, ActorHandle, NdArray, ObjectRef, Stored

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

#: Gives the bytes of a segment by its index.
Segments = Callable[[int], memoryview]
#: Reads a stored object, for references.
ReadStored = Callable[[Any], Any]

_numbers = {0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}


class Reader:
    """One value after another from `data[start:end]`. After an error the position means nothing."""

    def __init__(self, data: memoryview, start: int, end: int, segments: Segments, limits: FrameLimits = WIRE, read_stored: Optional[ReadStored] = None) -> None:
        self.data = data
        self.position = start
        self.end = end
        self.segments = segments
        self.limits = limits
        self.items = 0
        self.read_stored = read_stored

    def value(self, depth: int = 0) -> Any:
        kind = self._byte()
        if kind < 0x80:
            return kind
        if kind >= 0xE0:
            return kind - 0x100
        if kind < 0x90 or kind in (0xDE, 0xDF):
            return self._map(self._map_count(kind), depth)
        if kind < 0xA0 or kind in (0xDC, 0xDD):
            return self._array(self._array_count(kind), depth)
        if kind < 0xC0 or 0xD9 <= kind <= 0xDB:
            return self._text(self._string_bytes(kind))
        if kind == 0xC0:
            return None
        if kind == 0xC2:
            return False
        if kind == 0xC3:
            return True
        form = _numbers.get(kind)
        if form is not None:
            return struct.unpack(form, self._take(struct.calcsize(form)))[0]
        if 0xC4 <= kind <= 0xC6:
            return bytes(self._take(self._uint(1 << (kind - 0xC4))))
        raise self._refused(f"type 0x{kind:x} is not plain MessagePack")

    def array_count(self, what: str) -> int:
        kind = self._byte()
        if 0x90 <= kind < 0xA0 or kind in (0xDC, 0xDD):
            return self._array_count(kind)
        raise self._refused(f"{what} is not an array")

    def string(self, what: str) -> str:
        kind = self._byte()
        if 0xA0 <= kind < 0xC0 or 0xD9 <= kind <= 0xDB:
            return self._text(self._string_bytes(kind))
        raise self._refused(f"{what} is not a string")

    def count(self, what: str) -> int:
        return self._whole(self.value(), what)

    def _array(self, count: int, depth: int) -> list[Any]:
        self._deeper(depth)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> Any:
        self._deeper(depth)
        result: dict[str, Any] = {}
        for _ in range(count):
            key = self.string("a map key")
            if not key.startswith("__"):
                result[key] = self.value(depth + 1)
            elif key.startswith("____"):
                result[key[2:]] = self.value(depth + 1)
            elif count == 1:
                return self._tagged(key, depth)
            else:
                raise self._refused(f"key {key} is reserved")
        return result

    def _tagged(self, tag: str, depth: int) -> Any:
        # The codec's own payloads are shallow; only what a tag of others holds counts as depth.
        payload = self.value(0 if tag in ("__nd", "__bytes", "__undef", "__big") else depth + 1)
        return self.special(tag, payload)

    def pairs(self, pairs: list[tuple[Any, Any]]) -> Any:
        """A map whose entries another MessagePack reader has read, its payloads done already."""
        if not any(type(key) is not str or key.startswith("__") for key, _ in pairs):
            return dict(pairs)
        result: dict[str, Any] = {}
        for key, value in pairs:
            if type(key) is not str:
                raise self._refused("a map key is not a string")
            if key.startswith("____"):
                result[key[2:]] = value
            elif not key.startswith("__"):
                result[key] = value
            elif len(pairs) == 1:
                return self.special(key, value)
            else:
                raise self._refused(f"key {key} is reserved")
        return result

    def special(self, tag: str, payload: Any) -> Any:
        """What a tagged map stands for."""
        if tag == "__nd":
            return self._nd(payload)
        if tag == "__bytes":
            return bytes(self.segments(self._whole(payload, "a segment's index")))
        if tag == "__undef":
            return None
        if tag == "__big":
            return _big(payload, self)
        if tag == "__stored":
            return Stored(payload)
        if tag == "__ref":
            return ObjectRef(payload, self.read_stored)
        if tag == "__actor":
            return ActorHandle(payload)
        raise self._refused(f"tag {tag} is not known here")

    def _nd(self, payload: Any) -> Any:
        if type(payload) is not list or len(payload) != 3 or type(payload[0]) is not str or type(payload[1]) is not list:
            raise self._refused("__nd is not [dtype, shape, segment]")
        dtype, axes = payload[0], payload[1]
        if dtype not in DTYPES:
            raise self._refused(f"dtype {dtype[:20]!r} is not known")
        if len(axes) > 32:
            raise limit("axes of an array", len(axes), 32)
        shape = [self._whole(axis, "an axis") for axis in axes]
        raw = self.segments(self._whole(payload[2], "a segment's index"))
        elements = 1
        for axis in shape:
            elements *= axis
        if elements * DTYPES[dtype][0] != raw.nbytes:
            raise self._refused(f"a segment of {raw.nbytes} bytes does not hold {dtype}{shape}")
        return nd(dtype, shape, raw)

    def _whole(self, value: Any, what: str) -> int:
        if type(value) is not int or value < 0:
            raise self._refused(f"{what} is not a whole number")
        return value

    def _array_count(self, kind: int) -> int:
        return self._counted(kind & 0x0F if kind < 0xA0 else self._uint(2 if kind == 0xDC else 4), 1)

    def _map_count(self, kind: int) -> int:
        return self._counted(kind & 0x0F if kind < 0x90 else self._uint(2 if kind == 0xDE else 4), 2)

    def _string_bytes(self, kind: int) -> int:
        return kind & 0x1F if kind < 0xC0 else self._uint(1 << (kind - 0xD9))

    def _counted(self, count: int, bytes_each: int) -> int:
        if count * bytes_each > self.end - self.position:
            raise self._refused("the header ends within a value")
        self.items += count
        if self.items > self.limits.items_max:
            raise limit("items of a frame", self.items, self.limits.items_max)
        return count

    def _text(self, size: int) -> str:
        if size > self.limits.string_bytes_max:
            raise limit("bytes of a string", size, self.limits.string_bytes_max)
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError as error:
            raise self._refused("a string is not UTF-8") from error

    def _byte(self) -> int:
        return self._take(1)[0]

    def _uint(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> memoryview:
        start = self.position
        if size > self.end - start:
            raise self._refused("the header ends within a value")
        self.position = start + size
        return self.data[start : start + size]

    def _deeper(self, depth: int) -> None:
        if depth >= self.limits.depth_max:
            raise limit("depth of a value", depth + 1, self.limits.depth_max)

    def _refused(self, reason: str) -> SlimeError:
        return refused(f"byte {self.position}", reason)


def nd(dtype: str, shape: list[int], raw: memoryview) -> Any:
    """A numpy array over the segment; without numpy an `array.array` for one axis and an NdArray otherwise."""
    if numpy is not None:
        return numpy.frombuffer(raw, dtype="<" + dtype if dtype != "b1" else "?").reshape(shape)
    code = DTYPES[dtype][1]
    if len(shape) == 1 and code not in "e?" and sys.byteorder == "little":
        result = array.array(code)
        result.frombytes(raw)
        return result
    return NdArray(dtype, shape, raw)


def _big(text: Any, reader: Reader) -> int:
    digits = text[1:] if isinstance(text, str) and text.startswith("-") else text
    if not isinstance(digits, str) or not digits.isascii() or not digits.isdigit() or len(digits) > BIG_DIGITS_MAX:
        raise reader._refused("__big is not a decimal number of at most 4,000 digits")
    return int(text)
