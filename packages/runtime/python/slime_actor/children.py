"""Ends what an actor started: nothing below a host outlives it. Needs /proc; elsewhere the daemon's process group decides."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

TERM_SECONDS = 2.0


async def end_children(pid: int | None = None) -> None:
    """SIGTERM to all descendants, SIGKILL two seconds later."""
    root = os.getpid() if pid is None else pid
    for child in _descendants(root):
        _signal(child, signal.SIGTERM)
    until = time.monotonic() + TERM_SECONDS
    while _descendants(root) and time.monotonic() < until:
        await asyncio.sleep(0.05)
    for child in _descendants(root):
        _signal(child, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = [int(child) for task in Path(f"/proc/{parent}/task").iterdir() for child in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            try:
                state = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                found.append(child)
                waiting.append(child)
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # it has just ended: what was wanted
