import type { Clock, Logger, Random } from "@slime/core";
import type { Dispatcher } from "./dispatcher.js";
import type { RouterLimits } from "./options.js";
import type { Transport } from "./transport.js";

/** What the HTTP front works on. */
export interface RouterParts {
  readonly dispatcher: Dispatcher;
  readonly transport: Transport;
  readonly limits: RouterLimits;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}
