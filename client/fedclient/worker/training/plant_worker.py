"""A plant's work in a round: evaluate the head that came, train it on the plant's own pictures, answer the
change.

The same class runs in a plant's worker process and in a simulation. What it is asked and what it answers
are ``fedspect.update.round_messages`` messages; whatever goes wrong becomes an answer that says so. The trainer
stays warm between rounds, yet nothing but the files of ``PlantState`` decides the answer: on the same
machine a worker that was killed and started again gives the same reply, to the byte (but for the seconds
that it took).
"""

from __future__ import annotations

import importlib.metadata
import logging
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, Optional, Sequence

from fedclient.worker.training.class_statistics import collect, rate
from fedclient.worker.training.evaluation_metrics import EvaluationMetrics, figures_of
from fedclient.worker.training.head import head_of, load_head, shared_part, statistics_part
from fedclient.worker.training.plant_state import Carried, PlantState
from fedspect.data.pictures import CheckedPicture
from fedspect.discriminant.messages import ScoreTask, StatisticsTask
from fedspect.errors import FedspectError, UpdateError, UpdateRefusedError
from fedspect.model.base import BaseNetwork
from fedspect.seeds import derived_seed
from fedspect.training.reports import FitReport, Progress, unheard
from fedspect.training.settings import TrainingSettings
from fedspect.training.trainer import Trainer
from fedspect.update.change import change_between
from fedspect.update.downlink import receive_head
from fedspect.update.encoding import largest_message
from fedspect.update.error_feedback import encode_with_feedback
from fedspect.update.round_messages import (
    DEFAULT_MAX_BYTES,
    MAX_HEADER_BYTES,
    PlantDescription,
    ReplyError,
    RoundReply,
    RoundTask,
    kind_of,
)
from fedspect.update.schema import Arrays, Schema, version_of

logger = logging.getLogger(__name__)


