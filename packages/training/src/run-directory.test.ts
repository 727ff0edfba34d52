/** A run on real files: what is written, that it is found again, and that the audit of the directory sees what was planted. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type Clock, SlimeError, seededRandom, silentLogger, systemClock } from "@slime/core";
import { openJsonlSource, openLogFile, openRecordLog } from "@slime/data";
import { resolveConfig } from "@slime/rl-config";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type AppliedStep, readApplied } from "./applied-record.js";
import { auditRun } from "./audit.js";
import { type OpenedRun, openRun } from "./open-run.js";
import type { RunPorts } from "./ports.js";
import { fileStorage, lockRun, readCheckpoints, runPaths, verifyFiles } from "./run-directory.js";
import { findRun, listRuns } from "./run-list.js";
import { runLoop } from "./run-shell.js";
import type { RunSummary } from "./run-summary.js";
import { readSamples } from "./samples.js";
import { SimDisk, SimWorld, simDefaults } from "./testing/index.js";

const golden = (name: string) => fileURLToPath(new URL(`../../../test/golden/run/${name}`, import.meta.url));
const owner = { pid: 1, host: "here", birth: "b1", isAlive: async () => false };
let root = "";

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "slime-run-"));
  await mkdir(join(root, "model"));
  await writeFile(
    join(root, "data.jsonl"),
    Array.from({ length: 8 }, (_, i) => `${JSON.stringify({ prompt: `${i}=`, label: String(i) })}\n`).join(""),
  );
});
afterEach(() => rm(root, { recursive: true, force: true }));

const configOf = (words = "") =>
  resolveConfig({
    mode: "sync",
    argv: `--hf-checkpoint model --prompt-data data.jsonl --num-rollout 4 --rollout-batch-size 2 --n-samples-per-prompt 2 --rollout-max-response-len 4 --rm-type exact_match --actor-num-gpus-per-node 1 --save-interval 2 ${words}`
      .trim()
      .split(" "),
    env: {},
    readFile: () => "",
    paths: { kind: (path) => (path.endsWith(".jsonl") ? "file" : "directory") },
  }).config;

const sourceOf = async () =>
  (
    await openJsonlSource({
      path: join(root, "data.jsonl"),
      wanted: "--prompt-data",
      applyChatTemplate: false,
      codec: null,
      promptTokensMax: null,
      shuffle: true,
      seed: 42,
    })
  ).source;

/** A frozen wall clock, so that the golden files are the same on every day. */
const frozen = (clock: Clock): Clock => ({ ...clock, wallMs: () => 1_700_000_000_000 });

/** One attempt on real files; everything but files is simulated. */
async function attempt(words = "", change: (run: OpenedRun, ports: RunPorts) => void = () => {}): Promise<RunSummary> {
  const sim = new SimWorld(new SimDisk(), { ...simDefaults });
  const clock = frozen(sim.clock);
  const source = await sourceOf();
  const opened = openRun({
    config: configOf(words),
    root: join(root, "outputs", "r1"),
    runId: "r1",
    prompts: source.size,
    owner,
    clock,
    log: silentLogger,
  });
  opened.catch(() => source.close());
  const run = await opened;
  const simulated = await sim.ports();
  const trainer: RunPorts["trainer"] = {
    ...simulated.trainer,
    start: async (op, { checkpoint }) => {
      const info = await simulated.trainer.start(op, { checkpoint: null });
      sim.applied = checkpoint === null ? [] : [...(await readApplied(checkpoint))];
      sim.step = sim.applied.at(-1)?.step ?? 0;
      return { ...info, step: sim.step };
    },
    save: async (_op, { directory }) => {
      await writeFile(join(directory, "applied-00000.jsonl"), sim.applied.map((step) => `${JSON.stringify(step)}\n`).join(""));
      await mkdir(join(directory, "model"));
      await writeFile(join(directory, "model", "config.json"), "{}\n");
      return { files: ["applied-00000.jsonl", "model"] };
    },
  };
  const ports: RunPorts = {
    ...simulated,
    source,
    ledger: run.ledger,
    storage: run.storage,
    metrics: run.metrics,
    spans: run.spans,
    trainer,
    clock,
  };
  try {
    change(run, ports);
    const work = runLoop(ports, run.settings, { random: seededRandom(1), load: run.load, verify: run.verify });
    work.catch(() => {});
    let over = false;
    const end = () => {
      over = true;
    };
    work.then(end, end);
    // Small steps: files take real time, and the watchdog must not run away meanwhile.
    while (!over) await sim.clock.run(1);
    return await work;
  } finally {
    await run[Symbol.asyncDispose]();
    await source.close();
  }
}

