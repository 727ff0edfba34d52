export { sampleOf } from "./samples.js";
export { type ScriptedFault, type ScriptedGang, ScriptedRank, startScriptedGang } from "./scripted-gang.js";
