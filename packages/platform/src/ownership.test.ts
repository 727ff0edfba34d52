import { readFileSync } from "node:fs";
import { SlimeError } from "@slime/core";
import { describe, expect, it } from "vitest";
import { assignmentLogBase, processLogs } from "./log-layout.js";
import { decodeOwnership, encodeOwnership, type OwnershipRecord } from "./ownership.js";

const golden = JSON.parse(
  readFileSync(new URL("../../../test/golden/ownership.json", import.meta.url), "utf8"),
) as readonly OwnershipRecord[];

describe("the ownership record", () => {
  it("reads and writes each golden record unchanged", () => {
    for (const record of golden) {
      const text = JSON.stringify(record);
      expect(encodeOwnership(decodeOwnership(text, "golden"))).toBe(`${JSON.stringify(record, null, 2)}\n`);
    }
  });

  it("lays logs out as the golden records say", () => {
    for (const record of golden) expect(processLogs("/state/logs", record.kind, record.processId)).toEqual(record.logs);
    expect(golden.map((record) => record.assignment && assignmentLogBase("/l", record.assignment))).toEqual([
      null,
      "/l/jobs/job_00000000000000aa/trainer-0-00000000000000bb-2",
      "/l/jobs/job_00000000000000aa/driver-1",
    ]);
  });

  const good = golden[1] as OwnershipRecord;
  it.each([
    ["half of a file", JSON.stringify(good).slice(0, 100), /not JSON/],
    ["another version", JSON.stringify({ ...good, version: 2 }), /version 2 is not known/],
    ["a missing field", JSON.stringify({ ...good, exitFile: undefined }), /exitFile/],
    ["a pid that is none", JSON.stringify({ ...good, identity: { ...good.identity, pid: -1 } }), /identity/],
    ["an assignment of no kind", JSON.stringify({ ...good, assignment: { kind: "actor" } }), /assignment/],
    ["no object", "[]", /not an object/],
  ])("refuses %s and names the place", (_name, text, message) => {
    const read = () => decodeOwnership(text, "/state/x/ownership.json");
    expect(read).toThrow(message);
    expect(read).toThrow(/\/state\/x\/ownership\.json/);
    try {
      read();
    } catch (error) {
      expect(SlimeError.is(error, "state.damaged")).toBe(true);
    }
  });
});
