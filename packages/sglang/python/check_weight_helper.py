"""Checks weight_helper.py against a receiver that opens memory as SGLang does, without SGLang: on the first card where there is one, else on
the CPU. Needs torch. usage: python check_weight_helper.py [MIB]; prints one line a push, and exits 1 when a number differs."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import torch
from torch.multiprocessing import reductions

import weight_helper


def device_of(name: Any) -> Any:
    """A card's number here, from the UUID that the helper sends."""
    if not isinstance(name, str):
        return name
    for index in range(torch.cuda.device_count()):
        if str(torch.cuda.get_device_properties(index).uuid) == name:
            return index
    raise ValueError(f"no card {name} here")


class Receiver(BaseHTTPRequestHandler):
    """Opens each rank's payload, copies the tensors, and keeps them by name."""

    received: dict[str, Any] = {}
    versions: list[Any] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        for rank, payload in enumerate(body["serialized_named_tensors"]):
            bucket = pickle.load(io.BytesIO(base64.b64decode(payload, validate=True)))
            for entry in bucket["metadata"]:
                tensor = bucket["flattened_tensor"][entry.start_idx : entry.end_idx].view(entry.dtype).reshape(entry.shape)
                self.received[f"{rank}/{entry.name}"] = tensor.clone()
        self.versions.append((body["load_format"], body["flush_cache"], body.get("weight_version")))
        answer = json.dumps({"success": True, "message": "Success"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


def main() -> int:
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight_helper.metadata_class()
    torch.multiprocessing.set_sharing_strategy("file_system")
    rebuild = reductions.rebuild_cuda_tensor
    reductions.rebuild_cuda_tensor = lambda *args: rebuild(*args[:6], device_of(args[6]), *args[7:])
    # The pickle names the function; it is found where it is defined.
    numbers = mib * 1024 * 1024 // 4 // 8
    weights = [torch.randn(numbers // 16, 16) for _ in range(8)]
    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        for tensor in weights:
            file.write(tensor.numpy().tobytes())
        file.flush()
        size = weights[0].numel() * 4
        tensors = [{"name": f"t{i}", "shape": list(tensor.shape), "offset": i * size} for i, tensor in enumerate(weights)]
        buckets = [{"from": i * size, "to": (i + 4) * size, "tensors": tensors[i : i + 4]} for i in (0, 4)]
        request = {"url": f"http://127.0.0.1:{server.server_port}", "path": file.name, "buckets": buckets, "ranks": 2, "device": device}
        helper = subprocess.Popen([sys.executable, "-u", weight_helper.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        print(helper.stdout.readline().strip(), device)
        for version in range(3):
            start = time.perf_counter()
            helper.stdin.write(json.dumps({**request, "id": version, "weightVersion": str(version), "timeoutS": 60}) + "\n")
            helper.stdin.flush()
            line: dict[str, Any] = {}
            while "end" not in line:
                line = json.loads(helper.stdout.readline())
            took_ms = (time.perf_counter() - start) * 1e3
            equal = all(torch.equal(Receiver.received[f"{rank}/t{i}"].cpu(), tensor) for rank in (0, 1) for i, tensor in enumerate(weights))
            print(line, f"{took_ms:.0f} ms", "equal" if equal else "DIFFERENT", Receiver.versions[-2:])
            if line["end"] != "done" or not equal:
                return 1
            Receiver.received.clear()
        helper.stdin.close()
        print("helper ended with", helper.wait(10))
    return 0


if __name__ == "__main__":
    sys.exit(main())
