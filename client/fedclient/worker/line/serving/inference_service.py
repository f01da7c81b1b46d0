"""Open Inference Protocol service: what Triton's clients call, and the status codes that they get.

A mistake of the client's is INVALID_ARGUMENT in words, an unknown model or version NOT_FOUND, a line without
an engine UNAVAILABLE, and a full queue RESOURCE_EXHAUSTED: the client may come back, nothing has grown here.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Callable, Dict, NoReturn, Optional

import grpc

from fedclient.worker.line.monitoring.telemetry import Telemetry
from fedclient.worker.line.serving.dynamic_batcher import DynamicBatcher
from fedclient.worker.line.serving.memory_budget import MemoryBudget
from fedclient.worker.line.serving.model_leases import BusyError, NotReadyError, ServedModel
from fedclient.worker.line.serving.protocol_messages import SERVICE, classes_of, message, methods
from fedclient.worker.line.serving.tensors import (
    INPUTS,
    MODEL_NAME,
    OUTPUTS,
    output_facts,
    read_request,
    wanted_outputs,
    write_reply,
)
from fedspect.errors import EngineError, FedspectError, PictureError, SettingsError

PLATFORM = "fedspect"
LONGEST_WAIT = 60.0  # seconds that a request may take, whatever the client's deadline says
LONGEST_MESSAGE = 1000  # characters of an error; trailers of a call hold about 8 kB

logger = logging.getLogger("fedclient.line")


class UnknownModelError(SettingsError):
    """The client asks for another model or version than the one that answers."""


class InferenceService:
    """One method per method of the protocol."""

    def __init__(self, line: DynamicBatcher, telemetry: Telemetry, *, version: str) -> None:
        self.line = line
        self.telemetry = telemetry
        self.version = version
        self.draining = threading.Event()
        self._room = MemoryBudget(line.settings.largest_megapixels, line.settings.unpacked_mib)
        self._places = threading.Semaphore(line.settings.clients)

    # -- health and facts ----------------------------------------------------------------------------------

    def server_live(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Whether the process answers at all."""
        return message("ServerLiveResponse")(live=True)

    def server_ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Whether pictures can be sent."""
        return message("ServerReadyResponse")(ready=self.ready)

    @property
    def ready(self) -> bool:
        """Whether there is a model, and the process is not ending."""
        return self.line.current is not None and not self.draining.is_set()

    def model_ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Whether this model, and this version of it, answers."""
        try:
            ready = self.ready and self._model(request.name, request.version) is not None
        except (UnknownModelError, NotReadyError):
            ready = False
        return message("ModelReadyResponse")(ready=ready)

    def server_metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Who answers."""
        return message("ServerMetadataResponse")(
            name=PLATFORM,
            version=self.version,
            extensions=["model_configuration", "statistics", "model_repository"],
        )

    def model_metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Inputs and outputs."""
        model = self._model(request.name, request.version)
        reply = message("ModelMetadataResponse")(
            name=MODEL_NAME, versions=[str(model.number)], platform=PLATFORM
        )
        for name, datatype, shape in INPUTS:
            reply.inputs.add(name=name, datatype=datatype, shape=shape)
        for name in OUTPUTS:
            datatype, shape = output_facts(name, len(model.classes))
            reply.outputs.add(name=name, datatype=datatype, shape=shape)
        return reply

    def model_config(self, request: Any, context: grpc.ServicerContext) -> Any:
        """The same as Triton's configuration; either of the two inputs is given."""
        model = self._model(request.name, request.version)
        types = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
        reply = message("ModelConfigResponse")()
        reply.config.name, reply.config.platform, reply.config.backend = MODEL_NAME, PLATFORM, PLATFORM
        for name, datatype, shape in INPUTS:
            reply.config.input.add(name=name, data_type=types[datatype], dims=shape, optional=True)
        for name in OUTPUTS:
            datatype, shape = output_facts(name, len(model.classes))
            reply.config.output.add(name=name, data_type=types[datatype], dims=shape)
        return reply

    def model_statistics(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Counts and times since the process began."""
        model = self._model(request.name, request.version)
        counts = self.telemetry.counts
        reply = message("ModelStatisticsResponse")()
        row = reply.model_stats.add(
            name=MODEL_NAME,
            version=str(model.number),
            last_inference=int(counts.last_at * 1000),
            inference_count=self.line.pictures,
            execution_count=self.line.batches,
        )
        row.inference_stats.success.count = counts.requests
        row.inference_stats.success.ns = int(counts.seconds * 1e9)
        row.inference_stats.fail.count = counts.failures
        row.inference_stats.queue.count = row.inference_stats.compute_infer.count = counts.requests
        row.inference_stats.queue.ns = int(counts.queue_seconds * 1e9)
        row.inference_stats.compute_infer.ns = int(counts.engine_seconds * 1e9)
        return reply

    def repository_index(self, request: Any, context: grpc.ServicerContext) -> Any:
        """The one model."""
        reply = message("RepositoryIndexResponse")()
        model = self.line.current
        if model is not None:
            reply.models.add(name=MODEL_NAME, version=str(model.number), state="READY")
        elif not request.ready:
            reply.models.add(name=MODEL_NAME, state="UNAVAILABLE", reason="no version was activated yet")
        return reply

    # -- answers -------------------------------------------------------------------------------------------

    def model_infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Verdicts on the pictures of a request, where a place is free for it."""
        if not self._places.acquire(blocking=False):
            raise BusyError(
                "as many requests are under way as may be",
                accepted=f"up to {self.line.settings.clients}",
                remedy="ask again in a moment",
            )
        try:
            return self._infer(request, context)
        finally:
            self._places.release()

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        begun = time.perf_counter()
        if self.draining.is_set():
            raise NotReadyError("the line is ending", remedy="ask again in a moment")
        with self.line.lease() as lease:
            self._check(lease.model, request.model_name, request.model_version)
            given = read_request(request, most=self.line.settings.waiting_pictures)
            names = wanted_outputs(request)
            batch = given.prepared(lease.model.preprocessing, self._room)
            job = self.line.submit(lease, batch.pixels)
            if not context.add_callback(lambda: self.line.abandon(job)):
                self.line.abandon(job)  # the client has hung up already
            left = context.time_remaining()  # huge where the client set no deadline
            if not job.done.wait(LONGEST_WAIT if left is None else min(left, LONGEST_WAIT)):
                self.line.abandon(job)
                raise BusyError("the answer did not come in time", remedy="ask again in a moment")
            if job.error is not None:
                raise job.error
            if job.answer is None:  # the client hung up before its turn came
                raise BusyError("nobody waits for the answer any more")
            verdicts = lease.policy.decide(batch, job.answer)
            reply = write_reply(request, lease.model, verdicts, names, raw=given.raw)
            self.telemetry.answered(lease.model, job, verdicts, given.source, time.perf_counter() - begun)
            return reply

    def _model(self, name: str, version: str) -> ServedModel:
        model = self.line.current
        if model is None:
            raise NotReadyError("the line has no engine yet")
        self._check(model, name, version)
        return model

    @staticmethod
    def _check(model: ServedModel, name: str, version: str) -> None:
        if name not in ("", MODEL_NAME):
            raise UnknownModelError("no such model", seen=name[:60], accepted=MODEL_NAME)
        if version not in ("", str(model.number), model.version):
            raise UnknownModelError(
                "this version does not answer", seen=version[:80], accepted=str(model.number)
            )


CODES = (
    (UnknownModelError, grpc.StatusCode.NOT_FOUND),
    (BusyError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (NotReadyError, grpc.StatusCode.UNAVAILABLE),
    (PictureError, grpc.StatusCode.INVALID_ARGUMENT),
    (SettingsError, grpc.StatusCode.INVALID_ARGUMENT),
    (EngineError, grpc.StatusCode.INTERNAL),
)


def code_of(error: Exception) -> grpc.StatusCode:
    """The status that a client gets for an error."""
    return next((code for kind, code in CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def handler(service: InferenceService) -> grpc.GenericRpcHandler:
    """The server's end of the protocol."""
    handlers: Dict[str, Any] = {}
    for method in methods():
        kinds = classes_of(method)
        handlers[method.name] = grpc.unary_unary_rpc_method_handler(
            _serving(service, method.name, getattr(service, _snake(method.name))),
            request_deserializer=kinds["request"].FromString,
            response_serializer=kinds["reply"].SerializeToString,
        )
    return grpc.method_handlers_generic_handler(SERVICE.full_name, handlers)


def _serving(service: InferenceService, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def served(request: Any, context: grpc.ServicerContext) -> Any:
        try:
            return method(request, context)
        except Exception as error:
            code = code_of(error)
            if name == "ModelInfer":
                service.telemetry.failed(code.name.lower())
            _abort(context, code, error)

    return served


def _abort(context: grpc.ServicerContext, code: grpc.StatusCode, error: Exception) -> NoReturn:
    words: Optional[str] = None
    if isinstance(error, FedspectError):
        words = str(error)[:LONGEST_MESSAGE]
        logger.debug("refused %s: %s", context.peer(), words)
    else:
        logger.error("a defect while answering %s", context.peer(), exc_info=error)
    context.abort(code, words or "the line failed by a defect of its own; see its log")
    raise AssertionError("abort raises")


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
