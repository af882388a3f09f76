// A service that asks its sidecar who is calling: orders SIDECAR
//
// Calls itself with each token that it reads, one a line, and prints the answer.
package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	countersign "example.com/orders/gen/countersign/v1"
	orders "example.com/orders/gen/example/v1"
)

type service struct {
	orders.UnimplementedOrdersServer
}

func (service) List(ctx context.Context, _ *orders.ListRequest) (*orders.ListResponse, error) {
	caller, ok := Caller(ctx)
	if !ok {
		return nil, status.Error(codes.Internal, "served without Authenticate")
	}
	return &orders.ListResponse{Customer: caller.GetSubject()}, nil
}

func serve(sidecar string) (net.Addr, error) {
	channel, err := DialSidecar(sidecar)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(Authenticate(countersign.NewTokenServiceClient(channel), "orders:read")...)
	orders.RegisterOrdersServer(server, service{})
	go func() { log.Fatal(server.Serve(listener)) }()
	return listener.Addr(), nil
}

func answer(client orders.OrdersClient, token string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	list, err := client.List(ctx, &orders.ListRequest{})
	if err == nil {
		return "yes " + list.GetCustomer()
	}
	said, reason, action := status.Convert(err), "-", "-"
	for _, detail := range said.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			reason, action = info.GetReason(), info.GetMetadata()["action"]
		}
	}
	switch said.Code() {
	case codes.Unauthenticated:
		return "no UNAUTHENTICATED " + reason + " " + action
	case codes.PermissionDenied:
		return "no PERMISSION_DENIED " + reason + " " + action
	case codes.Unavailable:
		return "can't tell UNAVAILABLE " + reason + " " + action
	}
	return "broken: " + said.String()
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: orders SIDECAR")
	}
	address, err := serve(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	channel, err := grpc.NewClient(address.String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	tokens := bufio.NewScanner(os.Stdin)
	for tokens.Scan() {
		fmt.Println(answer(orders.NewOrdersClient(channel), tokens.Text()))
	}
}
