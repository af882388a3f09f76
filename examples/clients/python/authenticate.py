"""A server interceptor for grpc.aio that lets those calls in whose bearer token the sidecar accepts."""

import contextvars

import grpc

import sidecar
from countersign.v1 import token_pb2, token_pb2_grpc

# Whom the sidecar accepted, a VerifyResponse; reading it in a call that was not authenticated is a LookupError.
caller: contextvars.ContextVar[token_pb2.VerifyResponse] = contextvars.ContextVar("caller")


class Authenticate(grpc.aio.ServerInterceptor):
    """Demands all of these scopes."""

    def __init__(self, channel: grpc.aio.Channel, *scopes: str):
        self.verify = token_pb2_grpc.TokenServiceStub(channel).Verify
        self.scopes = scopes

    async def intercept_service(self, continuation, call):
        request = token_pb2.VerifyRequest(token=bearer(call.invocation_metadata), scopes=self.scopes)
        try:
            caller.set(await self.verify(request, timeout=sidecar.DEADLINE))
        except grpc.aio.AioRpcError as error:
            return refused(*sidecar.refusal(error))
        return await continuation(call)


def bearer(metadata) -> str:
    """The token of the one authorization header; empty where there is none, which the sidecar denies as MALFORMED."""
    sent = [value for key, value in metadata or () if key == "authorization"]
    scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    return token if scheme.lower() == "bearer" else ""


def refused(code, message, details):
    async def abort(_, context):
        await context.abort(code, message, details)

    return grpc.unary_unary_rpc_method_handler(abort)
