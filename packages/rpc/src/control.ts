/** The control plane's messages, generated from proto/slime/v1. Apart from the package's index, so that actor hosts do not load gRPC. */
export * from "./gen/slime/v1/control.js";
