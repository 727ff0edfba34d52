import { fileURLToPath } from "node:url";

/** Absolute path of the actor host's built program, for the daemon to run with node. */
export const hostEntry: string = fileURLToPath(new URL("../dist/host/entry.js", import.meta.url));
