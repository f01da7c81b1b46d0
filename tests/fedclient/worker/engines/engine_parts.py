"""ONNX files of a small network, and stores around them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

import torch

from deploy_networks import BASE_HASH, distance, expected, facts, lively, pictures, preprocessing
from fedclient.worker.deploy import TENSORRT, deploy_graphs, save_graphs

__all__ = [
    "BASE_HASH",
    "PREPARED",
    "Deployment",
    "distance",
    "expected",
    "exported",
    "lively",
    "phases",
    "pictures",
]
PREPARED = preprocessing()


def exported(folder: Path, *, version: str = "v1", shift: float = 0.0, pixels: str = "uint8") -> Path:
    """``whole.onnx``, ``backbone.onnx`` and ``head.onnx`` of model A; ``shift`` makes another head."""
    network = lively()
    with torch.no_grad():
        network.state_dict()["classifier.bias"].add_(shift)
    form = {} if pixels == "uint8" else {"form": TENSORRT}
    save_graphs(folder, deploy_graphs(network, facts(network, PREPARED, version), pixels=pixels, **form))  # type: ignore[arg-type]
    return folder


@dataclass
class Deployment:
    """What the line is told to run."""

    engines: Dict[str, str]
    version: str = "v1"
    number: int = 1
    classes: Tuple[str, ...] = tuple(f"class-{place}" for place in range(5))
    base_hash: str = BASE_HASH
    bit_depth: Optional[int] = None
    figures: Dict[str, Any] = field(default_factory=dict)


def phases(events: Sequence[Any]) -> Sequence[str]:
    """The phases of a build in order, each once."""
    return list(dict.fromkeys(event.phase for event in events))
