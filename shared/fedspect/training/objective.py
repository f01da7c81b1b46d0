"""Training objective and optimiser: weighted cross-entropy with FedProx's proximal term.

Shapes: N pictures, K classes.
"""

from __future__ import annotations

from typing import Dict, List, Mapping, Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedspect.training.settings import TrainingSettings


def class_weights(counts: Sequence[int], kind: str) -> Optional[Tensor]:
    """Weights (K,) by how rare a class is, 1 on average over the pictures; a class without pictures gets 1.

    Args:
        counts: pictures by class.
        kind: "none", "balanced" (inverse of the count) or "root" (inverse of its square root).

    """
    if kind == "none":
        return None
    number = torch.tensor(counts, dtype=torch.float64)
    weights = number.clamp(min=1).pow(-1.0 if kind == "balanced" else -0.5)
    weights = weights * number.sum() / (weights * number).sum().clamp(min=1e-12)
    return torch.where(number > 0, weights, torch.ones_like(weights)).float()


def cross_entropy(logits: Tensor, labels: Tensor, weights: Optional[Tensor], smoothing: float) -> Tensor:
    """Mean loss of logits (N, K); each picture counts as much as its class weighs.

    Unlike torch's own the sum is divided by N, not by the weights in the batch, so a batch of rare classes
    takes a larger step. Label smoothing after Szegedy et al., CVPR 2016, section 7.
    """
    losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
    if weights is not None:
        losses = losses * weights[labels]
    return losses.mean()


def within_source(logits: Tensor, labels: Tensor, sources: Tensor) -> Tensor:
    """Logits (N, K) with the classes of other sources than the picture's own at minus infinity: one matrix
    serves as a classifier for each source of pre-training.

    Args:
        logits: of all classes.
        labels: of the pictures, (N,).
        sources: the number of each class's source, (K,).

    """
    return logits.float().masked_fill(sources[labels][:, None] != sources[None], float("-inf"))


def cross_entropy_within(
    logits: Tensor, labels: Tensor, weights: Optional[Tensor], smoothing: float
) -> Tensor:
    """``cross_entropy`` of the logits of ``within_source``: smoothing reaches the picture's own source only."""
    losses = F.cross_entropy(logits, labels, reduction="none")
    if smoothing:
        own = torch.isfinite(logits)
        even = F.log_softmax(logits, dim=1).masked_fill(~own, 0.0).sum(1) / own.sum(1)
        losses = (1 - smoothing) * losses - smoothing * even
    if weights is not None:
        losses = losses * weights[labels]
    return losses.mean()


class ProximalTerm:
    """The pull of FedProx: mu / 2 times the squared distance to the round's start, as its gradient.

    Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, eq. 2.

    Args:
        parameters: those that are trained, by name.
        anchor: the round's start; names that are not trained (batch statistics) are passed over.
        mu: 0 is off.

    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], anchor: Mapping[str, Tensor], mu: float
    ) -> None:
        self.mu = mu
        shared = [name for name in parameters if name in anchor] if mu > 0 else []
        self.parameters = [parameters[name] for name in shared]
        self.anchor = [
            anchor[name].detach().to(parameters[name].device, parameters[name].dtype).clone()
            for name in shared
        ]

    @torch.no_grad()
    def add_to_gradients(self) -> None:
        """Add mu (w - anchor) to each gradient."""
        for parameter, start in zip(self.parameters, self.anchor):
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=self.mu)


def build_optimizer(
    parameters: Dict[str, nn.Parameter], settings: TrainingSettings, learning_rate: float
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, ICLR 2019) or SGD with Nesterov momentum; only matrices and filters
    decay.
    """
    decayed: List[nn.Parameter] = [value for value in parameters.values() if value.ndim > 1]
    others: List[nn.Parameter] = [value for value in parameters.values() if value.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, foreach=True)
    return torch.optim.SGD(
        groups, lr=learning_rate, momentum=settings.momentum, nesterov=settings.momentum > 0, foreach=True
    )
