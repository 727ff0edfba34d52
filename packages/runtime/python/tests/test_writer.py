"""What Python values become, and what is refused with its path."""

from __future__ import annotations

import array
import datetime
import enum
import unittest
from collections import OrderedDict, namedtuple
from typing import Any

from slime_actor.errors import SlimeError, from_failure, to_failure
from slime_actor.frame import decode_value, encode_value
from slime_actor.special import ActorHandle, NdArray, ObjectRef, Stored

try:
    import numpy
except ImportError:
    numpy = None  # type: ignore[assignment]

Point = namedtuple("Point", "x y")


class Number(enum.IntEnum):
    ONE = 1


class Color(str, enum.Enum):
    RED = "red"


def across(value: Any) -> Any:
    return decode_value(bytearray(b"".join(encode_value(value))))


class Values(unittest.TestCase):
    def test_subclasses_travel_as_their_base(self) -> None:
        self.assertEqual(across([Color.RED, Number.ONE, Point(1, 2), OrderedDict(a=1), (1, 2)]), ["red", 1, [1, 2], {"a": 1}, [1, 2]])

    def test_numbers_of_any_size(self) -> None:
        numbers = [2**53 - 1, 2**53, -(2**53), 2**63, 2**64, -(2**200), 10**3000, 0.1, -0.0]
        self.assertEqual(across(numbers), numbers)

    def test_bytes_and_arrays(self) -> None:
        self.assertEqual(across([b"a" * 10, bytearray(b"b" * 5000), memoryview(b"cdef")[::2]]), [b"a" * 10, b"b" * 5000, b"ce"])
        read = across({"a": array.array("d", [1.5, 2.5]), "b": array.array("q", [-1])})
        self.assertEqual([list(read["a"]), list(read["b"])], [[1.5, 2.5], [-1]])

    def test_references_and_handles(self) -> None:
        read = across([ObjectRef({"kind": "inline", "id": "r", "value": [1]}), ActorHandle({"actorId": "actor_1"}), Stored({"objectId": "o"})])
        self.assertEqual(read[0].get(), [1])
        self.assertEqual(read[1].payload, {"actorId": "actor_1"})
        self.assertEqual(read[2].descriptor, {"objectId": "o"})

    def test_keys_that_look_like_tags(self) -> None:
        value = {"__nd": 1, "____": {"__ref": 2}, "_": 3}
        self.assertEqual(across(value), value)

    @unittest.skipIf(numpy is None, "numpy is not installed")
    def test_numpy(self) -> None:
        for dtype in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "?", ">f4"):
            value = numpy.arange(6).reshape(2, 3).astype(dtype)
            read = across([value, value.T, value[:, 1], value[:0]])
            for left, right in zip(read, [value, value.T, value[:, 1], value[:0]]):
                numpy.testing.assert_array_equal(left, right)
        self.assertEqual(across([numpy.int64(3), numpy.float32(0.5), numpy.bool_(True)]), [3, 0.5, True])

    @unittest.skipIf(numpy is not None, "numpy is installed")
    def test_arrays_without_numpy(self) -> None:
        read = across(NdArray("f4", (2, 2), memoryview(array.array("f", [1, 2, 3, 4])).cast("B")))
        self.assertEqual((read.shape, list(read.elements())), ((2, 2), [1, 2, 3, 4]))


class Refusals(unittest.TestCase):
    def test_places_and_fixes(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        cases: list[tuple[Any, str, str]] = [
            ({"a": [1, {2}]}, "value.a[1]", "list of its members"),
            ([lambda: 1], "value[0]", "function"),
            ({"when": datetime.date(2020, 1, 1)}, "value.when", "isoformat"),
            ({1: 2}, "value", "keys are strings"),
            (circle, "value[0][0]", "cycle"),
            ([object()], "value[0]", "object"),
            (1j, "value", "complex"),
        ]
        for value, where, advice in cases:
            with self.subTest(advice):
                with self.assertRaises(SlimeError) as caught:
                    encode_value(value)
                self.assertEqual(caught.exception.code, "codec.refused")
                self.assertTrue(caught.exception.details["where"].startswith(where), caught.exception.details)
                self.assertIn(advice, str(caught.exception))


class Failures(unittest.TestCase):
    def test_across_and_back(self) -> None:
        try:
            try:
                raise KeyError("deep")
            except KeyError as error:
                raise SlimeError("object.lost", "gone", {"objectId": "o", "reason": "r"}) from error
        except SlimeError as error:
            failure = to_failure(error, "actor_1#1/pid 1")
        read = from_failure(across(failure))
        self.assertEqual((read.code, read.plain_message, read.details, read.origin), ("object.lost", "gone", {"objectId": "o", "reason": "r"}, "actor_1#1/pid 1"))
        self.assertIn("test_across_and_back", read.remote_stack or "")
        self.assertEqual(str(read.__cause__), "[call.failed] KeyError: 'deep'")
        self.assertEqual(to_failure(read)["origin"], "actor_1#1/pid 1")

    def test_anything_becomes_a_failure(self) -> None:
        class Odd(Exception):
            def __str__(self) -> str:
                raise ValueError("no text")

        self.assertEqual(to_failure(Odd())["message"], "Odd: (its text cannot be shown)")
        self.assertIsNone(to_failure(SlimeError("x.y", "z", {"o": object()}))["details"])
        self.assertEqual(from_failure("nonsense").code, "call.failed")


if __name__ == "__main__":
    unittest.main()
