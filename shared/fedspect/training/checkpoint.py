"""A checkpoint of pre-training: the weights after an epoch, and what they are of.

A safetensors file; its metadata names a fingerprint of all that decides the result (seed, settings, pictures), so a run
goes on from its own checkpoint only, and the reports of the epochs that are done.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import List, Optional, Sequence

import safetensors
import safetensors.torch

from fedspect.data.pictures import CheckedPicture
from fedspect.data.preprocess import Preprocessing
from fedspect.errors import CheckpointError
from fedspect.files import write_bytes
from fedspect.model.base import MAX_WEIGHTS_BYTES, BaseNetwork
from fedspect.model.levels import LevelledNetwork
from fedspect.training.reports import EpochReport
from fedspect.training.settings import TrainingSettings

FORMAT = "fedspect pre-training checkpoint 1"


@dataclass
class Checkpoint:
    """How far a pre-training is."""

    fingerprint: str
    epochs: List[EpochReport]

    @classmethod
    def begin(
        cls,
        seed: int,
        architecture: str,
        preprocessing: Preprocessing,
        settings: TrainingSettings,
        pictures: Sequence[CheckedPicture],
        start: Optional[BaseNetwork],
    ) -> Checkpoint:
        """Nothing is done yet of what these decide."""
        facts = [
            FORMAT,
            seed,
            architecture,
            preprocessing.key,
            settings.model_dump(exclude={"memory_limit", "cache", "cache_limit"}),
            [(picture.digest, picture.label) for picture in pictures],
            start.content_hash if start else "",
        ]
        return cls(hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(), [])


def write_checkpoint(path: Path, done: Checkpoint, network: LevelledNetwork) -> None:
    """Write, whole or not at all.

    Raises:
        StorageError: it cannot be written.

    """
    state = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "fingerprint": done.fingerprint,
        "epochs": json.dumps([asdict(each) for each in done.epochs]),
    }
    write_bytes(path, safetensors.torch.save(state, metadata))


def read_checkpoint(path: Path, begun: Checkpoint, network: LevelledNetwork) -> Checkpoint:
    """Load the weights into ``network``; ``begun`` itself where there is no file.

    Raises:
        CheckpointError: the file is damaged, or of another run.

    """
    if not path.exists():
        return begun
    try:
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ValueError("it is too large")
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("fingerprint") != begun.fingerprint:
            raise CheckpointError(
                "the checkpoint is of another pre-training",
                seen=path,
                accepted="the same pictures, settings, seed and start",
                remedy="repeat the command that began it, or choose another --output",
            )
        epochs = [EpochReport(**each) for each in json.loads(metadata["epochs"])]
        network.load_state_dict(safetensors.torch.load_file(str(path)))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            "the checkpoint of a pre-training is damaged",
            seen=f"{path}: {error}",
            remedy="remove it and begin again",
        ) from error
    return Checkpoint(begun.fingerprint, epochs)
