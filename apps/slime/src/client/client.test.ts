import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, seededRandom } from "@slime/core";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { jobLines } from "../commands/job.js";
import { findActor } from "../commands/logs.js";
import { statusLines } from "../commands/status.js";
import { exitCodeOf, followJob } from "./follow-job.js";
import { headUrl } from "./head-address.js";
import { headClient } from "./head-client.js";
import type { JobView, StatusView } from "./shapes.js";
import { shellLine } from "./shell-words.js";
import { readEvents, type ServerSentEvent } from "./sse.js";
import { durationText } from "./text-table.js";
import { snapshotDirectory } from "./working-dir.js";

let directory = "";
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slime-client-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const golden = async (name: string): Promise<unknown> =>
  JSON.parse(await readFile(new URL(`../../../../test/golden/${name}.json`, import.meta.url), "utf8"));
const after: Clock["after"] = (_delayMs, run) => {
  const soon = setImmediate(run);
  return { cancel: () => clearImmediate(soon) };
};
/** Time does not pass: every wait is over at once. */
const hasty: Clock = { nowMs: () => 0, wallMs: () => 0, after };

describe("addresses", () => {
  test("flag, then environment, then what the head of this machine left, then the default", async () => {
    expect(headUrl("127.0.0.1:9", { SLIME_ADDRESS: "127.0.0.1:8" })).toBe("http://127.0.0.1:9");
    expect(headUrl(undefined, { SLIME_ADDRESS: "http://127.0.0.1:8/" })).toBe("http://127.0.0.1:8");
    await mkdir(join(directory, "head"));
    await writeFile(join(directory, "head", "head.json"), '{"httpAddress":"127.0.0.1:7"}');
    expect(headUrl(undefined, { SLIME_HOME: directory })).toBe("http://127.0.0.1:7");
    expect(headUrl(undefined, { SLIME_HOME: join(directory, "none") })).toBe("http://127.0.0.1:8265");
    expect(() => headUrl("https://127.0.0.1:1", {})).toThrow("config.invalid");
    expect(() => headUrl("not an address", {})).toThrow("config.invalid");
  });

  test("nobody there, and somebody who is no head, say what to do", async () => {
    await expect(headClient("http://127.0.0.1:1").status()).rejects.toMatchObject({
      code: "head.unavailable",
      message: expect.stringContaining("slime-head start") as string,
    });
    await using server = await serve((_request, response) => void response.writeHead(404).end("<html>"));
    await expect(headClient(server.url).status()).rejects.toMatchObject({
      code: "head.unavailable",
      message: expect.stringContaining("not as a head does") as string,
    });
  });
});

test("words become one line for the shell", () => {
  expect(shellLine(["slime", "train", "--seed", "7"])).toBe("slime train --seed 7");
  expect(shellLine(["echo", "a b", "it's"])).toBe("echo 'a b' 'it'\\''s'");
  expect(shellLine(["a && b"])).toBe("a && b");
});

test("durations for people", () => expect([500, 65_000, 7_380_000].map(durationText)).toEqual(["0.5 s", "1 min 5 s", "2 h 3 min"]));

