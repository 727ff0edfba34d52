/**
 * The share of an answer's characters that are digits of its prompt. All answers have the same length, so this alone tells them apart:
 * about one character in four is right by chance, and a model that copies is always right.
 */
export function reward(_args: unknown, sample: { readonly prompt: string; readonly response: string }): number {
  const answer = [...sample.response.replaceAll(/<[a-z]+>/g, "?")];
  const digits = new Set([...sample.prompt].filter((character) => /\d/.test(character)));
  return answer.filter((character) => digits.has(character)).length / Math.max(1, answer.length);
}
