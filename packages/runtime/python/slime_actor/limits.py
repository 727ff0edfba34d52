"""What a receiver accepts; checked before anything is allocated for it. The same numbers as limits.ts of @slime/rpc."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FrameLimits:
    frame_bytes_max: int
    depth_max: int
    items_max: int
    string_bytes_max: int
    segments_max: int
    messages_max: int


WIRE = FrameLimits(256 * 1024 * 1024, 100, 4_000_000, 32 * 1024 * 1024, 65_536, 262_144)
STORED = FrameLimits(64 * 1024**3, 100, 64_000_000, 256 * 1024 * 1024, 1_000_000, 1)

#: Digits of an integer past 2**53: Python converts no longer ones by default.
BIG_DIGITS_MAX = 4000
#: Bytes up to this length are written in place; longer ones become a segment.
INLINE_BYTES_MAX = 1024
#: A result above this goes through the object store.
INLINE_VALUE_BYTES_MAX = 100 * 1024
