import { SlimeError } from "@slime/core";
import { type EventFields, type EventName, eventFault } from "./event-table.js";

/** One event as it is kept and sent: one line of JSON. */
export interface EventLine<N extends EventName = EventName> {
  readonly v: 1;
  /** Milliseconds since 1970. */
  readonly at: number;
  /** Who says it: "head", a node's id, a run's id. */
  readonly source: string;
  /** Counts this source's events from 1 since it started; a gap tells of dropped ones. */
  readonly seq: number;
  readonly event: N;
  readonly fields: EventFields<N>;
}

/** Longest line that is read; a longer one is refused before it is parsed. */
export const eventBytesMax = 1_048_576;

/** One line without its line break; the keys always come in the same order, so that lines can be compared as text. */
export function encodeEvent(line: EventLine): string {
  const { v, at, source, seq, event, fields } = line;
  return JSON.stringify({ v, at, source, seq, event, fields });
}

/** @throws SlimeError `codec.refused` for what is no event line; an event this version does not know is let through. */
export function decodeEvent(text: string): EventLine {
  const refuse = (reason: string) => new SlimeError("codec.refused", `an event line was refused: ${reason}`, { where: "event", reason });
  if (text.length > eventBytesMax) throw refuse(`${text.length} characters, at most ${eventBytesMax}`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new SlimeError("codec.refused", "an event line was refused: not JSON", { where: "event", reason: "not JSON" }, { cause: error });
  }
  const line = value as Partial<EventLine> | null;
  if (typeof line !== "object" || line === null || line.v !== 1) throw refuse("no version 1 event");
  if (typeof line.at !== "number" || typeof line.source !== "string" || typeof line.seq !== "number" || typeof line.event !== "string")
    throw refuse("at, source, seq and event are needed");
  if (typeof line.fields !== "object" || line.fields === null) throw refuse("fields are needed");
  const fault = eventFault(line.event, line.fields as Readonly<Record<string, unknown>>);
  if (fault !== null) throw refuse(fault);
  return line as EventLine;
}
