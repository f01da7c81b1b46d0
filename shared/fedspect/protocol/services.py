"""A gRPC service's two ends, made from its protobuf descriptor.

``Stub(channel, ENROLMENT)`` has one callable per method; ``handler(ENROLMENT, implementation)`` serves the
methods of the same names of ``implementation``. What gRPC's code generator writes is only this table, but
it ties itself to the version of grpcio that it was made with, and the worker's Python 3.8 stops at an old
one.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Final

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from fedspect.protocol import enrolment_pb2, worker_pb2

ENROLMENT: Final[ServiceDescriptor] = enrolment_pb2.DESCRIPTOR.services_by_name["Enrolment"]
WORKER: Final[ServiceDescriptor] = worker_pb2.DESCRIPTOR.services_by_name["Worker"]


class Stub:
    """The client's end: ``stub.Method(request, timeout=seconds)`` answers a reply or an iterator of
    replies.
    """

    def __init__(self, channel: grpc.Channel, service: ServiceDescriptor) -> None:
        self._calls: Dict[str, Callable[..., Any]] = {}
        for method in service.methods:
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            self._calls[method.name] = make(
                f"/{service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self._calls[name]
        except KeyError:
            raise AttributeError(name) from None


def handler(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
    """The server's end: each method of the service is ``implementation``'s method of that name (request,
    context).
    """
    handlers = {}
    for method in service.methods:
        make = (
            grpc.unary_stream_rpc_method_handler
            if method.server_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        handlers[method.name] = make(
            getattr(implementation, method.name),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)
