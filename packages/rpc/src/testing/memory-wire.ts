import type { Clock } from "@slime/core";
import type { Wire, WireEvents } from "../wire.js";

/** What may go wrong between the ends of a memory pair. Directions: "ab" is what `a` writes. */
export interface MemoryPair {
  readonly a: Wire;
  readonly b: Wire;
  /** Ends both sides as a broken connection does, in the middle of whatever travels. */
  readonly cut: (reason: string) => void;
  /** From now on bytes of this direction arrive `ms` of the clock later; order stays. */
  readonly delay: (direction: "ab" | "ba", ms: number) => void;
  /** From now on bytes of this direction vanish, as with a hung reader; `false` lets new ones through again. */
  readonly drop: (direction: "ab" | "ba", dropping?: boolean) => void;
  /** From now on bytes of this direction stay unsent until `false`: a reader that is full. */
  readonly stall: (direction: "ab" | "ba", stalled?: boolean) => void;
  /** Writes seen in this direction so far; each is a frame or a part of one. */
  readonly writes: (direction: "ab" | "ba") => readonly Uint8Array[];
}

interface Lane {
  delayMs: number;
  dropping: boolean;
  stalled: boolean;
  readonly held: Uint8Array[];
  readonly writes: Uint8Array[];
  receiver: WireEvents | undefined;
  sender: WireEvents | undefined;
}

/** Two joined wires in memory, with faults on demand. Bytes are copied at the write, and arrive in a later microtask or by the clock. */
export function memoryPair(clock: Clock): MemoryPair {
  const lane = (): Lane => ({ delayMs: 0, dropping: false, stalled: false, held: [], writes: [], receiver: undefined, sender: undefined });
  const lanes = { ab: lane(), ba: lane() };
  let ended = false;
  const later = (delayMs: number, run: () => void) => {
    if (delayMs === 0) queueMicrotask(run);
    else clock.after(delayMs, run);
  };
  const deliver = (to: Lane, bytes: Uint8Array) => {
    later(to.delayMs, () => {
      if (!ended) to.receiver?.onData(Buffer.from(bytes));
    });
  };
  const end = (reason: string | null) => {
    if (ended) return;
    ended = true;
    for (const { receiver } of Object.values(lanes)) receiver?.onEnd(reason);
  };
  const wire = (name: string, out: Lane, back: Lane): Wire => ({
    name,
    start(events) {
      back.receiver = events;
      out.sender = events;
    },
    write(parts) {
      for (const part of parts) {
        const bytes = Uint8Array.from(part);
        out.writes.push(bytes);
        if (ended || out.dropping) continue;
        if (out.stalled) out.held.push(bytes);
        else deliver(out, bytes);
      }
    },
    get unsentBytes() {
      return out.held.reduce((sum, part) => sum + part.byteLength, 0);
    },
    end: () => later(Math.max(out.delayMs, 0), () => end(null)),
    destroy: () => end(null),
  });
  return {
    a: wire("memory b", lanes.ab, lanes.ba),
    b: wire("memory a", lanes.ba, lanes.ab),
    cut: end,
    delay(direction, ms) {
      lanes[direction].delayMs = ms;
    },
    drop(direction, dropping = true) {
      lanes[direction].dropping = dropping;
    },
    stall(direction, stalled = true) {
      const to = lanes[direction];
      to.stalled = stalled;
      if (stalled || to.held.length === 0) return;
      for (const bytes of to.held.splice(0)) deliver(to, bytes);
      queueMicrotask(() => to.sender?.onDrain());
    },
    writes: (direction) => lanes[direction].writes,
  };
}
