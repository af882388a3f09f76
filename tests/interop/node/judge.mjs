// `jose` as a judge: for each token of a line's list, null where it is accepted, else why not.
import { createInterface } from "node:readline";
import { createLocalJWKSet, jwtVerify } from "jose";

for await (const line of createInterface({ input: process.stdin })) {
  const { tokens, jwks, issuer, audience, algorithms, leeway } = JSON.parse(line);
  const keys = createLocalJWKSet(jwks);
  const answers = [];
  for (const token of tokens) {
    try {
      await jwtVerify(token, keys, {
        issuer,
        audience,
        algorithms,
        clockTolerance: leeway,
        requiredClaims: ["exp", "sub"],
      });
      answers.push(null);
    } catch (error) {
      answers.push(String(error.code ?? error.name));
    }
  }
  process.stdout.write(`${JSON.stringify({ ok: answers })}\n`);
}
