import { isIP } from "node:net";
import { type Clock, type Logger, SlimeError, sleep } from "@slime/core";
import type { GetStatusResponse } from "@slime/rpc/control";
import { controlClient, waitForReady } from "./head-link.js";

/**
 * `host:port` of a head, checked. Only loopback is taken: beyond it traffic would be readable and anybody could join.
 * @throws SlimeError `usage` for what is no address, `address.refused` beyond loopback.
 */
export function checkHeadAddress(address: string): string {
  const match = /^(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})$/.exec(address);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65_535) {
    const issue = `${JSON.stringify(address)} is no address: give the head's as host:port, for example 127.0.0.1:6380`;
    throw new SlimeError("usage", issue, { issues: [issue] });
  }
  refuseBeyondLoopback((match[1] ?? "").replace(/^\[|\]$/g, ""), "the head's address");
  return address;
}

/** @throws SlimeError `address.refused` unless `host` is this machine talking to itself. */
export function refuseBeyondLoopback(host: string, what: string): void {
  if (host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."))) return;
  throw new SlimeError(
    "address.refused",
    `${what} ${host} is not loopback: connections beyond this machine are refused until they can be encrypted and authenticated; use 127.0.0.1`,
    { address: host },
  );
}

/** The id of the cluster a head leads; null when no head answers within `timeoutMs`. */
export async function clusterAt(address: string, timeoutMs: number, clock: Clock): Promise<string | null> {
  const client = controlClient(address);
  try {
    await waitForReady(client, timeoutMs, clock);
    const response = await new Promise<GetStatusResponse>((resolve, reject) =>
      client.getStatus({}, (error, value) => (error === null ? resolve(value) : reject(error))),
    );
    const status = JSON.parse(response.statusJson.toString("utf8")) as { readonly cluster_id?: unknown };
    return typeof status.cluster_id === "string" ? status.cluster_id : null;
  } catch {
    return null;
  } finally {
    client.close();
  }
}

/** As `clusterAt`, but waits for a head that is only just starting. @throws SlimeError `head.unavailable` that says what to run. */
export async function waitForCluster(address: string, timeoutMs: number, clock: Clock, log: Logger, signal?: AbortSignal): Promise<string> {
  const untilMs = clock.nowMs() + timeoutMs;
  for (let tries = 0; ; tries++) {
    signal?.throwIfAborted();
    const found = await clusterAt(address, Math.max(100, Math.min(2_000, untilMs - clock.nowMs())), clock);
    if (found !== null) return found;
    if (clock.nowMs() >= untilMs) {
      throw new SlimeError(
        "head.unavailable",
        `no head answers at ${address} after ${Math.round(timeoutMs / 1_000)} s: start one with \`slime-head start\`, or check the address`,
        { address },
      );
    }
    if (tries === 0) log.info("head.awaited", { address, timeoutMs });
    await sleep(clock, 200, signal);
  }
}
