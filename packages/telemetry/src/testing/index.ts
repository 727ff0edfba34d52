import type { EventFields, EventName, EventSink } from "../event-table.js";

/** An event sink that keeps what was said, for tests. */
export function keptEvents(): {
  readonly sink: EventSink;
  readonly events: readonly { readonly name: EventName; readonly fields: EventFields<EventName> }[];
} {
  const events: { readonly name: EventName; readonly fields: EventFields<EventName> }[] = [];
  return { sink: { publish: (name, fields) => void events.push({ name, fields: fields as EventFields<EventName> }) }, events };
}
