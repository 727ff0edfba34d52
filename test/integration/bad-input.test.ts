/**
 * What a user can get wrong gives one clear error that names place and fix, with the exit code of its class, and leaves nothing half-written.
 * Some of it is found before a cluster is asked, the rest as a job on a small one.
 */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { systemClock } from "@slime/core";
import { until } from "@slime/platform/testing";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { Cluster, type Ended, journal, repository, sortRun, trainedCount } from "./cluster.js";

// A slow machine is given time; what has a bound asserts it.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

const prompts = readFileSync(join(repository, "examples/sort/train.jsonl"), "utf8").split("\n").slice(0, 64);

let cluster: Cluster;

beforeAll(async () => {
  cluster = await Cluster.start([2]);
});

afterAll(async () => {
  await cluster?.[Symbol.asyncDispose]();
});

type Flags = Parameters<typeof sortRun>[2];

interface Tried extends Ended {
  /** Everything it said. */
  readonly said: string;
  readonly runDir: string;
}

/** The command of a run of this name. */
function commandOf(name: string, flags: Flags, runDir: string): readonly string[] {
  return ["train", "--config", sortRun(cluster.home, name, flags), "--run-dir", runDir];
}

/** `slime train` with no cluster at hand: what is wrong must be found before one is asked. */
async function withoutCluster(name: string, flags: Flags): Promise<Tried> {
  const runDir = join(cluster.home.path, name);
  const ended = await cluster.home.slime(...commandOf(name, flags, runDir));
  return { ...ended, said: ended.out + ended.err, runDir };
}

/** The same as a job of the cluster, to its end. */
async function asJob(name: string, flags: Flags, runDir = join(cluster.home.path, name)): Promise<Tried> {
  const ended = await cluster.home.slime(
    "job",
    "submit",
    "--address",
    cluster.httpAddress,
    "--",
    "slime",
    ...commandOf(name, flags, runDir),
  );
  return { ...ended, said: ended.out + ended.err, runDir };
}

/** A small file system of its own, or why there is none. */
function smallDisk(name: string, size: string): { readonly path: string; readonly problem: string | null } {
  const path = join(cluster.home.path, name);
  mkdirSync(path);
  const mounted = spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "tmpfs", path], { encoding: "utf8" });
  return {
    path,
    problem: mounted.status === 0 ? null : `no small file system can be mounted here: ${mounted.error?.message ?? mounted.stderr.trim()}`,
  };
}

/** Takes all the room there is. */
function fill(directory: string): string {
  const path = join(directory, "fill");
  for (const bytes of [1 << 16, 1 << 12, 1 << 9]) {
    for (let full = false; !full; ) {
      try {
        writeFileSync(path, Buffer.alloc(bytes), { flag: "a" });
      } catch {
        full = true;
      }
    }
  }
  return path;
}

