"""A stand-in for `python -m sglang.launch_server` that starts, fails and dies as told by FAKE_SGLANG, without torch.

The main process answers /health_generate on --port; a child named `sglang::scheduler` plays the scheduler. A word of FAKE_SGLANG, in order:
  slow           three lines of loading, 0.3 s apart, before it is ready
  silent         the port opens, 503 for ever, nothing in the log but our own probes
  crash:WORDS    writes WORDS to stderr and exits with 1
  crash-at-load  loads one of three shards, then WORDS of FAKE_SGLANG_WORDS and exit 1
  daemon         leaves a child that has left its group and session and holds stdout, as torch_shm_manager does
"""

import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

WORDS = os.environ.get("FAKE_SGLANG", "").split(",")
READY = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if READY.is_set() else 503)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, form: str, *args: object) -> None:
        print(f'[{time.strftime("%Y-%m-%d %H:%M:%S")}] INFO: 127.0.0.1 - "GET /health_generate HTTP/1.1" 503', flush=True)


def say(line: str) -> None:
    print(f"[2026-01-01 00:00:00 TP0] {line}", file=sys.stderr, flush=True)


def load() -> None:
    say("Load weight begin. avail mem=70.00 GB")
    for shard in range(1, 4):
        sys.stderr.write(f"\rLoading safetensors checkpoint shards: {shard * 33}% Completed | {shard}/3 [00:00<00:00]")
        sys.stderr.flush()
        if "crash-at-load" in WORDS:
            sys.stderr.write("\n" + os.environ["FAKE_SGLANG_WORDS"] + "\n")
            sys.stderr.flush()
            os._exit(1)
        time.sleep(0.3 if "slow" in WORDS else 0)
    sys.stderr.write("\n")
    say("Capturing batches (bs=1 avail_mem=60.00 GB): 100% 1/1")
    say("The server is fired up and ready to roll!")
    READY.set()


def main() -> None:
    port = int(sys.argv[sys.argv.index("--port") + 1])
    for word in WORDS:
        if word.startswith("crash:"):
            sys.exit(word[len("crash:") :])
    if "daemon" in WORDS:
        subprocess.Popen(["sh", "-c", "sleep 1000 & echo $! > $FAKE_SGLANG_DAEMON_PID"], start_new_session=True)
    # The first word of a command line is what a process calls itself, as setproctitle has it.
    scheduler = subprocess.Popen(["sglang::scheduler_TP0", "-c", "import time; time.sleep(1000)"], executable=sys.executable)
    say(f"scheduler={scheduler.pid}")
    server = HTTPServer(("127.0.0.1", port), Handler)
    if "silent" not in WORDS:
        threading.Thread(target=load, daemon=True).start()
    server.serve_forever()


main()
