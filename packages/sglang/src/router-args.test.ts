import { describe, expect, it } from "vitest";
import { type RouterRequest, routerArgs } from "./router-args.js";
import { argTableOf } from "./server-arg-fields.js";

const request: RouterRequest = {
  host: "127.0.0.1",
  port: 20_000,
  metricsPort: 20_001,
  policy: "consistent_hashing",
  pd: false,
  requestTimeoutSecs: 14_400,
  passThrough: {},
};

describe("the settings of an sglang_router", () => {
  it("are slime's where upstream's measured well, and ours for the breaker and the health check", () => {
    expect(routerArgs(request, { table: null })).toEqual({
      balance_abs_threshold: 10,
      balance_rel_threshold: 1.2,
      log_level: "warn",
      disable_circuit_breaker: false,
      disable_health_check: true,
      worker_startup_check_interval: 1,
      host: "127.0.0.1",
      port: 20_000,
      policy: "consistent_hashing",
      pd_disaggregation: false,
      prometheus_host: "127.0.0.1",
      prometheus_port: 20_001,
      request_timeout_secs: 14_400,
      worker_startup_timeout_secs: 30,
    });
  });

  it("take the run's flags over our choices", () => {
    expect(
      routerArgs({ ...request, passThrough: { disable_circuit_breaker: true, log_level: "info", retry_max_retries: 2 } }, { table: null }),
    ).toMatchObject({
      disable_circuit_breaker: true,
      log_level: "info",
      retry_max_retries: 2,
    });
  });

  it("name two workers where power_of_two would not start without", () => {
    expect(routerArgs({ ...request, policy: "power_of_two" }, { table: null })["worker_urls"]).toHaveLength(2);
    expect(routerArgs({ ...request, policy: "power_of_two", pd: true }, { table: null })).not.toHaveProperty("worker_urls");
  });

  it("are refused all at once where something else decides, or nobody knows them", () => {
    const table = argTableOf([{ name: "log_level", flag: "log_level", aliases: [], deprecated: false, negatable: false }]);
    const wrong = { ...request, policy: "least_in_flight", passThrough: { port: 1, log_levle: "info", log_level: "info" } } as const;
    expect(() => routerArgs(wrong, { table, suggest: () => ["log-level"] })).toThrow(
      /least_in_flight is of slime's own router.*--router-port is not yours to give: --sglang-router-port says it.*--router-log-levle.*did you mean --router-log-level\?/,
    );
  });
});
