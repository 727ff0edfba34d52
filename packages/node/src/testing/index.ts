export { type ScriptedHead, type ScriptedHeadOptions, scriptedHead } from "./scripted-head.js";
