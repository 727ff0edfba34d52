export { sampleOf } from "./samples.js";
export { type ScriptedFault, type ScriptedGang, ScriptedGangs, ScriptedRank, startScriptedGang } from "./scripted-gang.js";
