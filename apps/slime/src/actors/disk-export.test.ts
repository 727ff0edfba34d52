import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeSafetensors } from "@slime/embedded";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { exportToDisk } from "./disk-export.js";

let root: string;
let model: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "slime-export-"));
  model = mkdtempSync(join(tmpdir(), "slime-model-"));
  writeFileSync(join(model, "config.json"), "{}");
  writeFileSync(join(model, "tokenizer.json"), "{}");
});

afterEach(async () => {
  for (const path of [root, model]) await rm(path, { recursive: true, force: true });
});

function exported(version: number) {
  const path = join(root, "export.bin");
  writeFileSync(path, Buffer.from(Float32Array.of(version, 2, 3, 4, 5, 6).buffer));
  const tensors = [
    { name: "b", shape: [2, 2], offset: 8 },
    { name: "a", shape: [2], offset: 0 },
  ];
  return { kind: "shared-memory" as const, path, bytes: 24, checksum: "c", tensors };
}

describe("an export to disk", () => {
  it("is a model directory with the trainer's numbers", async () => {
    const directory = join(root, "pushes");
    const made = await exportToDisk({ weights: exported(1), version: 1, directory, model, keepAll: false });
    expect(made).toMatchObject({ kind: "directory", path: join(directory, "weight_v000001"), checksum: "c" });
    expect(readdirSync(made.path).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    const tensors = decodeSafetensors(readFileSync(join(made.path, "model.safetensors")), "model.safetensors");
    expect([...(tensors.get("a")?.data ?? [])]).toEqual([1, 2]);
    expect([...(tensors.get("b")?.data ?? [])]).toEqual([3, 4, 5, 6]);
  });

  it.each([
    [false, ["weight_v000002", "weight_v000003"]],
    [true, ["weight_v000001", "weight_v000002", "weight_v000003"]],
  ])("with keepAll %s leaves %j of three versions", async (keepAll, left) => {
    for (const version of [1, 2, 3]) await exportToDisk({ weights: exported(version), version, directory: root, model, keepAll });
    expect(readdirSync(root).filter((name) => name.startsWith("weight_v"))).toEqual(left);
  });
});
