import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { type Random, SlimeError } from "@slime/core";
import { privateDirectory } from "./files.js";
import { errnoOf, translateIoError } from "./io-errors.js";

/** Leased ports lie below the range that systems take outgoing connections' ports from (32,768 on Linux, 49,152 elsewhere). */
const firstPort = 20_000;
const portsInRange = 10_000;

/** Ports handed to actors: no two daemons of a machine lease the same one, and a port is free when it is leased. */
export interface PortLeases {
  /** @throws SlimeError `port.taken` when the range is used up. */
  readonly lease: (holder: string, count: number) => Promise<readonly number[]>;
  /** Frees what `holder` has; returns the ports. */
  readonly release: (holder: string) => readonly number[];
  readonly held: () => ReadonlyMap<number, string>;
}

/**
 * @param dir shared by the daemons of a machine; one file a port, made exclusively, with the lessor's name in it.
 * @param lessor names this daemon; leases of its earlier life are dropped unless `keep` says their holder lives.
 */
export async function portLeases(
  dir: string,
  lessor: string,
  options: { readonly random: Random; readonly keep: (holder: string) => boolean; readonly host?: string },
): Promise<PortLeases> {
  await privateDirectory(dir);
  const held = new Map<number, string>();
  const fileOf = (port: number) => join(dir, String(port));
  for (const name of readdirSync(dir)) {
    const [owner, holder = ""] = readLease(join(dir, name));
    if (owner !== lessor) continue;
    if (options.keep(holder)) held.set(Number(name), holder);
    else rmSync(join(dir, name), { force: true });
  }
  const claim = async (port: number, holder: string): Promise<boolean> => {
    try {
      writeFileSync(fileOf(port), `${lessor}\n${holder}\n`, { flag: "wx", mode: 0o600 });
    } catch (error) {
      if (errnoOf(error) === "EEXIST") return false;
      throw translateIoError(error, fileOf(port));
    }
    if (await isFree(port, options.host ?? "127.0.0.1")) return true;
    rmSync(fileOf(port), { force: true });
    return false;
  };
  return {
    async lease(holder, count) {
      const ports: number[] = [];
      const start = Math.floor(options.random.unit() * portsInRange);
      for (let step = 0; step < portsInRange && ports.length < count; step++) {
        const port = firstPort + ((start + step) % portsInRange);
        if (!(await claim(port, holder))) continue;
        held.set(port, holder);
        ports.push(port);
      }
      if (ports.length === count) return ports;
      for (const port of ports) free(held, port, fileOf(port));
      throw new SlimeError("port.taken", `no ${count} free ports between ${firstPort} and ${firstPort + portsInRange - 1}`, {
        port: firstPort,
        pid: null,
      });
    },
    release(holder) {
      const ports = [...held].filter(([, of]) => of === holder).map(([port]) => port);
      for (const port of ports) free(held, port, fileOf(port));
      return ports;
    },
    held: () => held,
  };
}

function free(held: Map<number, string>, port: number, file: string): void {
  held.delete(port);
  rmSync(file, { force: true });
}

function readLease(path: string): readonly string[] {
  try {
    return readFileSync(path, "utf8").split("\n");
  } catch {
    return [];
  }
}

/** True when nobody listens there: found by listening ourselves. */
export function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)));
  });
}
