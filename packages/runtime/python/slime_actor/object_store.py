"""Reads and writes the machine's object store: the same files as object-store.ts of @slime/object-store, whose invariants it keeps."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import struct
from pathlib import Path
from typing import Any, Mapping

from .errors import SlimeError
from .frame import decode_value, encode_value

HEADER_BYTES = 64
CLASS_BYTES_MIN = 64 * 1024
CALL_BYTES = 16 * 1024 * 1024
_MAGIC = 0x424F4C53
_ID = re.compile(r"(?:job|obj)_[0-9a-f]{16}\Z")


def size_class(size: int) -> int:
    """Four steps between powers of two, so that freed segments fit later objects."""
    if size <= CLASS_BYTES_MIN:
        return CLASS_BYTES_MIN
    step = 1 << max(0, (size - 1).bit_length() - 3)
    return -(-size // step) * step


def _header(object_id: str, size: int, generation: int, sealed: bool) -> bytes:
    return struct.pack("<IIQQ32sI4x", _MAGIC, 1, size, generation, object_id.encode("ascii"), 1 if sealed else 0)


class ObjectStore:
    """Values in files under one directory. `put` makes them visible whole; `get` gives the object asked for or `object.lost`."""

    def __init__(self, directory: str) -> None:
        self.dir = Path(directory)

    def put(self, job_id: str, value: Any) -> dict[str, Any]:
        """Stores a value; returns its descriptor. Raises SlimeError `object_store.full` or `codec.refused`."""
        parts = encode_value(value)
        size = sum(memoryview(part).nbytes for part in parts)
        object_id = f"obj_{secrets.token_hex(8)}"
        job_dir = self.dir / _checked(job_id)
        self.dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        job_dir.mkdir(mode=0o700, exist_ok=True)
        draft = job_dir / f".w-{os.getpid()}-{object_id}"
        segment = size_class(size + HEADER_BYTES)
        try:
            descriptor = self._claim(segment, draft)
            try:
                before = os.pread(descriptor, HEADER_BYTES, 0)
                generation = struct.unpack_from("<Q", before, 16)[0] + 1 if len(before) == HEADER_BYTES and before[:4] == b"SLOB" else 1
                os.pwrite(descriptor, _header("", 0, generation, False), 0)
                at = HEADER_BYTES
                for part in parts:
                    at = _write_all(descriptor, memoryview(part).cast("B"), at)
                os.pwrite(descriptor, _header(object_id, size, generation, True), 0)
            finally:
                os.close(descriptor)
            os.rename(draft, job_dir / object_id)
        except OSError as error:
            draft.unlink(missing_ok=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                state = os.statvfs(self.dir)
                raise self._full(segment, state.f_bavail * state.f_frsize) from error
            if error.errno == errno.ENOENT:
                raise _lost(object_id, f"job {job_id} ended while it was being written") from error
            raise
        return {"objectId": object_id, "jobId": job_id, "bytes": size}

    def get(self, descriptor: Mapping[str, Any]) -> Any:
        """Reads a value; its arrays are views of fresh memory. Raises SlimeError `object.lost`."""
        return decode_value(self.read(descriptor), read_stored=self.get)

    def read(self, descriptor: Mapping[str, Any]) -> bytearray:
        """The frame of an object."""
        object_id, job_id, size = _checked(descriptor["objectId"]), _checked(descriptor["jobId"]), int(descriptor["bytes"])
        try:
            file = os.open(self.dir / job_id / object_id, os.O_RDONLY)
        except FileNotFoundError as error:
            raise _lost(object_id, f"it was freed, or job {job_id} ended") from error
        try:
            self._check(file, object_id, size)
            data = bytearray(size)
            view, at = memoryview(data), 0
            while at < size:
                read = os.preadv(file, [view[at : at + CALL_BYTES]], HEADER_BYTES + at)
                if read == 0:
                    raise _lost(object_id, "its segment is shorter than the object")
                at += read
            # Whoever uses the segment again wipes the header first, so an equal header means that the copy is whole.
            self._check(file, object_id, size)
            return data
        finally:
            os.close(file)

    def _check(self, file: int, object_id: str, size: int) -> None:
        header = os.pread(file, HEADER_BYTES, 0)
        if len(header) == HEADER_BYTES:
            magic, form, stored, _, name, sealed = struct.unpack("<IIQQ32sI4x", header)
            if (magic, form, stored, sealed) == (_MAGIC, 1, size, 1) and name.rstrip(b"\0") == object_id.encode("ascii"):
                return
        raise _lost(object_id, "it was freed while it was being read")

    def _claim(self, segment: int, draft: Path) -> int:
        free = self.dir / "free" / str(segment)
        for name in os.listdir(free) if free.is_dir() else []:
            try:
                os.rename(free / name, draft)
            except FileNotFoundError:
                continue  # another process was faster
            return os.open(draft, os.O_RDWR)
        self._reserve(segment)
        return os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)

    def _reserve(self, segment: int) -> None:
        try:
            capacity = int(json.loads((self.dir / "store.json").read_text("utf-8"))["capacityBytes"])
        except FileNotFoundError:
            return  # no daemon has set a limit; the file system has its own
        used = recyclable = 0
        for directory, _, files in os.walk(self.dir):
            free = Path(directory).parent.name == "free"
            for name in files:
                try:
                    size = os.stat(os.path.join(directory, name)).st_size
                except FileNotFoundError:
                    continue
                used, recyclable = (used, recyclable + size) if free else (used + size, recyclable)
        if segment > capacity - used:
            raise self._full(segment, capacity - used, capacity)
        if segment > capacity - used - recyclable:
            self._drop(segment - (capacity - used - recyclable))

    def _drop(self, size: int) -> None:
        for directory in sorted((self.dir / "free").iterdir(), key=lambda path: -int(path.name)):
            for name in os.listdir(directory):
                if size <= 0:
                    return
                (directory / name).unlink(missing_ok=True)
                size -= int(directory.name)

    def _full(self, needed: int, free: int, capacity: int = 0) -> SlimeError:
        message = f"the object store {self.dir} has {max(0, free)} bytes free, {needed} are needed: free references no longer wanted, or give the store more"
        return SlimeError("object_store.full", message, {"needed": needed, "free": max(0, free), "capacity": capacity})


def _write_all(file: int, data: memoryview, at: int) -> int:
    done = 0
    while done < data.nbytes:
        done += os.pwrite(file, data[done : done + CALL_BYTES], at + done)
    return at + data.nbytes


def _checked(name: Any) -> str:
    """Ids come over wires and become file names."""
    if not isinstance(name, str) or _ID.match(name) is None:
        raise _lost(str(name)[:80], "not an id")
    return name


def _lost(object_id: str, reason: str) -> SlimeError:
    return SlimeError("object.lost", f"{object_id} is gone: {reason}", {"objectId": object_id, "reason": reason})
