import { sleep, systemClock } from "@slime/core";

/** Waits for what the outside world (a process, a file) will make true; fails after `timeoutMs` with what was waited for. */
export async function until<T>(
  what: string,
  look: () => Promise<T | null | undefined | false> | T | null | undefined | false,
  timeoutMs = 10_000,
): Promise<T> {
  const endMs = systemClock.nowMs() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== null && found !== undefined && found !== false) return found;
    if (systemClock.nowMs() > endMs) throw new Error(`waited ${timeoutMs} ms in vain for ${what}`);
    await sleep(systemClock, 10);
  }
}
