// A server interceptor for grpc-js that lets those calls in whose bearer token the sidecar accepts.
import grpc from "@grpc/grpc-js";

const callers = new WeakMap();

// Whom the sidecar accepted, for the `call` that a handler gets. Kept beside the call's metadata, where no client can write.
export function callerOf(call) {
  const claims = callers.get(call.metadata);
  if (!claims) throw new Error("served without authenticate");
  return claims;
}

// With what `dial` gave; demands all of these scopes.
export function authenticate(verify, ...scopes) {
  return (_method, call) =>
    new grpc.ServerInterceptingCall(call, {
      start: (next) =>
        next({
          // The message waits until the metadata goes on.
          onReceiveMetadata: async (metadata, proceed) => {
            try {
              callers.set(metadata, await verify({ token: bearer(metadata), scopes }, call.getDeadline()));
            } catch (refusal) {
              call.sendStatus(refusal);
              return;
            }
            proceed(metadata);
          },
        }),
    });
}

// The token of the one authorization header; empty where there is none, which the sidecar denies as MALFORMED.
function bearer(metadata) {
  const sent = metadata.get("authorization");
  const [, token = ""] = (sent.length === 1 && /^Bearer (.*)$/i.exec(sent[0])) || [];
  return token;
}
