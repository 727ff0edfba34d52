import { type Logger, silentLogger } from "@slime/core";
import { afterEach, expect, it } from "vitest";
import { httpRouter } from "./router-client.js";
import { type RunningRouter, startRouter } from "./start.js";
import { type EngineProcess, engineProcess } from "./testing/index.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((thing) => thing[Symbol.asyncDispose]()));
});

/** A logger whose events can be waited for. */
function eventLog(): { readonly log: Logger; readonly next: (event: string) => Promise<void> } {
  const waiting: { readonly event: string; readonly done: () => void }[] = [];
  const tell = (event: string) => {
    for (const one of waiting.filter((other) => other.event === event)) one.done();
  };
  const log: Logger = { ...silentLogger, info: tell, warn: tell, child: () => log };
  return { log, next: (event) => new Promise((done) => void waiting.push({ event, done })) };
}

/** Four engines as processes behind a router that judges in less than half of its usual times: not less, or a busy machine's engines are hung. */
async function fleet(
  delayMs: number,
  log: Logger,
): Promise<{ readonly router: RunningRouter; readonly engines: readonly EngineProcess[] }> {
  const engines = await Promise.all(Array.from({ length: 4 }, () => engineProcess(delayMs)));
  const router = await startRouter({ log, limits: { probeEveryMs: 500, probeTimeoutMs: 2_000, stallMs: 2_000, closeMs: 50 } });
  open.push(...engines, router);
  const client = httpRouter(router.url);
  for (const { url } of engines) await client.add(url);
  await client.close();
  return { router, engines };
}

/** Clients that ask one request after the other until told to stop; says who answered what. */
function load(url: string, clients: number) {
  const answers = new Map<number, number>();
  const failures: string[] = [];
  const watchers: { readonly count: number; readonly done: () => void }[] = [];
  let total = 0;
  let stopped = false;
  const client = async () => {
    while (!stopped) {
      const reply = await fetch(`${url}/generate`, { method: "POST", body: '{"input_ids":[1]}' });
      const text = await reply.text();
      if (reply.status !== 200) failures.push(`${reply.status} ${text}`);
      else {
        const { pid } = JSON.parse(text) as { readonly pid: number };
        answers.set(pid, (answers.get(pid) ?? 0) + 1);
      }
      total++;
      for (const watcher of watchers.filter(({ count }) => count <= total)) watcher.done();
    }
  };
  const all = Promise.all(Array.from({ length: clients }, client));
  return {
    answers,
    failures,
    /** Resolves when so many more were answered. */
    more: (count: number) => new Promise<void>((done) => void watchers.push({ count: total + count, done })),
    stop: async () => {
      stopped = true;
      await all;
    },
  };
}

/** Processes start slowly on a busy machine. */
const limit = { timeout: 60_000 };

it("SIGKILL of one of four under load: no request fails that had no byte yet", limit, async () => {
  const { log, next } = eventLog();
  const { router, engines } = await fleet(30, log);
  const clients = load(router.url, 32);
  await clients.more(100);
  const ejected = next("router.worker_ejected");
  engines[0]?.signal("SIGKILL");
  await ejected;
  await clients.more(200);
  await clients.stop();
  expect(clients.failures).toEqual([]);
  expect(router.dispatcher.fleet.able).toBe(3);
  expect(clients.answers.size).toBe(4);
});

it(
  "SIGSTOP of one of four: the others serve on, what it held is answered by them, its stream gets one error event, and it comes back",
  limit,
  async () => {
    const { log, next } = eventLog();
    const { router, engines } = await fleet(30, log);
    // The victim is who answers a stream: it has begun when the engine stops.
    const started = Promise.race(engines.map((engine) => engine.streaming().then(() => engine)));
    const stream = await fetch(`${router.url}/generate`, { method: "POST", body: '{"stream":true}' });
    const victim = await started;
    victim.signal("SIGSTOP");
    const ejected = next("router.worker_ejected");
    const clients = load(router.url, 32);
    // With the victim hung the others answer all the while.
    await clients.more(100);
    await ejected;
    const text = await stream.text();
    expect(text.match(/"error"/g)).toHaveLength(1);
    expect(text).toMatch(/^data: \{"pid":\d+\}\n\ndata: \{"error":.*\}\n\n$/);
    await clients.more(100);
    expect(clients.answers.has(victim.pid)).toBe(false);
    expect(router.dispatcher.fleet.able).toBe(3);
    const admitted = next("router.worker_admitted");
    victim.signal("SIGCONT");
    await admitted;
    await clients.more(200);
    await clients.stop();
    expect(clients.failures).toEqual([]);
    expect(clients.answers.get(victim.pid)).toBeGreaterThan(0);
  },
);
