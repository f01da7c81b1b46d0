"""How a network is trained: one settings object for fine-tuning in a round, training in one place and
pre-training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedspect.data.view_settings import ViewSettings
from fedspect.settings import Settings

MEBI = 1 << 20


class TrainingSettings(Settings):
    """What decides how training goes, apart from pictures, network and seed.

    For how long, with which pull back (FedProx) and when to stop is said with each ``Trainer.fit``.
    """

    batch_size: int = Field(32, ge=1, le=4096)
    """Pictures a step at most, 1 to 4096; the batches of an epoch are made equally large."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """"adamw", or "sgd" with Nesterov momentum."""
    learning_rate: float = Field(1e-3, gt=0.0, le=10.0)
    """Step size at the top of the schedule; about 1e-3 for adamw, 0.05 for sgd."""
    final_learning_rate: float = Field(0.01, ge=0.0, le=1.0)
    """What the cosine ends with, as a share of ``learning_rate``; 1 keeps it constant."""
    warmup_epochs: float = Field(0.5, ge=0.0, le=100.0)
    """Epochs of the whole schedule over which the step size rises from zero."""
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    """Pull of the weights towards zero; biases and norms are left out. About 0.01 for adamw, 1e-4 for sgd."""
    momentum: float = Field(0.9, ge=0.0, lt=1.0)
    """Of sgd, 0 to below 1; adamw does not use it."""
    label_smoothing: float = Field(0.05, ge=0.0, lt=1.0)
    """Share of the target that is spread over all classes, 0 to below 1."""
    class_weights: Literal["none", "balanced", "root"] = "none"
    """"balanced": a class weighs as the inverse of its count; "root": as its square root; "none": as it
    is."""
    gradient_clip: float = Field(5.0, ge=0.0)
    """Largest length of the gradient over all weights; 0 does not clip."""
    mixed_precision: bool = True
    """Compute in half precision where a GPU trains; without effect on a CPU."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """"auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads of torch; 0 leaves them as they are. Results are the same bit for bit only under the same
    number."""
    views: ViewSettings = Field(default_factory=ViewSettings)
    """Augmentation, see ``fedspect.data.views``."""
    cache: bool = True
    """Keep what the frozen levels answer; without effect where none are frozen."""
    cache_limit: int = Field(2048 * MEBI, ge=0)
    """Bytes that the cache may take on disk."""
    memory_limit: int = Field(1024 * MEBI, ge=0)
    """Bytes of decoded pictures, or of features without a place on disk, that may be held in memory."""
