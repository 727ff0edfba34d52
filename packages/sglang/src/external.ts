import { type Clock, causeChain, SlimeError } from "@slime/core";
import { probeCapabilities, type ServerCapabilities } from "./capabilities.js";

/** An engine that somebody else started. */
export interface ExternalEngine {
  readonly url: string;
  readonly capabilities: ServerCapabilities;
}

export interface DiscoverOptions {
  readonly clock?: Clock;
  /** For each request of a probe. */
  readonly timeoutMs?: number;
  /** What the run needs of them: facts by the name of their capability; an absent one is not asked. */
  readonly wanted?: Partial<Pick<ServerCapabilities, "modelPath" | "tpSize" | "ppSize" | "dpSize" | "memorySaver">>;
}

/** Probes under way at once. */
const probesMax = 32;

/**
 * Asks every pre-launched server what it is. They serve one model together, so they must be of one version, architecture, precision and
 * context, whatever their parallel sizes; weights go into each, so replicas behind one port are refused.
 * @param addresses `host:port` or urls.
 * @throws `config.invalid`, naming every server that does not answer, every mismatch, and what is wanted of it, all at once.
 */
export async function discoverExternal(addresses: readonly string[], options: DiscoverOptions = {}): Promise<readonly ExternalEngine[]> {
  const urls = addresses.map(urlOf);
  const issues = urls.flatMap((url, i) => (urls.indexOf(url) === i ? [] : [`${url} is named twice`]));
  const found: ExternalEngine[] = [];
  for (let at = 0; at < urls.length; at += probesMax) {
    const batch = urls.slice(at, at + probesMax);
    const probes = await Promise.allSettled(batch.map((url) => probeCapabilities(url, options)));
    probes.forEach((probe, i) => {
      const url = batch[i] ?? "";
      if (probe.status === "fulfilled") found.push({ url, capabilities: probe.value });
      else issues.push(`${url} does not answer as an SGLang server: ${causeChain(probe.reason).at(0) ?? "?"}`);
    });
  }
  issues.push(...mismatches(found), ...unwanted(found, options.wanted ?? {}));
  if (issues.length > 0) throw new SlimeError("config.invalid", `external engines: ${issues.join("; ")}`, { issues });
  return found;
}

/** `host:port` and urls alike, without a path. */
function urlOf(address: string): string {
  const text = /^https?:\/\//.test(address) ? address : `http://${address}`;
  if (!URL.canParse(text)) {
    const issue = `${JSON.stringify(address)} is no address: write host:port`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  return new URL(text).origin;
}

const alike = ["version", "architectures", "dtype", "contextLength"] as const;

function mismatches(engines: readonly ExternalEngine[]): readonly string[] {
  const issues: string[] = [];
  for (const name of alike) {
    const values = new Map<string, string[]>();
    for (const { url, capabilities } of engines) {
      const value = String(capabilities[name]);
      values.set(value, [...(values.get(value) ?? []), url]);
    }
    if (values.size > 1) issues.push(`${name} differs: ${[...values].map(([value, urls]) => `${value} at ${urls.join(", ")}`).join("; ")}`);
  }
  for (const { url, capabilities } of engines)
    if (capabilities.replicas)
      issues.push(`${url} has dp_size ${capabilities.dpSize}: start it with --enable-dp-attention, or one server for each`);
  return issues;
}

function unwanted(engines: readonly ExternalEngine[], wanted: NonNullable<DiscoverOptions["wanted"]>): readonly string[] {
  const names = Object.keys(wanted) as (keyof typeof wanted)[];
  return engines.flatMap(({ url, capabilities }) =>
    names.flatMap((name) =>
      wanted[name] === undefined || capabilities[name] === wanted[name]
        ? []
        : [`${url} has ${name} ${String(capabilities[name])}, ${String(wanted[name])} is wanted`],
    ),
  );
}
