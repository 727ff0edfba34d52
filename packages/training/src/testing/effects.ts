import type { LogFile } from "@slime/data";

/**
 * Counts everything a driver does to the world. At effect number `dieAt` the driver is dead: this and every later call of it never
 * returns, while the disk keeps what was synced. `seen` names the effects in order, so that a failing test says where it was.
 */
export class Effects {
  readonly seen: string[] = [];
  readonly #dieAt: number;
  readonly #onDeath: () => void;

  constructor(dieAt: number, onDeath: () => void) {
    this.#dieAt = dieAt;
    this.#onDeath = onDeath;
  }

  get isDead(): boolean {
    return this.seen.length >= this.#dieAt;
  }

  /** One effect: happens, or the driver dies here. */
  async step(what: string): Promise<void> {
    if (this.isDead) return never();
    this.seen.push(what);
    if (this.isDead) {
      this.#onDeath();
      return never();
    }
  }

  /** A log file whose appends and syncs are effects. */
  file(real: () => LogFile, name: string): LogFile {
    const file = real();
    return {
      path: `${name}.jsonl`,
      read: () => file.read(),
      append: async (bytes) => {
        await this.step(`${name} append`);
        await file.append(bytes);
      },
      truncate: (length) => file.truncate(length),
      sync: async () => {
        await this.step(`${name} sync`);
        await file.sync();
        await this.step(`${name} synced`);
      },
      close: async () => {},
    };
  }
}

function never(): Promise<never> {
  return new Promise(() => {});
}
