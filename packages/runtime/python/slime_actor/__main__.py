"""`python3 -m slime_actor`: an actor host, started by a daemon with the environment of the host protocol."""

from __future__ import annotations

import asyncio
import io
import os
import sys

NEEDED = ("SLIME_CLUSTER_ID", "SLIME_NODE_ID", "SLIME_PROCESS_ID", "SLIME_NODE_SOCKET", "SLIME_SOCKET_DIR")


def main() -> None:
    if sys.version_info < (3, 10):
        sys.exit(f"slime_actor needs Python 3.10 or newer, this is {sys.version.split()[0]}: set the actor's python to another interpreter")
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        print(f"an actor host is started by a daemon: {', '.join(missing)} not set", file=sys.stderr)
        sys.exit(78)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # files, which the daemon follows line by line

    from .host import Host
    from .log import Log

    async def run() -> None:
        host = Host(os.environ, Log())
        await host.run()
        await asyncio.Event().wait()  # the end is under way

    asyncio.run(run())


if __name__ == "__main__":
    main()
