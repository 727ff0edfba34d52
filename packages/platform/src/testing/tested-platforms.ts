import { detectPlatform, type Platform } from "../platform.js";

/** The platforms a test of processes runs on here: both on Linux, unless `SLIME_PLATFORM` names one. */
export function testedPlatforms(): readonly (readonly [string, Platform])[] {
  const own = detectPlatform();
  const portable = detectPlatform({ SLIME_PLATFORM: "portable" });
  return own.kind === "portable"
    ? [["portable", own]]
    : [
        ["linux", own],
        ["portable", portable],
      ];
}
