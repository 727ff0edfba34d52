/** `slime audit` on copies of a finished run in which one record was changed: each change is found and named, by its kind and its prompt. */
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Cluster, sortRun } from "./cluster.js";

// A slow machine is given time; what has a bound asserts it.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

interface Step {
  readonly step: number;
  readonly rolloutId: number;
  readonly instances: (readonly [id: string, samples: number])[];
}

let cluster: Cluster;
let finished: string;

beforeAll(async () => {
  cluster = await Cluster.start([2]);
  finished = join(cluster.home.path, "finished");
  const config = sortRun(cluster.home, "audited", { "num-rollout": 3, "save-interval": 1 });
  const run = await cluster.home.slime(
    "job",
    "submit",
    "--address",
    cluster.httpAddress,
    "--",
    "slime",
    "train",
    "--config",
    config,
    "--run-dir",
    finished,
  );
  expect(run, run.err).toMatchObject({ code: 0 });
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

/** A copy of the run to spoil. */
function copy(name: string): { readonly root: string; readonly applied: string; readonly ledger: string } {
  const root = join(cluster.home.path, name);
  cpSync(finished, root, { recursive: true });
  return { root, applied: join(root, "checkpoints/step-0000003/applied-00000.jsonl"), ledger: join(root, "ledger.jsonl") };
}

const lines = (path: string): string[] => readFileSync(path, "utf8").trimEnd().split("\n");

/** Changes what the trainer wrote down. */
function editApplied(path: string, edit: (steps: Step[]) => void): void {
  const steps = lines(path).map((line) => JSON.parse(line) as Step);
  edit(steps);
  writeFileSync(path, `${steps.map((step) => JSON.stringify(step)).join("\n")}\n`);
}

/** Changes what the ledger wrote down, with checksums that fit: as wrong code would, not as a broken disk. */
function editLedger(path: string, edit: (record: Record<string, unknown> & { ids?: string[] }) => void): void {
  const edited = lines(path).map((line) => {
    const { crc: _, ...record } = JSON.parse(line) as Record<string, unknown>;
    edit(record);
    const rest = JSON.stringify(record).slice(1);
    return `{"crc":"${crc32(rest).toString(16).padStart(8, "0")}",${rest}`;
  });
  writeFileSync(path, `${edited.join("\n")}\n`);
}

const idAt = (path: string, step: number, at: number): string => {
  const applied = lines(path).map((line) => JSON.parse(line) as Step);
  return applied[step]?.instances[at]?.[0] ?? "";
};

describe("slime audit", () => {
  it("finds nothing in the run as it was", async () => {
    const { code, out } = await cluster.home.slime("audit", finished);
    expect(out).toMatch(/left the data\s+24\n\s+trained\s+24/);
    expect(out).toMatch(/no prompt lost, none trained twice/);
    expect(code).toBe(0);
  });

  it("names a loss: the trainer never applied what the ledger calls consumed", async () => {
    const { root, applied } = copy("loss-trainer");
    const id = idAt(applied, 1, 3);
    editApplied(applied, (steps) => void steps[1]?.instances.splice(3, 1));
    const { code, out, err } = await cluster.home.slime("audit", root);
    expect(code).toBe(1);
    expect(out).toContain(`LOST: ${id} `);
    expect(err).toContain("audit.failed");
  });

  it("names a loss: the ledger never heard of what left the data", async () => {
    const { root, applied, ledger } = copy("loss-ledger");
    const id = idAt(applied, 2, 0);
    editLedger(ledger, (record) => {
      if (record.ids !== undefined) record.ids = record.ids.filter((each) => each !== id);
    });
    const { code, out } = await cluster.home.slime("audit", root);
    expect(code).toBe(1);
    expect(out).toContain(`LOST: ${id} `);
  });

  it("names a duplicate: one prompt in two rollouts, and one with more samples than its group has", async () => {
    const { root, applied } = copy("duplicate");
    const [twice, more] = [idAt(applied, 0, 2), idAt(applied, 1, 0)];
    editApplied(applied, (steps) => {
      steps[2]?.instances.push([twice, 4]);
      steps[1]?.instances.push([more, 4]);
    });
    const { code, out } = await cluster.home.slime("audit", root);
    expect(code).toBe(1);
    expect(out).toMatch(new RegExp(`DUPLICATE: ${twice} was trained 2 times: in rollouts 0 and 2`));
    expect(out).toMatch(new RegExp(`DUPLICATE: ${more} was trained with 8 samples`));
  });

  it("names a swapped id: the trainer applied another prompt than the ledger says", async () => {
    const { root, applied } = copy("swapped");
    const id = idAt(applied, 1, 5);
    editApplied(applied, (steps) => {
      const instances = steps[1]?.instances;
      if (instances !== undefined) instances[5] = ["0:999999", 4];
    });
    const { code, out } = await cluster.home.slime("audit", root);
    expect(code).toBe(1);
    expect(out).toContain(`SWAPPED: in rollout 1 the ledger says ${id} was trained, the trainer says 0:999999`);
  });

  it("names both ids that two rollouts exchanged", async () => {
    const { root, applied } = copy("exchanged");
    const [one, other] = [idAt(applied, 0, 0), idAt(applied, 2, 7)];
    editApplied(applied, (steps) => {
      const [first, , third] = steps;
      if (first !== undefined) first.instances[0] = [other, 4];
      if (third !== undefined) third.instances[7] = [one, 4];
    });
    const { code, out } = await cluster.home.slime("audit", root);
    expect(code).toBe(1);
    expect(out).toContain(`SWAPPED: ${one} was consumed by rollout 0 says the ledger, by 2 says the trainer`);
    expect(out).toContain(`SWAPPED: ${other} was consumed by rollout 2 says the ledger, by 0 says the trainer`);
  });

  it("a ledger changed without its checksum is damaged, and says where", async () => {
    const { root, ledger } = copy("damaged");
    writeFileSync(
      ledger,
      lines(ledger)
        .map((line, at) => (at === 2 ? line.replace('"issue"', '"issve"').replace('"finish"', '"finisk"') : line))
        .join("\n")
        .concat("\n"),
    );
    const { code, err } = await cluster.home.slime("audit", root);
    expect(code).toBe(74);
    expect(err).toMatch(/state\.damaged.*ledger\.jsonl.*line 3/s);
  });
});
