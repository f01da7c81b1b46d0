"""gRPC service and client from a protobuf descriptor, and our errors across the wire.

``Stub(channel, ENROLMENT)`` has one callable per method; ``handler(ENROLMENT, implementation)`` serves them
with the methods of ``implementation`` (``FetchBase`` is ``fetch_base``). What gRPC's code generator writes
is only this table, but it ties itself to the version of grpcio that it was made with, and the worker's
Python 3.8 stops at an old one.

An error of ours that a served method raises arrives at the caller as the same error, with the same words: the
plant's engineer reads why headquarters refused. Any other exception stays inside and is called a defect.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Callable, Dict, Final, Iterator, NoReturn, Optional, Tuple

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from fedspect.errors import LONGEST_PART, ConnectionLostError, FedspectError, error_from
from fedspect.protocol import enrolment_pb2, worker_pb2

ENROLMENT: Final[ServiceDescriptor] = enrolment_pb2.DESCRIPTOR.services_by_name["Enrolment"]
WORKER: Final[ServiceDescriptor] = worker_pb2.DESCRIPTOR.services_by_name["Worker"]


logger = logging.getLogger("fedspect.protocol")


class Stub:
    """The client's end: ``stub.fetch_base(request, timeout=seconds)`` answers a reply or an iterator of them.

    Raises:
        FedspectError: what the other end raised, or ``ConnectionLostError`` when there is no other end.

    """

    def __init__(self, channel: grpc.Channel, service: ServiceDescriptor) -> None:
        self._calls: Dict[str, Callable[..., Any]] = {}
        for method in service.methods:
            make = channel.unary_stream if method.server_streaming else channel.unary_unary
            call = make(
                f"/{service.full_name}/{method.name}",
                request_serializer=GetMessageClass(method.input_type).SerializeToString,
                response_deserializer=GetMessageClass(method.output_type).FromString,
            )
            wrap = _streaming if method.server_streaming else _single
            self._calls[snake_name(method.name)] = wrap(call)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        try:
            return self._calls[name]
        except KeyError:
            raise AttributeError(name) from None


def _single(call: Callable[..., Any]) -> Callable[..., Any]:
    def calling(request: Any, *, timeout: Optional[float] = None) -> Any:
        try:
            return call(request, timeout=timeout)
        except grpc.RpcError as error:
            raise _error_from(error) from error

    return calling


def _streaming(call: Callable[..., Any]) -> Callable[..., Any]:
    def calling(request: Any, *, timeout: Optional[float] = None) -> Iterator[Any]:
        replies = call(request, timeout=timeout)
        try:
            yield from replies
        except grpc.RpcError as error:
            raise _error_from(error) from error
        finally:
            replies.cancel()  # a caller that stops listening ends the work; after the last reply: nothing

    return calling


def handler(service: ServiceDescriptor, implementation: object) -> grpc.GenericRpcHandler:
    """The server's end; each method is called with the request and the call's context."""
    handlers = {}
    for method in service.methods:
        streaming = method.server_streaming
        make = grpc.unary_stream_rpc_method_handler if streaming else grpc.unary_unary_rpc_method_handler
        serve = _serve_stream if streaming else _serve_single
        handlers[method.name] = make(
            serve(getattr(implementation, snake_name(method.name))),
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _serve_single(method: Callable[..., Any]) -> Callable[..., Any]:
    def served(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request, context)
        except Exception as error:
            _abort(context, error)

    return served


def _serve_stream(method: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    def served(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        try:
            yield from method(request, context)
        except Exception as error:
            _abort(context, error)

    return served


def told(error: Exception, peer: str) -> Tuple[grpc.StatusCode, str]:
    """How an error crosses the wire: the code and the details of a failed call. It is logged here."""
    if isinstance(error, FedspectError):
        logger.warning("refused %s: %s", peer, error)
        parts = error.as_dict()
        code = grpc.StatusCode.FAILED_PRECONDITION
    else:
        logger.error("a defect while answering %s", peer, exc_info=error)
        parts = {
            "error": "FedspectError",
            "what": "the other side failed by a defect of its own; see its log",
        }
        code = grpc.StatusCode.INTERNAL
    kept = {key: value[:LONGEST_PART] for key, value in parts.items() if isinstance(value, str)}
    return code, json.dumps(kept)


def _abort(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    context.abort(*told(error, context.peer()))
    raise AssertionError("abort raises")


def _error_from(error: grpc.RpcError) -> FedspectError:
    """The error that the other end raised, or what the lack of an answer means."""
    details = str(error.details() or "")
    try:
        found = error_from(json.loads(details))
    except (ValueError, RecursionError):
        found = None
    return found or ConnectionLostError(
        "the other side does not answer", seen=f"{error.code().name.lower()}: {details[:LONGEST_PART]}"
    )


def snake_name(name: str) -> str:
    """A method's name in Python: ``FetchBase`` is ``fetch_base``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
