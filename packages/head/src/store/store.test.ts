import { spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Change } from "../state/effects.js";
import { lmdbStore } from "./lmdb-store.js";
import { memoryDisk, memoryStore } from "./memory-store.js";
import type { StateStore } from "./store.js";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slime-head-store-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const clusterId = () => "cluster_0000000000000001";
const put = (table: Change["table"], id: string, after: unknown): Change => ({ table, id, before: undefined, after });

describe.each(["lmdb", "memory"] as const)("%s", (kind) => {
  let make: () => StateStore;
  beforeEach(() => {
    const disk = memoryDisk();
    make = () => (kind === "lmdb" ? lmdbStore({ directory }) : memoryStore(disk));
  });

  test("D1, D2: what was committed is there again, the epoch one higher, the head's time goes on", async () => {
    const first = make();
    expect((await first.open(clusterId)).meta).toEqual({ format: 1, clusterId: clusterId(), epoch: 1, headMs: 0 });
    const actor = { actorId: "a", spec: { arguments: Buffer.from([0, 255, 1]), env: { A: "b" } }, state: "ALIVE", place: null };
    await first.commit([put("actors", "a", actor), put("kv", "key", Buffer.from("value")), put("jobs", "gone", { jobId: "gone" })], 120);
    await first.commit([put("jobs", "gone", undefined)], 240);
    await first.close();
    const second = make();
    const stored = await second.open(() => "cluster_ffffffffffffffff");
    expect(stored.meta).toEqual({ format: 1, clusterId: clusterId(), epoch: 2, headMs: 240 });
    expect(stored.records.actors).toEqual([["a", actor]]);
    expect(Buffer.from(stored.records.kv[0]?.[1] ?? []).toString()).toBe("value");
    expect(stored.records.jobs).toEqual([]);
    await second.close();
  });
});

test("lmdb refuses a network file system, a damaged file and another format", async () => {
  await expect(lmdbStore({ directory, fileSystemOf: async () => 0x6969 }).open(clusterId)).rejects.toMatchObject({
    code: "unsupported",
    message: expect.stringContaining("NFS") as string,
  });
  await writeFile(join(directory, "state.mdb"), Buffer.alloc(16_384, 7));
  await expect(lmdbStore({ directory }).open(clusterId)).rejects.toMatchObject({ code: "state.damaged" });
});

test("lmdb: a write that does not fit fails with a type, keeps nothing of it, and what was there is there again", async () => {
  // A file size limit of the process stands for the full disk: the write fails in the same place.
  const script = `
    process.on("SIGXFSZ", () => {});
    const { lmdbStore } = await import(${JSON.stringify(new URL("./lmdb-store.ts", import.meta.url).href)});
    const store = lmdbStore({ directory: ${JSON.stringify(directory)} });
    await store.open(() => "cluster_0000000000000001");
    await store.commit([{ table: "kv", id: "small", before: undefined, after: Buffer.alloc(100, 1) }], 1);
    const error = await store.commit([{ table: "kv", id: "a", before: undefined, after: Buffer.alloc(100, 1) }, { table: "kv", id: "big", before: undefined, after: Buffer.alloc(8_000_000, 1) }], 2).then(() => null, (error) => error);
    process.stdout.write(JSON.stringify({ code: error?.code }));
    process.exit(0);
  `;
  const run = spawnSync(
    "/bin/sh",
    ["-c", `ulimit -f 4000; exec "$0" --conditions=source --import tsx --input-type=module -e "$1"`, process.execPath, script],
    { encoding: "utf8", cwd: new URL("../../../..", import.meta.url).pathname, timeout: 15_000 },
  );
  expect(run.stdout, run.stderr).toBe('{"code":"disk.full"}');
  const again = lmdbStore({ directory });
  const { records } = await again.open(clusterId);
  expect(records.kv.map(([key]) => key)).toEqual(["small"]);
  await again.close();
});
