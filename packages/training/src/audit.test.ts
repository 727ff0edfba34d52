import type { LedgerEntry } from "@slime/data";
import { describe, expect, it } from "vitest";
import type { AppliedStep } from "./applied-record.js";
import { type AuditRecords, compareRecords } from "./audit.js";

const consumed = (rolloutId: number, step = rolloutId + 1): LedgerEntry => ({
  phase: "consumed",
  issuedBy: rolloutId,
  attempts: 1,
  finishedBy: rolloutId,
  rolloutId,
  step,
});
const leased = (rolloutId: number): LedgerEntry => ({ phase: "leased", issuedBy: rolloutId, attempts: 1, rolloutId });
const droppedBy = (rolloutId: number): LedgerEntry => ({
  phase: "dropped",
  issuedBy: rolloutId,
  attempts: 1,
  rolloutId,
  reason: "zero_std_0.0",
});

/** Two rollouts of two prompts trained, one prompt dropped, two in flight when the checkpoint was taken. */
function honest(): {
  issued: string[];
  ledger: Map<string, LedgerEntry>;
  applied: AppliedStep[];
  pending: Set<string>;
  trained: number;
  samplesPerGroup: number;
} {
  return {
    issued: ["0:0", "0:1", "0:2", "0:3", "0:4", "0:5", "0:6"],
    ledger: new Map([
      ["0:0", consumed(0)],
      ["0:1", consumed(0)],
      ["0:2", droppedBy(1)],
      ["0:3", consumed(1)],
      ["0:4", consumed(1)],
      ["0:5", leased(2)],
      // After the checkpoint: it is in flight as far as the checkpoint knows.
      ["0:6", consumed(2)],
    ]),
    applied: [
      {
        step: 1,
        rolloutId: 0,
        instances: [
          ["0:0", 2],
          ["0:1", 2],
        ],
      },
      {
        step: 2,
        rolloutId: 1,
        instances: [
          ["0:3", 1],
          ["0:4", 2],
        ],
      },
      { step: 2, rolloutId: 1, instances: [["0:3", 1]] },
    ],
    pending: new Set(["0:5", "0:6"]),
    trained: 2,
    samplesPerGroup: 2,
  };
}

const plant = (change: (records: ReturnType<typeof honest>) => void) => {
  const records = honest();
  change(records);
  return compareRecords(records satisfies AuditRecords).map(({ kind, instanceId, message }) => [kind, instanceId, message]);
};

describe("the audit", () => {
  it("finds nothing in honest records, ranks and rollouts in flight included", () => expect(plant(() => {})).toEqual([]));

  it.each<[string, (records: ReturnType<typeof honest>) => void, readonly (readonly string[])[]]>([
    [
      "a prompt the trainer never applied",
      (r) => void r.applied.splice(0, 1, { step: 1, rolloutId: 0, instances: [["0:0", 2]] }),
      [["lost", "0:1", "0:1 was consumed by rollout 0 says the ledger, but the trainer never applied it"]],
    ],
    [
      "a prompt the ledger never heard of",
      (r) => void r.ledger.delete("0:5"),
      [["lost", "0:5", "0:5 left the data source, but the ledger never heard of it"]],
    ],
    [
      "a prompt nobody hands out again",
      (r) => void r.pending.delete("0:5"),
      [["lost", "0:5", "0:5 is leased by rollout 2, and the checkpoint does not hand it out again"]],
    ],
    [
      "a prompt that its rollout trained without",
      (r) => void r.ledger.set("0:5", leased(1)),
      [["lost", "0:5", "0:5 is still leased by rollout 1, which has trained without it"]],
    ],
    [
      "a prompt trained in two rollouts",
      (r) => void r.applied.push({ step: 3, rolloutId: 1, instances: [["0:0", 2]] }),
      [["duplicate", "0:0", "0:0 was trained 2 times: in rollouts 0 and 1"]],
    ],
    [
      "a prompt with too many samples",
      (r) => void r.applied.push({ step: 3, rolloutId: 0, instances: [["0:0", 2]] }),
      [["duplicate", "0:0", "0:0 was trained with 4 samples in rollout 0; a group has 2"]],
    ],
    [
      "a dropped prompt that trained",
      (r) => void r.applied.push({ step: 3, rolloutId: 1, instances: [["0:2", 2]] }),
      [["duplicate", "0:2", "the trainer applied 0:2 in rollout 1, but the ledger says it is dropped by rollout 1 (zero_std_0.0)"]],
    ],
    ["half a group", (r) => void r.applied.pop(), [["incomplete", "0:3", "0:3 was trained with 1 of 2 samples in rollout 1"]]],
    [
      "a swapped id",
      (r) =>
        void r.applied.splice(0, 1, {
          step: 1,
          rolloutId: 0,
          instances: [
            ["0:0", 2],
            ["0:9", 2],
          ],
        }),
      [["swapped", "0:1", "in rollout 0 the ledger says 0:1 was trained, the trainer says 0:9"]],
    ],
    [
      "an id swapped with one in flight",
      (r) =>
        void r.applied.splice(0, 1, {
          step: 1,
          rolloutId: 0,
          instances: [
            ["0:0", 2],
            ["0:5", 2],
          ],
        }),
      [["swapped", "0:1", "in rollout 0 the ledger says 0:1 was trained, the trainer says 0:5"]],
    ],
    [
      "a prompt in another rollout",
      (r) => void r.ledger.set("0:1", consumed(1)),
      [["swapped", "0:1", "0:1 was consumed by rollout 1 says the ledger, by 0 says the trainer"]],
    ],
    [
      "an id that never left the data",
      (r) => void r.applied.push({ step: 3, rolloutId: 1, instances: [["7:7", 2]] }),
      [["unknown", "7:7", "the trainer applied 7:7 in rollout 1, but it never left the data source"]],
    ],
  ])("names %s", (_, change, findings) => expect(plant(change)).toEqual(findings));
});
