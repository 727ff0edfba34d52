export { type FakeClient, fakeClient } from "./fake-client.js";
export { type FakeDaemon, type FakeDaemonOptions, fakeDaemon } from "./fake-daemon.js";
export { specOf } from "./specs.js";
