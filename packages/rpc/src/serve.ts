import { chmodSync, rmSync, statSync } from "node:fs";
import { createConnection, createServer, type Server as NetServer, type Socket } from "node:net";
import { SlimeError, silentLogger } from "@slime/core";
import { toFailure } from "./failure.js";
import { openPeer } from "./peer.js";
import type { Hello, Peer, ServeOptions, Server } from "./peer-api.js";
import { checkSocketPath } from "./socket-path.js";
import { socketWire } from "./unix-wire.js";

/**
 * Listens on a unix socket; resolves when connections are taken.
 * @throws `state.locked` when a live process listens there, `config.invalid` for a path the system cannot take.
 */
export async function serve(options: ServeOptions): Promise<Server> {
  checkSocketPath(options.path);
  await removeDead(options.path);
  const peers = new Set<Peer>();
  const greeting = new Set<Socket>();
  const log = options.log ?? silentLogger;
  const peersMax = options.peersMax ?? 4096;
  const accept = (hello: Hello) => options.accept?.(hello);
  const onSocket = (socket: Socket) => {
    if (peers.size + greeting.size >= peersMax) {
      log.warn("rpc.turned_away", { path: options.path, peersMax });
      socket.destroy();
      return;
    }
    greeting.add(socket);
    openPeer(socketWire(socket, `a caller of ${options.path}`), options, accept)
      .then((peer) => {
        peers.add(peer);
        void peer.closed.then(() => peers.delete(peer));
        options.onPeer?.(peer);
      })
      .catch((error: unknown) => log.warn("rpc.refused", { path: options.path, failure: toFailure(error) }))
      .finally(() => greeting.delete(socket));
  };
  const server = createServer(onSocket);
  await listen(server, options.path);
  chmodSync(options.path, 0o600);
  let closing: Promise<void> | undefined;
  const close: Server["close"] = (how) => {
    closing ??= (async () => {
      // Closing also unlinks the path.
      const stopped = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of greeting) socket.destroy();
      await Promise.all([...peers].map((peer) => peer.close(how)));
      await stopped;
    })();
    return closing;
  };
  return { path: options.path, peers, close, [Symbol.asyncDispose]: () => close() };
}

function listen(server: NetServer, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE")
        reject(
          new SlimeError("state.locked", `${path} is taken by another process that listens there`, { path, pid: null }, { cause: error }),
        );
      else
        reject(
          new SlimeError(
            "file.missing",
            `cannot listen on ${path}: ${error.message}; its directory must exist and be writable`,
            { path, wanted: "a directory for the socket" },
            { cause: error },
          ),
        );
    });
    server.listen(path, resolve);
  });
}

/** Removes the socket file of a process that is gone. */
async function removeDead(path: string): Promise<void> {
  if (statSync(path, { throwIfNoEntry: false }) === undefined) return;
  const alive = await new Promise<boolean>((resolve) => {
    const probe = createConnection(path);
    probe.once("connect", () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => resolve(false));
  });
  if (alive) throw new SlimeError("state.locked", `a live process listens on ${path}; stop it first`, { path, pid: null });
  rmSync(path, { force: true });
}
