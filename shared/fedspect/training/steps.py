"""Training loop: the optimiser, its steps, and the best weights so far."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from torch import Tensor, nn

from fedspect.errors import ModelError
from fedspect.training.devices import gradient_scaler, precision
from fedspect.training.objective import (
    ProximalTerm,
    build_optimizer,
    class_weights,
    cross_entropy,
    cross_entropy_within,
    within_source,
)
from fedspect.training.sampling import learning_rate_share
from fedspect.training.settings import TrainingSettings


@dataclass(frozen=True)
class Hooks:
    """What pre-training adds to a step."""

    before_step: Callable[[float], object] = lambda share: None
    """Called with the share of the whole schedule that is done."""
    extra_loss: Optional[Callable[[], Tensor]] = None
    """Added to each batch's loss."""
    sources: Optional[Tensor] = None
    """The number of each class's source, (K,): a picture is told from the classes of its own source only."""


class Steps:
    """Takes one step a batch with one optimiser.

    Args:
        module: what is called with a batch: the head, or the whole network.
        parameters: those that are trained, by full name.
        settings: how.
        counts: training pictures by class.
        anchor: where FedProx pulls to.
        learning_rate: top of the schedule.
        proximal_mu: strength of FedProx.
        total_epochs: length of the schedule.
        hooks: of pre-training.
        half: compute in half precision.

    """

    def __init__(
        self,
        module: nn.Module,
        parameters: Dict[str, nn.Parameter],
        settings: TrainingSettings,
        *,
        counts: List[int],
        anchor: Mapping[str, Tensor],
        learning_rate: float,
        proximal_mu: float,
        total_epochs: int,
        hooks: Hooks,
        half: bool,
    ) -> None:
        self.module = module
        self.parameters = list(parameters.values())
        self.settings = settings
        self.device = self.parameters[0].device
        self.optimizer = build_optimizer(parameters, settings, learning_rate)
        self.pull = ProximalTerm(parameters, anchor, proximal_mu)
        weights = class_weights(counts, settings.class_weights)
        self.weights = None if weights is None else weights.to(self.device)
        self.top_learning_rate = learning_rate
        self.learning_rate = learning_rate
        self.total_epochs = total_epochs
        self.hooks = hooks
        self.half = half
        self.statistics = EpochStatistics(module)
        self.scaler = gradient_scaler(enabled=half)

    def step(self, inputs: Tensor, labels: Tensor, epoch: float) -> Tuple[float, int]:
        """Take one step at a fractional epoch: the batch's mean loss, and how many answers were right.

        Raises:
            ModelError: the loss is no longer a number.

        """
        self._set_learning_rate(epoch)
        self.hooks.before_step(epoch / self.total_epochs)
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.begin_batch()
        with norms_at_rest(self.module, at_rest=len(labels) < 2), precision(self.device, half=self.half):
            logits = self.module(inputs)
        smoothing = self.settings.label_smoothing
        if self.hooks.sources is None:
            loss = cross_entropy(logits, labels, self.weights, smoothing)
        else:
            logits = within_source(logits, labels, self.hooks.sources)
            loss = cross_entropy_within(logits, labels, self.weights, smoothing)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                "training has diverged: the loss is no longer a number",
                seen=f"epoch {epoch:.2f}, step size {self.learning_rate:g}",
                remedy="lower learning_rate, or set gradient_clip",
            )
        if self.hooks.extra_loss is not None:
            loss = loss + self.hooks.extra_loss()
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.pull.add_to_gradients()
        if self.settings.gradient_clip:
            nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip, foreach=True)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return value, int((logits.argmax(1) == labels).sum())

    def _set_learning_rate(self, epoch: float) -> None:
        share = learning_rate_share(
            epoch,
            self.total_epochs,
            warmup_epochs=self.settings.warmup_epochs,
            final_share=self.settings.final_learning_rate,
        )
        self.learning_rate = self.top_learning_rate * share
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate


class EpochStatistics:
    """Running statistics of the norms as the mean over an epoch, over ten batches where it has more.

    With torch's fixed share of 0.1 a batch, the statistics of a small plant (three batches an epoch, two
    epochs a round) would still be three quarters those of the weights it started from, and its network
    would answer worse than it has learned. In a long epoch the share is torch's.
    """

    LEAST_SHARE = 0.1

    def __init__(self, module: nn.Module) -> None:
        kinds = nn.modules.batchnorm._BatchNorm
        self._norms = [part for part in module.modules() if isinstance(part, kinds)]
        self._usual = [norm.momentum for norm in self._norms]
        self._seen = 0

    def begin_epoch(self) -> None:
        """The next batch counts alone."""
        self._seen = 0

    def begin_batch(self) -> None:
        """The next batch counts as much as each before it in this epoch."""
        self._seen += 1
        for norm in self._norms:
            norm.momentum = max(self.LEAST_SHARE, 1.0 / self._seen)

    def restore(self) -> None:
        """Leave the norms' own settings as they were."""
        for norm, usual in zip(self._norms, self._usual):
            norm.momentum = usual


class Best:
    """The best epoch so far: highest validation accuracy, then lowest loss."""

    def __init__(self) -> None:
        self.epoch = -1
        self.state: Optional[Dict[str, Tensor]] = None
        self._score: Tuple[float, float] = (-1.0, 0.0)

    def offer(self, epoch: int, accuracy: float, loss: float, state: Mapping[str, Tensor]) -> None:
        """Keep a copy of the state if it is better."""
        if self.state is None or (accuracy, -loss) > self._score:
            self.epoch, self._score = epoch, (accuracy, -loss)
            self.state = {name: value.clone() for name, value in state.items()}


@contextlib.contextmanager
def norms_at_rest(module: nn.Module, *, at_rest: bool) -> Iterator[None]:
    """One picture alone has no batch statistics: its norms use, and leave, the ones they have."""
    kinds = nn.modules.batchnorm._BatchNorm
    norms = (
        [part for part in module.modules() if isinstance(part, kinds) and part.training] if at_rest else []
    )
    for norm in norms:
        norm.train(False)
    try:
        yield
    finally:
        for norm in norms:
            norm.train(True)
