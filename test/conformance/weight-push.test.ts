import { spawnSync } from "node:child_process";
import { weightSyncConformance } from "@slime/backend/conformance";
import { afterAll, describe } from "vitest";
import { embeddedPush } from "./embedded-push.js";
import { pushSubject } from "./push-subject.js";
import { scriptedGangs, scriptedPush } from "./scripted-push.js";

const python = spawnSync("python3", ["-c", "import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)"]).status === 0;

weightSyncConformance("embedded trainer and engines", (options) => pushSubject(embeddedPush, options));

describe.skipIf(!python)("with the scripted gang (needs Python ≥ 3.10)", () => {
  afterAll(() => scriptedGangs.close());
  weightSyncConformance("scripted gang and engines", (options) => pushSubject(scriptedPush, options));
});
