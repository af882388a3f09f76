"""A service that asks its sidecar who is calling: main.py SIDECAR

Calls itself with each token that it reads, one a line, and prints the answer.
"""

import asyncio
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import sidecar
from authenticate import Authenticate, caller
from example.v1 import orders_pb2, orders_pb2_grpc

WORDS = {
    grpc.StatusCode.UNAUTHENTICATED: "no",
    grpc.StatusCode.PERMISSION_DENIED: "no",
    grpc.StatusCode.UNAVAILABLE: "can't tell",
}


class Orders(orders_pb2_grpc.OrdersServicer):
    async def List(self, request, context):
        return orders_pb2.ListResponse(customer=caller.get().subject)


async def answer(orders, token):
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    try:
        return "yes " + (await orders.List(orders_pb2.ListRequest(), metadata=metadata, timeout=5)).customer
    except grpc.aio.AioRpcError as error:
        status, info = rpc_status.from_call(error), error_details_pb2.ErrorInfo()
        found = any(detail.Unpack(info) for detail in (status.details if status else ()))
        told = (info.reason, info.metadata["action"]) if found else ("-", "-")
        return " ".join((WORDS.get(error.code(), "broken:"), error.code().name, *told))


async def main(address):
    async with sidecar.dial(address) as channel:
        server = grpc.aio.server(interceptors=[Authenticate(channel, "orders:read")])
        orders_pb2_grpc.add_OrdersServicer_to_server(Orders(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as itself:
            orders = orders_pb2_grpc.OrdersStub(itself)
            while line := await asyncio.to_thread(sys.stdin.readline):
                print(await answer(orders, line.strip()), flush=True)
        await server.stop(None)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: main.py SIDECAR")
    asyncio.run(main(sys.argv[1]))
