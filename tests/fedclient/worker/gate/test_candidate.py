from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import safetensors.numpy

from fedclient.worker.gate.candidate import Candidate, read_candidate
from fedclient.worker.training.head import head_of
from fedclient.worker.training.plant_state import Carried, PlantState
from fedspect.errors import ClassError, DamagedFileError, FedspectError, UpdateRefusedError
from fedspect.files import write_bytes
from fedspect.model.base import BaseNetwork
from fedspect.update.schema import Arrays, is_statistic

CLASSES = ("plain", "striped")

Publish = Callable[..., Path]


def read(folder: Path, base: BaseNetwork, home: Path) -> Candidate:
    state = PlantState(home / "state", base_hash=base.content_hash)
    return read_candidate(folder, base, CLASSES, freeze_levels=None, state=state)


def test_a_version_becomes_the_network_that_was_trained(
    publish: Publish, base: BaseNetwork, home: Path, trained_head: Arrays
) -> None:
    candidate = read(publish(trained_head), base, home)
    assert all(
        np.array_equal(values, trained_head[name]) for name, values in head_of(candidate.network).items()
    )
    assert not candidate.network.training
    assert candidate.own_statistics is None


@pytest.mark.parametrize(
    ("card", "kind", "words"),
    [
        ({"base_hash": "f" * 64}, UpdateRefusedError, "another base model"),
        ({"classes": ["striped", "plain"]}, ClassError, "other classes"),
        ({"classes": ["plain"]}, ClassError, "other classes"),
        ({"architecture": "cdnv2-b"}, UpdateRefusedError, "architecture"),
        ({"freeze_levels": 0}, UpdateRefusedError, "frozen levels"),
        ({"batch_norm": "per-plant"}, DamagedFileError, "missing or strange"),
        ({"content_hash": "e" * 64}, DamagedFileError, "its content is"),
    ],
)
def test_a_card_that_does_not_fit_this_plant_is_refused(
    publish: Publish,
    base: BaseNetwork,
    home: Path,
    trained_head: Arrays,
    card: dict[str, Any],
    kind: type[FedspectError],
    words: str,
) -> None:
    with pytest.raises(kind, match=words):
        read(publish(trained_head, **card), base, home)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_head_with_numbers_that_are_none_is_refused_and_the_tensor_named(
    publish: Publish, base: BaseNetwork, home: Path, trained_head: Arrays, poison: float
) -> None:
    head = {name: values.copy() for name, values in trained_head.items()}
    name = sorted(head)[3]
    head[name].flat[0] = poison
    with pytest.raises(UpdateRefusedError, match=f"first {name}"):
        read(publish(head), base, home)


def damaged_heads(head: Arrays) -> dict[str, bytes]:
    whole = safetensors.numpy.save(head)
    name = sorted(head)[0]
    other = {**head, name: np.zeros((7, 7), np.float32)}
    return {
        "empty": b"",
        "cut short": whole[: len(whole) // 2],
        "a header that claims too much": (1 << 62).to_bytes(8, "little") + whole[8:],
        "no safetensors": b"\x93NUMPY" + whole,
        "too large": whole + b"\0" * (5 << 20),
        "another shape": safetensors.numpy.save(other),
        "a tensor too many": safetensors.numpy.save({**head, "more": np.zeros(3, np.float32)}),
        "a tensor too few": safetensors.numpy.save({key: head[key] for key in sorted(head)[1:]}),
        "another type": safetensors.numpy.save({**head, name: head[name].astype(np.float64)}),
        "one bit": whole[:-1] + bytes([whole[-1] ^ 1]),
    }


@pytest.mark.parametrize(
    "damage",
    [
        "empty",
        "cut short",
        "a header that claims too much",
        "no safetensors",
        "too large",
        "another shape",
        "a tensor too many",
        "a tensor too few",
        "another type",
        "one bit",
    ],
)
def test_a_damaged_head_file_is_named(
    publish: Publish, base: BaseNetwork, home: Path, trained_head: Arrays, damage: str
) -> None:
    folder = publish(trained_head)
    write_bytes(folder / "head.safetensors", damaged_heads(trained_head)[damage])
    with pytest.raises(DamagedFileError, match=r"head\.safetensors"):
        read(folder, base, home)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"number": 1}', b"\xff", b" " * (5 << 20), None]
)
def test_a_damaged_card_is_named(
    publish: Publish, base: BaseNetwork, home: Path, trained_head: Arrays, content: bytes | None
) -> None:
    folder = publish(trained_head)
    if content is None:
        (folder / "card.json").unlink()
    else:
        write_bytes(folder / "card.json", content)
    with pytest.raises(DamagedFileError):
        read(folder, base, home)


def test_a_shared_version_gets_the_plants_own_statistics(
    publish: Publish, base: BaseNetwork, home: Path, trained_head: Arrays
) -> None:
    shared = {name: values for name, values in trained_head.items() if not is_statistic(name)}
    folder = publish(shared, batch_norm="per-plant")
    without = read(folder, base, home)
    assert without.own_statistics is False
    own = {name: values + 0.25 for name, values in trained_head.items() if is_statistic(name)}
    assert own
    PlantState(home / "state", base_hash=base.content_hash).commit("run-1", 3, Carried(None, own))
    candidate = read(folder, base, home)
    assert candidate.own_statistics is True
    head = head_of(candidate.network)
    assert all(np.allclose(head[name], values) for name, values in own.items())
    assert all(np.array_equal(head[name], values) for name, values in shared.items())


def test_the_card_is_what_the_protocol_says(publish: Publish, trained_head: Arrays) -> None:
    card = json.loads((publish(trained_head) / "card.json").read_text())
    assert card["content_hash"] == (publish(trained_head)).name
