import { actor, get, init } from "@slime/runtime";
import { Counter } from "./counter.js";

await using _session = await init();
const counter = actor(Counter, { args: [0], resources: { CPU: 1 } }); // a handle at once; calls wait for ALIVE
const total = counter.add.remote(5); // ObjectRef<number>: nothing is fetched yet
counter.add.send(1); // wants no reply
process.stdout.write(`${await get(total)}, then ${await counter.add(total)}\n`); // references go where values go