describe("following", () => {
  const job = { state: "FAILED", message: "m", driver_exit_code: 3, driver_signal: null } as JobView;
  const event = (name: string, data: unknown, id?: number) =>
    `event: ${name}\n${id === undefined ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;

  test("a log survives broken connections: each byte once, then the job as it ended", async () => {
    const offsets: string[] = [];
    await using server = await serve((request, response) => {
      const offset = new URL(request.url ?? "", "http://x").searchParams.get("offset") ?? "";
      offsets.push(offset);
      response.writeHead(200, { "content-type": "text/event-stream" });
      if (offsets.length === 1) {
        response.write(": still here\n\n");
        response.write(event("log", { offset: 0, text: "one\n" }, 4), () => response.destroy());
      } else if (offsets.length === 2) response.destroy();
      else {
        response.write(event("log", { offset: 4, text: "two\n" }, 8));
        response.end(event("end", job));
      }
    });
    const texts: string[] = [];
    const notices: string[] = [];
    const ended = await followJob(headClient(server.url), "j", {
      clock: hasty,
      random: seededRandom(1),
      signal: new AbortController().signal,
      write: (part) => void texts.push(part),
      notice: (line) => void notices.push(line),
    });
    expect([texts.join(""), ended, offsets]).toEqual(["one\ntwo\n", job, ["0", "4", "4"]]);
    expect(notices).toHaveLength(2);
  });

  test("an unknown job ends it at once; a head that stays away ends it after its tries; a detach is the caller's", async () => {
    await using server = await serve(
      (_request, response) =>
        void response
          .writeHead(404, { "content-type": "application/json" })
          .end('{"error":{"code":"not_found","message":"[not_found] there is no job j","details":{"kind":"job","id":"j"}}}'),
    );
    const options = { clock: hasty, random: seededRandom(1), write: () => {}, notice: () => {} };
    await expect(followJob(headClient(server.url), "j", { ...options, signal: new AbortController().signal })).rejects.toMatchObject({
      code: "not_found",
      message: "[not_found] there is no job j",
    });
    await expect(
      followJob(headClient("http://127.0.0.1:1"), "j", { ...options, signal: new AbortController().signal }),
    ).rejects.toMatchObject({ code: "head.unavailable", message: expect.stringContaining("slime job logs -f j") as string });
    const left = new AbortController();
    left.abort(new Error("left"));
    await expect(followJob(headClient(server.url), "j", { ...options, signal: left.signal })).rejects.toThrow("left");
  });

  test("events are read however they are cut", async () => {
    const bytes = Buffer.from(`: c\n\n${event("log", { text: "ö" }, 2)}${event("end", {})}`);
    for (let size = 1; size < bytes.length; size += 3) {
      const parts = Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
      const events: ServerSentEvent[] = [];
      for await (const read of readEvents(
        new ReadableStream({
          pull(controller) {
            const part = parts.shift();
            if (part === undefined) controller.close();
            else controller.enqueue(part);
          },
        }),
      ))
        events.push(read);
      expect(events.map(({ event: name, id }) => [name, id])).toEqual([
        ["log", "2"],
        ["end", null],
      ]);
    }
  });

  const codes: readonly (readonly [string, Partial<JobView>, number])[] = [
    ["success", { state: "SUCCEEDED", driver_exit_code: 0 }, 0],
    ["its own code", { state: "FAILED", driver_exit_code: 3 }, 3],
    ["a kill", { state: "FAILED", driver_exit_code: null, driver_signal: "SIGKILL" }, 137],
    ["a failure without a code", { state: "FAILED", driver_exit_code: null, driver_signal: null }, 1],
    ["a stop", { state: "STOPPED", driver_exit_code: 0 }, 130],
  ];
  test.each(codes)("exit code of %s", (_what, view, code) => expect(exitCodeOf({ ...job, ...view })).toBe(code));
});

describe("working directories", () => {
  test("equal content has an equal name; links, .git and node_modules are left out", async () => {
    for (const root of ["a", "b"]) {
      await mkdir(join(directory, root, "src", "deep"), { recursive: true });
      for (const name of [".git", "node_modules"]) {
        await mkdir(join(directory, root, name));
        await writeFile(join(directory, root, name, "x"), root);
      }
      await writeFile(join(directory, root, "src", "deep", "ö.txt"), "hello ".repeat(100));
      await writeFile(join(directory, root, "run.sh"), "#!/bin/sh\n");
      await chmod(join(directory, root, "run.sh"), 0o755);
      await symlink("/etc/passwd", join(directory, root, "link"));
    }
    const [a, b] = [await snapshotDirectory(join(directory, "a")), await snapshotDirectory(join(directory, "b"))];
    expect(a.name).toBe(b.name);
    expect(a.name).toMatch(/^[0-9a-f]{64}\.zip$/);
    expect([a.files, a.skipped]).toEqual([2, ["link"]]);
    expect(a.bytes.includes("passwd")).toBe(false);
    await expect(snapshotDirectory(join(directory, "none"))).rejects.toMatchObject({ code: "file.missing" });
  });
});

describe("what is at the address", () => {
  test("nobody, or somebody who speaks no HTTP: each is told with its fix", async () => {
    const deaf = createTcpServer((socket) => void socket.on("error", () => {}).end("PRI * HTTP/2.0\r\n", () => socket.destroy()));
    await new Promise<void>((resolve) => deaf.listen(0, "127.0.0.1", resolve));
    const { port } = deaf.address() as { readonly port: number };
    await expect(headClient(`http://127.0.0.1:${port}`).status()).rejects.toThrow(/does not speak HTTP.*the head's http address/);
    await new Promise((resolve) => deaf.close(resolve));
    await expect(headClient(`http://127.0.0.1:${port}`).status()).rejects.toThrow(/no head answers at .*slime-head start/);
  });
});

describe("an actor by its name", () => {
  test("the living one first, then the newest; ids by their beginning; others are named", async () => {
    const status = (await golden("status")) as StatusView;
    const [dead, alive] = [status.actors[0], status.actors[1]];
    if (dead === undefined || alive === undefined) throw new Error("the golden status has actors");
    const again = { ...status, actors: [{ ...dead, name: "trainer-0" }, alive, { ...dead, actor_id: "actor_ff", name: "old" }] };
    expect(findActor(again, "trainer-0")).toBe(alive);
    expect(findActor(status, "actor_0000000000000003").name).toBe("worker-0");
    expect(() => findActor(status, "engin")).toThrow(/there are: worker-0, trainer-0, engine-0/);
  });
});

describe("for people", () => {
  test("the status page shows nodes, GPUs with their holders, why actors wait, how they died, and jobs", async () => {
    const text = statusLines((await golden("status")) as StatusView, 1_700_000_060_000).join("\n");
    for (const part of [
      "Nodes (1 alive)",
      "CPU 2/8, memory 0.0/1.0 GiB, GPU 1/1",
      "placement group train",
      "engine-0",
      "GPU: 1 wanted, 0 of 1 free; held by placement group train",
      "placement group train (pg_0000000000000001) of train-1",
      "WORKER_DIED: it was killed by SIGKILL, out of memory",
      "trainStep",
      "train-1",
      "rollout 3, waits for engine-0",
    ])
      expect(text).toContain(part);
  });
  test("the job list is a table", async () => {
    expect(jobLines([(await golden("job")) as JobView], 1_700_000_060_030)).toEqual([
      "job      state    time       does                           command                        results",
      "train-1  RUNNING  1 min 0 s  rollout 3, waits for engine-0  slime train --config run.yaml  /data/outputs/train-1",
    ]);
  });
});

async function serve(
  handle: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<AsyncDisposable & { readonly url: string }> {
  const server: Server = createServer(handle);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
