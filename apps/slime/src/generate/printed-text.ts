/**
 * How much of a growing text may be shown: not the end that may turn out to be the start of a stop string, nor half a character.
 * What was shown stays right whatever follows.
 */
export function shownLength(text: string, stops: readonly string[]): number {
  let end = text.length;
  while (end > 0 && text[end - 1] === "\ufffd") end--;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at >= 0) end = Math.min(end, at);
    for (let length = Math.min(stop.length - 1, end); length > 0; length--) {
      if (!stop.startsWith(text.slice(end - length, end))) continue;
      end -= length;
      break;
    }
  }
  return end;
}

/** What a terminal may get: control characters that would move its cursor or change its colours are shown as symbols. */
export function withoutControl(text: string): string {
  return text.replace(/\p{Cc}/gu, (char) => {
    const code = char.charCodeAt(0);
    if (char === "\n" || char === "\t") return char;
    return code < 0x20 ? String.fromCharCode(0x2400 + code) : code === 0x7f ? "\u2421" : "\ufffd";
  });
}

/** A prompt or answer in one line. */
export function oneLine(text: string, charsMax: number): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length <= charsMax ? line : `${line.slice(0, charsMax - 1)}…`;
}
