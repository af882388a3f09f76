// A certified OpenID provider (oidc-provider) as a live issuer on loopback. Reads one JSON request a line and answers
// one line each, in order.
import { createServer } from "node:http";
import { exportJWK, generateKeyPair } from "jose";
import Provider from "oidc-provider";
import { serve } from "./requests.mjs";

console.warn = console.info = () => {};
const audience = "https://orders.example.com";
const requests = {};
let provider;
let handle;

const server = createServer((request, response) => {
  requests[request.url] = (requests[request.url] ?? 0) + 1;
  handle(request, response);
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
const issuer = `http://127.0.0.1:${server.address().port}`;

async function key(kid) {
  const { privateKey } = await generateKeyPair("RS256", { extractable: true });
  return { ...(await exportJWK(privateKey)), kid, alg: "RS256", use: "sig" };
}

let keys = [await key("first")];

// The provider signs with the first of its keys; tokens outlive it, being kept beside it in memory.
function publish() {
  provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: "shop",
        client_secret: "shop's secret/+",
        redirect_uris: ["https://shop.example.com/cb"],
        grant_types: ["authorization_code", "refresh_token", "client_credentials"],
        introspection_signed_response_alg: undefined,
      },
      { client_id: "poster", client_secret: "posted", redirect_uris: [], grant_types: ["client_credentials"],
        response_types: [], token_endpoint_auth_method: "client_secret_post" },
    ],
    cookies: { keys: ["a cookie key"] },
    // A refresh token is good once, however young; seen twice, all of its session is revoked.
    rotateRefreshToken: true,
    scopes: ["openid", "offline_access", "orders:read"],
    findAccount: async (_context, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true, allowedPolicy: async () => true },
      revocation: { enabled: true, allowedPolicy: async () => true },
    },
  });
  handle = provider.callback();
}
publish();

async function token({ subject, scope, format, ttl }) {
  const client = await provider.Client.find("shop");
  const grant = new provider.Grant({ accountId: subject, clientId: "shop" });
  grant.addOIDCScope(scope);
  const access = new provider.AccessToken({ accountId: subject, client, grantId: await grant.save(), scope });
  access.expiresIn = ttl ?? 600;
  if (format === "jwt") {
    access.resourceServer = new provider.ResourceServer(audience, {
      scope, audience, accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } },
    });
  }
  return access.save();
}

// What a login in a browser would end in.
async function refreshToken({ subject }) {
  const client = await provider.Client.find("shop");
  const scope = "openid offline_access orders:read";
  const grant = new provider.Grant({ accountId: subject, clientId: "shop" });
  grant.addOIDCScope(scope);
  const grantId = await grant.save();
  const authTime = Math.floor(Date.now() / 1000);
  return new provider.RefreshToken({ accountId: subject, client, grantId, scope, gty: "authorization_code", authTime }).save();
}

const answers = {
  issuer: () => issuer,
  token,
  refreshToken,
  // Whether it still knows the token.
  introspect: async ({ token }) => (await provider.AccessToken.find(token)) !== undefined,
  // By the endpoint itself, as the client.
  revoke: async ({ token }) => {
    const configuration = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
    const response = await fetch(configuration.revocation_endpoint, {
      method: "POST",
      headers: { authorization: `Basic ${btoa(`shop:${encodeURIComponent("shop's secret/+").replace("'", "%27")}`)}` },
      body: new URLSearchParams({ token }),
    });
    if (response.status !== 200) throw new Error(`revocation: ${response.status} ${await response.text()}`);
    return null;
  },
  // A new key signs from now on; the old ones stay published, or go.
  rotate: async ({ kid, keep }) => {
    keys = [await key(kid), ...(keep ? keys : [])];
    publish();
    return null;
  },
  requests: () => requests,
};

await serve(answers);
server.closeAllConnections();
server.close();
