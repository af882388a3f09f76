// The libraries' own side: reads one JSON request a line, answers one JSON line each, in order.
import * as authjs from "authjs/jwt";
import nextauth from "next-auth/jwt";
import { verifyJwt } from "@clerk/backend/jwt";
// How they cut cookies is not among what they export: read by path, beside this file.
import { SessionStore as AuthjsStore } from "./node_modules/authjs/lib/utils/cookie.js";
import { SessionStore as NextauthStore } from "./node_modules/next-auth/core/lib/cookie.js";
import { __experimental_JWTPayloadToAuthObjectProperties as granted } from "./node_modules/@clerk/shared/dist/jwtPayloadParser.mjs";
import { serve } from "./requests.mjs";

const library = { 5: authjs, 4: nextauth };
const quiet = { debug() {}, error() {}, warn() {} };

const answers = {
  // A session cookie's value as the library writes it.
  encode: ({ version, token, secret, name, maxAge }) =>
    library[version].encode({ token, secret, salt: version === 5 ? name : "", maxAge }),
  // What the library reads out of a value, or why it refuses it.
  decode: ({ version, token, secret, name }) =>
    library[version].decode({ token, secret, salt: version === 5 ? name : "" }),
  // What an application gets from a request with this Cookie header.
  getToken: ({ version, header, secret, name }) =>
    library[version].getToken({
      req: version === 5 ? { headers: { cookie: header } } : { headers: {}, cookies: cookies(header) },
      secret,
      cookieName: name,
      salt: name,
    }),
  // What Clerk's backend makes of a token.
  clerk: async ({ token, jwk, site }) => {
    const claims = await verifyJwt(token, { key: jwk, authorizedParties: [site] });
    const { orgRole, orgPermissions } = granted(claims);
    return { role: orgRole, permissions: orgPermissions ?? [] };
  },
  // A value cut as the library cuts it.
  chunk: ({ version, value, name }) =>
    new (version === 5 ? AuthjsStore : NextauthStore)({ name, options: {} }, {}, quiet)
      .chunk(value, {})
      .map((cookie) => [cookie.name, cookie.value]),
};

function cookies(header) {
  return Object.fromEntries(header.split("; ").map((pair) => pair.split(/=(.*)/s).slice(0, 2)));
}

await serve(answers, (error) => error?.code ?? error?.message ?? error);
