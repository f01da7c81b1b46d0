"""gRPC service on an open port: a slow or silent client holds up nobody else.

grpcio's usual server gives a call a thread before its request has come, and keeps it until the last piece of the
answer is taken; eight calls without a request would then be enough to shut a service with eight threads. Here
calls wait in an event loop, where one costs some kilobytes, and no longer than the limits below. A thread works
only on a request that is there as a whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import Executor
from typing import Any

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from fedserver.enrolment.rate_limits import ConcurrencyLimit, address_of
from fedspect.errors import ConnectionLostError
from fedspect.protocol.grpc_services import snake_name, told

PROMPT = 1.0  # seconds; the request of an honest call comes with it
REQUEST_WITHIN = 10.0  # seconds that an unfinished call is waited for
PIECE_WITHIN = 60.0  # seconds that a caller may take for one piece of an answer
UNFINISHED_CALLS = 32  # per address

logger = logging.getLogger("fedserver.enrolment.service")

Served = Callable[[AsyncIterator[bytes], Any], Coroutine[Any, Any, Any]]


def open_handler(
    service: ServiceDescriptor, implementation: object, pool: Executor
) -> grpc.GenericRpcHandler:
    """Like ``fedspect.protocol.grpc_services.handler``, for a server of ``grpc.aio``.

    A method that answers once runs in a thread of ``pool``. One that streams runs in the event loop, a piece
    at a time: its pieces must be quick to make.
    """
    unfinished = ConcurrencyLimit(UNFINISHED_CALLS)
    handlers = {}
    for method in service.methods:
        parse = GetMessageClass(method.input_type).FromString
        serve = getattr(implementation, snake_name(method.name))
        streaming = method.server_streaming
        # Every request is read as a stream of one message: only so is the call ours before the request is there.
        make = grpc.stream_stream_rpc_method_handler if streaming else grpc.stream_unary_rpc_method_handler
        handlers[method.name] = make(
            _stream(serve, parse, unfinished) if streaming else _single(serve, parse, unfinished, pool),
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _single(
    method: Callable[[Any, Any], Any],
    parse: Callable[[bytes], Any],
    unfinished: ConcurrencyLimit,
    pool: Executor,
) -> Served:
    async def served(requests: AsyncIterator[bytes], context: Any) -> Any:
        try:
            request = await _request(requests, context, parse, unfinished)
            return await asyncio.get_running_loop().run_in_executor(pool, method, request, context)
        except Exception as error:
            await context.abort(*told(error, context.peer()))

    return served


def _stream(
    method: Callable[[Any, Any], Generator[Any, None, None]],
    parse: Callable[[bytes], Any],
    unfinished: ConcurrencyLimit,
) -> Served:
    async def served(requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            pieces = method(await _request(requests, context, parse, unfinished), context)
            try:
                for piece in pieces:
                    await _in_time(context.write(piece), PIECE_WITHIN, "a piece of the answer was not taken")
            finally:
                pieces.close()
        except grpc.aio.BaseError:
            logger.info("%s hung up on an answer", context.peer())
        except Exception as error:
            await context.abort(*told(error, context.peer()))

    return served


async def _request(
    requests: AsyncIterator[bytes], context: Any, parse: Callable[[bytes], Any], unfinished: ConcurrencyLimit
) -> Any:
    message = asyncio.ensure_future(requests.__anext__())
    await asyncio.wait([message], timeout=PROMPT)
    try:
        if not message.done():
            await _finished(message, address_of(context.peer()), unfinished)
        return parse(message.result())
    except (StopAsyncIteration, DecodeError) as error:
        raise ConnectionLostError("a call came without a request that can be read") from error


async def _finished(message: asyncio.Future[bytes], address: str, unfinished: ConcurrencyLimit) -> None:
    with unfinished.one(address) as allowed:
        if not allowed:
            message.cancel()
            raise ConnectionLostError(
                "too many unfinished calls from this address", remedy="wait a minute and try again"
            )
        await _in_time(message, REQUEST_WITHIN, "the request did not come")


async def _in_time(awaitable: Any, seconds: float, otherwise: str) -> Any:
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise ConnectionLostError(otherwise, seen=f"within {seconds:.0f} s") from None