const audit = async () => auditRun({ paths: runPaths(join(root, "outputs", "r1")), openSource: sourceOf, samplesPerGroup: 2 });

/** Lines of JSON without what hangs on the machine's speed. */
const withoutTimes = (text: string) =>
  text
    .split("\n")
    .map((line) => line.replaceAll(/"(perf\/[^"]+)":[-\d.e]+/g, '"$1":0'))
    .join("\n");

describe("a run directory", () => {
  it("has the files the README names, in their golden form", async () => {
    const summary = await attempt();
    const at = (name: string) => join(root, "outputs", "r1", name);
    expect(summary).toMatchObject({ runId: "r1", attempt: 1, rollouts: 4, step: 4, checkpoint: at("checkpoints/step-0000004") });
    expect(readdirSync(at("")).sort()).toEqual([
      "checkpoints",
      "journal.jsonl",
      "ledger.jsonl",
      "metrics.jsonl",
      "run.json",
      "spans.jsonl",
    ]);
    expect(await readdir(at("checkpoints"))).toEqual(["step-0000002", "step-0000004"]);
    expect((await readdir(at("checkpoints/step-0000004"), { recursive: true })).sort()).toEqual([
      "applied-00000.jsonl",
      "manifest.json",
      "model",
      "model/config.json",
    ]);
    for (const name of ["run.json", "journal.jsonl", "ledger.jsonl"])
      await expect(readFileSync(at(name), "utf8")).toMatchFileSnapshot(golden(name));
    await expect(readFileSync(at("checkpoints/step-0000004/manifest.json"), "utf8")).toMatchFileSnapshot(golden("manifest.json"));
    await expect(withoutTimes(readFileSync(at("metrics.jsonl"), "utf8"))).toMatchFileSnapshot(golden("metrics.jsonl"));
  });

  it("is resumed by the same command, and its audit is clean", async () => {
    await attempt();
    const summary = await attempt("--save-keep 1");
    expect(summary).toMatchObject({ attempt: 2, rollouts: 4, step: 4 });
    expect(await audit()).toMatchObject({ checkpoint: "step-0000004", trained: 4, issued: 8, consumed: 8, pending: 0, findings: [] });
    const [view] = await listRuns(join(root, "outputs"), owner);
    expect(view).toMatchObject({ runId: "r1", trained: 4, rollouts: 4, attempts: 2, state: "finished", checkpoint: "step-0000004" });
  });

  it("tells a run that is driven from one whose driver was killed or stopped", async () => {
    await attempt();
    const stateOf = async (isAlive: boolean, host = "here") =>
      (await listRuns(join(root, "outputs"), { host, isAlive: async () => isAlive }))[0]?.state;
    const { lock, runJson } = runPaths(join(root, "outputs/r1"));
    await writeFile(runJson, (await readFile(runJson, "utf8")).replaceAll('"rollouts": 4', '"rollouts": 8'));
    expect(await stateOf(true)).toBe("stopped");
    await writeFile(lock, JSON.stringify({ pid: 10, host: "here", birth: "b" }));
    expect([await stateOf(true), await stateOf(false), await stateOf(false, "there")]).toEqual(["running", "killed", "held"]);
  });

  it("the audit names what is planted in the trainer's record and in the ledger", async () => {
    await attempt();
    const path = join(root, "outputs/r1/checkpoints/step-0000004/applied-00000.jsonl");
    const steps = (await readFile(path, "utf8"))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as AppliedStep);
    const write = (changed: readonly AppliedStep[]) => writeFile(path, changed.map((step) => `${JSON.stringify(step)}\n`).join(""));
    const [first, second] = [steps[0]?.instances ?? [], steps[1]?.instances ?? []];
    const id = (of: AppliedStep["instances"], at: number) => of[at]?.[0] ?? "";

    await write(steps.map((step, at) => (at === 0 ? { ...step, instances: first.slice(1) } : step)));
    expect((await audit()).findings).toMatchObject([
      { kind: "lost", instanceId: id(first, 0) },
      { kind: "lost", instanceId: id(first, 0) },
    ]);
    await write(steps.map((step, at) => (at === 1 ? { ...step, instances: [...second, [id(first, 0), 2]] } : step)));
    expect((await audit()).findings).toMatchObject([{ kind: "duplicate", instanceId: id(first, 0) }]);
    await write(steps.map((step, at) => (at === 3 ? { ...step, instances: [["9:9", 2], ...step.instances.slice(1)] } : step)));
    expect((await audit()).findings).toMatchObject([{ kind: "swapped", instanceId: id(steps[3]?.instances ?? [], 0) }]);
  });

  it("a damaged newest checkpoint is passed over for the one before it", async () => {
    await attempt();
    await writeFile(join(root, "outputs/r1/checkpoints/step-0000004/model/config.json"), "{ }");
    expect(await attempt()).toMatchObject({ attempt: 2, rollouts: 4, step: 4 });
    expect((await audit()).findings).toEqual([]);
  });

  it("a journal of another reducer is put aside, and the run goes on from its checkpoint", async () => {
    await attempt();
    const path = join(root, "outputs/r1/journal.jsonl");
    await rm(path);
    const { log } = await openRecordLog(await openLogFile(path), { format: "slime.journal", version: 1 });
    await log.append({ at: 0, reducer: 99, event: { kind: "attempt.started" } });
    await log.close();
    expect(await attempt()).toMatchObject({ rollouts: 4, step: 4 });
    expect(readdirSync(join(root, "outputs/r1"))).toContain("journal.unreadable-1.jsonl");
  });

  it("refuses another configuration's data, and says all of it", async () => {
    await attempt();
    await expect(attempt("--rollout-seed 7 --rollout-shuffle")).rejects.toMatchObject({
      code: "config.invalid",
      details: { issues: [expect.stringContaining("rolloutShuffle was false"), expect.stringContaining("rolloutSeed was 42")] },
    });
  });

  it("begins from another run's checkpoint with --load", async () => {
    await attempt();
    await rename(join(root, "outputs/r1"), join(root, "elsewhere"));
    const summary = await attempt(`--load ${join(root, "elsewhere")}`);
    expect(summary).toMatchObject({ attempt: 1, rollouts: 4, step: 4, checkpoint: join(root, "elsewhere/checkpoints/step-0000004") });
    await expect(attempt(`--load ${join(root, "model")}`)).rejects.toMatchObject({ code: "not_found" });
  });

  it("is found by path or name, or the runs there are get named", async () => {
    await attempt();
    expect(await findRun("r1", join(root, "outputs"))).toBe(join(root, "outputs/r1"));
    await expect(findRun("r2", join(root, "outputs"))).rejects.toThrow(/there are: r1/);
  });
});

