import { appendFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { EventLine, EventName, EventSocket, FieldKind } from "./index.js";
import {
  bindEventSocket,
  clusterRegistry,
  decodeEvent,
  encodeEvent,
  eventFault,
  eventPublisher,
  eventTable,
  followLog,
  isUpstreamMetric,
  logSize,
  openMetricsFile,
  pinoLogger,
  readLog,
  subscribeEvents,
} from "./index.js";

let dir = "";
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "slime-telemetry-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const golden = new URL("../../../test/golden/events.json", import.meta.url);
const examples: { readonly [K in FieldKind]: (field: string) => unknown } = {
  text: (field) => field,
  "text?": () => null,
  texts: (field) => [`${field} 1`, `${field} 2`],
  number: () => 1,
  "number?": () => null,
  numbers: () => [0, 1],
  flag: () => true,
};

describe("event lines", () => {
  const lines = (Object.keys(eventTable) as EventName[]).map((event, i) => {
    const fields = Object.fromEntries(Object.entries<FieldKind>(eventTable[event]).map(([field, kind]) => [field, examples[kind](field)]));
    return { v: 1, at: 1_700_000_000_000, source: "head", seq: i + 1, event, fields } as EventLine;
  });

  test("equal the golden file (T1)", async () => {
    expect({ version: 1, lines: lines.map(encodeEvent) }).toEqual(JSON.parse(await readFile(golden, "utf8")));
  });

  test.each(lines)("$event goes out and comes back", (line) => {
    expect(decodeEvent(encodeEvent(line))).toEqual(line);
  });

  test("what is no event is refused, what is newer is let through", () => {
    for (const bad of [
      "",
      "null",
      "[]",
      '{"v":2}',
      '{"v":1,"at":1,"source":"h","seq":1,"event":"node.lost","fields":{"nodeId":1,"silentMs":2}}',
      "x".repeat(1_048_577),
    ]) {
      expect(() => decodeEvent(bad), bad.slice(0, 40)).toThrow(SlimeError);
    }
    expect(decodeEvent('{"v":1,"at":1,"source":"h","seq":1,"event":"moon.rose","fields":{}}').event).toBe("moon.rose");
    expect(eventFault("node.lost", { nodeId: "n", silentMs: Number.NaN })).toBe("node.lost.silentMs must be number");
  });
});

describe("publisher", () => {
  test("T2, T3: one send in flight; the queue is bounded; what was dropped is told", async () => {
    let inFlight = 0;
    let most = 0;
    const sent: EventLine[] = [];
    const gates: (() => void)[] = [];
    const socket: EventSocket = {
      async send(frames) {
        most = Math.max(most, ++inFlight);
        await new Promise<void>((resolve) => gates.push(resolve));
        inFlight--;
        sent.push(decodeEvent(frames[1] ?? ""));
      },
      close() {},
    };
    const publisher = eventPublisher(socket, { source: "head", clock: virtualClock(), queueMax: 3 });
    for (let i = 0; i < 10; i++) publisher.publish("node.suspect", { nodeId: `n${i}`, silentMs: i });
    expect(publisher.dropped()).toBe(6);
    while (inFlight > 0 || gates.length > 0) {
      gates.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(most).toBe(1);
    expect(sent.filter((line) => line.event === "node.suspect").map((line) => line.seq)).toEqual([1, 8, 9, 10]);
    expect(sent.find((line) => line.event === "events.dropped")?.fields).toEqual({ count: 6 });
    await publisher.close();
    publisher.publish("node.suspect", { nodeId: "late", silentMs: 0 });
    expect(inFlight).toBe(0);
  });

  test("over ZeroMQ: a listener gets the events it asked for", async () => {
    const { socket, endpoint } = await bindEventSocket();
    const publisher = eventPublisher(socket, { source: "head", clock: virtualClock() });
    const stop = new AbortController();
    const got: EventLine[] = [];
    const listening = (async () => {
      for await (const line of subscribeEvents(endpoint, { signal: stop.signal, names: ["node."] })) {
        got.push(line);
        if (line.event === "node.left") stop.abort();
      }
    })();
    // A subscription takes a moment to reach the publisher: say it until somebody heard.
    while (got.length === 0) {
      publisher.publish("node.suspect", { nodeId: "n1", silentMs: 5_000 });
      publisher.publish("actor.pending", { actorId: "a", jobId: "j", className: "C", name: "", waiting: [] });
      await new Promise((resolve) => setImmediate(resolve));
    }
    publisher.publish("node.left", { nodeId: "n1", reason: "stopped" });
    await listening;
    await publisher.close();
    expect(got.every((line) => line.event.startsWith("node."))).toBe(true);
    expect(got.at(-1)?.fields).toEqual({ nodeId: "n1", reason: "stopped" });
  });

  test("refuses what is not loopback", async () => {
    await expect(bindEventSocket("tcp://0.0.0.0:0")).rejects.toThrow("loopback");
  });
});

describe("log follow", () => {
  test("T4: any chunk size and resume point gives the same bytes; files in turn are one stream", async () => {
    const [a, b] = [join(dir, "a.log"), join(dir, "b.log")];
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ maxLength: 60 }),
        fc.uint8Array({ maxLength: 60 }),
        fc.integer({ min: 1, max: 17 }),
        fc.nat(130),
        async (first, second, chunkBytesMax, offset) => {
          await writeFile(a, first);
          await writeFile(b, second);
          const all = Buffer.concat([first, second]);
          const chunks: Buffer[] = [];
          let at = offset;
          for await (const chunk of followLog(
            { files: () => [a, b], ended: () => true },
            { clock: virtualClock(), offset, chunkBytesMax },
          )) {
            expect(chunk.offset).toBe(at);
            expect(chunk.bytes.length).toBeLessThanOrEqual(chunkBytesMax); // T5
            at += chunk.bytes.length;
            chunks.push(Buffer.from(chunk.bytes));
          }
          expect(Buffer.concat(chunks)).toEqual(all.subarray(Math.min(offset, all.length)));
        },
      ),
      { numRuns: 40, seed: 3 },
    );
  });

  test("waits for a file that is not there yet, reads what is appended, ends after the end", async () => {
    const path = join(dir, "late.log");
    const clock = virtualClock();
    let ended = false;
    const got: string[] = [];
    const following = (async () => {
      for await (const chunk of followLog({ files: () => [path], ended: () => ended }, { clock })) got.push(chunk.bytes.toString());
    })();
    await clock.run(250);
    await writeFile(path, "one\n");
    while (got.length < 1) await clock.run(100);
    await appendFile(path, "two\n");
    ended = true;
    let done = false;
    void following.then(() => {
      done = true;
    });
    while (!done) await clock.run(100);
    expect(got.join("")).toBe("one\ntwo\n");
    expect(await logSize([path, join(dir, "none")])).toBe(8);
    expect((await readLog([path], 4, 3)).toString()).toBe("two");
  });
});

