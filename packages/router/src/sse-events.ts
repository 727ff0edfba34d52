import { StringDecoder } from "node:string_decoder";
import { SlimeError } from "@slime/core";

/** Longest event accepted, in characters. */
const eventCharsMax = 256 << 20;

/** Splits a stream of server-sent events into the `data` of each; comments and other fields are left out. */
export class SseEvents {
  readonly #decoder = new StringDecoder("utf8");
  #rest = "";

  /** The events that this chunk completes, in order. @throws `wire.limit` for an event without an end. */
  take(chunk: Buffer): readonly string[] {
    const events = (this.#rest + this.#decoder.write(chunk)).replaceAll("\r\n", "\n").split("\n\n");
    this.#rest = events.pop() ?? "";
    if (this.#rest.length > eventCharsMax)
      throw new SlimeError("wire.limit", `a streamed event has more than ${eventCharsMax} characters`, {
        what: "streamed event",
        value: this.#rest.length,
        max: eventCharsMax,
      });
    return events.flatMap((event) => {
      const data = event.split("\n").flatMap((line) => (line.startsWith("data:") ? [line.slice(5).replace(/^ /, "")] : []));
      return data.length === 0 ? [] : [data.join("\n")];
    });
  }
}
