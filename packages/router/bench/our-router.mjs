/** Our router as a process, as a run starts it. Sends its url. */
import { startRouter } from "@slime/router";

const router = await startRouter();
process.send?.({ url: router.url });
process.on("disconnect", () => process.exit(0));
