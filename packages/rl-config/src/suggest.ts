/** Edit distance with neighbours swapped counting one, cut off at `max + 1`. */
export function editDistance(a: string, b: string, max: number): number {
  if (Math.abs(a.length - b.length) > max) return max + 1;
  let before: number[] = [];
  let previous = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((previous[j] ?? 0) + 1, (current[j - 1] ?? 0) + 1, (previous[j - 1] ?? 0) + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (before[j - 2] ?? 0) + 1);
      current.push(best);
    }
    before = previous;
    previous = current;
  }
  return Math.min(previous[b.length] ?? 0, max + 1);
}

/** Up to three known names that a misspelt one may have meant, nearest first: few edits, the same words, or a common beginning. */
export function suggestions(wrong: string, known: readonly string[]): readonly string[] {
  const words = new Set(wrong.split("-"));
  const scored: { readonly name: string; readonly score: number }[] = [];
  for (const name of known) {
    const max = Math.max(1, Math.floor(name.length / 4));
    const distance = editDistance(wrong, name, max);
    if (distance <= max) scored.push({ name, score: distance });
    else {
      const theirs = name.split("-");
      const shared = theirs.filter((word) => words.has(word)).length;
      const all = new Set([...theirs, ...words]).size;
      if (shared >= 2 && shared / all >= 0.6) scored.push({ name, score: 10 + all - shared });
      else if (wrong.length >= 6 && (name.startsWith(`${wrong}-`) || wrong.startsWith(`${name}-`))) scored.push({ name, score: 20 });
    }
  }
  return scored
    .sort((a, b) => a.score - b.score || (a.name < b.name ? -1 : 1))
    .slice(0, 3)
    .map(({ name }) => name);
}