describe("metrics", () => {
  test("a metrics file keeps the order, writes what JSON lacks as text and ends a half line of a killed writer", async () => {
    const path = join(dir, "metrics.jsonl");
    await writeFile(path, '{"half"');
    const file = await openMetricsFile(path, virtualClock());
    await Promise.all([file.write("train/step", 0, { "train/loss": Number.NaN }), file.write("train/step", 1, { "train/loss": 0.5 })]);
    await file.close();
    const lines = (await readFile(path, "utf8")).trimEnd().split("\n");
    expect(lines.slice(1).map((line) => JSON.parse(line) as unknown)).toEqual([
      { v: 1, at: 1_700_000_000_000, axis: "train/step", step: 0, metrics: { "train/loss": "NaN" } },
      { v: 1, at: 1_700_000_000_000, axis: "train/step", step: 1, metrics: { "train/loss": 0.5 } },
    ]);
  });

  test("upstream's names are known by pattern", () => {
    expect(isUpstreamMetric("rollout/step", "rollout/response_len/mean")).toBe(true);
    expect(isUpstreamMetric("train/step", "train/lr-pg_0")).toBe(true);
    expect(isUpstreamMetric("eval/step", "eval/sort-pass@8")).toBe(true);
    expect(isUpstreamMetric("train/step", "train/vibes")).toBe(false);
  });

  test("the registry declares every cluster metric and forgets cleared label sets", async () => {
    const registry = clusterRegistry();
    registry.set("slime_nodes", 2, { state: "ALIVE" });
    registry.add("slime_head_events_total", 1, { kind: "tick" });
    registry.observe("slime_head_commit_seconds", 0.003);
    expect(await registry.text()).toContain('slime_nodes{state="ALIVE"} 2');
    registry.clear("slime_nodes");
    expect(await registry.text()).not.toContain('state="ALIVE"');
    expect(() => registry.set("slime_head_events_total", 1)).toThrow("is a counter");
  });
});

test("pino lines carry level, event, fields and an error's code and causes", async () => {
  const path = join(dir, "log", "head.jsonl");
  const log = pinoLogger({ destination: path, fields: { name: "slime-head" } }).child({ jobId: "job_1" });
  log.debug("hidden");
  log.warn("node.suspect", {
    nodeId: "n1",
    error: new SlimeError("node.lost", "gone", { nodeId: "n1", silentMs: 1 }, { cause: new Error("socket closed") }),
  });
  const line = JSON.parse(await readFile(path, "utf8")) as Record<string, unknown>;
  expect(line).toMatchObject({
    level: "warn",
    event: "node.suspect",
    name: "slime-head",
    jobId: "job_1",
    nodeId: "n1",
    error: { code: "node.lost", causes: ["socket closed"] },
  });
  expect(typeof line["at"]).toBe("number");
});