describe("found before a cluster is asked", () => {
  it("malformed lines: all of them, each with its place", async () => {
    const data = cluster.home.file(
      "malformed.jsonl",
      [...prompts.slice(0, 4), '{"prompt": "x", ', '{"prompt": 5, "label": "1"}', '{"label": "1"}', "", prompts[5]].join("\n"),
    );
    const { code, err, runDir } = await withoutCluster("malformed", { "prompt-data": data });
    expect(code).toBe(65);
    expect(err).toMatch(/data\.invalid\] 3 problems/);
    expect(err).toContain(`${data}:5: is not JSON`);
    expect(err).toContain("mend or remove the line");
    expect(err).toContain(`${data}:6: "prompt" must be text or a list of chat messages`);
    expect(err).toContain(`${data}:7: has no "prompt"`);
    expect(existsSync(runDir)).toBe(false);
  });

  it("a missing file: the flag that wants it, and the path", async () => {
    const { code, err, runDir } = await withoutCluster("missing", { "prompt-data": "no/such.jsonl" });
    expect(code).toBe(66);
    expect(err).toMatch(/\[file\.missing\] --prompt-data: no\/such\.jsonl does not exist/);
    expect(err.trim().split("\n")).toHaveLength(1);
    expect(existsSync(runDir)).toBe(false);
  });

  it("a missing configuration: itself, not the flags that it would have given", async () => {
    const { code, err } = await cluster.home.slime("train", "--config", "no/such.yaml");
    expect(code).toBe(66);
    expect(err).toMatch(/\[file\.missing\] --config: cannot read no\/such\.yaml/);
    expect(err.trim().split("\n")).toHaveLength(1);
  });

  it("an unequal batch equation: both sides in numbers, and what would fit", async () => {
    const { code, err, runDir } = await withoutCluster("batch", { "global-batch-size": 30 });
    expect(code).toBe(78);
    expect(err).toMatch(
      /\[config\.invalid\] the batch equation does not hold: .* 8 × 4 = 32 is not a multiple of --global-batch-size 30; nearest that fit: 32, 16, 8/,
    );
    expect(existsSync(runDir)).toBe(false);
  });

  it("a prompt of 10 MB: its line, its size and the limit", async () => {
    const data = cluster.home.file(
      "large.jsonl",
      `${prompts.slice(0, 3).join("\n")}\n${JSON.stringify({ prompt: "1".repeat(10_000_000), label: "1" })}\n`,
    );
    const { code, err, runDir } = await withoutCluster("large", { "prompt-data": data });
    expect(code).toBe(65);
    expect(err).toMatch(
      /large\.jsonl:4: the line has 10000025 bytes, more than lineBytesMax \(4194304\): shorten its prompt or remove the line/,
    );
    expect(err.length).toBeLessThan(1_000);
    expect(existsSync(runDir)).toBe(false);
  });
});

describe("found by a job", () => {
  it("more GPUs than the cluster has: at once, with the numbers", async () => {
    const startMs = systemClock.nowMs();
    const { code, said, runDir } = await asJob("gpus", { "actor-num-gpus-per-node": 4, "rollout-num-gpus": 4 });
    expect(code).toBe(78);
    expect(said).toMatch(/\[placement\.infeasible\].*GPU: 8 wanted, the cluster has 2 in all/);
    expect(systemClock.nowMs() - startMs).toBeLessThan(15_000);
    expect(existsSync(runDir)).toBe(false);
    expect((await cluster.nodes()).flatMap((node) => node.gpus.map((gpu) => gpu.held))).toEqual([0, 0]);
  });

  it("a reward that is NaN: failures are named, never a zero, and past the bound the run stops", async () => {
    const reward = cluster.home.file("nan.mjs", "export const reward = () => Number.NaN;\n");
    const { code, said, runDir } = await asJob("nan-reward", { "custom-rm-path": reward, "reward-key": "null" });
    expect(code).toBe(70);
    expect(said).toMatch(/the reward of sample \d+ of prompt 0:\d+ failed: it returned NaN/);
    expect(said).toMatch(/\[reward\.failed\] \d+ of \d+ prompts failed, more than --failed-prompts-max allows/);
    expect(trainedCount(runDir)).toBe(0);
    expect(existsSync(join(runDir, "checkpoints"))).toBe(false);
  });

  it("numbers that overflow in training: the step is not applied, the run stops and says which", async () => {
    const { code, said, runDir } = await asJob("nan-training", { lr: "1.0e30", "num-rollout": 4 });
    expect(code).toBe(70);
    expect(said).toMatch(/\[trainer\.numeric\] .* of step \d+ is (NaN|Infinity|not finite).*the step was not applied.*lower --lr/);
    const trained = trainedCount(runDir);
    expect(trained).toBeLessThan(4);
    expect(journal(runDir).filter((event) => event.kind === "trainer.lost")).toEqual([]);
  });

  it("one run directory, two drivers: the second is refused and told by whom; the first goes on", async () => {
    const flags = { "num-rollout": 10_000 };
    const runDir = join(cluster.home.path, "shared");
    const first = await cluster.submit("shared-1", ["slime", ...commandOf("shared", flags, runDir)]);
    await until("a trained rollout", () => trainedCount(runDir) > 0, 30_000);
    const driver = Number((await cluster.job(first.job_id)).driver_info?.pid);
    const second = await asJob("shared-again", flags, runDir);
    expect(second.code).toBe(69);
    expect(second.said).toMatch(/\[state\.locked\] .*shared is in use by process \d+ on .*: stop that run first/);
    const before = trainedCount(runDir);
    await until("one more trained rollout", () => trainedCount(runDir) > before, 30_000);
    expect(await cluster.job("shared-1")).toMatchObject({ state: "RUNNING", driver_info: { pid: String(driver) } });

    // The same submission again is the same job; another one under its name is a conflict.
    const again = await cluster.submit("shared-1", ["slime", ...commandOf("shared", flags, runDir)]);
    expect(again.job_id).toBe(first.job_id);
    const other = await cluster.home.slime(
      "job",
      "submit",
      "--address",
      cluster.httpAddress,
      "--no-wait",
      "--submission-id",
      "shared-1",
      "--",
      "echo",
      "other",
    );
    expect(other.code).toBe(73);
    expect(other.err).toMatch(/\[conflict\].*shared-1/);
    expect(await cluster.home.slime("job", "stop", "shared-1", "--address", cluster.httpAddress)).toMatchObject({ code: 0 });
    expect((await cluster.get<readonly unknown[]>("/api/jobs")).length).toBeGreaterThan(0);
  });
});

