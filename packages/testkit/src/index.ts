export { chaos, faultNames, type ChaosOptions, type ChaosOutcome, type FaultName } from "./chaos.js";
export { simulatedCluster, SimulatedCluster, type ActorWish, type GroupWish, type JobWish, type SimEvent, type SimulatedClusterOptions } from "./cluster.js";
export { Laws, type LawsView } from "./laws.js";
export { eventLine, Names } from "./names.js";
export { actorScript, driverScript, type ActorScript, type DriverScript } from "./script.js";
export { runScenario } from "./scenario.js";