class PlantWorker:
    """One plant's pictures, network and state.

    Args:
        name: the plant's.
        base: the base model that all plants share.
        classes: the federation's, in its order.
        train: the pictures to train on.
        evaluation: held-out pictures to evaluate each received head on; may be empty.
        settings: how to train; a task's rate, epochs and proximal weight take precedence.
        freeze_levels: frozen levels; the base model's default when None.
        state_folder: what must survive this process (``PlantState``).
        cache_folder: of frozen features; None keeps them in memory.
        seed: of a new classifier, where the base model has other classes.
        closed_form: whether the federation begins at a linear discriminant (``fedspect.discriminant``).
        good_classes: classes without a defect, for escapes and false rejects.
        bit_depth: of the plant's camera, for files of 16 bits.
        threshold: of the line, see ``fedspect.training.metrics``.

    Raises:
        ModelError: the base model cannot be built for these classes or frozen levels.
        SettingsError: the device of the settings does not exist.

    """

    def __init__(
        self,
        name: str,
        base: BaseNetwork,
        classes: Sequence[str],
        train: Sequence[CheckedPicture],
        evaluation: Sequence[CheckedPicture],
        settings: TrainingSettings,
        *,
        freeze_levels: Optional[int] = None,
        state_folder: Path,
        cache_folder: Optional[Path] = None,
        seed: int = 0,
        closed_form: bool = False,
        good_classes: Sequence[str] = (),
        threshold: Optional[float] = None,
        bit_depth: Optional[int] = None,
    ) -> None:
        self.name = name
        self.base = base
        self.classes = tuple(classes)
        self.train_pictures = list(train)
        self.evaluation_pictures = list(evaluation)
        self.settings = settings
        self.good_classes = tuple(good_classes)
        self.threshold = threshold
        self.cache_folder = cache_folder
        self.preprocessing = base.preprocessing.of_camera(bit_depth)
        self.state = PlantState(state_folder, base_hash=base.content_hash)
        self.network = base.starting_network(
            self.classes, seed=seed, freeze_levels=freeze_levels, closed_form=closed_form
        )
        self.freeze_levels = self.network.freeze_levels
        self._start = head_of(self.network)
        self._trainer: Optional[Trainer] = None

    def describe(self) -> PlantDescription:
        """What the plant says about itself."""
        return PlantDescription(
            plant=self.name,
            software=_software(),
            classes=list(self.classes),
            counts=self._counts(self.train_pictures),
            evaluation_counts=self._counts(self.evaluation_pictures),
            base_hash=self.base.content_hash,
            holds=self.state.held(),
        )

    def work(self, task: RoundTask, progress: Optional[Progress] = None) -> RoundReply:
        """Do one round's work; never raises but for an interrupt.

        Args:
            task: what to do.
            progress: is told of every batch.

        """
        message = task.to_bytes()
        try:
            reply = self.state.reply_to(message)
            if reply is None:
                reply = self._work(task, progress or unheard)
                self.state.keep_reply(message, reply)
            return reply
        except Exception as error:
            logger.warning(
                "round %d failed: %s", task.round, error, exc_info=not isinstance(error, FedspectError)
            )
            return self._reply(task, error=ReplyError.of(error))

    def work_bytes(self, task: bytes, progress: Optional[Progress] = None) -> bytes:
        """Do a round's work, or an exchange's of the closed form, on encoded messages.

        Raises:
            UpdateFormatError: the bytes are no task.

        """
        kind = kind_of(task)
        if kind == StatisticsTask.kind:
            return collect(self, StatisticsTask.from_bytes(task), progress or unheard).to_bytes()
        if kind == ScoreTask.kind:
            return rate(self, ScoreTask.from_bytes(task, DEFAULT_MAX_BYTES), progress or unheard).to_bytes()
        limit = largest_message(Schema.of(self._start)) + MAX_HEADER_BYTES + 1024
        return self.work(RoundTask.from_bytes(task, limit), progress).to_bytes()

    def _work(self, task: RoundTask, progress: Progress) -> RoundReply:
        seconds: Dict[str, float] = {}
        self.state.remarks.clear()
        self.check_base(task.base_hash)
        with _timed(seconds, "total"):
            with _timed(seconds, "decode"):
                shared = self._shared(task)
                schema = Schema.of(shared_part(self._start, task.batch_norm)).changing
                carried = self.state.before(task.run_id, task.round, schema)
                load_head(self.network, {**self._own_statistics(task, carried), **shared})
                trainer = self.trainer_for(task.seed)
            figures: Optional[EvaluationMetrics] = None
            if task.evaluate and self.evaluation_pictures:
                with _timed(seconds, "evaluate"):
                    answers = trainer.predict(self.evaluation_pictures, progress)
                    figures = figures_of(
                        answers, self.classes, good_classes=self.good_classes, threshold=self.threshold
                    )
            report: Optional[FitReport] = None
            payload = b""
            if task.train:
                with _timed(seconds, "train"):
                    report = self._fit(trainer, task, progress)
                with _timed(seconds, "encode"):
                    payload = self._encode(task, shared, carried)
        return self._reply(task, figures=figures, report=report, payload=payload, seconds=seconds)

    def _shared(self, task: RoundTask) -> Arrays:
        """The head that the task means, proved by its version; the plant holds it from now on."""
        start = shared_part(self._start, task.batch_norm)
        schema = Schema.of(start)

        def held(version: Optional[str]) -> Optional[Arrays]:
            if version is None:
                return None
            kept = self.state.head(version, schema)
            return start if kept is None and version == version_of(start) else kept

        shared = held(task.version)
        if shared is None:
            try:
                shared = receive_head(
                    task.payload_kind,
                    task.payload,
                    version=task.version,
                    schema=schema,
                    held=held(task.holds),
                )
            except UpdateError:
                self.state.forget_heads()
                raise
        self.state.keep_head(shared, task.version)
        return shared

    def _own_statistics(self, task: RoundTask, carried: Carried) -> Arrays:
        """The statistics that do not travel: kept from the round before, or where a plant begins.

        A run that begins from the base model's own head begins with its statistics. One that begins from a
        trained head begins with what this plant measured last.

        """
        own = statistics_part(self._start)
        if task.batch_norm == "average":
            return {}
        kept = carried.statistics
        if kept is None and task.version != version_of(shared_part(self._start, task.batch_norm)):
            kept = self.state.latest_statistics(task.run_id)
        if kept is not None and Schema.of(kept) == Schema.of(own):
            return kept
        return own

    def _fit(self, trainer: Trainer, task: RoundTask, progress: Progress) -> FitReport:
        return trainer.fit(
            self.train_pictures,
            epochs=task.local_epochs,
            first_epoch=(task.round - 1) * task.local_epochs,
            total_epochs=max(task.round, task.total_rounds) * task.local_epochs,
            learning_rate=task.learning_rate,
            proximal_mu=task.proximal_mu,
            progress=progress,
        )

    def _encode(self, task: RoundTask, shared: Arrays, carried: Carried) -> bytes:
        """The change as it travels; what it lost and the plant's statistics are on the disk before it
        leaves.
        """
        after = head_of(self.network)
        change = change_between(shared, shared_part(after, task.batch_norm))
        encoded = encode_with_feedback(
            change, carried.residual, encoding=task.reply_encoding, density=task.reply_density
        )
        statistics = statistics_part(after) if task.batch_norm == "per-plant" else None
        self.state.commit(task.run_id, task.round, Carried(encoded.residual, statistics))
        return encoded.blob

    def check_base(self, base_hash: str) -> None:
        """Raise ``UpdateRefusedError`` for work that is meant for another base model."""
        if base_hash != self.base.content_hash:
            raise UpdateRefusedError(
                "the task is for another base model",
                seen=base_hash[:12],
                accepted=self.base.content_hash[:12],
                remedy="fetch the federation's base model: join again",
            )

    def trainer_for(self, run_seed: int) -> Trainer:
        """The warm trainer; a run with another seed gets its own."""
        seed = derived_seed("plant", self.name, run_seed)
        if self._trainer is None or self._trainer.seed != seed:
            self._trainer = Trainer(
                self.network,
                self.preprocessing,
                self.classes,
                self.settings,
                freeze_levels=self.freeze_levels,
                base_hash=self.base.content_hash,
                cache_folder=self.cache_folder,
                seed=seed,
            )
        return self._trainer

    def _reply(
        self,
        task: RoundTask,
        *,
        figures: Optional[EvaluationMetrics] = None,
        report: Optional[FitReport] = None,
        payload: bytes = b"",
        seconds: Optional[Dict[str, float]] = None,
        error: Optional[ReplyError] = None,
    ) -> RoundReply:
        remarks = [*self.state.remarks, *(report.remarks if report is not None else [])]
        return RoundReply(
            plant=self.name,
            run_id=task.run_id,
            round=task.round,
            base_hash=self.base.content_hash,
            version=task.version,
            holds=self.state.held(),
            encoding=task.reply_encoding,
            num_examples=report.num_examples if report is not None else 0,
            counts=report.counts if report is not None else {},
            evaluated=figures.evaluated if figures is not None else 0,
            metrics=figures.metrics if figures is not None else {},
            confusion=figures.confusion if figures is not None else None,
            train_loss=report.loss if report is not None else None,
            seconds=seconds or {},
            remarks=[remark[:500] for remark in remarks[:20]],
            error=error,
            payload=payload,
        )

    def _counts(self, pictures: Sequence[CheckedPicture]) -> Dict[str, int]:
        counts = Counter(picture.label for picture in pictures)
        return {name: counts[name] for name in self.classes}


class NodeCalls:
    """A ``PlantWorker`` as the node asks it: bytes in, bytes out (``fedclient.node.flower.clientapp``)."""

    def __init__(self, worker: PlantWorker, progress: Optional[Progress] = None) -> None:
        self._worker = worker
        self._progress = progress

    def work(self, task: bytes) -> bytes:
        """Do a ``RoundTask`` and answer a ``RoundReply``."""
        return self._worker.work_bytes(task, self._progress)

    def describe(self) -> bytes:
        """A ``PlantDescription``."""
        return self._worker.describe().to_bytes()


@contextmanager
def _timed(seconds: Dict[str, float], part: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[part] = round(time.perf_counter() - started, 4)


def _software() -> str:
    try:
        return importlib.metadata.version("fedspect")
    except importlib.metadata.PackageNotFoundError:
        return "0"
