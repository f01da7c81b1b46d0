"""Base model: the frozen start that all plants share, as a folder with weights and a card.

``model.safetensors`` holds the weights, ``card.json`` says what they are: architecture, classes, how
pictures are prepared, where the weights come from, and a hash of the content. The hash names the base
model: it covers every number that changes an answer (not the provenance, and not how the numbers are
stored), so two folders with the same hash are the same model. What is loaded is checked against it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

import numpy as np
import pydantic
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fedspect.data.preprocess import Preprocessing
from fedspect.errors import BaseModelError, DamagedFileError, ModelError
from fedspect.files import read_json, write_bytes, write_json
from fedspect.model.levels import LevelledNetwork, freeze
from fedspect.model.network import build_network
from fedspect.shipped_bases import DEFAULT, SHIPPED

WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "card.json"
FORMAT_VERSION = 1
MAX_CARD_BYTES = 4 << 20
MAX_WEIGHTS_BYTES = 1 << 30
DEFAULT_FOLDER = SHIPPED[DEFAULT]
COUNTER = "num_batches_tracked"


class BaseCard(pydantic.BaseModel):
    """What ``card.json`` says about the weights beside it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    architecture: str
    """A name that ``build_network`` knows."""
    form: str
    """"learned", "condensed" or "plain"."""
    classes: List[str] = pydantic.Field(min_length=1, max_length=100_000)
    """Names of the classifier's outputs, in order."""
    channels: int = pydantic.Field(ge=1, le=3)
    """Channels of a picture: 1 (grey) or 3 (colour)."""
    input_size: int = pydantic.Field(ge=16, le=4096)
    """Height and width that pictures are resized to, in pixels."""
    mean: List[float]
    """Per channel, subtracted from pixels scaled to 0 to 1."""
    std: List[float]
    """Per channel, divided by after the mean is subtracted."""
    default_freeze_levels: int = pydantic.Field(ge=0, le=1000)
    """How many levels are frozen unless the user asks otherwise."""
    closed_form: bool = False
    """Whether the classifier is, or begins at, a linear discriminant on the frozen levels' taps."""
    provenance: Dict[str, Any] = {}
    """Where the weights come from and what they reach, in free form."""
    content_hash: str = pydantic.Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 over the canonical content, in hex; the base model's name."""
    format_version: int = FORMAT_VERSION
    """Version of this folder's format."""

    @pydantic.model_validator(mode="after")
    def _agrees_with_itself(self) -> BaseCard:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format version {self.format_version} is not {FORMAT_VERSION}")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("a class is listed twice")
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError("mean and std need one number a channel")
        if min(self.std) <= 0:
            raise ValueError("std must be above 0")
        return self


@dataclass(frozen=True)
class BaseNetwork:
    """A card and its weights: floating point in float32, indices in int64."""

    card: BaseCard
    state: Dict[str, Tensor]

    @property
    def content_hash(self) -> str:
        """The base model's name: SHA-256 in hex."""
        return self.card.content_hash

    @property
    def preprocessing(self) -> Preprocessing:
        """How a picture becomes this network's input."""
        return Preprocessing(
            size=self.card.input_size,
            channels=self.card.channels,
            mean=tuple(self.card.mean),
            std=tuple(self.card.std),
        )

    def keeps_classifier(self, classes: Sequence[str]) -> bool:
        """Whether ``network(classes)`` keeps the classifier: the same names in the same order."""
        return list(classes) == self.card.classes

    def network(self, classes: Sequence[str], *, seed: int) -> LevelledNetwork:
        """The network for these classes; unless they are the card's own, a new classifier from ``seed``."""
        network = build_network(
            self.card.architecture, len(self.card.classes), channels=self.card.channels, form=self._form()
        )
        network.default_freeze_levels = self.card.default_freeze_levels
        if self.card.closed_form:
            freeze(network, self.card.default_freeze_levels)
            network.attach_discriminant(self.card.input_size)
        _load(network, self.state)
        if not self.keeps_classifier(classes):
            network.discriminant = None
            network.replace_classifier(len(classes), seed)
        return network

    def starting_network(
        self, classes: Sequence[str], *, seed: int, freeze_levels: Optional[int], closed_form: bool
    ) -> LevelledNetwork:
        """The network that plants share: so many levels frozen, and beginning at a closed form or afresh.

        Args:
            classes: the federation's.
            seed: of a new classifier.
            freeze_levels: None: the card's default.
            closed_form: whether a linear discriminant (``fedspect.discriminant``) answers at first.

        Raises:
            ModelError: the base has not that many levels, or none that a closed form could look at is frozen.

        """
        network = self.network(classes, seed=seed)
        freeze(network, network.default_freeze_levels if freeze_levels is None else freeze_levels)
        if closed_form:
            network.attach_discriminant(self.card.input_size)
        else:
            network.discriminant = None
        return network

    def _form(self) -> str:
        return "condensed" if self.card.form == "condensed" else "learned"


