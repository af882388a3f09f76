// A service that asks its sidecar who is calling: node main.js grpc|express SIDECAR
//
// Calls itself with each token that it reads, one a line, and prints the answer. A line `cookie NAME=VALUE` is sent as a
// Cookie header; Express only.
import { createInterface } from "node:readline";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import express from "express";
import { callerOf, authenticate as intercept } from "./interceptor.js";
import { authenticate } from "./middleware.js";
import { detail, dial } from "./sidecar.js";

const words = { 401: "no", 403: "no", 503: "can't tell", UNAUTHENTICATED: "no", PERMISSION_DENIED: "no", UNAVAILABLE: "can't tell" };

async function overGrpc(verify) {
  const protos = { includeDirs: [`${import.meta.dirname}/../proto`] };
  const { Orders } = grpc.loadPackageDefinition(loader.loadSync("example/v1/orders.proto", protos)).example.v1;
  const server = new grpc.Server({ interceptors: [intercept(verify, "orders:read")] });
  server.addService(Orders.service, {
    List: (call, reply) => reply(null, { customer: callerOf(call).subject }),
  });
  const bind = (done) => server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), done);
  const port = await new Promise((done, failed) => bind((error, port) => (error ? failed(error) : done(port))));
  const client = new Orders(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
  return (token) =>
    new Promise((done) => {
      const metadata = new grpc.Metadata();
      if (token) metadata.set("authorization", `Bearer ${token}`);
      client.List({}, metadata, { deadline: Date.now() + 5000 }, (said, list) => {
        if (!said) return done(`yes ${list.customer}`);
        const info = detail(said.metadata.get("grpc-status-details-bin")[0], "google.rpc.ErrorInfo");
        const code = grpc.status[said.code];
        done(`${words[code] ?? "broken:"} ${code} ${info?.reason ?? "-"} ${info?.metadata.action ?? "-"}`);
      });
    });
}

async function overHttp(verify) {
  const app = express().use(authenticate(verify, "orders:read"));
  app.get("/orders", (request, response) => response.json({ customer: request.caller.subject }));
  const server = await new Promise((done) => {
    const bound = app.listen(0, "127.0.0.1", () => done(bound));
  });
  return async (line) => {
    const [, cookie] = /^cookie (.*)$/.exec(line) ?? [];
    const headers = cookie ? { cookie } : line ? { authorization: `Bearer ${line}` } : {};
    const url = `http://127.0.0.1:${server.address().port}/orders`;
    const response = await fetch(url, { headers, signal: AbortSignal.timeout(5000) });
    const { customer, reason, action } = await response.json();
    if (response.ok) return `yes ${customer}`;
    const told = ["WWW-Authenticate", "Retry-After"].filter((name) => response.headers.has(name));
    const header = told.map((name) => `${name}: ${response.headers.get(name)}`).join(", ");
    return `${words[response.status] ?? "broken:"} ${response.status} ${reason || "-"} ${action} (${header})`;
  };
}

const [kind, address] = process.argv.slice(2);
const start = { grpc: overGrpc, express: overHttp }[kind];
if (!start || !address) {
  console.error("usage: node main.js grpc|express SIDECAR");
  process.exit(2);
}
const answer = await start(dial(address));
for await (const line of createInterface({ input: process.stdin })) console.log(await answer(line));
process.exit(0);
