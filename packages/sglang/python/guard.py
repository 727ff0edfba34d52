"""Runs one command and sees to it that nothing of it outlives the guard, and that the guard does not outlive its owner.

usage: python -I -S guard.py COMMAND [ARGUMENT...]

fd 0: a pipe whose other end the owner holds. Its end (the owner let go, or died, however it died) ends everything.
fd 3: JSON lines to the owner: {"pid": n} once it runs or {"failed": why}, and {"status": s} when nothing of it is left (s as a shell's $?).

G1 the command's end ends its whole tree, and so does a signal to the guard.
G2 on Linux the guard is the reaper of its descendants, so what leaves its group, its session and its parents is found too.
G3 on Linux a guard that is killed takes the command with it (parent-death signal).
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import time
from typing import Dict, List, Optional, Set

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
SWEEP_SECONDS_MAX = 10.0
SWEEP_PAUSE_SECONDS = 0.01
OWNER_FD, REPORT_FD = 0, 3

LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def tell(message: Dict[str, object]) -> None:
    try:
        os.write(REPORT_FD, (json.dumps(message) + "\n").encode())
    except OSError:
        pass  # the owner is gone


def die_with_guard() -> None:
    """Runs in the child between fork and exec."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def descendants(root: int) -> Set[int]:
    """Living processes below `root`; empty where there is no /proc."""
    children: Dict[int, List[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return set()
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] not in (b"Z", b"X"):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: Set[int] = set()
    queue = [root]
    while queue:
        for child in children.get(queue.pop(), []):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


class Guard:
    def __init__(self, command: List[str]) -> None:
        self.wake, self.woken = os.pipe()
        os.set_blocking(self.woken, False)
        signal.set_wakeup_fd(self.woken, warn_on_full_buffer=False)
        self.ending = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.on_end)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.main = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=die_with_guard)
        self.status: Optional[int] = None

    def on_end(self, *_: object) -> None:
        self.ending = True

    def reap(self) -> bool:
        """Takes note of who has ended; true when there are no children left, zombies included."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self.main.pid:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code

    def wait(self) -> None:
        """Until the command ends, the owner lets go, or a signal says so."""
        while self.status is None and not self.ending:
            ready, _, _ = select.select([OWNER_FD, self.wake], [], [])
            if self.wake in ready:
                os.read(self.wake, 4096)
                self.reap()
            if OWNER_FD in ready and os.read(OWNER_FD, 4096) == b"":
                self.ending = True

    def sweep(self) -> None:
        """Kills what is left, anew in each round, so that a child born meanwhile is found too."""
        until = time.monotonic() + SWEEP_SECONDS_MAX
        while time.monotonic() < until:
            try:
                os.killpg(self.main.pid, signal.SIGKILL)
            except OSError:
                pass  # its group is gone
            left = descendants(os.getpid())
            for pid in left:
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass  # it has just ended
            if self.reap() and not left:
                return
            time.sleep(SWEEP_PAUSE_SECONDS)


def main() -> int:
    if LIBC is not None:
        LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        guard = Guard(sys.argv[1:])
    except OSError as error:
        tell({"failed": str(error)})
        return 127
    tell({"pid": guard.main.pid})
    guard.wait()
    guard.sweep()
    tell({"status": guard.status})
    return 0


if __name__ == "__main__":
    sys.exit(main())
