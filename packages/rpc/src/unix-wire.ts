import type { Socket } from "node:net";
import type { Wire, WireEvents } from "./wire.js";

/** Parts of a frame below this size together are joined before they are written: one system call instead of a vector. */
const joinBytesMax = 64 * 1024;

/** A connected stream socket as a wire. */
export function socketWire(socket: Socket, name: string): Wire {
  return {
    name,
    start(events: WireEvents) {
      let reason: string | null = null;
      socket.on("data", (chunk: Buffer) => events.onData(chunk));
      socket.on("drain", () => events.onDrain());
      socket.on("end", () => socket.end());
      socket.on("error", (error) => {
        reason = error.message;
      });
      socket.on("close", () => events.onEnd(reason));
    },
    write(parts) {
      if (parts.length === 1 && parts[0] !== undefined) {
        socket.write(parts[0]);
        return;
      }
      let bytes = 0;
      for (const part of parts) bytes += part.byteLength;
      if (bytes <= joinBytesMax) {
        socket.write(Buffer.concat(parts, bytes));
        return;
      }
      socket.cork();
      for (const part of parts) socket.write(part);
      socket.uncork();
    },
    get unsentBytes() {
      return socket.writableLength;
    },
    end() {
      // What is left to write may take until the other side reads; that keeps no process alive.
      socket.unref();
      socket.destroySoon();
    },
    destroy: () => socket.destroy(),
  };
}
