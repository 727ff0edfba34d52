"""The frame: `[u32le total][u32le headerLen][header][pad to 64][segment 0][pad]…`. See frame.ts of @slime/rpc."""

from __future__ import annotations

import struct
from typing import Any, Callable, Optional, Sequence

from .errors import SlimeError, limit, refused
from .limits import STORED, WIRE, FrameLimits
from .reader import Reader, ReadStored
from .writer import Writer

try:
    import msgpack  # type: ignore[import-untyped, unused-ignore]
except ImportError:
    msgpack = None

PROTOCOL_VERSION = 1
ALIGN = 64
#: Below this the msgpack package's own start costs more than it saves.
FAST_BYTES_MIN = 256


def aligned(offset: int) -> int:
    return -(-offset // ALIGN) * ALIGN


def frame_parts(body: bytes | bytearray, segments: Sequence[memoryview], epoch: int, messages: int) -> list[bytes | memoryview]:
    """A frame in parts, to be written one after another."""
    prefix = Writer()
    prefix.sequence(4)
    prefix.integer(PROTOCOL_VERSION)
    prefix.integer(epoch)
    prefix.sequence(len(segments))
    for segment in segments:
        prefix.integer(segment.nbytes)
    prefix.sequence(messages)
    header = len(prefix.out) + len(body)
    total = 8 + header
    for segment in segments:
        total = aligned(total) + segment.nbytes
    head = struct.pack("<II", 0 if total > 0xFFFFFFFF else total, header) + bytes(prefix.out) + bytes(body)
    if not segments:
        return [head]
    parts: list[bytes | memoryview] = [head.ljust(aligned(len(head)), b"\0")]
    for i, segment in enumerate(segments):
        parts.append(segment)
        pad = aligned(segment.nbytes) - segment.nbytes
        if pad and i < len(segments) - 1:
            parts.append(bytes(pad))
    return parts


class Frame:
    """One whole frame, its prefix read; `next()` gives message after message, `at_end()` says whether bytes are left."""

    def __init__(self, data: memoryview, limits: FrameLimits = WIRE, read_stored: Optional[ReadStored] = None) -> None:
        total = data.nbytes
        header = struct.unpack_from("<I", data, 4)[0] if total >= 8 else -1
        if header < 0 or header > total - 8:
            raise refused("frame", f"a frame of {total} bytes claims a header of {header}; the other end does not speak slime's frames")
        self._data = data
        self._table: list[tuple[int, int]] = []
        self.reader = Reader(data, 8, 8 + header, self._segment, limits, read_stored)
        self.next: Callable[[], Any] = self.reader.value
        reader = self.reader
        if reader.array_count("a frame's header") != 4:
            raise refused("frame", "a frame's header is not [version, epoch, segments, messages]")
        version = reader.count("the protocol version")
        if version != PROTOCOL_VERSION:
            message = f"the other end speaks protocol {version}, this one {PROTOCOL_VERSION}; run the same version of slime on both"
            raise SlimeError("peer.incompatible", message, {"ours": str(PROTOCOL_VERSION), "theirs": str(version)})
        self.epoch = reader.count("the head epoch")
        count = reader.array_count("the segment table")
        if count > limits.segments_max:
            raise limit("segments of a frame", count, limits.segments_max)
        end = 8 + header
        for i in range(count):
            start = aligned(end)
            end = start + reader.count("a segment's length")
            if end > total:
                raise refused("frame", f"segment {i} ends {end - total} bytes past its frame")
            self._table.append((start, end))
        self.messages = reader.array_count("the messages")
        if self.messages > limits.messages_max:
            raise limit("messages of a frame", self.messages, limits.messages_max)
        left = reader.end - reader.position
        if msgpack is not None and left > FAST_BYTES_MIN:
            self._read_fast(left, limits)

    def at_end(self) -> bool:
        return self.reader.position == self.reader.end

    def _read_fast(self, left: int, limits: FrameLimits) -> None:
        """Leaves the messages to the msgpack package: the same data and limits, an order faster."""
        reader = self.reader

        def no_extension(code: int, data: bytes) -> Any:
            raise refused("frame", f"extension type {code} is not plain MessagePack")

        items = min(left, limits.items_max)
        unpacker = msgpack.Unpacker(
            object_pairs_hook=reader.pairs,
            ext_hook=no_extension,
            raw=False,
            strict_map_key=True,
            max_buffer_size=left,
            max_str_len=limits.string_bytes_max,
            max_array_len=items,
            max_map_len=items,
        )
        start = reader.position
        unpacker.feed(self._data[start : reader.end])

        def read() -> Any:
            try:
                value = unpacker.unpack()
            except SlimeError:
                raise
            except Exception as error:
                raise refused("frame", f"the messages cannot be read: {error or type(error).__name__}") from error
            reader.position = start + unpacker.tell()
            return value

        self.next = read

    def _segment(self, index: int) -> memoryview:
        if index >= len(self._table):
            raise refused("frame", f"there is no segment {index}")
        start, end = self._table[index]
        return self._data[start:end]


def encode_value(value: Any, limits: FrameLimits = STORED) -> list[bytes | memoryview]:
    """One value as a frame of its own, in parts: what the object store keeps."""
    writer = Writer(limits)
    writer.value(value)
    return frame_parts(writer.out, writer.segments, 0, 1)


def decode_value(data: bytes | bytearray | memoryview, limits: FrameLimits = STORED, read_stored: Optional[ReadStored] = None) -> Any:
    """The value of such a frame; arrays in it are views of `data`."""
    view = memoryview(data)
    if view.nbytes > limits.frame_bytes_max:
        raise limit("bytes of a frame", view.nbytes, limits.frame_bytes_max)
    frame = Frame(view, limits, read_stored)
    claimed = struct.unpack_from("<I", view, 0)[0]
    if frame.messages != 1 or claimed not in (0, view.nbytes):
        raise refused("frame", "this is not the frame of one value")
    value = frame.next()
    if not frame.at_end():
        raise refused("frame", "bytes follow the value")
    return value
