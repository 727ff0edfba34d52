import { defineActors } from "@slime/runtime";

/** Counts, in a process of its own. */
export class Counter {
  #n: number;
  constructor(n: number) {
    this.#n = n;
  }
  add(by: number): number {
    this.#n += by;
    return this.#n;
  }
}
defineActors(import.meta.url, { Counter });
