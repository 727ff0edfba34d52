import { Command } from "commander";
import { runCli } from "./cli.js";
import * as audit from "./commands/audit.js";
import * as config from "./commands/config.js";
import * as generate from "./commands/generate.js";
import * as job from "./commands/job.js";
import * as logs from "./commands/logs.js";
import * as plan from "./commands/plan.js";
import * as quickstart from "./commands/quickstart.js";
import * as runs from "./commands/runs.js";
import * as samples from "./commands/samples.js";
import * as status from "./commands/status.js";
import * as train from "./commands/train.js";

const program = new Command("slime")
  .description("Reinforcement-learning post-training on a cluster of actors: submit jobs, train, look at runs.")
  .version("0.1.0")
  .addHelpText(
    "after",
    `
A cluster on one machine, in three terminals:
  slime-head start
  slime-worker join 127.0.0.1:6380 --num-gpus 1      (twice)
  slime job submit -- slime train --config examples/sort/run.yaml

Or all of it at once, ended with a summary:  slime quickstart`,
  );
for (const command of [quickstart, job, status, logs, train, plan, runs, samples, generate, audit, config]) command.register(program);
await runCli(program);
