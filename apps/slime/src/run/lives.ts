/** What an engine, router or worker that dies may be restarted: five times in ten minutes. */
export const restarts = { maxRestarts: 5, restartWindowMs: 600_000 };

/** Router and rollout workers mostly wait. They hold no CPU, so that a run which fits its GPUs never waits for room of its own. */
export const lightweight = { CPU: 0 };
