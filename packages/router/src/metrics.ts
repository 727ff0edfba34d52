import type { Dispatcher } from "./dispatcher.js";
import { isAble } from "./fleet.js";

type Row = readonly [name: string, kind: "counter" | "gauge", help: string, values: readonly (readonly [labels: string, value: number])[]];

/** Prometheus text, under sglang_router's names where it has them. */
export function metricsText(dispatcher: Dispatcher): string {
  const { counts, waiting, fleet } = dispatcher;
  const perWorker = (value: (worker: (typeof fleet.workers)[number]) => number) =>
    fleet.workers.map((worker) => [`{worker="${worker.url}"}`, value(worker)] as const);
  const rows: readonly Row[] = [
    ["smg_http_requests_total", "counter", "Requests taken for an engine.", [["", counts.requests]]],
    ["smg_router_requests_total", "counter", "Requests taken for an engine.", [["", counts.requests]]],
    ["smg_router_request_errors_total", "counter", "Requests that no engine answered, or whose answer broke off.", [["", counts.failures]]],
    ["smg_worker_retries_total", "counter", "Tries after the first.", [["", counts.retries]]],
    ["smg_worker_retries_exhausted_total", "counter", "Requests that failed at their last try.", [["", counts.exhausted]]],
    [
      "smg_router_upstream_responses_total",
      "counter",
      "Answers of engines, by the first digit of their status.",
      counts.answers.flatMap((count, digit) => (digit >= 2 ? [[`{status="${digit}xx"}`, count] as const] : [])),
    ],
    ["smg_router_streams_cut_total", "counter", "Answers that broke off after their first byte.", [["", counts.cut]]],
    ["smg_router_requests_waiting", "gauge", "Requests that wait for an engine.", [["", waiting]]],
    [
      "smg_worker_pool_size",
      "gauge",
      "Engines registered.",
      (["regular", "prefill", "decode"] as const).map((role) => [`{worker_type="${role}"}`, fleet.count(role)] as const),
    ],
    ["smg_worker_health", "gauge", "1 when the engine may take requests.", perWorker((worker) => (isAble(worker) ? 1 : 0))],
    ["smg_worker_requests_active", "gauge", "Requests in flight at the engine.", perWorker(({ inFlight }) => inFlight)],
    ["smg_worker_selection_total", "counter", "Times the engine was picked.", perWorker(({ picks }) => picks)],
    [
      "smg_worker_health_checks_total",
      "counter",
      "Probes of engines, by how they ended.",
      [
        ['{result="success"}', dispatcher.watch.counts.answered],
        ['{result="failure"}', dispatcher.watch.counts.failed],
      ],
    ],
    ["slime_worker_ejections_total", "counter", "Times an engine was found not to work.", [["", fleet.ejections]]],
    ["smg_worker_errors_total", "counter", "Tries at the engine that broke.", perWorker(({ errors }) => errors)],
    [
      "slime_worker_weight_version",
      "gauge",
      "Version that the fence vouches for.",
      fleet.workers.flatMap(({ url, gate }) =>
        gate.kind === "open" && gate.version !== null ? [[`{worker="${url}"}`, gate.version] as const] : [],
      ),
    ],
  ];
  return rows
    .map(
      ([name, kind, help, values]) =>
        `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${values.map(([labels, value]) => `${name}${labels} ${value}\n`).join("")}`,
    )
    .join("");
}
