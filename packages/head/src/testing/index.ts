export { fakeClient, type FakeClient } from "./fake-client.js";
export { fakeDaemon, type FakeDaemon, type FakeDaemonOptions } from "./fake-daemon.js";
export { specOf } from "./specs.js";
