import { credentials } from "@grpc/grpc-js";
import { systemClock } from "@slime/core";
import { ControlServiceClient } from "@slime/rpc/control";
import type { ControlDialer } from "./control-link.js";

const messageBytesMax = 64 * 1024 * 1024;

/** ClientLink over gRPC. Loaded lazily: gRPC costs an actor host more to load than everything else together. */
export function grpcDialer(address: string): ControlDialer {
  const client = new ControlServiceClient(address, credentials.createInsecure(), {
    "grpc.keepalive_time_ms": 2_000,
    "grpc.keepalive_timeout_ms": 2_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": messageBytesMax,
    "grpc.max_send_message_length": messageBytesMax,
    "grpc.initial_reconnect_backoff_ms": 50,
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.enable_retries": 0,
  });
  return {
    address,
    open({ onBatch, onEnd }) {
      const stream = client.clientLink();
      let ended = false;
      const end = (reason: string) => {
        if (ended) return;
        ended = true;
        onEnd(reason);
      };
      stream.on("data", onBatch);
      stream.on("error", (error) => end(error.message));
      stream.on("end", () => end("the head ended the stream"));
      return {
        write: (batch) => void (ended || stream.write(batch)),
        end() {
          ended = true;
          stream.end();
          // What was written still leaves; a head that does not answer the end must not keep this process.
          systemClock.after(200, () => stream.cancel());
        },
      };
    },
    close: () => client.close(),
  };
}
