"""One end of a connection: calls both ways over a unix socket, all messages of a turn in one frame. See peer.ts of @slime/rpc."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, Awaitable, Callable, Optional, Union

from .errors import SlimeError, from_failure, limit, refused, to_failure
from .frame import Frame, frame_parts
from .limits import WIRE
from .log import Log
from .reader import ReadStored
from .writer import Writer

CALL, RESULT, FAILURE, CANCEL, SEND, PING, PONG, HELLO, GOODBYE = range(9)
OUTGOING_BYTES_MAX = 64 * 1024 * 1024
CALLS_MAX = 65_536
HELLO_SECONDS = 5.0
JOIN_BYTES_MAX = 64 * 1024

Hello = dict[str, Any]


class Call:
    """A call that came in. `abort` hooks run once: on the caller's cancel, the deadline, and the end of the connection."""

    def __init__(self, peer: "Peer", call_id: Optional[int], method: str, args: Any, fields: list[Any]) -> None:
        self.peer = peer
        self.call_id = call_id
        self.method = method
        self.args = args
        extra = fields + [None] * (4 - len(fields))
        self.deadline_ms: Optional[int] = extra[0]
        self.trace_id: Optional[str] = extra[1]
        self.idempotency_key: Optional[str] = extra[2]
        self.urgent = extra[3] is True
        self.aborted: Optional[SlimeError] = None
        #: True when the connection is gone rather than the caller unwilling.
        self.disconnected = False
        self.on_abort: Optional[Callable[[], None]] = None
        self.timer: Optional[asyncio.TimerHandle] = None

    def abort(self, reason: SlimeError, disconnected: bool = False) -> None:
        if self.aborted is not None:
            return
        self.aborted = reason
        self.disconnected = disconnected
        if self.on_abort is not None:
            self.on_abort()


#: Answers a call with a value, or something to await for one; may raise.
Handler = Callable[[Call], Union[Any, Awaitable[Any]]]


