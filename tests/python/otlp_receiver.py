"""An OTLP receiver of OpenTelemetry's own messages: prints its address, then COUNT spans, one JSON object a line, and ends."""

import json
import sys
import threading
from concurrent import futures

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

wanted = int(sys.argv[1])
done = threading.Event()
seen = 0


def texts(attributes):
    return {attribute.key: attribute.value.string_value for attribute in attributes}


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        global seen
        for of_resource in request.resource_spans:
            service = texts(of_resource.resource.attributes)["service.name"]
            for span in (span for scope in of_resource.scope_spans for span in scope.spans):
                said = {
                    "service": service,
                    "trace": span.trace_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "name": span.name,
                    "kind": trace_pb2.Span.SpanKind.Name(span.kind),
                    "attributes": texts(span.attributes),
                }
                print(json.dumps(said), flush=True)
                seen += 1
        if seen >= wanted:
            done.set()
        return trace_service_pb2.ExportTraceServiceResponse()


# One at a time, so that lines don't mix.
server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(), server)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(f"http://127.0.0.1:{port}", flush=True)
ended = done.wait(20)
server.stop(1).wait()
sys.exit(0 if ended else 1)
