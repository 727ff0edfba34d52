/** One line for /bin/sh from words, quoted where needed. A single word is taken as a line already: `slime job submit -- "a && b"`. */
export function shellLine(words: readonly string[]): string {
  const [only] = words;
  if (words.length === 1 && only !== undefined) return only;
  return words.map((word) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`)).join(" ");
}
