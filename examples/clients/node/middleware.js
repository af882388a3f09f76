// A middleware for Express that lets those requests in whose bearer token or session cookie the sidecar accepts.
import grpc from "@grpc/grpc-js";

// With what `dial` gave; demands all of these scopes. Whom the sidecar accepted is in `request.caller`.
export function authenticate(verify, ...scopes) {
  return async (request, response, next) => {
    const presented = credential(request.headers);
    if (!presented) {
      response.status(401).set("WWW-Authenticate", "Bearer").json({ reason: "", action: "REAUTHENTICATE" });
      return;
    }
    try {
      request.caller = await verify({ ...presented, scopes });
    } catch (refusal) {
      refuse(response, refusal, scopes);
      return;
    }
    next();
  };
}

// The sidecar finds the session cookie in the header by its configured name, and joins its chunks.
function credential({ authorization, cookie }) {
  const [, token] = /^Bearer (.*)$/i.exec(authorization ?? "") ?? [];
  if (token) return { token };
  return cookie && !authorization ? { cookieHeader: cookie } : undefined;
}

// RFC 6750 §3 and RFC 9110 §10.2.3. The action tells a browser's code whether to refresh, to log in, or neither.
function refuse(response, { code, reason = "", action = "NONE", retryAfter }, scopes) {
  if (code === grpc.status.UNAUTHENTICATED) {
    response.status(401).set("WWW-Authenticate", 'Bearer error="invalid_token"');
  } else if (code === grpc.status.PERMISSION_DENIED) {
    response.status(403).set("WWW-Authenticate", `Bearer error="insufficient_scope", scope="${scopes.join(" ")}"`);
  } else {
    response.status(503).set("Retry-After", String(retryAfter ?? 1));
  }
  response.json({ reason, action });
}
