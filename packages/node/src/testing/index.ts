export { scriptedHead, type ScriptedHead, type ScriptedHeadOptions } from "./scripted-head.js";
