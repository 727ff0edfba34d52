import type { Socket } from "node:net";

/** Up to here pieces are copied into one buffer; above, they go out as a list, which costs more per call and less per byte. */
const joinBytesMax = 16 << 10;

/** Writes pieces in one system call where it can be; strings are latin1. False when the socket asks to wait for `drain`. */
export function writeAll(socket: Socket, pieces: readonly (string | Buffer)[]): boolean {
  const [only] = pieces;
  if (pieces.length === 1 && only !== undefined) return typeof only === "string" ? socket.write(only, "latin1") : socket.write(only);
  let total = 0;
  for (const { length } of pieces) total += length;
  if (total > joinBytesMax) {
    socket.cork();
    let flowing = true;
    for (const piece of pieces) flowing = typeof piece === "string" ? socket.write(piece, "latin1") : socket.write(piece);
    socket.uncork();
    return flowing;
  }
  const joined = Buffer.allocUnsafe(total);
  let at = 0;
  for (const piece of pieces) at += typeof piece === "string" ? joined.write(piece, at, "latin1") : piece.copy(joined, at);
  return socket.write(joined);
}