def save_base(
    folder: Path,
    network: LevelledNetwork,
    *,
    classes: Sequence[str],
    input_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    provenance: Mapping[str, Any],
    half: bool = False,
) -> BaseNetwork:
    """Write a base model's folder; what is returned is exactly what ``load_base`` would give.

    With ``half``, kernels and matrices are stored in half precision (biases, norms and statistics stay
    float32: they are few, and wide in range).

    Raises:
        BaseModelError: the card's values do not fit the network, or a weight is not finite.
        StorageError: the folder cannot be written.

    """
    if len(classes) != network.num_classes:
        raise BaseModelError(
            "the list of classes does not fit the network",
            seen=f"{len(classes)} classes",
            accepted=str(network.num_classes),
        )
    stored = {key: _stored(key, value, half) for key, value in persistent_state(network).items()}
    state = {key: _canonical(value) for key, value in stored.items()}
    facts: Dict[str, Any] = {
        "architecture": network.architecture,
        "form": network.form,
        "classes": list(classes),
        "channels": network.channels,
        "input_size": input_size,
        "mean": [float(value) for value in mean],
        "std": [float(value) for value in std],
        "default_freeze_levels": network.default_freeze_levels,
        "format_version": FORMAT_VERSION,
    }
    if network.discriminant is not None:
        facts["closed_form"] = True
        facts["default_freeze_levels"] = network.freeze_levels  # the taps are of these
    _check_finite(state)
    card = _card(
        {**facts, "provenance": dict(provenance), "content_hash": content_hash(facts, state)}, folder
    )
    write_bytes(folder / WEIGHTS_FILE, safetensors.torch.save(stored, {"content_hash": card.content_hash}))
    write_json(folder / CARD_FILE, card.model_dump())
    return BaseNetwork(card, state)


