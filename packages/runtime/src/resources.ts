import { SlimeError } from "@slime/core";

/** Amounts by resource name: `{ CPU: 1, GPU: 0.5, memory: 512 }`; memory in MiB. Fractions down to 1/10,000. */
export type Resources = Readonly<Record<string, number>>;

const scale = 10_000;

/** Whole numbers of 1/10,000, as the control plane carries them. @throws config.invalid, all problems at once. */
export function resourceUnits(resources: Resources): Record<string, number> {
  const issues: string[] = [];
  const units: Record<string, number> = {};
  for (const [name, amount] of Object.entries(resources)) {
    const whole = Math.round(amount * scale);
    if (!Number.isFinite(amount) || amount < 0) issues.push(`resources.${name}: must be a number ≥ 0, got ${amount}`);
    else if (Math.abs(whole - amount * scale) > 1e-6) issues.push(`resources.${name}: ${amount} is finer than 1/${scale}; round it`);
    else if (name === "GPU" && amount > 1 && !Number.isInteger(amount))
      issues.push(`resources.GPU: ${amount} is above 1 and not whole; a fraction must fit one GPU`);
    else if (whole > 0) units[name] = whole;
  }
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  return units;
}

/** The inverse of `resourceUnits`, for display. */
export function resourceAmounts(units: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(units).map(([name, whole]) => [name, whole / scale]));
}
