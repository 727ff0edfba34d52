/** The Python host against this package's protocol, in a real python3. Skips aloud where there is none from 3.10 on. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SlimeError } from "@slime/core";
import { ObjectStore } from "@slime/object-store";
import {
  type ActorSpec,
  type CodecHooks,
  connect,
  encodeValue,
  type Hello,
  type ObjectDescriptor,
  type Peer,
  remoteStackOf,
  type Server,
  serve,
} from "@slime/rpc";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const pythonDir = fileURLToPath(new URL("../../python", import.meta.url));
const fixture = join(pythonDir, "tests", "fixture_actor.py");
const clusterId = "cluster_00000000000000aa";
const jobId = "job_00000000000000bb";
const actorId = "actor_00000000000000cc";
const processId = "proc_00000000000000dd";

const version = /^Python (\d+)\.(\d+)/.exec(spawnSync("python3", ["--version"], { encoding: "utf8" }).stdout ?? "");
const usable = version !== null && (Number(version[1]) > 3 || Number(version[2]) >= 10);
if (!usable) process.stderr.write(`SKIPPED: the Python host's tests need python3 from 3.10 on; found ${version?.[0] ?? "none"}`);

class Tagged {
  readonly tag: string;
  readonly payload: unknown;
  constructor(tag: string, payload: unknown) {
    this.tag = tag;
    this.payload = payload;
  }
}
const hooks: CodecHooks = {
  encodeSpecial: (value) => (value instanceof Tagged ? value : undefined),
  decodeSpecial: (tag, payload) => new Tagged(tag, payload),
};

interface Seen {
  readonly method: string;
  readonly args: unknown;
}

/** A daemon as far as a host sees one. */
class Daemon {
  readonly dir = mkdtempSync(join(tmpdir(), "slime-py-"));
  readonly seen: Seen[] = [];
  #waiting: { readonly method: string; readonly resolve: (args: unknown) => void }[] = [];
  #server: Server | undefined;
  host: Peer | undefined;
  child: ChildProcess | undefined;
  orphanGraceMs = 60_000;

