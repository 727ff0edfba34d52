import { createHash, randomBytes } from "node:crypto";
import { createWriteStream } from "node:fs";
import { access, mkdir, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { SlimeError } from "@slime/core";
import { unpackZip } from "./zip.js";

/** Largest package that is taken, compressed. */
export const packageBytesMax = 256 * 1_048_576;

/** What a sweep leaves. */
export interface KeptPackages {
  /** Ids of jobs whose copies stay. */
  readonly jobs: ReadonlySet<string>;
  /** `slime://<sha256>.zip`: packages that stay. */
  readonly packages: ReadonlySet<string>;
}

/** Uploaded working directories, kept by protocol and name. Names of protocol `slime` are the SHA-256 of their content, which is checked. */
export interface PackageStore {
  readonly has: (protocol: string, name: string) => Promise<boolean>;
  /** Takes a package's bytes; complete or not at all. */
  readonly put: (protocol: string, name: string, body: Readable) => Promise<void>;
  /** Unpacks a package for one job and returns the directory; each job has its own copy to write in. */
  readonly unpack: (uri: string, jobId: string) => Promise<string>;
  /** The directory of a job that brought none. */
  readonly emptyDirectory: (jobId: string) => Promise<string>;
  /** Removes packages and jobs' directories that are not kept and were last changed before `beforeMs`. Resolves with what went. */
  readonly sweep: (kept: KeptPackages, beforeMs: number) => Promise<readonly string[]>;
}

const protocols = ["slime", "gcs"] as const;
const nameForm = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.zip$/;

/**
 * Packages lie in `packages/` of the state directory, jobs' copies in `jobs/<job id>/working_dir`. Its methods throw
 * `config.invalid` for names that are none.
 */
export function packageStore(stateDirectory: string): PackageStore {
  const root = join(stateDirectory, "packages");
  const pathOf = (protocol: string, name: string): string => {
    if (!protocols.some((known) => known === protocol) || !nameForm.test(name))
      throw new SlimeError("config.invalid", `${protocol}://${name} is no package: use slime://<sha256>.zip`, {
        issues: [
          `package ${protocol}://${name}: protocols are ${protocols.join(", ")}, names are letters, digits and _ . - ending in .zip`,
        ],
      });
    return join(root, `${protocol}-${name}`);
  };
  const jobDirectory = async (jobId: string): Promise<string> => {
    const directory = join(stateDirectory, "jobs", jobId);
    await mkdir(directory, { recursive: true, mode: 0o700 });
    return join(directory, "working_dir");
  };
  const has = async (protocol: string, name: string): Promise<boolean> => {
    try {
      await access(pathOf(protocol, name));
      return true;
    } catch (error) {
      if (SlimeError.isAny(error)) throw error;
      return false;
    }
  };
  return {
    has,
    async put(protocol, name, body) {
      const path = pathOf(protocol, name);
      await mkdir(root, { recursive: true, mode: 0o700 });
      const partial = `${path}.${randomBytes(6).toString("hex")}.partial`;
      const hash = createHash("sha256");
      let bytes = 0;
      const counted = async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
        for await (const chunk of source) {
          bytes += chunk.length;
          if (bytes > packageBytesMax)
            throw new SlimeError("wire.limit", `a package has at most ${packageBytesMax} bytes: leave data out of the working directory`, {
              what: "package bytes",
              value: bytes,
              max: packageBytesMax,
            });
          hash.update(chunk);
          yield chunk;
        }
      };
      try {
        await pipeline(body, counted, createWriteStream(partial, { mode: 0o600, flags: "wx" }));
        const digest = hash.digest("hex");
        if (protocol === "slime" && name !== `${digest}.zip`)
          throw new SlimeError("data.invalid", `the package is ${digest}, not ${name}`, {
            file: name,
            issues: ["its name must be the SHA-256 of its bytes"],
          });
        await rename(partial, path);
      } catch (error) {
        await rm(partial, { force: true });
        if ((error as NodeJS.ErrnoException).code === "ENOSPC")
          throw new SlimeError(
            "disk.full",
            `no space left for the package in ${root}; free some and submit again`,
            { path: root, needed: null },
            { cause: error },
          );
        throw error;
      }
    },
    async unpack(uri, jobId) {
      const [protocol = "", name = ""] = uri.split("://");
      if (!(await has(protocol, name)))
        throw new SlimeError("not_found", `the package ${uri} has not been uploaded: PUT it to /api/packages/${protocol}/${name} first`, {
          kind: "package",
          id: uri,
        });
      const directory = await jobDirectory(jobId);
      await unpackZip(pathOf(protocol, name), directory);
      return directory;
    },
    async emptyDirectory(jobId) {
      const directory = await jobDirectory(jobId);
      await mkdir(directory, { recursive: true, mode: 0o700 });
      return directory;
    },
    async sweep(kept, beforeMs) {
      const names = new Set([...kept.packages].map((uri) => uri.replace("://", "-")));
      const jobs = join(stateDirectory, "jobs");
      const doomed = [
        ...(await entriesOf(root)).filter((name) => !names.has(name)).map((name) => join(root, name)),
        ...(await entriesOf(jobs)).filter((jobId) => !kept.jobs.has(jobId)).map((jobId) => join(jobs, jobId)),
      ];
      const removed: string[] = [];
      for (const path of doomed) {
        const found = await stat(path).catch(() => null);
        if (found === null || found.mtimeMs >= beforeMs) continue;
        await rm(path, { recursive: true, force: true });
        removed.push(path);
      }
      return removed;
    },
  };
}

const entriesOf = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);
