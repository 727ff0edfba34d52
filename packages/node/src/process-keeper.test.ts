import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger, sleep, systemClock } from "@slime/core";
import { detectPlatform, type HowItDied } from "@slime/platform";
import { afterEach, expect, it } from "vitest";
import { processKeeper } from "./process-keeper.js";

const stateDir = mkdtempSync(join(tmpdir(), "slime-keeper-"));
afterEach(() => rmSync(stateDir, { recursive: true, force: true }));

it("a command whose shell goes at the first signal has the grace of the stop all the same, and is told once", async () => {
  const [script, told] = [join(stateDir, "driver.sh"), join(stateDir, "told")];
  // It needs longer to save than what is left behind by a driver that ended by itself is given.
  writeFileSync(
    script,
    `trap 'echo TERM >> ${told}; sleep 1.4; echo saved >> ${told}; exit 0' TERM\necho ready > ${told}\nwhile :; do sleep 0.05; done\n`,
  );
  let end: (how: HowItDied) => void = () => {};
  const ended = new Promise<HowItDied>((resolve) => (end = resolve));
  await using keeper = await processKeeper({
    stateDir,
    clusterId: "cluster_0000000000000001",
    nodeId: "node_0000000000000001",
    platform: detectPlatform(process.env),
    clock: systemClock,
    log: silentLogger,
    onEnded: (_record, how) => end(how),
  });
  const processId = "proc_0000000000000001";
  await keeper.launch({
    processId,
    kind: "driver",
    command: ["/bin/sh", "-c", `sh ${script}; true`],
    env: { PATH: process.env["PATH"] ?? "", SLIME_PROCESS_ID: processId },
    cwd: stateDir,
    assigned: null,
    onStarted: () => {},
  });
  const said = () => {
    try {
      return readFileSync(told, "utf8").trim().split("\n");
    } catch {
      return [];
    }
  };
  while (said().length === 0) await sleep(systemClock, 10);
  keeper.end(processId, 10_000, null);
  await ended;
  expect(said()).toEqual(["ready", "TERM", "saved"]);
}, 20_000);
