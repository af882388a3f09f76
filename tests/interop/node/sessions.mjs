// An application with Auth.js' strategy `database` over Postgres: the library itself logs people in, reads their sessions
// and logs them out. Reads one JSON request a line and answers one line each, in order.
import { Auth } from "authjs";
import PostgresAdapter from "@auth/pg-adapter";
import pg from "pg";
import { serve } from "./requests.mjs";

const origin = "http://127.0.0.1:3000";
const cookie = "authjs.session-token";
// As the adapter's documentation lays them out.
const tables = `
  CREATE TABLE verification_token (identifier TEXT NOT NULL, expires TIMESTAMPTZ NOT NULL, token TEXT NOT NULL,
    PRIMARY KEY (identifier, token));
  CREATE TABLE accounts (id SERIAL, "userId" INTEGER NOT NULL, type VARCHAR(255) NOT NULL,
    provider VARCHAR(255) NOT NULL, "providerAccountId" VARCHAR(255) NOT NULL, refresh_token TEXT, access_token TEXT,
    expires_at BIGINT, id_token TEXT, scope TEXT, session_state TEXT, token_type TEXT, PRIMARY KEY (id));
  CREATE TABLE sessions (id SERIAL, "userId" INTEGER NOT NULL, expires TIMESTAMPTZ NOT NULL,
    "sessionToken" VARCHAR(255) NOT NULL, PRIMARY KEY (id));
  CREATE TABLE users (id SERIAL, name VARCHAR(255), email VARCHAR(255), "emailVerified" TIMESTAMPTZ, image TEXT,
    PRIMARY KEY (id));`;

let pool;
let config;
let link;

const call = (path, init) => Auth(new Request(path.startsWith("http") ? path : `${origin}/api/auth${path}`, init), config);
const cookies = (response) =>
  Object.fromEntries(response.headers.getSetCookie().map((line) => line.split(";")[0].split(/=(.*)/s).slice(0, 2)));
const header = (jar) => Object.entries(jar).map(([name, value]) => `${name}=${value}`).join("; ");

// Forms are taken with a token that the library gave out before.
async function submit(path, fields, jar = {}) {
  const given = await call("/csrf");
  const { csrfToken } = await given.json();
  const headers = { cookie: header({ ...cookies(given), ...jar }), "content-type": "application/x-www-form-urlencoded" };
  const body = new URLSearchParams({ csrfToken, callbackUrl: origin, ...fields });
  return { response: await call(path, { method: "POST", headers, body }), cookie: headers.cookie };
}

const answers = {
  open: async ({ connection }) => {
    pool = new pg.Pool(connection);
    await pool.query(tables);
    config = {
      secret: "a secret of thirty-two characters",
      basePath: "/api/auth",
      trustHost: true,
      adapter: PostgresAdapter(pool),
      session: { strategy: "database" },
      providers: [{ id: "email", type: "email", name: "Email", from: "shop@example.com", maxAge: 3600, options: {},
        sendVerificationRequest: async ({ url }) => { link = url; } }],
      callbacks: { session: ({ session }) => ({ user: String(session.userId), expires: session.expires }) },
      logger: { error: (error) => console.error(error), warn() {}, debug() {} },
    };
    return null;
  },
  // A login by a link in a mail; the session's token.
  login: async ({ email }) => {
    const { cookie: jar } = await submit("/signin/email", { email });
    const back = await call(link, { headers: { cookie: jar } });
    return cookies(back)[cookie];
  },
  // What the application is told of a session: null where there is none.
  session: async ({ token }) => (await call("/session", { headers: { cookie: `${cookie}=${token}` } })).json(),
  logout: async ({ token }) => (await submit("/signout", {}, { [cookie]: token })).response.status,
};

await serve(answers);
await pool?.end();
