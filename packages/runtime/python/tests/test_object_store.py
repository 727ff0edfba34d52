"""The object store's promises, kept from Python's side; the Node tests do the same files from theirs."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from slime_actor.errors import SlimeError
from slime_actor.object_store import ObjectStore, size_class

JOB = "job_0000000000000001"


class Store(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.dir = Path(directory.name) / "store"
        self.store = ObjectStore(str(self.dir))

    def failure(self, run: Any) -> SlimeError:
        with self.assertRaises(SlimeError) as caught:
            run()
        return caught.exception

    def test_values_come_back(self) -> None:
        values: list[Any] = [{"a": [1, "x", None]}, bytes(200_000), "x" * 70_000, []]
        for value in values:
            self.assertEqual(self.store.get(self.store.put(JOB, value)), value)

    def test_a_segment_used_again_is_another_object(self) -> None:
        first = self.store.put(JOB, b"1" * 100_000)
        segment = size_class(first["bytes"] + 64)
        free = self.dir / "free" / str(segment)
        free.mkdir(parents=True)
        file = os.open(self.dir / JOB / first["objectId"], os.O_RDONLY)
        os.rename(self.dir / JOB / first["objectId"], free / "freed")
        second = self.store.put(JOB, b"2" * 99_000)
        self.assertEqual(os.listdir(free), [])
        self.assertEqual(os.stat(self.dir / JOB / second["objectId"]).st_ino, os.fstat(file).st_ino)
        os.close(file)
        self.assertEqual(self.failure(lambda: self.store.get(first)).code, "object.lost")
        self.assertEqual(self.store.get(second), b"2" * 99_000)

    def test_an_object_replaced_while_it_is_read_is_lost(self) -> None:
        first = self.store.put(JOB, b"1" * 100_000)
        path = self.dir / JOB / first["objectId"]
        read = os.preadv

        def overwritten(file: int, buffers: Any, at: int) -> int:
            with open(path, "r+b") as other:
                other.write(b"\0" * 64)
            return read(file, buffers, at)

        with mock.patch("os.preadv", overwritten):
            self.assertEqual(self.failure(lambda: self.store.get(first)).code, "object.lost")

    def test_full_leaves_nothing(self) -> None:
        self.store.put(JOB, b"1" * 100_000)
        (self.dir / "store.json").write_text(json.dumps({"version": 1, "capacityBytes": 250_000}))
        error = self.failure(lambda: self.store.put(JOB, bytes(200_000)))
        self.assertEqual((error.code, error.details["capacity"]), ("object_store.full", 250_000))
        with mock.patch("os.pwrite", side_effect=OSError(errno.ENOSPC, "no space left on device")):
            self.assertEqual(self.failure(lambda: self.store.put(JOB, b"x")).code, "object_store.full")
        self.assertEqual(len(os.listdir(self.dir / JOB)), 1)

    def test_ids_are_no_paths(self) -> None:
        self.assertEqual(self.failure(lambda: self.store.get({"objectId": "../x", "jobId": JOB, "bytes": 1})).code, "object.lost")
        self.assertEqual(self.failure(lambda: self.store.put("..", 1)).code, "object.lost")


if __name__ == "__main__":
    unittest.main()
