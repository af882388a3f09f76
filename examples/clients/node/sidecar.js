// The way to the sidecar beside this service, and what its refusals mean.
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";

const here = import.meta.dirname;
const folders = { includeDirs: [`${here}/../../../proto`, here] };
const messages = loader.loadSync(["countersign/v1/token.proto", "details.proto"], { defaults: true, longs: String, ...folders });
const { TokenService } = grpc.loadPackageDefinition(messages).countersign.v1;

// "Can't tell" is asked again, at most twice, and all of it ends after a second. A "no" has other codes and is final.
const policy = {
  name: [{ service: "countersign.v1.TokenService", method: "Verify" }],
  timeout: "1s",
  retryPolicy: { maxAttempts: 3, initialBackoff: "0.05s", maxBackoff: "0.2s", backoffMultiplier: 2, retryableStatusCodes: ["UNAVAILABLE"] },
};
const options = {
  "grpc.service_config": JSON.stringify({ methodConfig: [policy], loadBalancingConfig: [] }),
  "grpc.enable_http_proxy": 0,
  // By default a lost sidecar is dialled ever more seldom, up to two minutes apart.
  "grpc.initial_reconnect_backoff_ms": 50,
  "grpc.max_reconnect_backoff_ms": 200,
};

// Takes 127.0.0.1:50051 or unix:/run/countersign/api.sock, and connects when it is first needed. The function that comes back
// resolves with an accepted token's claims or rejects with a refusal; `deadline` is the caller's own, if it has one.
export function dial(address) {
  const client = new TokenService(address, grpc.credentials.createInsecure(), options);
  return (request, deadline = Infinity) =>
    new Promise((accept, refuse) => {
      // A sidecar that starts or restarts is waited for. grpc-js reads this here alone, not in the service config.
      const metadata = new grpc.Metadata({ waitForReady: true });
      client.Verify(request, metadata, { deadline }, (said, claims) => (said ? refuse(refusal(said)) : accept(claims)));
    });
}

// What the service answers where its sidecar did not say OK. The sidecar's own words are passed on, with the details that
// tell a client to refresh, to log in, or when to try again. All else is "can't tell", never "yes".
function refusal(said) {
  const [raw] = said.metadata?.get("grpc-status-details-bin") ?? [];
  const info = detail(raw, "google.rpc.ErrorInfo");
  const reason = info?.domain === "countersign" ? info.reason : "";
  const decided = said.code === grpc.status.UNAUTHENTICATED || reason === "INSUFFICIENT_SCOPE";
  if (!reason || !(decided || said.code === grpc.status.UNAVAILABLE))
    return { code: grpc.status.UNAVAILABLE, details: "can't tell who is calling; try again", metadata: new grpc.Metadata(), retryAfter: 1 };
  const metadata = new grpc.Metadata();
  metadata.set("grpc-status-details-bin", raw);
  const retryAfter = Number(detail(raw, "google.rpc.RetryInfo")?.retryDelay?.seconds ?? 0) + 1;
  return { code: said.code, details: said.details, metadata, reason, action: info.metadata.action, retryAfter };
}

export function detail(raw, name) {
  const found = raw && messages["google.rpc.Status"].deserialize(raw).details.find((one) => one.type_url.endsWith(`/${name}`));
  return found && messages[name].deserialize(found.value);
}