def load_base(folder: Path) -> BaseNetwork:
    """Read a base model's folder and check it against its own hash.

    Raises:
        BaseModelError: no such folder, a file is missing, too large, damaged or of another kind.

    """
    for name, limit in ((CARD_FILE, MAX_CARD_BYTES), (WEIGHTS_FILE, MAX_WEIGHTS_BYTES)):
        path = folder / name
        if not path.is_file():
            raise BaseModelError(
                "not a base model",
                seen=f"{folder} without {name}",
                accepted=f"a folder with {CARD_FILE} and {WEIGHTS_FILE}",
                remedy="make one with 'fedsim pretrain' or 'fedserver import-weights'",
            )
        if path.stat().st_size > limit:
            raise BaseModelError(
                "a base model's file is too large", seen=f"{path}: {path.stat().st_size} bytes"
            )
    try:
        card = _card(read_json(folder / CARD_FILE), folder)
    except DamagedFileError as error:
        raise BaseModelError(
            "a base model's card is damaged", seen=error.seen, remedy="fetch it again"
        ) from error
    try:
        stored = safetensors.torch.load_file(str(folder / WEIGHTS_FILE))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise BaseModelError(
            "a base model's weights are damaged",
            seen=f"{folder / WEIGHTS_FILE}: {error}",
            remedy="fetch it again",
        ) from error
    state = {key: _canonical(value) for key, value in stored.items()}
    unhashed = {"provenance", "content_hash", *(() if card.closed_form else ("closed_form",))}
    seen = content_hash(card.model_dump(exclude=unhashed), state)
    if seen != card.content_hash:
        raise BaseModelError(
            "a base model is not what its card says",
            seen=f"{folder}: content hash {seen[:12]}",
            accepted=card.content_hash[:12],
            remedy="fetch it again; a base model must not be edited",
        )
    _check_finite(state)
    model = BaseNetwork(card, state)
    try:
        model.network(card.classes, seed=0)
    except ModelError as error:
        raise BaseModelError(f"a base model does not fit its architecture: {error}", seen=folder) from error
    return model


def default_base() -> BaseNetwork:
    """The base model that ships with the package.

    Raises:
        BaseModelError: this installation has none.

    """
    if not (DEFAULT_FOLDER / CARD_FILE).is_file():
        raise BaseModelError(
            "this installation ships no default base model",
            seen=DEFAULT_FOLDER,
            remedy="make one with 'fedsim pretrain' and give its folder, or install the released package",
        )
    return load_base(DEFAULT_FOLDER)


def persistent_state(network: LevelledNetwork) -> Dict[str, Tensor]:
    """Everything that changes an answer, by key of ``state_dict``: no counters. Detached, not copied."""
    return {key: value.detach() for key, value in network.state_dict().items() if not key.endswith(COUNTER)}


def content_hash(facts: Mapping[str, Any], state: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex over the card's facts and, in key order, each tensor's name, shape and bytes."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True, separators=(",", ":")).encode("utf-8"))
    for key in sorted(state):
        value = _canonical(state[key])
        digest.update(json.dumps([key, str(value.dtype), list(value.shape)]).encode("utf-8"))
        array = value.contiguous().numpy()
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def _stored(key: str, value: Tensor, half: bool) -> Tensor:
    value = value.cpu().contiguous()
    if not value.is_floating_point():
        return value if value.dtype == torch.bool else value.to(torch.int16)
    return value.to(torch.float16 if half and value.dim() >= 2 else torch.float32)


def _canonical(value: Tensor) -> Tensor:
    if value.is_floating_point():
        return value.to(torch.float32)
    return value if value.dtype == torch.bool else value.to(torch.int64)


def _card(content: object, folder: Path) -> BaseCard:
    try:
        return BaseCard.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "card"
        raise BaseModelError(
            f"a base model's card is not right at {where!r}: {first['msg']}", seen=folder / CARD_FILE
        ) from error


def _check_finite(state: Mapping[str, Tensor]) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise BaseModelError(
                "a weight is not a finite number", seen=key, remedy="the training diverged; go back"
            )


def _load(network: LevelledNetwork, state: Mapping[str, Tensor]) -> None:
    """Copy a whole state; each key must have its place and shape, each index must point somewhere."""
    own = persistent_state(network)
    for key in [*own, *state]:
        if key not in state or key not in own:
            raise BaseModelError(
                "a tensor is missing" if key not in state else "a tensor has no place", seen=key
            )
        if own[key].shape != state[key].shape:
            raise BaseModelError(
                f"{key} has another shape", seen=tuple(state[key].shape), accepted=str(tuple(own[key].shape))
            )
    with torch.no_grad():
        for key, value in state.items():
            if key.endswith(".index") and not bool(((value >= 0) & (value < value.numel())).all()):
                raise BaseModelError("an index points outside of its channels", seen=key)
            own[key].copy_(value)
