import { rm } from "node:fs/promises";
import { headFile } from "@slime/head";
import { type Platform, type ProcessIdentity, readTextIfThere, writeFileAtomic } from "@slime/platform";

/** `head.json` in the state directory: where the head of this machine listens. `slime`, `slime-worker` and drivers take their default address from it. */
export interface HeadFile {
  readonly version: 1;
  readonly clusterId: string;
  readonly epoch: number;
  /** host:port of the control plane. */
  readonly grpcAddress: string;
  /** host:port of the management API. */
  readonly httpAddress: string;
  readonly process: ProcessIdentity;
  readonly startedAtMs: number;
}

/** Says where this head listens, readable by its user only. Written whole or not at all; called once the ports are bound. */
export async function writeHeadFile(stateDirectory: string, head: HeadFile): Promise<void> {
  await writeFileAtomic(headFile(stateDirectory), `${JSON.stringify(head, null, 2)}\n`, { mode: 0o600 });
}

/** The file as it is, or null; it may be of a head that was killed. */
export async function readHeadFile(stateDirectory: string): Promise<HeadFile | null> {
  const text = await readTextIfThere(headFile(stateDirectory));
  if (text === null) return null;
  try {
    const head = JSON.parse(text) as Partial<HeadFile>;
    return head.version === 1 && typeof head.grpcAddress === "string" && typeof head.httpAddress === "string" && head.process !== undefined
      ? (head as HeadFile)
      : null;
  } catch {
    return null;
  }
}

/** The head of this state directory while its process lives. */
export async function livingHead(stateDirectory: string, platform: Platform): Promise<HeadFile | null> {
  const head = await readHeadFile(stateDirectory);
  return head !== null && (await platform.processes.isAlive(head.process)) ? head : null;
}

/** For a head that ends in order; a missing file is fine. */
export async function removeHeadFile(stateDirectory: string): Promise<void> {
  await rm(headFile(stateDirectory), { force: true });
}
