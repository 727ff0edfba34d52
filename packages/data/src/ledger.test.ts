import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, SlimeError } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Ledger, openLedger, readLedger } from "./ledger.js";
import { applyCommand, type LedgerCommand, LedgerState, snapshotOf } from "./ledger-state.js";
import { openLogFile } from "./log-file.js";
import { MemoryLogFile } from "./testing/index.js";

const clock: Clock = virtualClock();

/** Commands as a run makes them, and some that do not fit. */
const command: fc.Arbitrary<LedgerCommand> = (() => {
  const ids = fc.uniqueArray(
    fc.nat(9).map((row) => `0:${row}`),
    { minLength: 1, maxLength: 4 },
  );
  const rollout = fc.nat(2);
  return fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("issue" as const), rollout, ids }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom("lease" as const, "release" as const), rollout, ids }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("finish" as const), rollout, ids }) },
    { weight: 3, arbitrary: fc.record({ kind: fc.constant("consume" as const), rollout, step: fc.nat(2), ids }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("drop" as const), rollout, reason: fc.constantFrom("stale", "failed"), ids }) },
  );
})();

const commands = fc.array(command, { maxLength: 30 });

function tryApply(state: LedgerState, one: LedgerCommand, op: string | null = null): "applied" | "repeated" | "refused" {
  try {
    return applyCommand(state, one, op) === null ? "repeated" : "applied";
  } catch (error) {
    expect(SlimeError.is(error, "conflict") || SlimeError.is(error, "not_found")).toBe(true);
    return "refused";
  }
}

describe("LedgerState", () => {
  it("L1, L2, L5: counts add up, final phases stay, a refused command changes nothing", () => {
    fc.assert(
      fc.property(commands, (list) => {
        const state = new LedgerState();
        const final = new Map<string, string>();
        for (const one of list) {
          const before = JSON.stringify(snapshotOf(state));
          if (tryApply(state, one) !== "applied") expect(JSON.stringify(snapshotOf(state))).toBe(before);
          const counts = state.counts();
          expect(Object.values(counts).reduce((a, b) => a + b, 0)).toBe(state.size);
          for (const [id, entry] of state.entries()) {
            if (final.has(id)) expect(JSON.stringify(entry)).toBe(final.get(id));
            if (entry.phase === "consumed" || entry.phase === "dropped") final.set(id, JSON.stringify(entry));
          }
        }
      }),
      { seed: 51, numRuns: 300 },
    );
  });

  it("L4: a repeated command changes nothing, at once by its effect and ever after by its operation id", () => {
    fc.assert(
      fc.property(commands, (list) => {
        const state = new LedgerState();
        const done: { one: LedgerCommand; op: string }[] = [];
        list.forEach((one, i) => {
          const result = tryApply(state, one, `op${i}`);
          if (result !== "refused") expect(tryApply(state, one)).toBe("repeated");
          if (result === "applied") done.push({ one, op: `op${i}` });
        });
        const before = JSON.stringify(snapshotOf(state));
        for (const { one, op } of done) expect(tryApply(state, one, op)).toBe("repeated");
        expect(JSON.stringify(snapshotOf(state))).toBe(before);
      }),
      { seed: 52 },
    );
  });

  it("undoing takes back exactly one command", () => {
    fc.assert(
      fc.property(commands, command, fc.boolean(), (list, last, restore) => {
        const state = new LedgerState();
        for (const one of list) tryApply(state, one);
        const before = JSON.stringify([snapshotOf(state), state.counts()]);
        try {
          applyCommand(state, restore ? { kind: "restore", checkpoint: null, snapshot: null } : last, "once")?.();
        } catch (error) {
          expect(SlimeError.isAny(error)).toBe(true);
        }
        expect(JSON.stringify([snapshotOf(state), state.counts()])).toBe(before);
        expect(state.knows("once")).toBe(false);
      }),
      { seed: 53 },
    );
  });

  it.each([
    [
      "finished by a rollout that does not hold it (L3)",
      [{ kind: "issue", rollout: 1, ids: ["0:1"] }],
      { kind: "finish", rollout: 2, ids: ["0:1"] },
      "leased by rollout 1",
    ],
    [
      "consumed a second time (L2)",
      [
        { kind: "issue", rollout: 1, ids: ["0:1"] },
        { kind: "finish", rollout: 1, ids: ["0:1"] },
        { kind: "consume", rollout: 1, step: 4, ids: ["0:1"] },
      ],
      { kind: "consume", rollout: 1, step: 5, ids: ["0:1"] },
      "consumed by rollout 1 at step 4",
    ],
    [
      "consumed unfinished",
      [{ kind: "issue", rollout: 1, ids: ["0:1"] }],
      { kind: "consume", rollout: 1, step: 4, ids: ["0:1"] },
      "leased by rollout 1",
    ],
    [
      "issued by two rollouts",
      [{ kind: "issue", rollout: 1, ids: ["0:1"] }],
      { kind: "issue", rollout: 2, ids: ["0:1"] },
      "leased by rollout 1",
    ],
    ["never issued", [], { kind: "lease", rollout: 2, ids: ["0:9"] }, "0:9 was never issued"],
    [
      "dropped, then leased",
      [
        { kind: "issue", rollout: 1, ids: ["0:1"] },
        { kind: "drop", rollout: 1, reason: "stale", ids: ["0:1"] },
      ],
      { kind: "lease", rollout: 1, ids: ["0:1"] },
      "dropped by rollout 1 (stale)",
    ],
  ] as const)("refuses an instance %s", (_, before, last, message) => {
    const state = new LedgerState();
    for (const one of before) applyCommand(state, one, null);
    expect(() => applyCommand(state, last, null)).toThrow(message);
  });
});