describe("a full disk", () => {
  it("under the run directory: the run stops at the checkpoint, leaves no half of one, and the same command resumes when there is room", async (test) => {
    const disk = smallDisk("run-disk", "900k");
    if (disk.problem !== null) test.skip(disk.problem);
    try {
      const runDir = join(disk.path, "run");
      const flags = { "num-rollout": 3, "save-interval": 3, "no-save-samples": true };
      const { code, said } = await asJob("full-run", flags, runDir);
      expect(said).toMatch(/\[disk\.full\] .*run-disk.*free/);
      expect(code).toBe(74);
      expect(
        existsSync(join(runDir, "checkpoints")) ? readdirSync(join(runDir, "checkpoints")).filter((name) => name.startsWith("step-")) : [],
      ).toEqual([]);
      expect(spawnSync("mount", ["-o", "remount,size=16m", disk.path]).status).toBe(0);
      const resumed = await asJob("full-run", flags, runDir);
      expect(resumed, resumed.said).toMatchObject({ code: 0 });
      expect(await cluster.home.slime("audit", runDir)).toMatchObject({ code: 0 });
    } finally {
      spawnSync("umount", ["-l", disk.path]);
    }
  });

  it("under the head's state: what cannot be kept is refused, the head goes on reading, and its next life writes again", async (test) => {
    const disk = smallDisk("head-disk", "2m");
    if (disk.problem !== null) test.skip(disk.problem);
    const stateDir = join(disk.path, "head");
    try {
      await using full = await Cluster.start([], stateDir);
      const submit = (id: string) =>
        full.home.slime(
          "job",
          "submit",
          "--address",
          full.httpAddress,
          "--no-wait",
          "--submission-id",
          id,
          "--",
          "echo",
          "hi",
          ..."x".repeat(30_000).split("!"),
        );
      expect(await submit("before")).toMatchObject({ code: 0 });
      const filler = fill(disk.path);
      const refused = await submit("refused");
      expect(refused.err).toMatch(/\[disk\.full\] .*head-disk.*free/);
      expect(refused.code).toBe(74);
      expect((await full.status()).read_only).toMatch(/full|space/);
      expect((await full.get<readonly { readonly submission_id: string }[]>("/api/jobs")).map((job) => job.submission_id)).toEqual([
        "before",
      ]);
      rmSync(filler);
      await full.killHead();
      await full.restartHead();
      expect(await submit("after")).toMatchObject({ code: 0 });
      expect((await full.get<readonly { readonly submission_id: string }[]>("/api/jobs")).map((job) => job.submission_id)).toEqual([
        "before",
        "after",
      ]);

      // A head that cannot even start says so, and leaves nothing behind.
      const other = join(disk.path, "other");
      fill(disk.path);
      const { code, err } = await full.home.run("slime-head", ["start", "--port", "0", "--http-port", "0", "--state-dir", other]);
      expect(code).toBe(74);
      expect(err).toMatch(/\[disk\.full\] .*head-disk.*choose another place with --state-dir/);
      expect(existsSync(other) ? readdirSync(other) : []).toEqual([]);
    } finally {
      spawnSync("umount", ["-l", disk.path]);
    }
  });
});
