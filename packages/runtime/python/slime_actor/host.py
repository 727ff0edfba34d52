"""The host process: idle → constructing → alive → ending. It speaks the host protocol of @slime/rpc (host-protocol.ts)."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any, Mapping, NoReturn, Optional

from .actor import HostedActor
from .children import end_children
from .context import ActorContext, set_hosted
from .errors import SlimeError, to_failure
from .executor import Executor
from .frame import decode_value
from .load_class import load_class
from .log import Log
from .object_store import ObjectStore
from .peer import Call, Peer, connect
from .special import ObjectRef, Stored

ORPHAN_GRACE_SECONDS = 60.0
SHUTDOWN_GRACE_SECONDS = 10.0
RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX = 0.05, 1.0


class Host:
    def __init__(self, env: Mapping[str, str], log: Log) -> None:
        self._cluster_id = env["SLIME_CLUSTER_ID"]
        self._node_id = env["SLIME_NODE_ID"]
        self._process_id = env["SLIME_PROCESS_ID"]
        self._node_socket = env["SLIME_NODE_SOCKET"]
        self._socket_dir = env["SLIME_SOCKET_DIR"]
        self._store = ObjectStore(env.get("SLIME_STORE_DIR") or str(Path("/dev/shm") / f"slime-{self._cluster_id.partition('_')[2][:8]}"))
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._daemon: Optional[Peer] = None
        self._grace = ORPHAN_GRACE_SECONDS
        self._spec: Optional[Mapping[str, Any]] = None
        self._socket_path = ""
        self._actor: Optional[HostedActor] = None
        self._server: Optional[asyncio.AbstractServer] = None
        self._callers: set[Peer] = set()
        self._ending: Optional[asyncio.Task[None]] = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Keeps a connection to the daemon for as long as the process lives; ends the process when none comes back in time."""
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            self._loop.add_signal_handler(number, partial(self.end, "shutdown", code, SHUTDOWN_GRACE_SECONDS))
        lost_at, delay = self._loop.time(), RETRY_SECONDS_FIRST
        while True:
            try:
                daemon = await connect(self._node_socket, self._who("host", self._process_id, 0), self._answer, self._log, self._store.get)
                welcome = await daemon.call("host.register", self._registration(), 10.0)
                self._grace = welcome["orphanGraceMs"] / 1000
                self._daemon = daemon
                delay = RETRY_SECONDS_FIRST
                await daemon.closed
                lost_at = self._loop.time()
            except (OSError, SlimeError):
                pass
            self._daemon = None
            if self._loop.time() - lost_at > self._grace:
                self.end("orphaned", 75, SHUTDOWN_GRACE_SECONDS)
                return
            await asyncio.sleep(min(delay, max(0.001, lost_at + self._grace - self._loop.time())))
            delay = min(RETRY_SECONDS_MAX, delay * 1.5)

    def _who(self, kind: str, who: str, incarnation: int) -> dict[str, Any]:
        return {"clusterId": self._cluster_id, "who": {"kind": kind, "id": who, "incarnation": incarnation, "pid": os.getpid()}}

    def _registration(self) -> dict[str, Any]:
        actor = None
        if self._spec is not None:
            state = "ending" if self._ending is not None else "constructing" if self._actor is None else "alive"
            actor = {**_life(self._spec), "jobId": self._spec["jobId"], "state": state, "socketPath": self._socket_path}
        return {"processId": self._process_id, "pid": os.getpid(), "language": "python", "runtimeVersion": platform.python_version(), "actor": actor}

    def _answer(self, call: Call) -> Any:
        if call.method == "host.assign":
            return self._assign(call.args)
        if call.method == "host.shutdown":
            self.end("shutdown", 0, call.args["graceMs"] / 1000)
            return None
        raise SlimeError("not_found", f"a host answers host.assign and host.shutdown, not {call.method}", {"kind": "method", "id": call.method})

    def _assign(self, spec: Mapping[str, Any]) -> None:
        if self._spec is not None and _life(self._spec) == _life(spec):
            return
        if self._spec is not None or self._ending is not None:
            raise SlimeError("conflict", "this host is an actor already, or ending", {"kind": "host", "id": self._process_id})
        self._spec = spec
        name = f"a-{spec['actorId'].partition('_')[2]}-{spec['incarnation']}.sock"
        self._socket_path = os.path.join(self._socket_dir, name)
        self._spawn(self._become(spec))

    async def _become(self, spec: Mapping[str, Any]) -> None:
        log = self._log.child(actorId=spec["actorId"], incarnation=spec["incarnation"])
        try:
            actor = await self._construct(spec, log)
        except Exception as error:
            return await self._failed(spec, error, log)
        hello = self._who("actor", spec["actorId"], spec["incarnation"])

        def caller() -> Peer:
            peer = Peer(hello, actor.handle, log, False, self._store.get)
            self._callers.add(peer)
            peer.closed.add_done_callback(lambda _: self._callers.discard(peer))
            return peer

        try:
            Path(self._socket_path).unlink(missing_ok=True)
            self._server = await self._loop.create_unix_server(caller, self._socket_path)
            os.chmod(self._socket_path, 0o600)
        except OSError as error:
            return await self._failed(spec, error, log)
        if self._ending is not None:
            return
        self._actor = actor
        log.info("actor.alive", className=spec["exportName"])
        await self._report("host.alive", {**_life(spec), "socketPath": self._socket_path, "pid": os.getpid()})

    async def _construct(self, spec: Mapping[str, Any], log: Log) -> HostedActor:
        os.environ.update(spec.get("env") or {})
        os.environ.update(SLIME_JOB_ID=spec["jobId"], SLIME_ACTOR_ID=spec["actorId"], SLIME_INCARNATION=str(spec["incarnation"]))
        if spec.get("cwd"):
            os.chdir(spec["cwd"])
        executor = Executor(spec["concurrency"], spec.get("concurrencyGroups") or {}, spec["pendingCallsMax"])
        holder: list[HostedActor] = []

        def on_phase(text: str, waits_for: Optional[str]) -> None:
            if holder:
                holder[0].phase = (text, waits_for)
            self._loop.call_soon_threadsafe(self._tell, "host.phase", {**_life(spec), "phase": text, "waitsFor": waits_for})

        def on_exit() -> None:
            self._loop.call_soon_threadsafe(lambda: self._spawn(self._leave()))

        context = ActorContext(spec, self._cluster_id, self._node_id, self._store, on_phase, on_exit)
        set_hosted(context)

        def construct() -> Any:
            actor_class = load_class(spec["module"], spec["exportName"])
            args = decode_value(bytearray(spec["args"]), read_stored=self._store.get)
            read = [self._store.get(arg.descriptor) if isinstance(arg, Stored) else arg.get() if isinstance(arg, ObjectRef) else arg for arg in args]
            return actor_class(*read)

        # In the thread that will run a serial actor's calls.
        instance = await self._loop.run_in_executor(executor.common.threads, construct)
        actor = HostedActor(instance, executor, context, spec, self._store, log)
        holder.append(actor)
        return actor

    async def _failed(self, spec: Mapping[str, Any], error: BaseException, log: Log) -> None:
        message = f"{spec['exportName']} {spec['actorId']} could not be created: {error}"
        creation = SlimeError("actor.creation", message, {"actorId": spec["actorId"], "className": spec["exportName"]})
        creation.__cause__ = error
        origin = f"{self._node_id}/{spec['actorId']}#{spec['incarnation']}/pid {os.getpid()}"
        failure = to_failure(creation, origin, spec["exportName"])
        log.error("actor.creation", error=failure)
        print(failure["cause"]["stack"] if failure["cause"] else message, file=sys.stderr, flush=True)
        await self._report("host.failed", {**_life(spec), "failure": failure})
        self.end("self", 1, SHUTDOWN_GRACE_SECONDS)

    async def _leave(self) -> None:
        if self._actor is not None:
            await self._actor.drain()
        self.end("self", 0, SHUTDOWN_GRACE_SECONDS)

    def end(self, reason: str, code: int, grace: float) -> None:
        """Ends the process, once, with the first reason given; at the latest after `grace` seconds."""
        if self._ending is None:
            self._loop.call_later(grace, leave_process, code)
            self._ending = self._loop.create_task(self._end(reason, code))

    async def _end(self, reason: str, code: int) -> None:
        self._log.info("host.ending", reason=reason)
        try:
            if self._actor is not None:
                await self._actor.shutdown()
            if self._server is not None:
                self._server.close()
                Path(self._socket_path).unlink(missing_ok=True)
            await end_children()
            exit_report = {"actorId": None, "incarnation": 0} if self._spec is None else _life(self._spec)
            await self._report("host.exit", {**exit_report, "reason": reason, "exitCode": code})
            for peer in [*self._callers, *([self._daemon] if self._daemon is not None else [])]:
                peer.close(reason)
            await asyncio.sleep(0)  # what is written leaves with the loop's next turn
        finally:
            leave_process(code)

    async def _report(self, name: str, args: Mapping[str, Any]) -> None:
        """What cannot be said now is in the next registration."""
        if self._daemon is None:
            return
        try:
            await self._daemon.call(name, args, 5.0)
        except SlimeError as error:
            self._log.warn("host.report_failed", name=name, error=str(error))

    def _tell(self, name: str, args: Mapping[str, Any]) -> None:
        if self._daemon is not None:
            self._daemon.send(name, args)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _life(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"actorId": spec["actorId"], "incarnation": spec["incarnation"]}


def leave_process(code: int) -> NoReturn:
    """Without waiting for threads: one of them may be stuck in a call."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
