import { type EngineRole, type RouterPolicy, routerPolicies } from "@slime/backend";
import { SlimeError, seededRandom, silentLogger } from "@slime/core";
import { type VirtualClock, virtualClock } from "@slime/core/testing";
import { Dispatcher } from "../dispatcher.js";
import { defaultRouterLimits, type RouterLimits } from "../options.js";
import { type AttemptOutcome, type ForwardRequest, Presence, type ReplySink, type Transport } from "../transport.js";

/** A try that the transport was given; the test settles it. */
export interface Sent {
  readonly url: string;
  readonly request: ForwardRequest;
  readonly sink: ReplySink;
  readonly over: () => boolean;
  readonly settle: (outcome: AttemptOutcome) => void;
}

/** A transport that keeps what it is given. A cancelled try settles as abandoned, or cut when its answer had begun. */
export function keptTransport(): {
  readonly transport: Transport;
  readonly sent: readonly Sent[];
  /** Engines that answer probes, with the version they name. */
  readonly alive: Map<string, string | null>;
} {
  const sent: Sent[] = [];
  const alive = new Map<string, string | null>();
  const transport: Transport = {
    send(url, request, sink) {
      let finish: (outcome: AttemptOutcome) => void = () => {};
      let begun = false;
      let over = false;
      const outcome = new Promise<AttemptOutcome>((resolve) => (finish = resolve));
      const settle = (how: AttemptOutcome) => {
        over = true;
        finish(how);
      };
      const kept: ReplySink = {
        begin: (status, headers, length) => {
          begun = true;
          sink.begin(status, headers, length);
        },
        data: (chunk, resume) => sink.data(chunk, resume),
        end: () => sink.end(),
        cut: (reason) => sink.cut(reason),
      };
      const cancel = () => {
        if (over) return;
        if (begun) sink.cut("given up");
        settle(begun ? { kind: "cut", reason: "given up" } : { kind: "abandoned" });
      };
      sent.push({ url, request, sink: kept, over: () => over, settle });
      return { outcome, sent: null, cancel };
    },
    probe: (url) => Promise.resolve(alive.has(url) ? { ok: true, found: alive.get(url) ?? null } : { ok: false, reason: "silent" }),
    forget: () => {},
    close: () => Promise.resolve(),
  };
  return { transport, sent, alive };
}

/** One request as its client sees it. `done`: served, left, or the code of the failure. */
export interface Asked {
  readonly events: string[];
  readonly done: Promise<string>;
  readonly leave: () => void;
}

/** A dispatcher on virtual time over a kept transport. */
export interface DispatcherWorld {
  readonly clock: VirtualClock;
  readonly dispatcher: Dispatcher;
  readonly sent: readonly Sent[];
  readonly alive: Map<string, string | null>;
  readonly ask: (id: string, body?: string) => Asked;
  /** Adds an engine `http://ID` and lets it answer a probe. */
  readonly add: (id: string, version?: string | null, role?: EngineRole) => Promise<void>;
}

/** Engines are added by the test, probes run when it asks for one. */
export function dispatcherWorld(limits: Partial<RouterLimits> = {}, policy: RouterPolicy = routerPolicies[0]): DispatcherWorld {
  const clock = virtualClock();
  const { transport, sent, alive } = keptTransport();
  const context = { clock, random: seededRandom(1), log: silentLogger };
  const dispatcher = new Dispatcher(policy, transport, { ...defaultRouterLimits, ...limits }, context);
  return {
    clock,
    dispatcher,
    sent,
    alive,
    ask(id, body = "{}") {
      const events: string[] = [];
      const client = new Presence();
      const sink: ReplySink = {
        begin: (status) => events.push(`begin ${status}`),
        data: () => true,
        end: () => events.push("end"),
        cut: () => events.push("cut"),
      };
      const request = { id, method: "POST", path: "/generate", headers: [], body: Buffer.from(body) };
      const done = dispatcher
        .handle(request, sink, () => {}, client)
        .then(
          () => (client.left ? "left" : "served"),
          (error: unknown) => (SlimeError.isAny(error) ? error.code : String(error)),
        );
      return { events, done, leave: () => client.leave() };
    },
    async add(id, version = null, role = { kind: "regular" }) {
      alive.set(`http://${id}`, version);
      dispatcher.fleet.add(id, `http://${id}`, { role });
      await dispatcher.probe(id);
    },
  };
}

export type Ending = "answered" | "refused" | "unreachable" | "broken" | "stale" | "cut";

/** Ends a try as an engine could. */
export function settle(sent: Sent | undefined, how: Ending, status = 200): void {
  if (sent === undefined || sent.over()) return;
  switch (how) {
    case "answered":
      sent.sink.begin(status, [], null);
      sent.sink.end();
      return sent.settle({ kind: "answered", status });
    case "refused":
      return sent.settle({ kind: "refused", status: 503 });
    case "cut":
      sent.sink.begin(200, [], null);
      sent.sink.cut("x");
      return sent.settle({ kind: "cut", reason: "x" });
    default:
      return sent.settle({ kind: how, reason: "x" });
  }
}
