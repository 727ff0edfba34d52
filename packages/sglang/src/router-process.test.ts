import { createServer } from "node:http";
import { join } from "node:path";
import { silentLogger, systemClock } from "@slime/core";
import { temporaryDirectory } from "@slime/platform/testing";
import { describe, expect, it } from "vitest";
import { type SglangRouterOptions, startSglangRouter } from "./router-process.js";
import { freePort } from "./testing/free-port.js";

const parts = (root: string) => ({
  clock: systemClock,
  log: silentLogger,
  logFile: join(root, "router.log"),
  table: null,
  inherited: { PATH: process.env["PATH"] },
});
const options = async (more: Partial<SglangRouterOptions> = {}): Promise<SglangRouterOptions> => ({
  python: "python3",
  env: {},
  host: "127.0.0.1",
  port: await freePort(),
  metricsPort: await freePort(),
  policy: "round_robin",
  pd: false,
  requestTimeoutSecs: 60,
  passThrough: {},
  ...more,
});

describe("an sglang_router that cannot start", () => {
  it("says which Python has none", async () => {
    await using root = await temporaryDirectory();
    const starting = startSglangRouter(await options({ env: { PYTHONPATH: "/nowhere" } }), parts(root.path));
    await expect(starting).rejects.toThrow(/python3 has no sglang_router.*--sglang-python/);
  });

  it("names a port that is taken", async () => {
    await using root = await temporaryDirectory();
    const port = await freePort();
    const holder = createServer();
    await new Promise<void>((resolve) => holder.listen(port, "127.0.0.1", resolve));
    await expect(startSglangRouter(await options({ metricsPort: port }), parts(root.path))).rejects.toMatchObject({ code: "port.taken" });
    await new Promise<void>((resolve) => holder.close(() => resolve()));
  });
});
