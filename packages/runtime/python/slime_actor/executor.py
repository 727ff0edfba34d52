"""Decides when an actor's calls start. Calls of one group start in the order they came and at most its size run at once;
the urgent group is apart. See executor.ts of @slime/runtime."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Awaitable, Callable, Mapping, Optional

URGENT_MAX = 64

#: Runs a call; given the threads of its group.
Job = Callable[[ThreadPoolExecutor], Awaitable[Any]]


class Group:
    def __init__(self, name: str, size: int) -> None:
        self.size = size
        self.running = 0
        self.queue: deque[tuple[Job, asyncio.Future[Any]]] = deque()
        # A serial actor lives in one thread from its constructor on, which thread-bound libraries need.
        self.threads = ThreadPoolExecutor(size, thread_name_prefix=name)


class Executor:
    def __init__(self, concurrency: int, groups: Mapping[str, int], pending_max: int) -> None:
        self.common = Group("actor", max(1, concurrency))
        self.urgent = Group("urgent", URGENT_MAX)
        self.groups = {name: Group(name, max(1, size)) for name, size in groups.items()}
        self.pending_max = pending_max
        self.pending = 0
        self.running = 0
        self._idle: list[asyncio.Future[None]] = []

    def full(self, group: Group) -> bool:
        """True when a call of this group would have to wait and may not."""
        if group.running < group.size and not group.queue:
            return False
        return len(group.queue) >= URGENT_MAX if group is self.urgent else self.pending >= self.pending_max

    def submit(self, group: Group, job: Job) -> asyncio.Future[Any]:
        """The outcome of the job, which starts when its group has room. Cancelling the future before that withdraws it."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pending += 1
        group.queue.append((job, future))
        self._drain(group)
        return future

    async def idle(self) -> None:
        """Returns when nothing runs or waits."""
        if self.pending or self.running:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    def _drain(self, group: Group) -> None:
        while group.queue and group.running < group.size:
            job, future = group.queue.popleft()
            self.pending -= 1
            if future.cancelled():
                continue
            group.running += 1
            self.running += 1
            task = asyncio.ensure_future(job(group.threads))
            # Cancelling the outcome cancels the work behind it.
            future.add_done_callback(partial(_follow, task))
            task.add_done_callback(partial(self._done, group, future))
        if self.pending == 0 and self.running == 0:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    def _done(self, group: Group, future: asyncio.Future[Any], task: asyncio.Future[Any]) -> None:
        group.running -= 1
        self.running -= 1
        error: Optional[BaseException] = None if task.cancelled() else task.exception()
        if not future.done():
            if task.cancelled():
                future.cancel()
            elif error is not None:
                future.set_exception(error)
            else:
                future.set_result(task.result())
        self._drain(group)


def _follow(task: asyncio.Future[Any], outcome: asyncio.Future[Any]) -> None:
    if outcome.cancelled():
        task.cancel()
