/** Work in steps of a few milliseconds: a generator that yields between them and returns the result. */
export type Steps<T> = Generator<undefined, T, undefined>;

/** All steps at once. */
export function runNow<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
  }
}

/** The steps with the event loop in between, so that copying gigabytes holds nobody up. */
export async function runInTurns<T>(steps: Steps<T>): Promise<T> {
  for (;;) {
    const step = steps.next();
    if (step.done === true) return step.value;
    await new Promise((resolve) => setImmediate(resolve));
  }
}