/** Runs commands one after the other; what is refused is left out. */
async function play(ledger: Ledger, list: readonly LedgerCommand[]): Promise<void> {
  for (const one of list)
    await ledger
      .apply(one, null)
      .catch((error: unknown) => expect(SlimeError.is(error, "conflict") || SlimeError.is(error, "not_found")).toBe(true));
}

const stateOf = (ledger: Ledger) => JSON.stringify([ledger.snapshot(), ledger.counts()]);

describe("Ledger", () => {
  it("F1, F2, L6, L7: a crash between any two bytes leaves a prefix that holds all that resolved; repeating the rest ends the same", async () => {
    await fc.assert(
      fc.asyncProperty(commands, fc.nat(30), fc.nat(2000), fc.nat(8), async (list, resolved, survivors, ticks) => {
        const file = new MemoryLogFile();
        const ledger = await openLedger(file, { clock });
        await play(ledger, list.slice(0, resolved));
        const durable = stateOf(ledger);
        // The rest is in flight when the power goes.
        const inFlight = list.slice(resolved).map((one) => ledger.apply(one, null).catch(() => {}));
        const reached = new Set([durable]);
        const model = await openLedger(new MemoryLogFile(file.bytes.slice()), { clock });
        for (const one of list.slice(resolved)) {
          await model.apply(one, null).catch(() => {});
          reached.add(stateOf(model));
        }
        for (let tick = 0; tick < ticks; tick++) await Promise.resolve();
        const crashed = file.crash(survivors);
        await Promise.all(inFlight);
        const again = await openLedger(crashed, { clock });
        expect(reached.has(stateOf(again))).toBe(true);
        const whole = await openLedger(new MemoryLogFile(file.bytes.slice()), { clock });
        expect(stateOf(whole)).toBe(stateOf(ledger));
      }),
      { seed: 54, numRuns: 200 },
    );
  });

  it("a cut at every single byte of the file is opened, and the next record fits on", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    await play(ledger, [
      { kind: "issue", rollout: 0, ids: ["0:1", "0:2"] },
      { kind: "finish", rollout: 0, ids: ["0:1"] },
      { kind: "consume", rollout: 0, step: 1, ids: ["0:1"] },
    ]);
    for (let length = 0; length <= file.bytes.length; length++) {
      const cut = new MemoryLogFile(file.bytes.slice(0, length));
      const opened = await openLedger(cut, { clock });
      expect(opened.counts().consumed).toBe(length === file.bytes.length ? 1 : 0);
      await opened.issue(["0:7"], 3);
      const reopened = await openLedger(new MemoryLogFile(cut.bytes), { clock });
      expect(reopened.entry("0:7")?.phase).toBe("leased");
      expect(reopened.cutBytes).toBe(0);
    }
  });

  it("F3: damage before whole records is an error that names the line", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    await ledger.issue(["0:1"], 0);
    await ledger.finish(["0:1"], 0);
    const bytes = file.bytes.slice();
    const second = bytes.indexOf(0x0a) + 30;
    bytes[second] = (bytes[second] ?? 0) ^ 1;
    await expect(openLedger(new MemoryLogFile(bytes), { clock })).rejects.toThrow(/\[state.damaged\] .*line 2 .*checksum/);
    const lines = Buffer.from(file.bytes).toString().split("\n");
    await expect(openLedger(new MemoryLogFile(Buffer.from([lines[0], lines[2], ""].join("\n"))), { clock })).rejects.toThrow(
      "has seq 2, 1 was due",
    );
  });

  it("F4: a newer version is refused", async () => {
    const text = Buffer.from(new MemoryLogFile().bytes).toString();
    expect(text).toBe("");
    const { openRecordLog } = await import("./record-log.js");
    const file = new MemoryLogFile();
    await openRecordLog(file, { format: "slime.ledger", version: 2 });
    await expect(openLedger(file, { clock })).rejects.toSatisfy(
      (error) => SlimeError.is(error, "journal.unreadable") && error.details.found === 2 && error.details.known === 1,
    );
    const other = new MemoryLogFile();
    await openRecordLog(other, { format: "slime.other", version: 1 });
    await expect(openLedger(other, { clock })).rejects.toThrow("is not the header of a slime.ledger file");
  });

  it("F5: a full disk leaves nothing half-written, fails all that waits, and a later call works", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    await ledger.issue(["0:1"], 0);
    const before = file.bytes.length;
    file.spaceBytes = 20;
    const failed = await Promise.allSettled([ledger.finish(["0:1"], 0), ledger.consume(["0:1"], 0, 1), ledger.consume(["0:1"], 0, 1)]);
    for (const result of failed) expect(result.status === "rejected" && SlimeError.is(result.reason, "disk.full")).toBe(true);
    expect(file.bytes.length).toBe(before);
    expect(ledger.entry("0:1")?.phase).toBe("leased");
    file.spaceBytes = Infinity;
    await ledger.finish(["0:1"], 0);
    const again = await openLedger(new MemoryLogFile(file.bytes), { clock });
    expect(again.entry("0:1")?.phase).toBe("finished");
  });

  it("after a failed sync nothing is believed until the file is opened anew", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    file.syncFails = true;
    await expect(ledger.issue(["0:1"], 0)).rejects.toThrow("could not be synced");
    file.syncFails = false;
    await expect(ledger.issue(["0:1"], 0)).rejects.toThrow("could not be synced");
    expect(ledger.entry("0:1")).toBeUndefined();
    const again = await openLedger(file, { clock });
    await again.issue(["0:1"], 0);
  });

  it("calls of one turn share a sync", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    const before = file.syncs;
    await Promise.all(Array.from({ length: 100 }, (_, row) => ledger.issue([`0:${row}`], 0)));
    expect(file.syncs - before).toBeLessThanOrEqual(2);
  });

  it("goes back to a snapshot, and what came after may happen again", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock });
    await ledger.issue(["0:1", "0:2"], 0);
    await ledger.finish(["0:1"], 0);
    await ledger.consume(["0:1"], 0, 1);
    const manifest = JSON.parse(JSON.stringify(ledger.snapshot()));
    await ledger.finish(["0:2"], 0);
    await ledger.consume(["0:2"], 0, 2, "op_a");
    await ledger.restore(manifest, "step-0000001");
    expect(ledger.inPhase("consumed")).toEqual(["0:1"]);
    expect(ledger.inPhase("leased")).toEqual(["0:2"]);
    await ledger.finish(["0:2"], 0);
    await ledger.consume(["0:2"], 0, 2, "op_a");
    expect(ledger.counts()).toEqual({ issued: 0, leased: 0, finished: 0, consumed: 2, dropped: 0 });
    const again = await openLedger(new MemoryLogFile(file.bytes), { clock });
    expect(stateOf(again)).toBe(stateOf(ledger));
    await again.restore(null, null);
    expect(again.counts().consumed).toBe(0);
    await expect(again.restore({ rows: 1 }, null)).rejects.toThrow("not a snapshot");
  });

  it("lives in a real file", async () => {
    const directory = mkdtempSync(join(tmpdir(), "slime-ledger-"));
    try {
      const path = join(directory, "ledger.jsonl");
      const ledger = await openLedger(path, { clock });
      await ledger.issue(["0:1"], 0);
      await ledger.close();
      await expect(ledger.issue(["0:2"], 0)).rejects.toThrow("was closed");
      const again = await openLedger(path, { clock });
      expect(again.inPhase("leased")).toEqual(["0:1"]);
      await again.close();
      expect(readLedger(readFileSync(path), path).records.length).toBe(1);
      await expect(openLogFile(join(directory, "none", "ledger.jsonl"))).rejects.toThrow("[file.missing]");
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});

describe("test/golden/ledger.jsonl", () => {
  const golden = readFileSync(new URL("../../../test/golden/ledger.jsonl", import.meta.url));

  it("is what these commands write", async () => {
    const file = new MemoryLogFile();
    const ledger = await openLedger(file, { clock: { ...clock, wallMs: () => 1_750_000_000_000 } });
    await ledger.issue(["0:17", "0:3", "0:8"], 0, "op_00000000000000a1");
    await ledger.finish(["0:17", "0:3"], 0);
    await ledger.drop(["0:8"], 0, "reward failed: «näh»");
    await ledger.consume(["0:17"], 0, 1);
    const snapshot = ledger.snapshot();
    await ledger.consume(["0:3"], 0, 2);
    await ledger.restore(snapshot, "step-0000001");
    await ledger.release(["0:3"], 1);
    await ledger.lease(["0:3"], 1);
    expect(Buffer.from(file.bytes).toString()).toBe(golden.toString());
  });

  it("reads as one consumed, one dropped, one handed out again", () => {
    const { state, records } = readLedger(golden, "golden");
    expect(records.map((record) => record.kind)).toEqual(["issue", "finish", "drop", "consume", "consume", "restore", "release", "lease"]);
    expect(state.counts()).toEqual({ issued: 0, leased: 1, finished: 0, consumed: 1, dropped: 1 });
    expect(state.entry("0:3")).toEqual({ phase: "leased", issuedBy: 0, attempts: 2, rolloutId: 1 });
  });
});
