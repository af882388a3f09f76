package main

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	countersign "example.com/orders/gen/countersign/v1"
)

// Authenticate lets those calls in whose bearer token the sidecar accepts, with all of these scopes.
func Authenticate(sidecar countersign.TokenServiceClient, scopes ...string) []grpc.ServerOption {
	verify := func(ctx context.Context) (context.Context, error) {
		claims, err := sidecar.Verify(ctx, &countersign.VerifyRequest{Token: bearer(ctx), Scopes: scopes})
		if err != nil {
			return nil, refusal(err)
		}
		return context.WithValue(ctx, callerKey{}, claims), nil
	}
	unary := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		ctx, err := verify(ctx)
		if err != nil {
			return nil, err
		}
		return handle(ctx, request)
	}
	stream := func(server any, call grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, err := verify(call.Context())
		if err != nil {
			return err
		}
		return handle(server, authenticated{call, ctx})
	}
	return []grpc.ServerOption{grpc.ChainUnaryInterceptor(unary), grpc.ChainStreamInterceptor(stream)}
}

// Caller is whom the sidecar accepted; there is none in a call that was not authenticated.
func Caller(ctx context.Context) (*countersign.VerifyResponse, bool) {
	claims, ok := ctx.Value(callerKey{}).(*countersign.VerifyResponse)
	return claims, ok
}

// bearer is the token of the one authorization header; empty where there is none, which the sidecar denies as MALFORMED.
func bearer(ctx context.Context) *string {
	sent := metadata.ValueFromIncomingContext(ctx, "authorization")
	if scheme, token, _ := strings.Cut(strings.Join(sent, ","), " "); len(sent) == 1 && strings.EqualFold(scheme, "Bearer") {
		return &token
	}
	return new(string)
}

type callerKey struct{}
type authenticated struct {
	grpc.ServerStream
	ctx context.Context
}

func (call authenticated) Context() context.Context { return call.ctx }