describe("checkpoints on disk", () => {
  it("R1: exist whole or not at all", async () => {
    const paths = runPaths(root);
    const storage = fileStorage(paths);
    const { directory } = await storage.stage("step-0000001");
    await writeFile(join(directory, "weights"), "abc");
    expect(await readCheckpoints(paths.checkpoints)).toEqual([]);
    const files = await storage.staged("step-0000001");
    expect(files).toEqual([{ path: "weights", bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" }]);
    const stored = await storage.commit("step-0000001", "m");
    await expect(verifyFiles(stored.directory, files)).resolves.toBeUndefined();
    await writeFile(join(stored.directory, "weights"), "abd");
    await expect(verifyFiles(stored.directory, files)).rejects.toThrow(/does not match its digest/);
    await storage.remove("step-0000001");
    expect(await readdir(paths.checkpoints)).toEqual([]);
  });

  it("a run that never began leaves nothing; one with a journal keeps all", async () => {
    const at = join(root, "outputs", "r2");
    const open = async () =>
      openRun({ config: configOf(), root: at, runId: "r2", prompts: 64, owner, clock: systemClock, log: silentLogger });
    await (await open())[Symbol.asyncDispose]();
    expect(existsSync(join(root, "outputs"))).toBe(false);
    const run = await open();
    await (await run.storage.openJournal()).close();
    await run[Symbol.asyncDispose]();
    expect((await readdir(at)).sort()).toEqual(["journal.jsonl", "ledger.jsonl", "run.json"]);
  });

  it("R2: a run directory has one living owner", async () => {
    const paths = runPaths(root);
    const living =
      (...births: readonly string[]) =>
      async (held: { readonly birth: string }) =>
        births.includes(held.birth);
    const mine = { pid: 10, host: "here", birth: "b1", isAlive: living("b1") };
    const lock = await lockRun(paths, mine);
    await expect(lockRun(paths, { ...mine, pid: 11, birth: "b2" })).rejects.toMatchObject({ code: "state.locked", details: { pid: 10 } });
    await expect(lockRun(paths, { pid: 12, host: "there", birth: "b3", isAlive: living() })).rejects.toMatchObject({
      code: "state.locked",
    });
    // The owner died; its pid may be another process's by now.
    const after = await lockRun(paths, { pid: 10, host: "here", birth: "b4", isAlive: living("b4") });
    await after[Symbol.asyncDispose]();
    await lock[Symbol.asyncDispose]();
  });
});

describe("samples", () => {
  const record = (index: number, reward: number) => ({
    rolloutId: 3,
    index,
    groupIndex: 0,
    instanceId: `0:${index}`,
    prompt: "p",
    response: "r",
    label: null,
    reward,
    rewards: null,
    status: "completed",
    responseLength: index,
    weightVersions: [1],
    failure: null,
  });

  it("of the newest era, each once, in the order asked for", async () => {
    const directory = join(root, "samples/rollout-0000003");
    await mkdir(directory, { recursive: true });
    await writeFile(join(directory, "run.e1.rollout.3_w0-0.jsonl"), `${JSON.stringify(record(0, 9))}\n`);
    await writeFile(join(directory, "run.e2.rollout.3_w0-0.jsonl"), `${JSON.stringify(record(0, 0))}\n${JSON.stringify(record(1, 1))}\n`);
    await writeFile(join(directory, "run.e2.rollout.3_w0-1.jsonl"), `${JSON.stringify(record(2, 0.5))}\n{"torn`);
    const read = async (sort: "reward" | "length" | "index") =>
      (await readSamples(join(root, "samples"), "rollout", 3, sort)).map(({ index }) => index);
    expect([await read("reward"), await read("length"), await read("index")]).toEqual([
      [1, 2, 0],
      [2, 1, 0],
      [0, 1, 2],
    ]);
    const error: unknown = await readSamples(join(root, "samples"), "rollout", 4, "index").catch((reason: unknown) => reason);
    expect(SlimeError.is(error, "not_found") && error.message).toContain("it has rollout-0000003 to rollout-0000003");
    expect(await readSamples(join(root, "samples"), "rollout", null, "index")).toHaveLength(3);
    await expect(readSamples(join(root, "samples"), "eval", null, "index")).rejects.toThrow(/it has none at all/);
  });
});
