import { configDefaults, defineConfig } from "vitest/config";

/** Packages are tested from their sources; what starts processes uses the build (see scripts/test.mjs). Real servers: `npm run test:real`. */
export default defineConfig({
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    include: ["packages/*/src/**/*.test.ts", "apps/*/src/**/*.test.ts", "test/**/*.test.ts"],
    exclude: [...configDefaults.exclude, "test/real/**"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 20_000,
  },
});
