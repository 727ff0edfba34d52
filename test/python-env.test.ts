import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const script = new URL("../scripts/lib/python-env.mjs", import.meta.url).href;
const { Unavailable, findPython312, hashOf, makeOnce, step } = (await import(script)) as {
  readonly Unavailable: new () => Error;
  readonly findPython312: (env: Readonly<Record<string, string>>) => string;
  readonly hashOf: (...things: readonly unknown[]) => string;
  readonly makeOnce: (folder: string, msMax: number, make: (folder: string) => Promise<void>) => Promise<boolean>;
  readonly step: (what: string, msMax: number, command: readonly string[]) => Promise<string>;
};

const root = mkdtempSync(join(tmpdir(), "slime-python-env-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const file = (name: string, text: string) => (folder: string) => {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), text);
  return Promise.resolve();
};

describe.runIf(process.platform === "linux")("what is made once", () => {
  it("is used when it is complete (PE1)", async () => {
    const folder = join(root, "once");
    expect(await makeOnce(folder, 1_000, file("a", "1"))).toBe(true);
    expect(await makeOnce(folder, 1_000, file("a", "2"))).toBe(false);
    expect(readFileSync(join(folder, "a"), "utf8")).toBe("1");
  });

  it("is made anew when it was left half-made (PE1)", async () => {
    const folder = join(root, "broken");
    const failed = makeOnce(folder, 1_000, async (path) => {
      await file("half", "1")(path);
      throw new Error("no more disk");
    });
    await expect(failed).rejects.toThrow("no more disk");
    expect(existsSync(join(folder, "half"))).toBe(true);
    expect(await makeOnce(folder, 1_000, file("whole", "2"))).toBe(true);
    expect(readdirSync(folder).sort()).toEqual([".complete", "whole"]);
  });

  it("is made by one process at a time, and by the next when that one is killed (PE2)", async () => {
    const folder = join(root, "raced");
    const code = `import(${JSON.stringify(script)}).then(({ makeOnce }) =>
      makeOnce(${JSON.stringify(folder)}, 60_000, () => { process.stdout.write("mine"); return new Promise((resolve) => setTimeout(resolve, 60_000)); }))`;
    const other = spawn(process.execPath, ["-e", code], { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise((resolve) => other.stdout.once("data", resolve));
    let made = false;
    const mine = makeOnce(folder, 60_000, (path) => {
      made = true;
      return file("a", "mine")(path);
    });
    expect(made).toBe(false);
    other.kill("SIGKILL");
    expect(await mine).toBe(true);
    expect(readdirSync(folder).sort()).toEqual([".complete", "a"]);
  });
});

describe("a step", () => {
  it("fails with its last words, and past its limit", async () => {
    expect(await step("echo", 10_000, ["echo", "hello"])).toBe("hello\n");
    await expect(step("false", 10_000, ["sh", "-c", "echo why; exit 3"])).rejects.toThrow(/ended with 3\nwhy/);
    await expect(step("sleep", 50, ["sleep", "60"])).rejects.toThrow("not done after 0.05 s");
  });

  it("is a reason to skip when the registry does not answer", async () => {
    const failed = step("install", 10_000, ["sh", "-c", "echo 'error sending request for url'; exit 1"]);
    await expect(failed).rejects.toBeInstanceOf(Unavailable);
    expect(() => findPython312({ SLIME_PYTHON312: "/nowhere/python" })).toThrow(Unavailable);
  });
});

it("a hash is of names, contents and values in their order", () => {
  const folder = join(root, "hashed");
  mkdirSync(join(folder, "__pycache__"), { recursive: true });
  writeFileSync(join(folder, "a.py"), "1");
  const before = hashOf("x", { file: folder });
  writeFileSync(join(folder, "__pycache__", "a.pyc"), "compiled");
  expect(hashOf("x", { file: folder })).toBe(before);
  writeFileSync(join(folder, "a.py"), "2");
  expect(new Set([before, hashOf("x", { file: folder }), hashOf("y", { file: folder }), hashOf({ file: folder }, "x")]).size).toBe(4);
});
