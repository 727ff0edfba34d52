import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { seededRandom } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import { temporaryDirectory } from "@slime/platform/testing";
import { describe, expect, it } from "vitest";
import { newDirectory, readNodeRecord, saveNodeRecord, takeOver } from "./node-directory.js";
import { enterSite } from "./site.js";

const { processes } = detectPlatform();

describe("a node's directory", () => {
  const find = (root: string, change: object = {}) => ({
    root,
    exact: false,
    headAddress: "127.0.0.1:1",
    signature: "a",
    processes,
    ...change,
  });
  const make = (root: string, change: object = {}) =>
    newDirectory({ ...find(root, change), clusterId: "cluster_0000000000000001", random: seededRandom(1) });

  it("is taken over when its daemon is dead and the declaration is equal, as the next incarnation", async () => {
    await using root = await temporaryDirectory();
    const first = await make(root.path);
    expect(await takeOver(find(root.path))).toBeNull(); // we live and hold it
    await first.lock.release();
    expect(await takeOver(find(root.path, { signature: "b" }))).toBeNull();
    expect(await takeOver(find(root.path, { headAddress: "127.0.0.1:2" }))).toBeNull();
    const second = await takeOver(find(root.path));
    expect(second?.record).toMatchObject({ nodeId: first.record.nodeId, incarnation: 2 });
    await second?.lock.release();
  });
  it("that left in order is never used again", async () => {
    await using root = await temporaryDirectory();
    const first = await make(root.path);
    await saveNodeRecord(first.path, { ...first.record, left: true });
    await first.lock.release();
    expect(await takeOver(find(root.path))).toBeNull();
  });
  it("named by its user is refused while it is held", async () => {
    await using root = await temporaryDirectory();
    const first = await make(root.path, { exact: true });
    await expect(takeOver(find(root.path, { exact: true }))).rejects.toMatchObject({ code: "state.locked" });
    await first.lock.release();
  });
  it("that is damaged is named", async () => {
    await using root = await temporaryDirectory();
    const dir = join(root.path, "node_0000000000000001");
    await mkdir(dir);
    await writeFile(join(dir, "node.json"), "{");
    await expect(readNodeRecord(dir)).rejects.toThrow(/node\.json cannot be read; move the directory away/);
  });
});

describe("a site", () => {
  it("is removed by the last one out (N6)", async () => {
    await using root = await temporaryDirectory();
    const dir = join(root.path, "s");
    const one = await enterSite(dir, "node_1", processes);
    const two = await enterSite(dir, "node_2", processes);
    expect([await one.leave(), existsSync(dir)]).toEqual([false, true]);
    expect([await two.leave(), existsSync(dir)]).toEqual([true, false]);
  });
});
