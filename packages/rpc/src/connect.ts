import { createConnection, type Socket } from "node:net";
import { SlimeError } from "@slime/core";
import { openPeer } from "./peer.js";
import type { ConnectOptions, Peer } from "./peer-api.js";
import { checkSocketPath } from "./socket-path.js";
import { socketWire } from "./unix-wire.js";

/**
 * Connects to a unix socket and exchanges hellos.
 * @throws `wire.broken` (retryable) when nobody listens there or no hello comes, `peer.incompatible`, the error with which the
 * other side refused, `config.invalid` for a path the system cannot take, or the signal's reason.
 */
export async function connect(path: string, options: ConnectOptions): Promise<Peer> {
  checkSocketPath(path);
  const { signal } = options;
  signal?.throwIfAborted();
  const socket = await opened(path, signal);
  const onAbort = () => socket.destroy();
  signal?.addEventListener("abort", onAbort, { once: true });
  try {
    return await openPeer(socketWire(socket, path), options);
  } catch (error) {
    socket.destroy();
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}

function opened(path: string, signal: AbortSignal | undefined): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path);
    const onAbort = () => {
      socket.destroy();
      reject(signal?.reason);
    };
    const failed = (error: NodeJS.ErrnoException) => {
      signal?.removeEventListener("abort", onAbort);
      const reason =
        error.code === "ENOENT"
          ? "nobody has listened there"
          : error.code === "ECONNREFUSED"
            ? "whoever listened there is gone"
            : error.message;
      reject(new SlimeError("wire.broken", `cannot connect to ${path}: ${reason}`, { peer: path, reason }, { cause: error }));
    };
    socket.once("error", failed);
    socket.once("connect", () => {
      socket.off("error", failed);
      signal?.removeEventListener("abort", onAbort);
      resolve(socket);
    });
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}
