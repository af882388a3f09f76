"""The way to the sidecar beside this service, and what its refusals mean."""

import json

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# A sidecar that starts or restarts is waited for; "can't tell" is asked again, at most twice. A "no" has other codes and
# is final.
CALL_POLICY = {
    "name": [{"service": "countersign.v1.TokenService", "method": "Verify"}],
    "waitForReady": True,
    "retryPolicy": {
        "maxAttempts": 3,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}
# All of it ends after a second. Handed to each call: as "timeout" in the policy, grpcio counts it up to a second short.
DEADLINE = 1.0
OPTIONS = [
    ("grpc.service_config", json.dumps({"methodConfig": [CALL_POLICY]})),
    ("grpc.default_authority", "localhost"),  # on a Unix socket it would be the path, which HTTP/2 doesn't allow
    ("grpc.enable_http_proxy", 0),
    # By default a lost sidecar is dialled ever more seldom, up to two minutes apart.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt may take
    ("grpc.max_reconnect_backoff_ms", 200),
]


def dial(address: str) -> grpc.aio.Channel:
    """127.0.0.1:50051 or unix:/run/countersign/api.sock. Connects when it is first needed."""
    return grpc.aio.insecure_channel(address, options=OPTIONS)


def refusal(error: grpc.aio.AioRpcError) -> tuple[grpc.StatusCode, str, tuple]:
    """What the service answers where its sidecar did not say OK: code, message, trailing metadata.

    The sidecar's own words are passed on, with the details that tell a client to refresh, to log in, or when to try again.
    All else is "can't tell", never "yes".
    """
    code, reason = error.code(), reason_of(error)
    decided = code is grpc.StatusCode.UNAUTHENTICATED or reason == "INSUFFICIENT_SCOPE"
    if reason and (decided or code is grpc.StatusCode.UNAVAILABLE):
        details = tuple(item for item in error.trailing_metadata() if item[0] == "grpc-status-details-bin")
        return code, error.details(), details
    return grpc.StatusCode.UNAVAILABLE, "can't tell who is calling; try again", ()


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
    found = any(detail.Unpack(info) for detail in (status.details if status else ()))
    return info.reason if found and info.domain == "countersign" else ""
