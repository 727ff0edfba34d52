"""Puts a trainer's weights into a stock SGLang server on the same machine.

A child of the engine's actor, in the Python of the server: handles on memory are torch's own, so somebody with torch must make them.
It reads single-precision tensors from a file in shared memory, lays each bucket into memory that the server can open (host memory, or the
card's by CUDA IPC), and posts the handles itself. SGLang is not imported: that takes 10 s and half a gigabyte.

stdin, one JSON object a line: {"id", "url", "path", "buckets": [{"from", "to", "tensors": [{"name", "shape", "offset"}]}], "ranks", "device",
"weightVersion", "timeoutS"}. stdout alike: {"ready", "torch"} once; per bucket {"id", "posting"} and {"id", "posted", "managers"}; and last
{"id", "end": "done" | "refused" | "failed" | "lost", "status", "reason", "posted"}. It ends with its parent, or at the end of stdin.
"""

from __future__ import annotations

import base64
import ctypes
import io
import json
import os
import queue
import signal
import sys
import threading
import types
import urllib.error
import urllib.request
from typing import Any, Callable

PR_SET_PDEATHSIG = 1
SHARED_MEMORY = "/dev/shm"
# CUDA IPC shares whole cudaMalloc blocks; the allocator's expandable segments are none.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:False")

# What the server unpickles must claim to be this class of SGLang's; a module of that name is enough.
BUCKET_MODULE = "sglang.srt.weight_sync.tensor_bucket"

# Where torch's reducer of a CUDA tensor puts the number of its device.
REDUCED_DEVICE = 6

Send = Callable[[dict[str, Any]], None]


def metadata_class() -> type:
    """The class of a bucket's entries, under the name that the server knows."""
    parts = BUCKET_MODULE.split(".")
    for i in range(1, len(parts) + 1):
        name = ".".join(parts[:i])
        sys.modules.setdefault(name, types.ModuleType(name))
    cls = type("FlattenedTensorMetadata", (), {"__module__": BUCKET_MODULE, "__qualname__": "FlattenedTensorMetadata"})
    setattr(sys.modules[BUCKET_MODULE], "FlattenedTensorMetadata", cls)
    return cls


def entry_of(cls: type, tensor: dict[str, Any], start: int, torch: Any) -> Any:
    """One tensor of a bucket. Places and counts are in bytes, as SGLang reads them."""
    numbers = 1
    for size in tensor["shape"]:
        numbers *= size
    entry = cls()
    entry.name = tensor["name"]
    entry.shape = torch.Size(tensor["shape"])
    entry.dtype = torch.float32
    entry.start_idx = start
    entry.end_idx = start + numbers * 4
    entry.numel = numbers * 4
    return entry


def serialize(value: Any, torch: Any) -> str:
    """Pickles with torch's shared-memory reducers. A card is named by its UUID: server and helper may number cards differently."""
    from multiprocessing.reduction import ForkingPickler

    from torch.multiprocessing import reductions

    def reduced(tensor: Any) -> tuple[Any, ...]:
        function, args = reductions.reduce_tensor(tensor)
        if tensor.is_cuda:
            uuid = str(torch.cuda.get_device_properties(args[REDUCED_DEVICE]).uuid)
            args = (*args[:REDUCED_DEVICE], uuid, *args[REDUCED_DEVICE + 1 :])
        return function, args

    buffer = io.BytesIO()
    pickler = ForkingPickler(buffer)
    pickler.dispatch_table = {**pickler.dispatch_table, torch.Tensor: reduced}
    pickler.dump(value)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def shared_bucket(path: str, bucket: dict[str, Any], device: str, torch: Any) -> Any:
    """A bucket's bytes in memory that another process can open."""
    with open(path, "rb") as file:
        file.seek(bucket["from"])
        flat = torch.empty(bucket["to"] - bucket["from"], dtype=torch.uint8)
        read = file.readinto(memoryview(flat.numpy()))
        if read != flat.numel():
            raise ValueError(f"{path} ends {flat.numel() - read} bytes before byte {bucket['to']}")
    if device == "cpu":
        return flat
    flat = flat.to(device)
    torch.cuda.synchronize()
    return flat


