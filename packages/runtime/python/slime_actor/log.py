"""JSON lines, as every process of a cluster writes them."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Callable


class Log:
    def __init__(self, write: Callable[[str], Any] | None = None, **bound: Any) -> None:
        self._write = write
        self._bound = bound

    def child(self, **fields: Any) -> "Log":
        return Log(self._write, **{**self._bound, **fields})

    def info(self, event: str, **fields: Any) -> None:
        self._line("info", event, fields)

    def warn(self, event: str, **fields: Any) -> None:
        self._line("warn", event, fields)

    def error(self, event: str, **fields: Any) -> None:
        self._line("error", event, fields)

    def _line(self, level: str, event: str, fields: dict[str, Any]) -> None:
        line = json.dumps({"time": int(time.time() * 1000), "level": level, "event": event, **self._bound, **fields}, default=str) + "\n"
        if self._write is not None:
            self._write(line)
        else:
            sys.stdout.write(line)
            sys.stdout.flush()
