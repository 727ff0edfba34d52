import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { afterEach, beforeEach, expect, test } from "vitest";
import { connect } from "./connect.js";
import { serve } from "./serve.js";
import { testHello } from "./testing/index.js";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "slime-rpc-"));
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => "done",
    (error: unknown) => (SlimeError.isAny(error) ? error.code : String(error)),
  );

test("calls over a unix socket, small, large, and with arrays", async () => {
  await using server = await serve({ path: join(dir, "s.sock"), hello: testHello("actor"), handler: async (call) => call.args });
  await using peer = await connect(server.path, { hello: testHello() });
  expect(await peer.call("m", ["a"])).toEqual(["a"]);
  const large = Float64Array.from({ length: 200_000 }, (_, i) => i / 3);
  const [first, second] = (await Promise.all([
    peer.call("m", [large, "x".repeat(300_000)]),
    peer.call("m", [new Uint8Array(70_000).fill(7)]),
  ])) as [[Float64Array, string], [Uint8Array]];
  expect(Buffer.from(first[0].buffer, first[0].byteOffset, first[0].byteLength).equals(Buffer.from(large.buffer))).toBe(true);
  expect(first[1].length).toBe(300_000);
  expect(second[0].every((byte) => byte === 7)).toBe(true);
  expect(server.peers.size).toBe(1);
  expect(statSync(server.path).mode & 0o777).toBe(0o600);
});

test("many callers; closing the server tells them and removes the socket", async () => {
  const server = await serve({ path: join(dir, "s.sock"), hello: testHello("actor"), handler: (call) => call.peer.remote.who.id });
  const peers = await Promise.all(Array.from({ length: 5 }, (_, i) => connect(server.path, { hello: testHello("driver", `proc_${i}`) })));
  expect(await Promise.all(peers.map((peer) => peer.call("who", [])))).toEqual(["proc_0", "proc_1", "proc_2", "proc_3", "proc_4"]);
  await server.close({ reason: "over" });
  expect(await Promise.all(peers.map((peer) => peer.closed))).toEqual(peers.map(() => ({ kind: "closed", reason: "over" })));
  expect(existsSync(server.path)).toBe(false);
  expect(await codeOf(connect(server.path, { hello: testHello() }))).toBe("wire.broken");
});

test("a dead socket file is replaced, a live one is not", async () => {
  const path = join(dir, "s.sock");
  writeFileSync(path, "");
  await using server = await serve({ path, hello: testHello() });
  expect(await codeOf(serve({ path, hello: testHello() }))).toBe("state.locked");
  expect(await codeOf(connect(server.path, { hello: testHello() }).then((peer) => peer.close()))).toBe("done");
});

test("a path the system would cut off is refused with the fix", async () => {
  const error = await serve({ path: join(dir, "x".repeat(120)), hello: testHello() }).catch((thrown: unknown) => thrown);
  expect(error).toMatchObject({ code: "config.invalid" });
  expect((error as Error).message).toContain("SLIME_SOCKET_DIR");
});

test("connecting to a server that says nothing can be given up", async () => {
  const path = join(dir, "mute.sock");
  const mute = createServer().listen(path);
  await once(mute, "listening");
  const controller = new AbortController();
  const opening = connect(path, { hello: testHello(), signal: controller.signal });
  await once(mute, "connection");
  controller.abort(new Error("enough"));
  await expect(opening).rejects.toThrow("enough");
  expect(await codeOf(connect(path, { hello: testHello(), helloTimeoutMs: 20 }))).toBe("wire.broken");
  mute.close();
});

test("more connections than allowed are turned away", async () => {
  await using server = await serve({ path: join(dir, "s.sock"), hello: testHello(), peersMax: 1 });
  await using first = await connect(server.path, { hello: testHello() });
  expect(await codeOf(connect(server.path, { hello: testHello() }))).toBe("wire.broken");
  expect(first.ended).toBe(false);
});
