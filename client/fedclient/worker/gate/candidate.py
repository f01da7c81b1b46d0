"""Candidate of the gate: the network of a downloaded version, every part validated.

The card is read first and compared with what this plant trains: base model, classes, levels. Then the head
file's own list of tensors is compared with the schema that the plant works out itself, before any of it is
allocated. Only then are the numbers read, and they must be finite and hash to the version's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Sequence

import numpy as np
import safetensors
from pydantic import ValidationError

from fedclient.worker.training.head import head_of, load_head, shared_part, statistics_part
from fedclient.worker.training.plant_state import PlantState
from fedspect.errors import ClassError, DamagedFileError, UpdateRefusedError
from fedspect.files import read_json
from fedspect.model.base import BaseNetwork
from fedspect.model.levels import LevelledNetwork
from fedspect.protocol.versions import CARD_FILE, HEAD_FILE, VersionCard
from fedspect.seeds import derived_seed
from fedspect.update.schema import Arrays, Schema, version_of

MOST_CARD_BYTES = 4 << 20
MOST_OVERHEAD = 4 << 20  # of a head file beside its numbers


@dataclass(frozen=True)
class Candidate:
    """A version as this plant would run it: the network in evaluation mode, with the plant's own statistics
    where these do not travel.
    """

    card: VersionCard
    network: LevelledNetwork
    own_statistics: Optional[bool]
    """Whether the plant's own running statistics were put in; None where the version brings its own."""


def read_card(folder: Path) -> VersionCard:
    """The card of a version's folder.

    Raises:
        DamagedFileError: it is missing, too large or not a card.

    """
    path = folder / CARD_FILE
    try:
        if path.stat().st_size > MOST_CARD_BYTES:
            raise _damaged(path, f"{path.stat().st_size} bytes")
        return VersionCard.model_validate(read_json(path))
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc'])) or 'card'}: {first['msg']}") from error


def read_candidate(
    folder: Path,
    base: BaseNetwork,
    classes: Sequence[str],
    *,
    freeze_levels: Optional[int],
    state: PlantState,
    seed: int = 0,
) -> Candidate:
    """Read a version and put it into a network of its own.

    ``freeze_levels`` are the plant's (None: the base model's default); ``state`` keeps its statistics.

    Raises:
        DamagedFileError: a file is missing or not what its card says.
        UpdateRefusedError: the version is of another base model, architecture or number of frozen levels,
            or holds numbers that are not finite.
        ClassError: it answers other classes.

    """
    card = read_card(folder)
    _check_card(card, base, classes)
    levels = base.card.default_freeze_levels if freeze_levels is None else freeze_levels
    _expect("frozen levels", card.freeze_levels, levels)
    network = base.starting_network(
        classes, seed=derived_seed("deploy", seed), freeze_levels=levels, closed_form=card.closed_form
    )
    start = head_of(network)
    head = _read_head(folder / HEAD_FILE, Schema.of(shared_part(start, card.batch_norm)), card.content_hash)
    own: Optional[bool] = None
    if card.batch_norm == "per-plant":
        kept = state.latest_statistics("")
        expected = statistics_part(start)
        own = kept is not None and Schema.of(kept) == Schema.of(expected) if expected else None
        if own and kept is not None:
            head = {**head, **kept}
    load_head(network, head)
    return Candidate(card, network.eval(), own)


def _check_card(card: VersionCard, base: BaseNetwork, classes: Sequence[str]) -> None:
    if card.base_hash != base.content_hash:
        raise UpdateRefusedError(
            "the version is of another base model",
            seen=card.base_hash[:12],
            accepted=base.content_hash[:12],
            remedy="fetch the federation's base model: stop the plant and join again",
        )
    if list(card.classes) != list(classes):
        raise ClassError(
            "the version answers other classes",
            seen=", ".join(card.classes[:20]),
            accepted=", ".join(classes),
            remedy="join again: the federation's list of classes reaches a plant then",
        )
    _expect("architecture", card.architecture, base.card.architecture)


def _expect(what: str, seen: object, accepted: object) -> None:
    if seen != accepted:
        raise UpdateRefusedError(
            f"the version has another {what} than this plant's model", seen=seen, accepted=str(accepted)
        )


def _read_head(path: Path, schema: Schema, version: str) -> Arrays:
    try:
        size = path.stat().st_size
        if size > schema.float32_bytes + MOST_OVERHEAD:
            raise _damaged(path, f"{size} bytes, {schema.float32_bytes} are expected")
        with safetensors.safe_open(str(path), framework="numpy") as file:
            _check_tensors(path, file, schema)
            head = {name: np.array(file.get_tensor(name), dtype=np.float32) for name in schema.names}
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    bad = [name for name, values in head.items() if not np.isfinite(values).all()]
    if bad:
        raise UpdateRefusedError(
            "the version holds values that are no finite numbers",
            seen=f"{len(bad)} of {len(head)} tensors, first {bad[0]}",
            remedy="headquarters should retire it: the run that made it diverged",
        )
    found = version_of(head)
    if found != version:
        raise _damaged(path, f"its content is {found[:12]}, its card says {version[:12]}")
    return head


def _check_tensors(path: Path, file: Any, schema: Schema) -> None:
    """Names, shapes and types as the file lists them; no number has been read yet."""
    names = set(file.keys())
    if names != set(schema.names):
        strange = sorted(names ^ set(schema.names))
        raise _damaged(path, f"{len(strange)} tensors are missing or strange, first {strange[0]}")
    for spec in schema.specs:
        part = file.get_slice(spec.name)
        if tuple(part.get_shape()) != spec.shape or part.get_dtype() != "F32":
            raise _damaged(
                path, f"{spec.name} is {part.get_dtype()} {part.get_shape()}, not F32 {list(spec.shape)}"
            )


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "a downloaded version is not what headquarters published",
        seen=f"{path.name}: {why}",
        remedy="remove its folder; the plant fetches it again",
    )
