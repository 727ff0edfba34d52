"""The wire's bytes, which the TypeScript tests write and read too: test/golden/frames.json."""

from __future__ import annotations

import array
import importlib.util
import json
import math
import struct
import unittest
from pathlib import Path
from typing import Any

import slime_actor.frame
from slime_actor.errors import SlimeError
from slime_actor.frame import Frame, decode_value, encode_value
from slime_actor.special import DTYPES, NdArray

GOLDEN = json.loads((Path(__file__).resolve().parents[4] / "test" / "golden" / "frames.json").read_text("utf-8"))
ARRAYS = {"Int8Array": "i1", "Int16Array": "i2", "Uint16Array": "u2", "Int32Array": "i4", "Uint32Array": "u4", "BigInt64Array": "i8", "BigUint64Array": "u8", "Float32Array": "f4", "Float64Array": "f8"}


def raw(value: Any) -> tuple[str, list[int], bytes]:
    """Any kind of array as (dtype, shape, bytes)."""
    if isinstance(value, NdArray):
        return value.dtype, list(value.shape), bytes(value.data)
    if isinstance(value, array.array):
        return next(name for name, (size, code) in DTYPES.items() if code == value.typecode and size == value.itemsize), [len(value)], value.tobytes()
    return f"{value.dtype.kind}{value.dtype.itemsize}", list(value.shape), value.tobytes()


class Golden(unittest.TestCase):
    def same(self, read: Any, golden: Any) -> None:
        if isinstance(golden, dict) and len(golden) == 1 and next(iter(golden)).startswith("$"):
            (kind, data), = golden.items()
            if kind == "$undefined":
                self.assertIsNone(read)
            elif kind == "$big":
                self.assertEqual(read, int(data))
            elif kind == "$number":
                wanted = float(data.replace("Infinity", "inf"))
                self.assertTrue(math.isnan(read) if math.isnan(wanted) else struct.pack("<d", read) == struct.pack("<d", wanted))
            elif kind == "$bytes":
                self.assertEqual(bytes(read), bytes.fromhex(data))
            elif kind == "$array":
                wanted_bytes = bytes.fromhex(data[1])
                self.assertEqual(raw(read), (ARRAYS[data[0]], [len(wanted_bytes) // DTYPES[ARRAYS[data[0]]][0]], wanted_bytes))
            elif kind == "$nd":
                self.assertEqual(raw(read), (data[0], data[1], bytes.fromhex(data[2])))
            else:
                self.fail(kind)
        elif isinstance(golden, dict):
            self.assertEqual(list(read), list(golden))
            for key in golden:
                self.same(read[key], golden[key])
        elif isinstance(golden, list):
            self.assertEqual(len(read), len(golden))
            for left, right in zip(read, golden):
                self.same(left, right)
        else:
            self.assertEqual(read, golden)

    def test_values(self) -> None:
        for case in GOLDEN["values"]:
            with self.subTest(case["name"]):
                self.same(decode_value(bytearray.fromhex(case["hex"])), case["value"])

    def test_values_written_read_back(self) -> None:
        for case in GOLDEN["values"]:
            with self.subTest(case["name"]):
                read = decode_value(bytearray.fromhex(case["hex"]))
                self.same(decode_value(bytearray(b"".join(encode_value(read)))), case["value"])

    def test_values_written_as_the_same_bytes(self) -> None:
        # What Python keeps apart as JavaScript does: undefined and bigints that fit a number have no Python form.
        for case in GOLDEN["values"]:
            if case["name"] in ("undefined", "bigints"):
                continue
            with self.subTest(case["name"]):
                value = decode_value(bytearray.fromhex(case["hex"]))
                self.assertEqual(b"".join(encode_value(value)).hex(), case["hex"])

    def test_messages(self) -> None:
        for case in GOLDEN["messages"]:
            with self.subTest(case["name"]):
                frame = Frame(memoryview(bytearray.fromhex(case["hex"])))
                self.assertEqual((frame.epoch, frame.messages), (case["epoch"], 1))
                self.same(frame.next(), case["message"])
                self.assertTrue(frame.at_end())

    def test_refused(self) -> None:
        for case in GOLDEN["refused"]:
            with self.subTest(case["name"]):
                with self.assertRaises(SlimeError) as caught:
                    decode_value(bytearray.fromhex(case["hex"]))
                self.assertEqual(caught.exception.code, case["code"])


@unittest.skipIf(importlib.util.find_spec("msgpack") is None, "the msgpack package is not installed")
class GoldenByPackage(Golden):
    """The same, with every frame read by the msgpack package."""

    def setUp(self) -> None:
        before = slime_actor.frame.FAST_BYTES_MIN
        slime_actor.frame.FAST_BYTES_MIN = -1
        self.addCleanup(setattr, slime_actor.frame, "FAST_BYTES_MIN", before)

    def test_refused(self) -> None:
        # Which code it is may differ where the package counts in another order; its own bound on depth is 1,024.
        for case in GOLDEN["refused"]:
            if case["name"] == "too deep":
                continue
            with self.subTest(case["name"]):
                with self.assertRaises(SlimeError):
                    decode_value(bytearray.fromhex(case["hex"]))


if __name__ == "__main__":
    unittest.main()
