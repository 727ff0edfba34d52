import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { SlimeError } from "@slime/core";

type Env = Readonly<Record<string, string | undefined>>;

const defaultAddress = "127.0.0.1:8265";

/**
 * The head's management address as a URL without a trailing slash: `--address`, SLIME_ADDRESS, RAY_API_SERVER_ADDRESS, what `slime-head start` left in
 * `$SLIME_HOME/head/head.json`, else http://127.0.0.1:8265. @throws SlimeError `config.invalid`.
 */
export function headUrl(flag: string | undefined, env: Env = process.env): string {
  const given = flag ?? (env["SLIME_ADDRESS"] || env["RAY_API_SERVER_ADDRESS"]) ?? "";
  const text = given !== "" ? given : (addressOfHome(env) ?? defaultAddress);
  try {
    const url = new URL(text.includes("://") ? text : `http://${text}`);
    if (url.protocol !== "http:") throw new TypeError(`${url.protocol} is not spoken`);
    return url.origin;
  } catch (error) {
    const issue = `--address ${JSON.stringify(text)} is no address: write 127.0.0.1:8265 or http://127.0.0.1:8265`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] }, { cause: error });
  }
}

function addressOfHome(env: Env): string | null {
  const path = join(env["SLIME_HOME"] || join(homedir(), ".slime"), "head", "head.json");
  try {
    const { httpAddress } = JSON.parse(readFileSync(path, "utf8")) as { readonly httpAddress?: unknown };
    return typeof httpAddress === "string" ? httpAddress : null;
  } catch {
    return null;
  }
}
