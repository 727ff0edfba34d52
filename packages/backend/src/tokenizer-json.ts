type Json = Readonly<Record<string, unknown>>;

/**
 * A parsed tokenizer.json, to be handed to `@huggingface/tokenizers`: its `Digits` step takes ASCII digits for all there are, while the
 * Rust library that models were trained with splits off every character that Unicode calls numeric ("½", "٣", "Ⅷ"). The step is
 * written as the `Split` that it is, so that ids are those of the model's own tokenizer. What is not a tokenizer comes back as it is.
 */
export function withUnicodeDigits<T extends object>(tokenizerJson: T): T {
  return "pre_tokenizer" in tokenizerJson ? { ...tokenizerJson, pre_tokenizer: splitDigits(tokenizerJson.pre_tokenizer) } : tokenizerJson;
}

function splitDigits(step: unknown): unknown {
  if (typeof step !== "object" || step === null) return step;
  const { type, individual_digits: individual, pretokenizers: steps } = step as Json;
  if (type === "Sequence" && Array.isArray(steps)) return { ...step, pretokenizers: steps.map(splitDigits) };
  if (type !== "Digits") return step;
  return { type: "Split", pattern: { Regex: individual === true ? "\\p{N}" : "\\p{N}+" }, behavior: "Isolated", invert: false };
}
