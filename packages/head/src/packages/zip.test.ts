import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type ZipEntry, zipOf } from "../testing/zip.js";
import { unpackZip } from "./zip.js";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slime-zip-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

async function unpack(bytes: Buffer): Promise<string> {
  const file = join(directory, "a.zip");
  await writeFile(file, bytes);
  await unpackZip(file, join(directory, "out"));
  return join(directory, "out");
}

test("files, directories and the executable bit come out as they went in", async () => {
  const out = await unpack(
    zipOf([
      { name: "src/", mode: 0o040755 },
      { name: "src/a.txt", content: "hello" },
      { name: "run.sh", content: "#!/bin/sh\n", mode: 0o100755, stored: true },
      { name: "empty", content: "" },
    ]),
  );
  expect(await readFile(join(out, "src/a.txt"), "utf8")).toBe("hello");
  expect((await stat(join(out, "run.sh"))).mode & 0o111).toBe(0o111);
  expect((await stat(join(out, "empty"))).size).toBe(0);
});

const hostile: readonly (readonly [string, readonly ZipEntry[]])[] = [
  ["climbs out", [{ name: "../evil", content: "x" }]],
  ["climbs out later", [{ name: "a/../../evil", content: "x" }]],
  ["is absolute", [{ name: "/etc/evil", content: "x" }]],
  ["is a Windows path", [{ name: "a\\..\\evil", content: "x" }]],
  ["is a symbolic link", [{ name: "link", content: "/etc", mode: 0o120777 }]],
  ["is a device", [{ name: "dev", mode: 0o020666 }]],
  [
    "comes twice",
    [
      { name: "a", content: "1" },
      { name: "a", content: "2" },
    ],
  ],
  [
    "is a file and a directory",
    [
      { name: "a", content: "1" },
      { name: "a/b", content: "2" },
    ],
  ],
  ["is larger than it says", [{ name: "bomb", content: "x".repeat(100_000), claimedBytes: 10 }]],
  ["has another checksum", [{ name: "a", content: "1", claimedCrc: 1 }]],
  ["claims more than may be unpacked", [{ name: "a", content: "1", claimedBytes: 0xfffffff0 }]],
];
test.each(hostile)("Z1, Z2, Z3, Z4: an entry that %s is refused, and nothing is left", async (_what, entries) => {
  await expect(unpack(zipOf([{ name: "good", content: "1" }, ...entries]))).rejects.toSatisfy((error) => SlimeError.isAny(error));
  expect(await readdir(directory)).toEqual(["a.zip"]);
});

test("any damage of an archive is refused or harmless: never a crash, never a file outside", async () => {
  const good = zipOf([
    { name: "a/b.txt", content: "hello hello hello" },
    { name: "c", content: "x", stored: true },
  ]);
  await fc.assert(
    fc.asyncProperty(fc.nat(good.length - 1), fc.nat(255), fc.boolean(), async (at, byte, cut) => {
      const bytes = cut ? good.subarray(0, at) : Buffer.from(good);
      if (!cut) bytes[at] = byte;
      await unpack(bytes).catch((error: unknown) => expect(SlimeError.isAny(error)).toBe(true));
      expect((await readdir(directory)).sort().filter((name) => name !== "out")).toEqual(["a.zip"]);
      await rm(join(directory, "out"), { recursive: true, force: true });
    }),
    { numRuns: 150, seed: 5 },
  );
});
