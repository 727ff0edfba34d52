import { spawn } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { silentLogger, sleep, systemClock } from "@slime/core";
import { detectPlatform, exists, signal } from "@slime/platform";
import { until } from "@slime/platform/testing";
import { probe, type ServerRequest, type ServerSpec, serverArgTable, serverSpec, startServer, watchHealth } from "@slime/sglang";
import { freePort } from "@slime/sglang/testing";
import { describe, expect, it } from "vitest";
import { realEnv } from "./real-env.js";
import { logFolder } from "./real-server.js";

const logs = logFolder();
const { python, env, args, models } = realEnv();
const clock = systemClock;
const { processes } = detectPlatform();
const testMsMax = 240_000;

/** A spec made as a run makes it. `skip_server_warmup` is the run's own to decide. */
async function specOf(change: { readonly modelPath?: string; readonly overrides?: ServerRequest["overrides"] } = {}): Promise<ServerSpec> {
  const { skip_server_warmup: _, ...passThrough } = args;
  const request: ServerRequest = {
    python,
    modelPath: change.modelPath ?? models.tinyQwen3,
    env,
    passThrough,
    overrides: change.overrides ?? {},
    run: { seed: 1, gpusPerNode: 1, fp16: false, trustRemoteCode: false, returnRoutedExperts: false },
    engine: { role: "regular", rank: 0, gpus: 1, offload: false, frozen: false, encoderUrls: [] },
    node: { rank: 0, count: 1, gpuUuids: [], host: "127.0.0.1" },
    ports: { http: await freePort(), nccl: await freePort(), bootstrap: null, distInit: null },
  };
  return serverSpec(request, { table: await serverArgTable(python, { env: process.env }) });
}
const partsOf = (name: string) => ({ clock, log: silentLogger, logFile: join(logs, `${name}.log`), inherited: process.env });

/** Living processes of a server that call themselves so. */
async function membersOf(pid: number): Promise<ReadonlyMap<string, number>> {
  const all = await processes.list();
  const family = [pid];
  for (let at = 0; at < family.length; at++) for (const entry of all) if (entry.parentPid === family[at]) family.push(entry.pid);
  const found = new Map<string, number>();
  for (const member of family) found.set(((await processes.commandLine(member)) ?? "").split(" ")[0] ?? "", member);
  return found;
}

describe("the life of a real server", () => {
  it(
    "shows its start, is judged while it hangs and when it goes on, and ends with its scheduler",
    async () => {
      const phases: string[] = [];
      await using server = await startServer(await specOf(), { ...partsOf("life"), onPhase: (phase) => void phases.push(phase) });
      expect(phases).toEqual(expect.arrayContaining(["starting", "loading weights", "weights loaded", "ready"]));
      const members = await membersOf(server.pid);
      const scheduler = members.get("sglang::scheduler") ?? 0;
      expect([...members.keys()]).toEqual(expect.arrayContaining(["sglang::scheduler", "sglang::detokenizer"]));

      const seen: { readonly kind: string; readonly atMs: number }[] = [];
      using health = watchHealth({
        clock,
        probe: (until) => probe(server.url, "/health_generate", { clock, timeoutMs: 20_000, signal: until }),
        exited: server.exited,
        onVerdict: ({ kind }) => void seen.push({ kind, atMs: clock.nowMs() }),
      });
      await sleep(clock, 6_000);
      expect(health.verdict().kind).toBe("healthy");
      const stoppedAtMs = clock.nowMs();
      signal(scheduler, "SIGSTOP");
      await until("the suspicion", () => seen.some(({ kind }) => kind === "suspect"), 15_000);
      expect((seen[0]?.atMs ?? 0) - stoppedAtMs).toBeLessThan(10_000);
      signal(scheduler, "SIGCONT");
      await until("its recovery", () => seen.at(-1)?.kind === "healthy", 10_000);

      const killedAtMs = clock.nowMs();
      signal(scheduler, "SIGKILL");
      const { reason } = await server.exited;
      expect(reason).toContain(`its process sglang::scheduler (pid ${scheduler}) ended`);
      expect(clock.nowMs() - killedAtMs).toBeLessThan(2_000);
      expect([...members.values()].filter(exists)).toEqual([]);
      await until("the verdict", () => seen.at(-1)?.kind === "dead");
    },
    testMsMax,
  );

  it(
    "ends with its owner, who is killed",
    async () => {
      const entry = pathToFileURL(join(import.meta.dirname, "../../packages/sglang/dist/index.js")).href;
      const core = pathToFileURL(join(import.meta.dirname, "../../packages/core/dist/index.js")).href;
      const script = `import { startServer } from ${JSON.stringify(entry)}; import { silentLogger, systemClock } from ${JSON.stringify(core)};
        const server = await startServer(${JSON.stringify(await specOf())}, { clock: systemClock, log: silentLogger, logFile: ${JSON.stringify(join(logs, "owner.log"))}, inherited: process.env });
        process.stdout.write(server.pid + "\\n");`;
      const owner = spawn(process.execPath, ["--input-type=module", "-e", script], { stdio: ["ignore", "pipe", "inherit"] });
      let said = "";
      owner.stdout.on("data", (chunk: Buffer) => (said += chunk.toString()));
      const pid = await until("the server", () => Number(said) || null, testMsMax);
      const members = [...(await membersOf(pid)).values()];
      expect(members.length).toBeGreaterThanOrEqual(3);
      owner.kill("SIGKILL");
      await until("the end of all", () => !members.some(exists), 5_000);
    },
    testMsMax,
  );
});

describe("a real server that cannot start", () => {
  it.each([
    ["no such model", { modelPath: "/no/such/model" }, /\/no\/such\/model is (?:not a model|no local folder)/],
    ["a value it does not take", { overrides: { dtype: "float8" } }, /does not take this value of --dtype/],
  ])(
    "%s",
    async (name, change, words) => {
      const starting = startServer(await specOf(change), partsOf(name.replaceAll(" ", "-")));
      await expect(starting).rejects.toMatchObject({ code: "config.invalid" });
      await expect(starting).rejects.toThrow(words);
    },
    testMsMax,
  );
});