  async listen(): Promise<void> {
    const who: Hello = { clusterId, who: { kind: "node", id: "node_00000000000000ee", incarnation: 0, pid: process.pid } };
    this.#server = await serve({
      path: join(this.dir, "node.sock"),
      hello: who,
      handler: (call) => {
        if (call.method === "host.register") this.host = call.peer;
        this.seen.push({ method: call.method, args: call.args });
        this.#waiting = this.#waiting.filter(({ method, resolve }) => method !== call.method || void resolve(call.args));
        return call.method === "host.register" ? { nodeId: "node_00000000000000ee", orphanGraceMs: this.orphanGraceMs } : null;
      },
    });
  }

  start(): void {
    this.child = spawn("python3", ["-m", "slime_actor"], {
      env: {
        PATH: process.env["PATH"],
        PYTHONPATH: pythonDir,
        PYTHONDONTWRITEBYTECODE: "1",
        SLIME_CLUSTER_ID: clusterId,
        SLIME_NODE_ID: "node_00000000000000ee",
        SLIME_PROCESS_ID: processId,
        SLIME_NODE_SOCKET: join(this.dir, "node.sock"),
        SLIME_SOCKET_DIR: this.dir,
        SLIME_STORE_DIR: join(this.dir, "store"),
      },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child.stderr?.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
    this.child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
  }
  stderr = "";
  stdout = "";

  /** The arguments of the next call of this name, or of one seen already. */
  next(method: string): Promise<unknown> {
    const at = this.seen.findIndex((each) => each.method === method);
    const found = at < 0 ? undefined : this.seen.splice(at, 1)[0];
    if (found !== undefined) return Promise.resolve(found.args);
    const arrived = new Promise<unknown>((resolve) => this.#waiting.push({ method, resolve })).then((args) => {
      this.seen.splice(
        this.seen.findIndex((each) => each.method === method),
        1,
      );
      return args;
    });
    const died = once(this.child as ChildProcess, "exit").then(([code]) => {
      throw new Error(`the host exited with ${String(code)} before ${method}: ${this.stderr}`);
    });
    died.catch(() => undefined);
    return Promise.race([arrived, died]);
  }

  async assign(spec: Partial<ActorSpec> = {}): Promise<void> {
    await this.next("host.register");
    await this.host?.call("host.assign", {
      ...{
        actorId,
        incarnation: 2,
        jobId,
        language: "python",
        module: fixture,
        name: "",
        exportName: "Counter",
        args: encodeValue([5, null], hooks),
        concurrency: 1,
        concurrencyGroups: { reads: 2 },
        pendingCallsMax: 100,
      },
      ...{ env: { FIXTURE_COLOR: "green" }, cwd: null, resources: {}, gpus: [{ index: 1, uuid: "GPU-x" }], placement: null },
      ...spec,
    });
  }

  async actor(spec?: Partial<ActorSpec>): Promise<Peer> {
    await this.assign(spec);
    const { socketPath } = (await this.next("host.alive")) as { socketPath: string };
    return connect(socketPath, { hello: { clusterId, who: { kind: "driver", id: processId, incarnation: 0, pid: process.pid } }, hooks });
  }

  async exited(): Promise<number | null> {
    const { child } = this;
    if (child === undefined) return null;
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
    return child.exitCode;
  }

  async stopListening(): Promise<void> {
    await this.#server?.close();
  }

  async close(): Promise<void> {
    if (this.child?.exitCode === null) this.child.kill("SIGKILL");
    await this.exited();
    await this.stopListening();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

let daemon: Daemon;
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (error: unknown) => (SlimeError.isAny(error) ? error.code : String(error)),
  );

describe.skipIf(!usable)("the Python host", () => {
  beforeEach(async () => {
    daemon = new Daemon();
    await daemon.listen();
    daemon.start();
  });
  afterEach(() => daemon.close());

  test("registers, becomes an actor, and answers: sync and async methods, values of every kind", async () => {
    const peer = await daemon.actor();
    expect(peer.remote.who).toMatchObject({ kind: "actor", id: actorId, incarnation: 2, pid: daemon.child?.pid });
    expect(await peer.call("add", [3])).toBe(8);
    expect(await peer.call("add_later", [2])).toBe(10);
    expect(await Promise.all([1, 1, 1].map((n) => peer.call("add", [n])))).toEqual([11, 12, 13]);
    const value = {
      text: "ü",
      list: [1, 2.5, null, true],
      big: 2n ** 70n,
      f: new Float32Array([1.5, 2]),
      i: new BigInt64Array([-1n]),
      raw: new Uint8Array(3000).fill(9),
      __odd: 1,
    };
    expect(await peer.call("echo", [value])).toEqual(value);
    expect(await peer.call("total", [new Float64Array([0.5, 1.5])])).toBe(2);
    expect(await peer.call("same_thread", [])).toBe(true);
    expect(await peer.call("echo", [undefined])).toBeNull();
  });

  test("ctx tells the actor its ids and its call; its phase reaches the daemon", async () => {
    const peer = await daemon.actor({ env: { FIXTURE_COLOR: "green", SLIME_GANG_RANK: "3", SLIME_GANG_SIZE: "4" } });
    expect(await peer.call("who", [], { traceId: "trace_1" })).toEqual({
      actorId,
      jobId,
      incarnation: 2,
      rank: 3,
      gpus: [{ index: 1, uuid: "GPU-x" }],
      method: "who",
      traceId: "trace_1",
      hasDeadline: true,
      env: "green",
    });
    expect(await daemon.next("host.phase")).toEqual({ actorId, incarnation: 2, phase: "looking in the mirror", waitsFor: "nobody" });
    expect(await peer.call("slime.describe", [])).toMatchObject({
      className: "Counter",
      pending: 0,
      running: [],
      phase: "looking in the mirror",
    });
    expect(await peer.call("slime.ping", ["x"])).toEqual(["x"]);
  });

  test("errors keep their traceback, causes and codes", async () => {
    const peer = await daemon.actor();
    const error = await peer.call("boom", []).catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({
      code: "call.failed",
      message: "[call.failed] RuntimeError: it broke",
      details: { name: "RuntimeError", where: "boom" },
      cause: { message: "[call.failed] KeyError: 'MISSING_FROM_ENVIRONMENT'" },
    });
    expect(remoteStackOf(error)).toMatch(/fixture_actor\.py", line \d+, in boom/);
    expect(await peer.call("refuse", []).catch((thrown: unknown) => thrown)).toMatchObject({
      code: "engine.state",
      details: { state: "paused" },
    });
    expect(await peer.call("nothing", []).catch((thrown: unknown) => thrown)).toMatchObject({
      code: "actor.no_method",
      details: { method: "nothing" },
    });
    expect(await codeOf(peer.call("on_shutdown", []))).toBe("actor.no_method");
    expect(await peer.call("unsendable", []).catch((thrown: unknown) => thrown)).toMatchObject({
      code: "codec.refused",
      message: expect.stringContaining("deep[1]: it is a set") as string,
    });
    expect(await codeOf(peer.call("look@nowhere", []))).toBe("config.invalid");
    expect(await peer.call("add", [1])).toBe(6);
  });

  test("serial by default; groups and urgent calls have their own room; a queue has its bound", async () => {
    const peer = await daemon.actor({ pendingCallsMax: 3 });
    const order: string[] = [];
    const noted = (name: string, work: Promise<unknown>) => work.then(() => order.push(name));
    const slow = noted("slow", peer.call("busy", [0.3]));
    const waiting = [1, 2, 3].map((n) => noted(`wait ${n}`, peer.call("add", [n])));
    expect(await codeOf(peer.call("add", [9]))).toBe("actor.busy");
    await Promise.all([noted("look", peer.call("look", [])), noted("urgent", peer.call("look", [], { urgent: true }))]);
    await Promise.all([slow, ...waiting]);
    expect(order.slice(-4)).toEqual(["slow", "wait 1", "wait 2", "wait 3"]);
    expect(order.slice(0, 2).sort()).toEqual(["look", "urgent"]);
  });

  test("cancellation and deadlines reach async and sync methods", async () => {
    const peer = await daemon.actor({ concurrency: 4 });
    for (const [method, ready, done] of [
      ["sleep_until_cancelled", "sleeping", "woken"],
      ["wait_for_cancel", "waiting", "cancelled"],
    ] as const) {
      const controller = new AbortController();
      const call = peer.call(method, [], { signal: controller.signal });
      call.catch(() => undefined);
      const history = async () => (await peer.call("history", [])) as string[];
      while (!(await history()).includes(ready));
      controller.abort(new Error("enough"));
      await expect(call).rejects.toThrow("enough");
      while (!(await history()).includes(done));
    }
    expect(await codeOf(peer.call("sleep_until_cancelled", [], { timeoutMs: 50 }))).toBe("call.deadline");
  });

  test("a key runs once", async () => {
    const peer = await daemon.actor();
    expect(await Promise.all([peer.call("add", [1], { idempotencyKey: "k" }), peer.call("add", [1], { idempotencyKey: "k" })])).toEqual([
      6, 6,
    ]);
    expect(await peer.call("add", [1], { idempotencyKey: "k" })).toBe(6);
    expect(await peer.call("look", [])).toBe(6);
  });

  test("values through the object store, both ways", async () => {
    const store = new ObjectStore({ dir: join(daemon.dir, "store"), capacityBytes: 50_000_000 });
    const peer = await daemon.actor();
    const numbers = new Float64Array(50_000).fill(0.5);
    const object = await store.putValue(jobId, numbers);
    expect(await peer.call("total", [new Tagged("__stored", object)])).toBe(25_000);
    expect(await peer.call("total", [new Tagged("__ref", { kind: "stored", id: "r", object })])).toBe(25_000);
    expect(await peer.call("echo", [{ ref: new Tagged("__ref", { kind: "inline", id: "r", value: 3 }) }])).toEqual({
      ref: new Tagged("__ref", { kind: "inline", id: "r", value: 3 }),
    });
    const large = (await peer.call("zeros", [300_000])) as Tagged;
    expect(large.tag).toBe("__stored");
    expect((await store.getValue(large.payload as ObjectDescriptor)).value).toMatchObject({ bytes: { length: 300_000 }, kind: "zeros" });
    const kept = (await peer.call("keep", [numbers])) as Tagged;
    expect(kept).toMatchObject({ tag: "__ref", payload: { kind: "stored" } });
    expect(await peer.call("total", [kept])).toBe(25_000);
    expect(await peer.call("open_ref", [{ ref: new Tagged("__ref", { kind: "inline", id: "x", value: [1, 2] }) }])).toEqual([1, 2]);
    // Python writes into the segment that was freed here.
    store.free(large.payload as ObjectDescriptor);
    const again = (await peer.call("zeros", [299_000])) as Tagged;
    expect(store.usage().recyclableBytes).toBe(0);
    expect((await store.getValue(again.payload as ObjectDescriptor)).value).toMatchObject({ kind: "zeros" });
    expect(await codeOf(peer.call("total", [large]))).toBe("object.lost");
  });

  test("a constructor's failure is reported with its traceback, and the host ends", async () => {
    await daemon.assign({ args: encodeValue([-1]) });
    expect(await daemon.next("host.failed")).toMatchObject({
      actorId,
      incarnation: 2,
      failure: {
        code: "actor.creation",
        details: { className: "Counter" },
        cause: { message: "ValueError: cannot start at -1", stack: expect.stringContaining("fixture_actor.py") as string },
      },
    });
    expect(await daemon.next("host.exit")).toEqual({ actorId, incarnation: 2, reason: "self", exitCode: 1 });
    expect(await daemon.exited()).toBe(1);
    expect(daemon.stderr).toContain("ValueError: cannot start at -1");
  });

  test("a missing class names what there is", async () => {
    await daemon.assign({ exportName: "Countre" });
    expect(await daemon.next("host.failed")).toMatchObject({
      failure: { cause: { code: "file.missing", message: expect.stringContaining("Counter, Broken") as string } },
    });
  });

  test("shutdown runs the hook, says so, and exits 0", async () => {
    const peer = await daemon.actor();
    await daemon.host?.call("host.shutdown", { graceMs: 5000, reason: "test" });
    expect(await daemon.next("host.exit")).toEqual({ actorId, incarnation: 2, reason: "shutdown", exitCode: 0 });
    expect(await daemon.exited()).toBe(0);
    expect(daemon.stdout).toContain("shutdown hook ran");
    expect((await peer.closed).kind).toBeDefined();
  });

  test("an actor that leaves finishes what waits", async () => {
    const peer = await daemon.actor();
    const results = await Promise.all([peer.call("leave", []), peer.call("add", [1])]);
    expect(results).toEqual([null, 6]);
    expect(await daemon.next("host.exit")).toMatchObject({ reason: "self", exitCode: 0 });
    expect(await daemon.exited()).toBe(0);
  });

  test("a lost daemon is found again with the actor's state; without one the host ends after its grace", async () => {
    daemon.orphanGraceMs = 300;
    const peer = await daemon.actor();
    await peer.call("add", [1]);
    await daemon.stopListening();
    await daemon.listen();
    expect(await daemon.next("host.register")).toMatchObject({ processId, actor: { actorId, incarnation: 2, state: "alive" } });
    expect(await peer.call("look", [])).toBe(6);
    await daemon.stopListening();
    expect(await daemon.exited()).toBe(75);
  });

  test("a dotted module of the working directory", async () => {
    writeFileSync(join(daemon.dir, "my_actor.py"), "class Mine:\n    def hi(self):\n        return 'hi'\n");
    const peer = await daemon.actor({ module: "my_actor", exportName: "Mine", cwd: daemon.dir, args: encodeValue([]) });
    expect(await peer.call("hi", [])).toBe("hi");
  });
});

describe.skipIf(!usable)("Python's own tests", () => {
  test("pass: golden frames and the rest, with the standard library alone", () => {
    const run = spawnSync("python3", ["-m", "unittest", "discover", "-s", "tests", "-t", "."], {
      cwd: pythonDir,
      encoding: "utf8",
      env: { PATH: process.env["PATH"], PYTHONDONTWRITEBYTECODE: "1" },
    });
    expect(run.stderr).toMatch(/Ran \d+ tests/);
    expect(run.status, run.stderr).toBe(0);
    expect(readFileSync(join(pythonDir, "tests", "test_golden.py"), "utf8")).toContain("frames.json");
  });
});