class Peer(asyncio.Protocol):
    """Created by the event loop for each connection; `opened` resolves after both hellos, `closed` at the end."""

    def __init__(self, hello: Hello, handler: Handler, log: Log, greet: bool, read_stored: Optional[ReadStored] = None) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._hello = hello
        self._handler = handler
        self._log = log
        self._greet = greet
        self._read_stored = read_stored
        self._transport: Optional[asyncio.Transport] = None
        self._in = bytearray()
        self._out = Writer()
        self._messages = 0
        self._held = 0
        self._flushing = False
        self._full = False
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[Any]] = {}
        self._incoming: dict[int, Call] = {}
        self._ended = False
        self.remote: Optional[Hello] = None
        self.opened: asyncio.Future[Peer] = loop.create_future()
        self.closed: asyncio.Future[str] = loop.create_future()
        self._timer = loop.call_later(HELLO_SECONDS, lambda: self._end("no hello in time"))

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._greet:
            self._post([HELLO, self._hello])

    def data_received(self, data: bytes) -> None:
        self._in += data
        try:
            while len(self._in) >= 4 and not self._ended:
                total = struct.unpack_from("<I", self._in)[0]
                if total < 8:
                    raise refused("frame", f"a frame claims {total} bytes; the other end does not speak slime's frames")
                if total > WIRE.frame_bytes_max:
                    raise limit("bytes of a frame", total, WIRE.frame_bytes_max)
                if len(self._in) < total:
                    return
                whole = self._in[:total]
                del self._in[:total]
                frame = Frame(memoryview(whole), WIRE, self._read_stored)
                for _ in range(frame.messages):
                    self._message(frame.next())
                    if self._ended:
                        return
                if not frame.at_end():
                    raise refused("frame", "bytes follow the last message")
        except SlimeError as error:
            self._fault(error)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._flush()

    def connection_lost(self, error: Optional[Exception]) -> None:
        self._end(str(error) if error is not None else "the other side went away")

    # What the host calls.

    async def call(self, method: str, args: Any, timeout: Optional[float] = 60.0) -> Any:
        """Calls the other side. Raises SlimeError: its own, `call.deadline` or `wire.broken`."""
        if self._ended or self.remote is None:
            raise self._broken("the connection is not open")
        self._last_id += 1
        call_id = self._last_id
        self._queue([CALL, call_id, method, args, None if timeout is None else int(timeout * 1000)])
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending[call_id] = future
        try:
            return await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            self._post([CANCEL, call_id])
            raise SlimeError("call.deadline", f"{method} did not finish within {timeout} s", {"what": method, "timeoutMs": int((timeout or 0) * 1000)}) from None
        finally:
            self._pending.pop(call_id, None)

    def send(self, method: str, args: Any) -> None:
        """A call without an answer; nothing happens when the connection has ended."""
        if not self._ended and self.remote is not None:
            self._queue([SEND, method, args])

    def close(self, reason: str) -> None:
        """Says goodbye and ends."""
        self._post([GOODBYE, reason, None])
        self._end(reason)

    # Messages.

    def _message(self, message: Any) -> None:
        if not isinstance(message, list) or not message or type(message[0]) is not int:
            raise refused("frame", "a message is not an array that begins with its type")
        kind, fields = message[0], message[1:]
        try:
            if kind == HELLO:
                self._on_hello(fields[0])
            elif self.remote is None and kind not in (GOODBYE, PING, PONG):
                raise refused("frame", "a call came before the hello")
            elif kind == CALL:
                self._on_call(Call(self, fields[0], fields[1], fields[2], fields[3:]))
            elif kind == SEND:
                self._on_send(Call(self, None, fields[0], fields[1], [None, *fields[2:3], None, *fields[3:4]]))
            elif kind == RESULT:
                self._settle(fields[0], fields[1] if len(fields) > 1 else None, None)
            elif kind == FAILURE:
                self._settle(fields[0], None, from_failure(fields[1] if len(fields) > 1 else None))
            elif kind == CANCEL:
                call = self._incoming.get(fields[0])
                if call is not None:
                    call.abort(SlimeError("call.cancelled", f"{call.method} was cancelled by its caller", {"what": call.method}))
            elif kind == PING:
                self._post([PONG])
            elif kind == GOODBYE:
                self._on_goodbye(fields)
        except IndexError:
            raise refused("frame", f"a message of type {kind} has only {len(message)} fields") from None

    def _on_hello(self, hello: Any) -> None:
        if self.remote is not None:
            return
        if not isinstance(hello, dict) or not isinstance(hello.get("who"), dict):
            raise refused("frame", "the hello is incomplete")
        ours, theirs = self._hello["clusterId"], hello.get("clusterId")
        if ours != theirs:
            raise SlimeError("peer.incompatible", f"the other end belongs to cluster {theirs}, this process to {ours}", {"ours": ours, "theirs": str(theirs)})
        self.remote = hello
        self._timer.cancel()
        if not self._greet:
            self._post([HELLO, self._hello])
        if not self.opened.done():
            self.opened.set_result(self)

    def _on_goodbye(self, fields: list[Any]) -> None:
        if len(fields) > 1 and fields[1] is not None and not self.opened.done():
            self.opened.set_exception(from_failure(fields[1]))
        self._end(str(fields[0]) if fields else "closed")

    def _on_call(self, call: Call) -> None:
        assert call.call_id is not None
        if len(self._incoming) >= CALLS_MAX:
            return self._fail(call, limit("calls in progress for one caller", CALLS_MAX + 1, CALLS_MAX))
        try:
            result = self._handler(call)
        except Exception as error:
            return self._fail(call, error)
        if not isinstance(result, Awaitable):
            return self._reply(call, result)
        self._incoming[call.call_id] = call
        if call.deadline_ms is not None:
            reason = SlimeError("call.deadline", f"{call.method} did not finish within {call.deadline_ms} ms", {"what": call.method, "timeoutMs": call.deadline_ms})
            call.timer = self._loop.call_later(call.deadline_ms / 1000, call.abort, reason)
        asyncio.ensure_future(result).add_done_callback(lambda done: self._finish(call, done))

    def _on_send(self, call: Call) -> None:
        def lost(error: BaseException) -> None:
            self._log.warn("rpc.send_failed", method=call.method, error=to_failure(error))

        def finish(done: asyncio.Future[Any]) -> None:
            error = None if done.cancelled() else done.exception()
            if error is not None:
                lost(error)

        try:
            result = self._handler(call)
        except Exception as error:
            return lost(error)
        if isinstance(result, Awaitable):
            asyncio.ensure_future(result).add_done_callback(finish)

    def _finish(self, call: Call, done: asyncio.Future[Any]) -> None:
        self._incoming.pop(call.call_id or 0, None)
        if call.timer is not None:
            call.timer.cancel()
        error = SlimeError("call.cancelled", f"{call.method} was cancelled", {"what": call.method}) if done.cancelled() else done.exception()
        if call.aborted is not None or self._ended:
            return
        if error is not None:
            self._fail(call, error)
        else:
            self._reply(call, done.result())

    def _reply(self, call: Call, value: Any) -> None:
        try:
            self._queue([RESULT, call.call_id, value], where="the result")
        except SlimeError as error:
            self._fail(call, error)

    def _fail(self, call: Call, error: BaseException) -> None:
        who = self._hello["who"]
        failure = to_failure(error, f"{who['id']}#{who['incarnation']}/pid {who['pid']}", call.method)
        try:
            self._post([FAILURE, call.call_id, failure])
        except SlimeError:
            self._post([FAILURE, call.call_id, {**failure, "details": None, "cause": None}])

    def _settle(self, call_id: Any, value: Any, error: Optional[SlimeError]) -> None:
        future = self._pending.pop(call_id, None)
        if future is None or future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    # Frames out.

    def _queue(self, message: list[Any], where: str = "value") -> None:
        """Adds one message whole, or raises and adds nothing."""
        out, mark, held = self._out, self._out.mark(), self._held
        try:
            out.sequence(len(message))
            for field in message:
                out.value(field, where)
            self._held = len(out.out) + sum(segment.nbytes for segment in out.segments)
            if self._held > WIRE.frame_bytes_max - 1024 * 1024:
                raise limit("bytes of a message", self._held, WIRE.frame_bytes_max)
            if message[0] in (CALL, SEND, RESULT) and self._waiting() > OUTGOING_BYTES_MAX:
                raise limit("bytes waiting to be sent", self._waiting(), OUTGOING_BYTES_MAX)
        except SlimeError:
            out.take_back(mark)
            self._held = held
            raise
        # The arrays may change as soon as this returns.
        for i in range(mark[1], len(out.segments)):
            out.segments[i] = memoryview(bytes(out.segments[i]))
        self._messages += 1
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _post(self, message: list[Any]) -> None:
        if not self._ended:
            self._queue(message)

    def _waiting(self) -> int:
        return self._held + (self._transport.get_write_buffer_size() if self._transport is not None else 0)

    def _flush(self) -> None:
        self._flushing = False
        if self._messages == 0 or self._transport is None or self._full:
            return
        parts = frame_parts(self._out.out, self._out.segments, 0, self._messages)
        self._out = Writer()
        self._messages = 0
        if self._held <= JOIN_BYTES_MAX:
            self._transport.write(b"".join(parts))
        else:
            self._transport.writelines(parts)
        self._held = 0

    # The end.

    def _fault(self, error: SlimeError) -> None:
        self._log.error("rpc.fault", failure=to_failure(error))
        if not self.opened.done():
            self.opened.set_exception(error)
        self._post([GOODBYE, str(error), to_failure(error)])
        self._end(str(error))

    def _broken(self, reason: str) -> SlimeError:
        return SlimeError("wire.broken", f"the connection ended: {reason}", {"peer": "", "reason": reason})

    def _end(self, reason: str) -> None:
        if self._ended:
            return
        self._full = False
        self._flush()
        self._ended = True
        self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
        if not self.opened.done():
            self.opened.set_exception(self._broken(reason))
        self.opened.exception()  # whether anybody waited for it or not
        for call in list(self._incoming.values()):
            call.abort(SlimeError("call.cancelled", f"{call.method}: its caller's connection ended: {reason}", {"what": call.method}), disconnected=True)
        for future in list(self._pending.values()):
            if not future.done():
                future.set_exception(self._broken(reason))
        self.closed.set_result(reason)


async def connect(path: str, hello: Hello, handler: Handler, log: Log, read_stored: Optional[ReadStored] = None) -> Peer:
    """Connects and exchanges hellos. Raises OSError when nobody listens, SlimeError when refused."""
    loop = asyncio.get_running_loop()
    _, peer = await loop.create_unix_connection(lambda: Peer(hello, handler, log, True, read_stored), path)
    return await peer.opened
