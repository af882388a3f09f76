"""The whole life of a session, told by another gRPC library.

usage: session_life.py API_ADDRESS JWKS_URL PROTO_DIR

Every step runs twice: with stubs generated from the proto files, and with messages made from what the server's
reflection says. The access token is also checked by PyJWT against the published key set. Prints the steps; exits 1 at
the first that is not as it should be.
"""

import importlib
import json
import pathlib
import sys
import tempfile
import time

import grpc
import jwt
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

PACKAGE = "countersign.v1"


class Refused(Exception):
    def __init__(self, error, reason, action):
        super().__init__(f"{error.code().name} {reason} {error.details()}")
        self.code, self.reason, self.action = error.code().name, reason, action


def error_info(error):
    """The ErrorInfo in a status, read without its generated class: field 1 reason, 2 domain, 3 metadata."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        pool = descriptor_pool.Default()
        status = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status")).FromString(value)
        for detail in status.details:
            if detail.type_url.endswith("google.rpc.ErrorInfo"):
                return strings(detail.value)
    return "", ""


def strings(raw):
    """Reason and metadata["action"] of an encoded ErrorInfo."""
    reason, action, at = "", "", 0
    while at < len(raw):
        tag, length = raw[at] >> 3, raw[at + 1]
        value = raw[at + 2 : at + 2 + length]
        if tag == 1:
            reason = value.decode()
        elif tag == 3 and b"action" in value:
            action = value[value.index(b"action") + len("action") + 2 :].decode()
        at += 2 + length
    return reason, action


class Api:
    """Calls by name with dictionaries, over whatever message classes it is given."""

    def __init__(self, channel, pool):
        self.channel, self.pool = channel, pool

    def method(self, service, name):
        descriptor = self.pool.FindServiceByName(f"{PACKAGE}.{service}").FindMethodByName(name)
        classes = [message_factory.GetMessageClass(t) for t in (descriptor.input_type, descriptor.output_type)]
        return f"/{PACKAGE}.{service}/{name}", *classes

    def call(self, service, name, **fields):
        path, request, response = self.method(service, name)
        stub = self.channel.unary_unary(path, request.SerializeToString, response.FromString)
        try:
            answer = stub(json_format.ParseDict(fields, request()), timeout=10)
        except grpc.RpcError as error:
            raise Refused(error, *error_info(error)) from None
        return json_format.MessageToDict(answer, preserving_proto_field_name=True)

    def stream(self, service, name, items):
        path, request, response = self.method(service, name)
        stub = self.channel.stream_stream(path, request.SerializeToString, response.FromString)
        return list(stub((json_format.ParseDict(item, request()) for item in items), timeout=10))


def refused(call, code, reason, action=None):
    try:
        call()
    except Refused as told:
        assert (told.code, told.reason) == (code, reason), f"{told} instead of {code} {reason}"
        assert action is None or told.action == action, f"{told.action} instead of {action}"
        return
    raise AssertionError(f"accepted instead of {code} {reason}")


def life(api, jwks_url, subject):
    opened = api.call(
        "SessionService", "CreateSession",
        subject=subject,
        device={"name": "Python"},
        attributes={"roles": ["reader"], "scopes": ["orders:read"], "claims_json": '{"tenant": 9007199254740993}'},
    )
    session, tokens = opened["session"]["session_id"], opened["tokens"]
    access = tokens["access_token"]

    answer = api.call("TokenService", "Verify", token=access, scopes=["orders:read"])
    assert (answer["subject"], answer["session_id"]) == (subject, session), answer
    assert answer["roles"] == ["reader"] and answer["kind"] == "JWT", answer
    assert "refresh_after" in answer and "revision" in answer, answer

    key = jwt.PyJWKClient(jwks_url).get_signing_key_from_jwt(access)
    claims = jwt.decode(access, key, algorithms=["EdDSA"], audience=answer["audiences"], issuer=answer["issuer"])
    assert claims["sub"] == subject and claims["tenant"] == 9007199254740993, claims
    assert jwt.get_unverified_header(access)["typ"] == "at+jwt"

    refused(lambda: api.call("TokenService", "Verify", token=access, scopes=["orders:write"]),
            "PERMISSION_DENIED", "INSUFFICIENT_SCOPE", "NONE")
    refused(lambda: api.call("TokenService", "Verify", token=access[:-4] + "AAAA"),
            "UNAUTHENTICATED", "BAD_SIGNATURE", "NONE")
    refused(lambda: api.call("TokenService", "Verify", token=""), "UNAUTHENTICATED", "MALFORMED", "NONE")
    refused(lambda: api.call("TokenService", "Verify"), "INVALID_ARGUMENT", "BAD_CALL")

    consistent = api.call("TokenService", "Verify", token=access, consistency={"fully_consistent": True})
    assert consistent["subject"] == subject

    answers = api.stream("TokenService", "VerifyStream", [
        {"id": 1, "verify": {"token": access}},
        {"id": 2, "verify": {"token": "not a token"}},
        {"id": 3, "verify": {"token": access}},
    ])
    by_id = {answer.id: answer for answer in answers}
    assert by_id[1].accepted.subject == by_id[3].accepted.subject == subject
    assert by_id[2].status.code == grpc.StatusCode.UNAUTHENTICATED.value[0], by_id[2]

    first = api.call("TokenService", "Refresh", refresh_token=tokens["refresh_token"])
    again = api.call("TokenService", "Refresh", refresh_token=tokens["refresh_token"])
    assert first["tokens"]["refresh_token"] == again["tokens"]["refresh_token"], "a repeated refresh is answered alike"

    updated = api.call("SessionService", "UpdateSession", session_id=session, attributes={"roles": ["admin"]})
    assert updated["session"]["attributes_version"] == "2", updated
    refused(lambda: api.call("TokenService", "Verify", token=access), "UNAUTHENTICATED", "STALE_CLAIMS", "REFRESH")
    renewed = api.call("TokenService", "Refresh", refresh_token=first["tokens"]["refresh_token"])
    access = renewed["tokens"]["access_token"]
    assert api.call("TokenService", "Verify", token=access)["roles"] == ["admin"]

    listed = api.call("SessionService", "ListSessions", subject=subject)["sessions"]
    assert [one["session_id"] for one in listed] == [session], listed

    revoked = api.call("TokenService", "Revoke", session={"session_id": session}, reason="logout")
    refused(lambda: api.call("TokenService", "Verify", token=access,
                             consistency={"at_least_as_fresh": revoked["revision"]}),
            "UNAUTHENTICATED", "REVOKED", "REAUTHENTICATE")
    refused(lambda: api.call("TokenService", "Refresh", refresh_token=renewed["tokens"]["refresh_token"]),
            "UNAUTHENTICATED", "REVOKED", "REAUTHENTICATE")
    refused(lambda: api.call("SessionService", "GetSession", session_id=session), "NOT_FOUND", "NO_SUCH_SESSION")
    api.call("TokenService", "Revoke", session={"session_id": session})


def generated_pool(proto_dir):
    """Compiles the proto files and imports what comes out, which registers them in the default pool."""
    out = tempfile.mkdtemp()
    files = [str(path) for path in sorted(pathlib.Path(proto_dir).rglob("*.proto"))]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    code = protoc.main(["protoc", f"-I{proto_dir}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}", *files])
    assert code == 0, "the proto files compile"
    sys.path.insert(0, out)
    for module in ("token", "session", "key"):
        importlib.import_module(f"countersign.v1.{module}_pb2_grpc")
    return descriptor_pool.Default()


def main():
    address, jwks_url, proto_dir = sys.argv[1:]
    # Over a Unix socket grpcio would name the socket's path as the authority, which HTTP/2 libraries in Rust refuse.
    with grpc.insecure_channel(address, options=[("grpc.default_authority", "localhost")]) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)
        started = time.monotonic()
        life(Api(channel, generated_pool(proto_dir)), jwks_url, "alice")
        print(f"generated stubs: the whole life of a session in {time.monotonic() - started:.2f} s")
        database = ProtoReflectionDescriptorDatabase(channel)
        assert f"{PACKAGE}.TokenService" in database.get_services(), database.get_services()
        life(Api(channel, descriptor_pool.DescriptorPool(database)), jwks_url, "bob")
        print("reflection: the same")
        published = Api(channel, descriptor_pool.Default()).call("KeyService", "GetJwks")["jwks_json"]
        assert json.loads(published)["keys"], "keys are published"


if __name__ == "__main__":
    main()
