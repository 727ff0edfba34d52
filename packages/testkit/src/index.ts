export { type ChaosOptions, type ChaosOutcome, chaos } from "./chaos.js";
export { type SimEvent, SimulatedCluster, type SimulatedClusterOptions, simulatedCluster } from "./cluster.js";
export { type FaultName, faultNames } from "./faults.js";
export { Laws, type LawsView } from "./laws.js";
export { eventLine, Names } from "./names.js";
export { runScenario } from "./scenario.js";
export { type ActorScript, actorScript, type DriverScript, driverScript } from "./script.js";
export type { ActorWish, GroupWish, JobWish } from "./wishes.js";
