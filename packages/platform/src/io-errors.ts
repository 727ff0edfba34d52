import { SlimeError } from "@slime/core";

/** The system's name of a failed call (`ENOENT`), or the empty string. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** Turns "no space left" and "quota exceeded" into `disk.full`, which names the place and the fix; other errors stay as they are. */
export function translateIoError(error: unknown, path: string, bytesNeeded: number | null = null): unknown {
  const code = errnoOf(error);
  if (code !== "ENOSPC" && code !== "EDQUOT") return error;
  const message = `the disk that holds ${path} is full (${code}): free space there, or choose another place with --state-dir or SLIME_HOME`;
  return new SlimeError("disk.full", message, { path, needed: bytesNeeded }, { cause: error });
}
