/**
 * A host's line to its daemon: registers, answers, and comes back after every loss (the same node listens at the same path).
 * N1 one connection at a time. N2 `onOrphaned` is called once, `orphanGraceMs` after the last daemon was lost. N3 `report`
 * never throws: what cannot be said now is in the next registration.
 */
import { type BackoffPolicy, backoffDelayMs, type Clock, type Logger, type Random, SlimeError, type Timer } from "@slime/core";
import type { Handler, HostRegistration, HostToNode, HostWelcome, Peer } from "@slime/rpc";

export interface DaemonLinkParts {
  /** Connects to the daemon's socket. */
  readonly connect: (handler: Handler) => Promise<Peer>;
  readonly registration: () => HostRegistration;
  readonly handler: Handler;
  readonly onOrphaned: () => void;
  /** A daemon has it registered: the one it had, or another after that. */
  readonly onLinked: () => void;
  /** Before a daemon has said otherwise. */
  readonly orphanGraceMs: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

export interface DaemonLink {
  /** True when the daemon has it; false when there is none or it does not answer. */
  readonly report: <K extends keyof HostToNode>(name: K, args: HostToNode[K]["args"]) => Promise<boolean>;
  /** Asks the daemon. @throws unsupported while there is none, or what the call fails with. */
  readonly ask: <K extends keyof HostToNode>(name: K, args: HostToNode[K]["args"]) => Promise<HostToNode[K]["result"]>;
  /** Without an answer, for what does not matter later. */
  readonly tell: <K extends keyof HostToNode>(name: K, args: HostToNode[K]["args"]) => void;
  readonly close: () => Promise<void>;
}

type State =
  | { readonly kind: "searching"; readonly attempt: number; readonly timer: Timer | null }
  | { readonly kind: "linked"; readonly peer: Peer }
  | { readonly kind: "closed" };

const search: BackoffPolicy = { firstMs: 50, factor: 1.5, delayMsMax: 1_000, jitter: 0.2, triesMax: Number.POSITIVE_INFINITY };
const reportTimeoutMs = 5_000;

/** Begins to search at once; the grace counts from here. */
export function daemonLink(parts: DaemonLinkParts): DaemonLink {
  const { clock, log } = parts;
  let state: State = { kind: "searching", attempt: 1, timer: null };
  let graceMs = parts.orphanGraceMs;
  let orphan: Timer | null = null;

  const startGrace = () => {
    orphan ??= clock.after(graceMs, () => {
      log.warn("host.orphaned", { graceMs });
      parts.onOrphaned();
    });
  };

  const again = (attempt: number) => {
    startGrace();
    const delay = backoffDelayMs(search, attempt + 1, parts.random) ?? search.delayMsMax;
    state = { kind: "searching", attempt: attempt + 1, timer: clock.after(delay, () => void attach(attempt + 1)) };
  };

  const attach = async (attempt: number) => {
    let peer: Peer | null = null;
    try {
      peer = await parts.connect(parts.handler);
      const welcome = (await peer.call("host.register", parts.registration(), { timeoutMs: reportTimeoutMs })) as HostWelcome;
      if (state.kind === "closed") return void peer.close();
      graceMs = welcome.orphanGraceMs;
      orphan?.cancel();
      orphan = null;
      const linked: State = { kind: "linked", peer };
      state = linked;
      parts.onLinked();
      void peer.closed.then(({ reason }) => {
        if (state !== linked) return;
        log.warn("host.daemon_lost", { reason });
        again(0);
      });
    } catch (error) {
      void peer?.close();
      if (state.kind === "closed") return;
      log.debug("host.no_daemon", { attempt, error: String(error) });
      again(attempt);
    }
  };

  startGrace();
  void attach(1);
  return {
    async report(name, args) {
      if (state.kind !== "linked") return false;
      try {
        await state.peer.call(name, args, { timeoutMs: reportTimeoutMs });
        return true;
      } catch (error) {
        log.warn("host.unreported", { what: name, error: String(error) });
        return false;
      }
    },
    async ask(name, args) {
      if (state.kind !== "linked")
        throw new SlimeError("unsupported", `${name} needs the node's daemon, which is away; try again when it is back`, {
          what: name,
          why: "no daemon",
        });
      return (await state.peer.call(name, args, { timeoutMs: reportTimeoutMs })) as never;
    },
    tell(name, args) {
      if (state.kind !== "linked" || state.peer.ended) return;
      state.peer.send(name, args);
    },
    async close() {
      const before = state;
      state = { kind: "closed" };
      orphan?.cancel();
      if (before.kind === "searching") before.timer?.cancel();
      if (before.kind === "linked") await before.peer.close({ drainMs: 500, reason: "the host ends" });
    },
  };
}
