package main

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// A sidecar that starts or restarts is waited for; "can't tell" is asked again, at most twice; and all of it ends after a
// second, or earlier where the caller's own deadline does. A "no" has other codes and is final.
const callPolicy = `{"methodConfig": [{
	"name": [{"service": "countersign.v1.TokenService", "method": "Verify"}],
	"waitForReady": true,
	"timeout": "1s",
	"retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// DialSidecar takes 127.0.0.1:50051 or unix:/run/countersign/api.sock, and connects when it is first needed.
func DialSidecar(address string) (*grpc.ClientConn, error) {
	// By default a lost sidecar is dialled ever more seldom, up to two minutes apart.
	often := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 200 * time.Millisecond}
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDefaultServiceConfig(callPolicy),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: often, MinConnectTimeout: time.Second}))
}

// refusal is what the service answers where its sidecar did not say OK. The sidecar's own words are passed on, with the
// details that tell a client to refresh, to log in, or when to try again. All else is "can't tell", never "yes".
func refusal(err error) error {
	said := status.Convert(err)
	switch reason := reasonOf(said); {
	case said.Code() == codes.Unauthenticated && reason != "",
		said.Code() == codes.PermissionDenied && reason == "INSUFFICIENT_SCOPE",
		said.Code() == codes.Unavailable && reason != "":
		return err
	}
	return status.Error(codes.Unavailable, "can't tell who is calling; try again")
}

func reasonOf(said *status.Status) string {
	for _, detail := range said.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == "countersign" {
			return info.GetReason()
		}
	}
	return ""
}
