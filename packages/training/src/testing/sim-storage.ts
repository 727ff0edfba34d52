import { createHash } from "node:crypto";
import { MemoryLogFile } from "@slime/data/testing";
import { decodeManifest } from "../manifest.js";
import type { RunStorage } from "../run-records.js";
import type { Effects } from "./effects.js";

/** What a dead driver leaves: two append-only files and directories of checkpoints. */
export class SimDisk {
  journal = new MemoryLogFile();
  ledger = new MemoryLogFile();
  aside = 0;
  /** `files[path]` of each complete checkpoint. */
  readonly checkpoints = new Map<string, { readonly manifest: string; readonly files: ReadonlyMap<string, string> }>();
  readonly staging = new Map<string, Map<string, string>>();

  /** Power goes: of what was not synced, `survivors` bytes remain. */
  crash(survivors: number): void {
    this.journal = this.journal.crash(survivors);
    this.ledger = this.ledger.crash(survivors);
    this.staging.clear();
  }

  /** Directory path → files, complete or staged. */
  files(directory: string): Map<string, string> {
    const staged = this.staging.get(directory.replace(/^staging\//, ""));
    if (staged === undefined) throw new Error(`nothing staged at ${directory}`);
    return staged;
  }
}

/** `RunStorage` on a `SimDisk`; every durable step is an effect at which the driver may die. */
export function simStorage(disk: SimDisk, effects: Effects): RunStorage {
  return {
    async openJournal() {
      return effects.file(() => disk.journal, "journal");
    },
    async setJournalAside() {
      disk.aside++;
      disk.journal = new MemoryLogFile();
      return `journal.unreadable-${disk.aside}.jsonl`;
    },
    async checkpoints() {
      return [...disk.checkpoints]
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, { manifest }]) => ({ name, directory: `done/${name}`, manifest }));
    },
    async stage(name) {
      await effects.step(`stage ${name}`);
      disk.staging.set(name, new Map());
      return { directory: `staging/${name}` };
    },
    async staged(name) {
      return [...(disk.staging.get(name) ?? [])].map(([path, text]) => ({
        path,
        bytes: text.length,
        sha256: createHash("sha256").update(text).digest("hex"),
      }));
    },
    async commit(name, manifest) {
      await effects.step(`commit ${name}`);
      decodeManifest(manifest, name);
      disk.checkpoints.set(name, { manifest, files: disk.staging.get(name) ?? new Map() });
      disk.staging.delete(name);
      await effects.step(`committed ${name}`);
      return { name, directory: `done/${name}`, manifest };
    },
    async remove(name) {
      await effects.step(`remove ${name}`);
      disk.checkpoints.delete(name);
    },
  };
}
