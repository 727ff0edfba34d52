import { SlimeError } from "@slime/core";
import type { ExitStatus } from "@slime/platform";

/** What a server was started with, for messages that name the fix. */
export interface StartedAs {
  readonly python: string;
  readonly modelPath: string;
  readonly port: number;
  readonly logFile: string;
}

interface Cause {
  readonly pattern: RegExp;
  /** `given`: the settings or the machine must change first; `port`: another port may do; `passing`: a retry may do. */
  readonly kind: "given" | "port" | "passing";
  readonly fix: (server: StartedAs, found: RegExpExecArray) => string;
}

/** What SGLang and what it stands on write before they end, most telling first. */
const causes: readonly Cause[] = [
  {
    pattern: /No module named '?(sglang(?:_router)?)(?:[.'\s]|$)/,
    kind: "given",
    fix: ({ python }, [, name]) => `${python} has no ${name}: install it there, or point --sglang-python at the Python that has it`,
  },
  {
    pattern: /No module named '?([\w.]+)'?/,
    kind: "given",
    fix: ({ python }, [, name]) =>
      `${python} lacks ${name}, which this SGLang needs: install it there, or point --sglang-python at another`,
  },
  {
    pattern: /error: unrecognized arguments: (.*)/,
    kind: "given",
    fix: (_, [, names]) => `this SGLang knows no ${names?.trim()}: leave it out, or use a version that has it`,
  },
  {
    pattern: /error: argument ([^:]+): (.*)/,
    kind: "given",
    fix: (_, [, name, why]) => `SGLang does not take this value of ${name?.split("/")[0]}: ${why}`,
  },
  {
    pattern: /[Aa]ddress already in use|error while attempting to bind|Port \d+ is (?:already|not) |already in use/,
    kind: "port",
    fix: ({ port }) => `port ${port}, or one that SGLang derives from it, is taken: end what listens there, or give another`,
  },
  {
    pattern: /Not enough memory\. Please try (?:to increase )?.*mem-fraction-static/,
    kind: "given",
    fix: () => "no memory is left for the cache beside the weights: raise --sglang-mem-fraction-static, or give the engine more GPUs",
  },
  {
    pattern: /out of memory|OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED/i,
    kind: "given",
    fix: () =>
      "its GPU has too little free memory: lower --sglang-mem-fraction-static or --sglang-cuda-graph-max-bs-decode, give the engine more GPUs, or see who else holds the card",
  },
  {
    pattern: /No space left on device/,
    kind: "given",
    fix: () => "a disk or /dev/shm is full: free some, or enlarge /dev/shm (in a container: --shm-size)",
  },
  {
    pattern: /No CUDA GPUs are available|not compiled with CUDA|no NVIDIA driver|CUDA driver version is insufficient|libcuda\.so/,
    kind: "given",
    fix: () => "its torch finds no GPU: give the engine one (--rollout-num-gpus), or serve on the CPU with --sglang-device cpu",
  },
  {
    pattern:
      /Repo id must be|is not a local folder|not a valid model identifier|HFValidationError|RepositoryNotFound|does not appear to have a file named|Cannot find any model weights|Can't load (?:the configuration|tokenizer)|Unrecognized model in|No such file or directory: '[^']*(?:config\.json|safetensors|tokenizer)/,
    kind: "given",
    fix: ({ modelPath }) =>
      `${modelPath} is not a model that SGLang can load: --hf-checkpoint must name a folder with config.json, a tokenizer and safetensors`,
  },
  {
    pattern: /couldn't connect to 'https:\/\/huggingface\.co'|LocalEntryNotFoundError|offline mode is enabled/,
    kind: "given",
    fix: ({ modelPath }) => `${modelPath} is no local folder and the hub cannot be reached: give the path of a folder`,
  },
  {
    pattern: /Model architectures? (.*?) (?:are|is) not supported/,
    kind: "given",
    fix: (_, [, name]) => `this SGLang has no model ${name}: use a version that has it`,
  },
  {
    pattern: /is not divisible by|must be divisible by/,
    kind: "given",
    fix: () => "the model does not divide over so many GPUs: change --rollout-num-gpus-per-engine",
  },
];

/** What every server writes of parts it does without: models whose imports fail, routes that are off. */
const harmless = /\bIgnore import error when loading\b|\) disabled: /;

/** What ended a server, from its last lines: the line that says it, and the fix where we know one. */
export function causeOfDeath(
  said: readonly string[],
  server: StartedAs,
): { readonly line: string | null; readonly fix: string | null; readonly kind: Cause["kind"] } {
  const lines = said.filter((line) => !harmless.test(line));
  for (const cause of causes) {
    for (const line of lines.toReversed()) {
      const found = cause.pattern.exec(line);
      if (found !== null) return { line: line.trim(), fix: cause.fix(server, found), kind: cause.kind };
    }
  }
  const error = lines.findLast((line) => /^\s*(?:\[[^\]]*\]\s*)?[\w.]*(?:Error|Exception)\b/.test(line));
  return { line: error?.trim() ?? null, fix: null, kind: "passing" };
}

/** How many of a dead server's last lines its error shows. */
const linesShownMax = 12;

/** The failure of a server that ended before it served. `lines`: the end of its log; `phase`: what it was at. */
export function startFailure(
  server: StartedAs,
  how: { readonly status: ExitStatus; readonly reason: string | null; readonly phase: string | null; readonly lines: readonly string[] },
): SlimeError {
  const { line, fix, kind } = causeOfDeath(how.lines, server);
  const ended = how.reason ?? inWords(how.status);
  const message = [
    `the SGLang server on port ${server.port} ended before it was ready (${ended}${how.phase === null ? "" : `, while ${how.phase}`})`,
    ...(fix === null ? (line === null ? [] : [line]) : [fix]),
    ...(how.lines.length === 0 ? [`its log ${server.logFile} is empty`] : [`last lines of ${server.logFile}:\n${shown(how.lines)}`]),
  ].join("; ");
  if (kind === "port") return new SlimeError("port.taken", message, { port: server.port, pid: null });
  if (kind === "given") return new SlimeError("config.invalid", message, { issues: [fix ?? message] });
  return new SlimeError("process.exited", message, { what: `SGLang server on port ${server.port}`, ...how.status });
}

function shown(lines: readonly string[]): string {
  return lines
    .slice(-linesShownMax)
    .map((line) => `  ${line.slice(0, 400)}`)
    .join("\n");
}

/** How a process ended. SGLang ends itself by SIGKILL whatever the cause, so the signal alone says little. */
export function inWords(status: ExitStatus): string {
  if (status.signal !== null) return `killed by ${status.signal}`;
  return status.exitCode === null ? "gone; nobody saw how it ended" : `exit code ${status.exitCode}`;
}
