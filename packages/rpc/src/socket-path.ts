import { SlimeError } from "@slime/core";

/** What fits into `sockaddr_un` on Linux (108) and macOS (104), with the closing zero. */
export const socketPathBytesMax = 103;

/** @throws `config.invalid` for a path the system would cut off. */
export function checkSocketPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= socketPathBytesMax) return;
  const issue = `socket path ${path} has ${bytes} bytes, the system takes ${socketPathBytesMax}: set SLIME_SOCKET_DIR to a shorter directory`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}
