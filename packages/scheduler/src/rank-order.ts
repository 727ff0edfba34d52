/**
 * The order of ranks: node address numerically (IPv4 octets as integers, so 10.0.0.9 comes before 10.0.0.10), then the node's id
 * (several daemons may share a machine), then GPU index, then bundle. Every map of ranks to GPUs uses this one order.
 */
export interface Ranked {
  readonly address: string;
  readonly nodeId: string;
  readonly gpuIndices: readonly number[];
  readonly bundle: number;
}

const octets = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/;

/** Numeric order for IPv4; names and other forms come after all of those, by text. */
export function compareAddresses(a: string, b: string): number {
  const left = ipv4(a);
  const right = ipv4(b);
  if (left !== null && right !== null) return left - right;
  if (left !== null) return -1;
  if (right !== null) return 1;
  return compareText(a, b);
}

/** Orders nodes by address, then by id. */
export function compareNodes(
  a: { readonly address: string; readonly nodeId: string },
  b: { readonly address: string; readonly nodeId: string },
): number {
  return compareAddresses(a.address, b.address) || compareText(a.nodeId, b.nodeId);
}

/** Orders bundles as ranks are counted; a bundle without GPUs comes before those with, on its node. */
export function compareRanks(a: Ranked, b: Ranked): number {
  return compareNodes(a, b) || (a.gpuIndices[0] ?? -1) - (b.gpuIndices[0] ?? -1) || a.bundle - b.bundle;
}

function ipv4(text: string): number | null {
  const match = octets.exec(text);
  return match === null ? null : match.slice(1).reduce((value, octet) => value * 256 + Number(octet), 0);
}

function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
