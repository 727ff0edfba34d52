/** 1 for the largest digit alone, else 0. */
export function reward(_args: unknown, sample: { readonly response: string; readonly label: string | null }): number {
  return sample.response.replaceAll("<eos>", "") === sample.label ? 1 : 0;
}
