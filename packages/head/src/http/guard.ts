import { SlimeError } from "@slime/core";

const loopbackNames = new Set(["localhost", "127.0.0.1", "[::1]", "::1"]);

/**
 * Refuses what a web page could make a browser send: a name that is rebound to loopback (Host), and a request of another origin (Origin, Sec-Fetch-Site).
 * Tools send neither Origin nor Sec-Fetch-Site. @throws SlimeError `address.refused`.
 */
export function guardRequest(
  headers: Readonly<Record<string, string | readonly string[] | undefined>>,
  allowedHosts: ReadonlySet<string> = loopbackNames,
): void {
  const host = hostname(one(headers["host"]));
  if (host === null || !(loopbackNames.has(host) || allowedHosts.has(host)))
    throw refused(
      `the Host header ${JSON.stringify(one(headers["host"]) ?? "")} is not this head's address; use 127.0.0.1 or localhost`,
      host ?? "",
    );
  const origin = one(headers["origin"]);
  if (origin !== undefined) {
    const from = originHost(origin);
    if (from === null || from !== one(headers["host"])) throw refused(`a page of ${origin} may not talk to the head`, origin);
  }
  const site = one(headers["sec-fetch-site"]);
  if (site !== undefined && site !== "same-origin" && site !== "none")
    throw refused("a page of another site may not talk to the head", site);
}

/** The status of a refusal, which the error table cannot know: the address is fine, the asker is not. */
export const guardStatus = 403;

function refused(message: string, address: string): SlimeError {
  return new SlimeError("address.refused", message, { address });
}

function one(header: string | readonly string[] | undefined): string | undefined {
  return typeof header === "string" ? header : header?.[0];
}

function hostname(host: string | undefined): string | null {
  if (host === undefined) return null;
  const match = /^(\[[0-9a-fA-F:.]+\]|[^:[\]]+)(?::\d+)?$/.exec(host);
  return match?.[1]?.toLowerCase() ?? null;
}

function originHost(origin: string): string | null {
  try {
    return new URL(origin).host;
  } catch {
    return null;
  }
}