def post(url: str, body: dict[str, Any], timeout_s: float) -> tuple[int, str]:
    """Status and reason of a POST; 0 when no answer came."""
    data = json.dumps(body).encode("utf-8")
    request = urllib.request.Request(url, data=data, headers={"content-type": "application/json"}, method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout_s) as reply:
            answer = json.loads(reply.read())
            return (200, "") if answer.get("success") else (400, str(answer.get("message")))
    except urllib.error.HTTPError as error:
        return error.code, reason_of(error.read(16384).decode("utf-8", "replace"))
    except (OSError, ValueError) as error:
        return 0, f"{type(error).__name__}: {error}"


def reason_of(text: str) -> str:
    try:
        return str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        return text.strip() or "no reason given"


def push(request: dict[str, Any], send: Send, torch: Any, cls: type) -> None:
    """All buckets of one request, in order; the version goes with the last."""
    posted = 0

    def end(kind: str, status: int = 0, reason: str = "") -> None:
        send({"id": request["id"], "end": kind, "status": status, "reason": reason, "posted": posted})

    buckets = request["buckets"]
    for bucket in buckets:
        try:
            flat = shared_bucket(request["path"], bucket, request["device"], torch)
            metadata = [entry_of(cls, tensor, tensor["offset"] - bucket["from"], torch) for tensor in bucket["tensors"]]
            value = {"flattened_tensor": flat, "metadata": metadata}
            # A dump for each rank: each holds a count of its own on the memory.
            payloads = [serialize(value, torch) for _ in range(request["ranks"])]
        except Exception as error:  # whatever torch, the file or the card say
            return end("failed", reason=f"{type(error).__name__}: {error}")
        body = {"serialized_named_tensors": payloads, "load_format": "flattened_bucket", "flush_cache": False}
        if posted == len(buckets) - 1:
            body["weight_version"] = request["weightVersion"]
        send({"id": request["id"], "posting": posted, "managers": shared_memory_managers()})
        status, reason = post(request["url"] + "/update_weights_from_tensor", body, request["timeoutS"])
        # The memory must outlive the answer.
        del flat, value, metadata
        if status != 200:
            return end("lost" if status == 0 else "refused", status, reason)
        posted += 1
        send({"id": request["id"], "posted": posted})
    if request["device"] != "cpu":
        torch.cuda.ipc_collect()
    return end("done")


def shared_memory_managers() -> list[int]:
    """Children that torch started to unlink shared memory after a crash; they outlive whoever opened that memory."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:
                stat = file.read()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        if "torch_shm_manag" in stat and int(fields[1]) == os.getpid():
            found.append(int(name))
    return found


def unlink_shared_memory() -> None:
    """What nobody opened stays otherwise: torch names its files after the process that made them."""
    for name in os.listdir(SHARED_MEMORY) if os.path.isdir(SHARED_MEMORY) else []:
        if name.startswith(f"torch_{os.getpid()}_"):
            try:
                os.unlink(os.path.join(SHARED_MEMORY, name))
            except OSError:
                pass


def leave() -> None:
    """Ends this process, the managers it started, and its shared memory."""
    unlink_shared_memory()
    for pid in shared_memory_managers():
        try:
            os.kill(pid, signal.SIGTERM)
        except OSError:
            pass
    os._exit(0)


def end_with_parent() -> None:
    signal.signal(signal.SIGTERM, lambda *_: leave())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    end_with_parent()
    # What libraries print goes to the log, not among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(line: dict[str, Any]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    requests: queue.Queue[dict[str, Any]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(json.loads(line))
        leave()

    threading.Thread(target=read, daemon=True).start()
    import torch

    torch.multiprocessing.set_sharing_strategy("file_system")
    cls = metadata_class()
    send({"ready": True, "torch": torch.__version__})
    while True:
        push(requests.get(), send, torch, cls)


if __name__ == "__main__":
    main()
