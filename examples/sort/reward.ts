/**
 * Scores an answer: `score` is the share of digits in their place over the longer of answer and label, so that an answer that runs on
 * loses by its length; `exact` is 1 for the right answer alone. Named rewards: --reward-key says which trains.
 */
export function reward(
  _args: unknown,
  sample: { readonly response: string; readonly label: string | null },
): { readonly score: number; readonly exact: number } {
  const label = sample.label ?? "";
  const answer = sample.response.replaceAll("<eos>", "");
  const inPlace = [...label].filter((digit, at) => answer[at] === digit).length;
  return { score: inPlace / Math.max(label.length, answer.length, 1), exact: answer === label ? 1 : 0 };
}
