/**
 * Events to whoever listens, by ZeroMQ PUB/SUB on loopback.
 * Invariants: T2 at most one send is in flight on a socket; T3 the queue holds at most `queueMax` lines, the oldest are dropped and counted,
 * and the count is told (`events.dropped`) as soon as there is room: nobody who speaks ever waits for who listens.
 */
import type { Clock } from "@slime/core";
import { type EventLine, encodeEvent } from "./event-line.js";
import type { EventFields, EventName, EventSink } from "./event-table.js";

/** What the publisher needs of a socket; zeromq's `Publisher` is one. */
export interface EventSocket {
  readonly send: (frames: readonly string[]) => Promise<void>;
  readonly close: () => void;
}

export interface EventPublisherOptions {
  readonly source: string;
  readonly clock: Clock;
  readonly queueMax?: number;
  /** Sees each line too, synchronously: the head's own log and ring of recent events. */
  readonly tap?: (line: EventLine) => void;
  /** Told of each line that was dropped. */
  readonly onDrop?: () => void;
}

export interface EventPublisher extends EventSink, AsyncDisposable {
  readonly dropped: () => number;
  /** Says no more, sends what waits within `budgetMs`, closes. */
  readonly close: () => Promise<void>;
}

const queueMaxDefault = 10_000;

/**
 * Publishes on a socket that is bound already and is closed with the publisher; each event is two frames, its name (what
 * subscribers filter by) and its line.
 */
export function eventPublisher(socket: EventSocket, options: EventPublisherOptions): EventPublisher {
  const { source, clock, tap, onDrop, queueMax = queueMaxDefault } = options;
  const queue: EventLine[] = [];
  let seq = 0;
  let dropped = 0;
  let droppedTold = 0;
  let sending: Promise<void> | null = null;
  let open = true;
  const line = <N extends EventName>(event: N, fields: EventFields<N>): EventLine =>
    ({ v: 1, at: clock.wallMs(), source, seq: ++seq, event, fields }) as EventLine;
  const drop = (): void => {
    dropped++;
    onDrop?.();
  };
  const drain = async () => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      try {
        await socket.send([next.event, encodeEvent(next)]);
      } catch {
        drop(); // a closed or broken socket loses its listeners' lines, nothing else
      }
      if (dropped > droppedTold && open && queue.length < queueMax) {
        queue.push(line("events.dropped", { count: dropped - droppedTold }));
        droppedTold = dropped;
      }
    }
    sending = null;
  };
  const publisher: EventPublisher = {
    publish(name, fields) {
      if (!open) return;
      const said = line(name, fields);
      tap?.(said);
      if (queue.length >= queueMax) {
        queue.shift();
        drop();
      }
      queue.push(said);
      sending ??= drain();
    },
    dropped: () => dropped,
    async close() {
      if (!open) return;
      open = false;
      if (sending !== null) await sending;
      socket.close();
    },
    [Symbol.asyncDispose]: () => publisher.close(),
  };
  return publisher;
}
