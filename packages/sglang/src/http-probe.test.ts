import { createServer, type RequestListener } from "node:http";
import { systemClock } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import { describe, expect, it } from "vitest";
import { probe } from "./http-probe.js";
import { freePort } from "./testing/free-port.js";

async function serve(answer: RequestListener): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

describe("a probe", () => {
  it("says what was answered, whatever it is", async () => {
    await using server = await serve((request, response) => response.writeHead(request.url === "/health_generate" ? 200 : 503).end());
    const ask = (path: string) => probe(server.url, path, { clock: systemClock, timeoutMs: 5_000 });
    expect(await ask("/health_generate")).toEqual({ kind: "answered", status: 200 });
    expect(await ask("/else")).toEqual({ kind: "answered", status: 503 });
  });

  it("says who refuses and who breaks off", async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    expect(await probe(url, "/", { clock: systemClock, timeoutMs: 5_000 })).toMatchObject({ kind: "refused" });
    await using server = await serve((request) => request.socket.destroy());
    expect(await probe(server.url, "/", { clock: systemClock, timeoutMs: 5_000 })).toMatchObject({ kind: "refused" });
  });

  it("calls who does not answer in time silent, and so an aborted one", async () => {
    const clock = virtualClock();
    let asked: () => void = () => {};
    const heard = new Promise<void>((resolve) => (asked = resolve));
    await using server = await serve(() => asked());
    const late = probe(server.url, "/", { clock, timeoutMs: 5_000 });
    await heard;
    clock.advance(5_000);
    expect(await late).toEqual({ kind: "silent" });
    const controller = new AbortController();
    const aborted = probe(server.url, "/", { clock, timeoutMs: 5_000, signal: controller.signal });
    controller.abort();
    expect(await aborted).toEqual({ kind: "silent" });
    expect(await probe(server.url, "/", { clock, timeoutMs: 5_000, signal: controller.signal })).toEqual({ kind: "silent" });
    expect(clock.pending()).toBe(0);
  });
});
