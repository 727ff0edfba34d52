"""Failures: what crosses the wire, and what Python code throws. The same shape as failure.ts of @slime/rpc."""

from __future__ import annotations

import json
import traceback
from typing import Any, Mapping, Optional

CAUSES_MAX = 8
TEXT_MAX = 64 * 1024


class SlimeError(Exception):
    """A failure with a code of slime's table and plain details. Codes this version does not know are kept as they came."""

    def __init__(self, code: str, message: str, details: Optional[Mapping[str, Any]] = None) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code
        self.plain_message = message
        self.details: Any = dict(details) if details is not None else None
        self.remote_stack: Optional[str] = None
        self.origin: Optional[str] = None


def refused(where: str, reason: str) -> SlimeError:
    """A value that cannot be sent, or bytes that cannot be read."""
    return SlimeError("codec.refused", f"{where}: {reason}", {"where": where, "reason": reason})


def limit(what: str, value: int, most: int) -> SlimeError:
    """Something past its limit."""
    message = f"{what}: {value} is more than {most}; send less at once, or put large values into the object store"
    return SlimeError("wire.limit", message, {"what": what, "value": value, "max": most})


def to_failure(error: BaseException, origin: Optional[str] = None, where: str = "call", causes_left: int = CAUSES_MAX) -> dict[str, Any]:
    """An exception as plain data, with its traceback. Never raises."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if isinstance(error, SlimeError):
        code, message, details = error.code, error.plain_message, _plain(error.details)
        stack = error.remote_stack if error.remote_stack is not None else _stack(error)
        origin = error.origin if error.origin is not None else origin
    else:
        name = type(error).__name__
        code, message, details = "call.failed", f"{name}: {_text(error)}", {"name": name, "where": where}
        stack = _stack(error)
    return {
        "code": code,
        "message": _cut(message),
        "details": details,
        "stack": _cut(stack),
        "origin": origin,
        "cause": None if cause is None or causes_left == 0 else to_failure(cause, origin, where, causes_left - 1),
    }


def from_failure(value: Any, depth: int = 0) -> SlimeError:
    """The exception again; what is missing is filled in, because a failed call must still fail with something."""
    failure = value if isinstance(value, dict) else {}
    code, message = failure.get("code"), failure.get("message")
    error = SlimeError(
        code if isinstance(code, str) else "call.failed",
        message if isinstance(message, str) else "the other end sent a failure without a message",
    )
    error.details = failure.get("details")
    stack, origin, cause = failure.get("stack"), failure.get("origin"), failure.get("cause")
    error.remote_stack = stack if isinstance(stack, str) else None
    error.origin = origin if isinstance(origin, str) else None
    if cause is not None and depth < CAUSES_MAX:
        error.__cause__ = from_failure(cause, depth + 1)
    return error


def _stack(error: BaseException) -> str:
    # Causes travel as failures of their own, so each stack holds its own part only.
    return "".join(traceback.format_exception(type(error), error, error.__traceback__, chain=False)).rstrip()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"


def _cut(text: str) -> str:
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]}… ({len(text) - TEXT_MAX} more characters)"


def _plain(details: Any) -> Any:
    try:
        return json.loads(json.dumps(details))
    except (TypeError, ValueError, RecursionError):
        return None
