"""One rank of the scripted gang: a real, tiny trainer over pipeline 2 x data parallel n, in the standard library only.

It exists so that the trainer port is never shaped by the one-process backend alone, and so that faults can be had on
demand. The model is a bigram: logit(t | p) = a[p] * c[t] + b[t]. Stage 0 holds `a`, stage 1 holds `b`; activations and
their gradients cross a unix socket between the stages, gradients are summed over data-parallel ranks in rank order.

JSON lines on file descriptors 3 (in) and 4 (out). In: {"op", "id", "request"} | {"abort": id} | {"fault": {...}} | {"release": true}.
Out: {"id", "value"} | {"id", "failure": {"code", "message", "details"}}.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import queue
import random
import socket
import struct
import sys
import threading
import zlib
from typing import Any

VOCABULARY = 16
SLOPE = [math.sin(1.0 + 2.0 * t) for t in range(VOCABULARY)]


class Failure(Exception):
    def __init__(self, code: str, message: str, details: dict[str, Any]) -> None:
        super().__init__(message)
        self.code, self.details = code, details


class Links:
    """Lists of floats to and from the ranks this one talks to.

    Each frame bears the mark of its operation. A rank that was told to stop while it waited leaves the frame it waited for in its
    socket; the next operation reads past it.
    """

    def __init__(self, folder: str, rank: int, peers: list[int]) -> None:
        self.sockets, self.rank = {}, rank
        self.aborted, self.operation = threading.Event(), 0
        self.unread: dict[int, bytes] = {}
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(os.path.join(folder, f"{rank}.sock"))
        listener.listen(8)
        print("listening", file=sys.stderr, flush=True)
        self.listener, self.folder, self.peers = listener, folder, peers

    def connect(self) -> None:
        for peer in (p for p in self.peers if p < self.rank):
            link = socket.socket(socket.AF_UNIX)
            link.connect(os.path.join(self.folder, f"{peer}.sock"))
            link.sendall(struct.pack("<I", self.rank))
            self.sockets[peer] = link
        for _ in [p for p in self.peers if p > self.rank]:
            link, _ = self.listener.accept()
            (peer,) = struct.unpack("<I", link.recv(4))
            self.sockets[peer] = link
        for link in self.sockets.values():
            link.settimeout(0.05)

    def begin(self, op_id: str, aborted: threading.Event) -> None:
        self.aborted, self.operation = aborted, zlib.crc32(op_id.encode())

    def send(self, peer: int, values: list[float]) -> None:
        self.sockets[peer].sendall(struct.pack(f"<II{len(values)}d", self.operation, len(values), *values))

    def receive(self, peer: int) -> list[float]:
        while True:
            operation, count = struct.unpack_from("<II", self.unread_of(peer, 8))
            frame = self.unread_of(peer, 8 + 8 * count)
            self.unread[peer] = frame[8 + 8 * count :]
            if operation == self.operation:
                return list(struct.unpack_from(f"<{count}d", frame, 8))

    def unread_of(self, peer: int, size: int) -> bytes:
        """What came from `peer` and nobody took yet: at least `size` bytes of it. They stay unread when the wait is told to stop."""
        while len(self.unread.get(peer, b"")) < size:
            if self.aborted.is_set():
                raise Failure("call.cancelled", f"rank {self.rank} was told to stop", {"what": "op"})
            try:
                part = self.sockets[peer].recv(1 << 16)
            except TimeoutError:
                continue
            if not part:
                raise Failure("wire.broken", f"rank {peer} is gone", {"peer": f"rank {peer}", "reason": "closed"})
            self.unread[peer] = self.unread.get(peer, b"") + part
        return self.unread[peer]


class Rank:
    def __init__(self, rank: int, data_parallel: int, folder: str) -> None:
        self.rank, self.dp = rank, data_parallel
        self.stage, self.replica = divmod(rank, data_parallel)
        self.across = (1 - self.stage) * data_parallel + self.replica
        same_stage = [self.stage * data_parallel + r for r in range(data_parallel) if r != self.replica]
        self.links = Links(folder, rank, [self.across, *same_stage])
        self.step, self.applied = 0, []
        self.weights, self.reference = [0.0] * VOCABULARY, [0.0] * VOCABULARY
        self.options: dict[str, Any] = {}

    # ---- the model

    def pairs(self, batch: dict[str, Any]) -> list[list[tuple[int, int]]]:
        """(previous, target) of each response token, by row."""
        columns = batch["columns"]
        rows = []
        for row in range(columns["rows"]):
            end, length = columns["tokenOffsets_N"][row + 1], columns["responseLengths_N"][row]
            tokens = columns["tokens_L"]
            rows.append([(tokens[at - 1] % VOCABULARY, tokens[at] % VOCABULARY) for at in range(end - length, end)])
        return rows

    def forward(self, rows: list[list[tuple[int, int]]], weights: list[float], temperature: float) -> list[list[tuple[float, float, list[float]]]]:
        """Stage 0 sends its activations and returns nothing; stage 1 returns (log-prob, h, softmax) of each token."""
        flat = [pair for row in rows for pair in row]
        if self.stage == 0:
            self.links.send(self.across, [weights[previous] for previous, _ in flat])
            return []
        hidden = iter(self.links.receive(self.across))
        return [[self.token(next(hidden), target, weights, temperature) for _, target in row] for row in rows]

    def token(self, hidden: float, target: int, bias: list[float], temperature: float) -> tuple[float, float, list[float]]:
        scale = 1.0 / temperature
        logits = [scale * (hidden * SLOPE[t] + bias[t]) for t in range(VOCABULARY)]
        top = max(logits)
        exps = [math.exp(x - top) for x in logits]
        total = sum(exps)
        return logits[target] - top - math.log(total), hidden, [x / total for x in exps]

    def all_reduce(self, values: list[float]) -> list[float]:
        root = self.stage * self.dp
        if self.replica != 0:
            self.links.send(root, values)
            return self.links.receive(root)
        total = list(values)
        for replica in range(1, self.dp):
            total = [x + y for x, y in zip(total, self.links.receive(root + replica))]
        for replica in range(1, self.dp):
            self.links.send(root + replica, total)
        return total

    # ---- the port

    def init(self, request: dict[str, Any]) -> dict[str, Any]:
        self.options = request
        if not self.links.sockets:
            self.links.connect()
        if request["load"]:
            return self.load({"directory": request["load"]})
        chance = random.Random(request["seed"] * 2 + self.stage)
        self.weights = [chance.gauss(0.0, 0.3) for _ in range(VOCABULARY)]
        self.reference, self.step, self.applied = list(self.weights), 0, []
        return self.info()

    def info(self) -> dict[str, Any]:
        return {
            "rank": self.rank, "worldSize": 2 * self.dp, "dataParallelRank": self.replica, "dataParallelSize": self.dp,
            "pipelineRank": self.stage, "pipelineSize": 2, "step": self.step, "parameters": 2 * VOCABULARY,
        }

    def computeLogProbs(self, request: dict[str, Any]) -> dict[str, Any] | None:
        weights = self.weights if request["tag"] == "actor" else self.reference
        made = self.forward(self.pairs(request["batch"]), weights, request.get("temperature", self.options["loss"]["temperature"]))
        return None if self.stage == 0 else {"values_T": [token[0] for row in made for token in row]}

    def trainStep(self, request: dict[str, Any]) -> dict[str, Any]:
        batch, loss = request["batch"], self.options["loss"]
        rows = self.pairs(batch)
        made = self.forward(rows, self.weights, loss["temperature"])
        grads, totals, tokens = [0.0] * VOCABULARY, [0.0, 0.0], sum(len(row) for row in rows)
        if self.stage == 0:
            back = iter(self.links.receive(self.across))
            for row in rows:
                for previous, _ in row:
                    grads[previous] += next(back)
        else:
            back_out: list[float] = []
            at = 0
            for row, tokens_of_row in enumerate(made):
                advantage = batch["advantages_N"][row]
                advantage = math.nan if advantage is None else advantage
                for offset, (log_prob, hidden, softmax) in enumerate(tokens_of_row):
                    old = log_prob if request["oldLogProbs"] is None else request["oldLogProbs"]["values_T"][at]
                    value, slope = policy(log_prob, old, advantage, loss)
                    weight = batch["columns"]["lossMask_T"][at] / (
                        request["globalTokens"] if loss["calculatePerTokenLoss"]
                        else max(batch["rolloutMaskSums_N"][row], 1) * request["globalBatchSize"]
                    )
                    scale = weight / loss["temperature"]
                    target = rows[row][offset][1]
                    logit_grads = [scale * slope * ((1.0 if t == target else 0.0) - softmax[t]) for t in range(VOCABULARY)]
                    back_out.append(sum(g * SLOPE[t] for t, g in enumerate(logit_grads)))
                    grads = [x + y for x, y in zip(grads, logit_grads)]
                    totals[0] += weight * value
                    totals[1] += weight * (old - log_prob)
                    at += 1
            self.links.send(self.across, back_out)
        *grads, loss_sum, kl_sum = self.all_reduce([*grads, *totals])
        # The other stage's part of the norm and of the metrics.
        mine = [sum(g * g for g in grads), loss_sum, kl_sum]
        self.links.send(self.across, mine)
        theirs = self.links.receive(self.across)
        norm = math.sqrt(mine[0] + theirs[0])
        if not math.isfinite(norm):
            raise Failure("trainer.numeric", f"the gradient's norm is {norm}; the step was not applied", {"what": "grad_norm", "step": self.step + 1})
        clip = self.options["optimizer"]["clipGrad"]
        rate = self.options["optimizer"]["lr"] * (min(1.0, clip / norm) if clip > 0 and norm > 0 else 1.0)
        self.weights = [w - rate * g for w, g in zip(self.weights, grads)]
        self.step += 1
        if self.stage == 1:
            self.applied.extend(batch["columns"]["instanceIds_N"])
        metrics = {"loss": mine[1] + theirs[1], "ppo_kl": mine[2] + theirs[2], "grad_norm": norm}
        return {"step": self.step, "metrics": metrics, "tokens": tokens}

    def exportWeights(self, request: dict[str, Any]) -> dict[str, Any] | None:
        if self.replica != 0:
            return None
        data = struct.pack(f"<{VOCABULARY}d", *self.weights)
        path = os.path.join(request["directory"], f"stage-{self.stage}-v{request['version']}")
        with open(path, "wb") as out:
            out.write(data[: len(data) // 2])
            out.flush()
            fault.strike("half")
            out.write(data[len(data) // 2 :])
        checksum = hashlib.sha256(data).hexdigest()[:16]
        tensors = [{"name": "ab"[self.stage], "shape": [VOCABULARY], "offset": 0}]
        return {"kind": "directory", "path": path, "bytes": len(data), "checksum": checksum, "tensors": tensors}

    def save(self, request: dict[str, Any]) -> dict[str, Any]:
        name = f"rank-{self.rank}.json"
        with open(os.path.join(request["directory"], name), "w", encoding="utf-8") as out:
            json.dump({"weights": self.weights, "reference": self.reference, "step": self.step, "applied": self.applied}, out)
        return {"files": [name]}

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        path = os.path.join(request["directory"], f"rank-{self.rank}.json")
        try:
            with open(path, encoding="utf-8") as saved:
                state = json.load(saved)
        except OSError as error:
            raise Failure("checkpoint.invalid", f"cannot read {path}: {error}", {"path": path, "reason": str(error)}) from error
        self.weights, self.reference, self.step, self.applied = state["weights"], state["reference"], state["step"], state["applied"]
        return self.info()

    def updateRef(self, _request: Any) -> None:
        self.reference = list(self.weights)

    def sleep(self, _request: Any) -> None:
        return None

    def wake(self, _request: Any) -> None:
        return None


def policy(log_prob: float, old: float, advantage: float, loss: dict[str, Any]) -> tuple[float, float]:
    """Value and d value / d log_prob of the clipped policy loss of one token."""
    ratio = math.exp(log_prob - old)
    clipped = min(max(ratio, 1.0 - loss["epsClip"]), 1.0 + loss["epsClipHigh"])
    plain, bounded = -ratio * advantage, -clipped * advantage
    return (plain, plain) if plain >= bounded or clipped == ratio else (bounded, 0.0)


class Fault:
    """Strikes once: at the start of an operation, half-way through a push, or with its answer."""

    def __init__(self) -> None:
        self.plan: dict[str, Any] | None = None
        self.operation = ""
        self.released = threading.Event()

    def strike(self, moment: str) -> bool:
        plan = self.plan
        if plan is None or plan["op"] != self.operation or plan["moment"] != moment:
            return False
        self.plan = None
        if plan["kind"] == "die":
            os._exit(9)
        if plan["kind"] == "hang":
            threading.Event().wait()
        if plan["kind"] == "late":
            self.released.wait()
        if plan["kind"] == "fail":
            raise Failure("call.failed", "a fault was asked for", {"name": "Fault", "where": self.operation})
        return plan["kind"] == "twice"


fault = Fault()


def main() -> None:
    rank, data_parallel, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    requests, answers = os.fdopen(3, "r", encoding="utf-8"), os.fdopen(4, "w", encoding="utf-8", buffering=1)
    work = queue.Queue[dict[str, Any]]()
    # The call under way and what stops it: one object, so that an abort that comes late cannot meet the next call.
    current: list[tuple[int, threading.Event] | None] = [None]

    def read() -> None:
        for line in requests:
            message = json.loads(line)
            if "fault" in message:
                fault.plan = message["fault"]
            elif "release" in message:
                fault.released.set()
            elif "abort" in message:
                call = current[0]
                if call is not None and message["abort"] == call[0]:
                    call[1].set()
            else:
                work.put(message)
        os._exit(0)  # whoever drives the gang is gone

    self = Rank(rank, data_parallel, folder)
    threading.Thread(target=read, daemon=True).start()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")

    say({"id": 0, "value": "listening"})
    done: dict[str, dict[str, Any]] = {}
    while True:
        message = work.get()
        identity = message["id"]
        if message["opId"] in done:
            say({"id": identity, **done[message["opId"]]})
            continue
        aborted = threading.Event()
        self.links.begin(message["opId"], aborted)
        current[0], fault.operation = (identity, aborted), message["op"]
        twice = False
        try:
            fault.strike("start")
            answer = {"value": getattr(self, message["op"])(message["request"])}
            twice = fault.strike("answer")
            done[message["opId"]] = answer
        except Failure as failure:
            answer = {"failure": {"code": failure.code, "message": str(failure), "details": failure.details}}
        current[0] = None
        for _ in range(2 if twice else 1):
            say({"id": identity, **answer})


main()
