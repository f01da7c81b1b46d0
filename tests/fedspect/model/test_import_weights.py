"""From a checkpoint of the authors to a base model: the same answers, in the form that plants get."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_authors_checkpoints import MODELS, REFERENCE, weights
from torch import Tensor

from fedspect.errors import CheckpointError, SettingsError
from fedspect.model.authors_checkpoints import import_authors
from fedspect.model.base import load_base
from fedspect.model.import_weights import import_weights

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REFERENCE.is_dir(), reason="the authors' reference values are not here"),
]


def saved(folder: Path, layout: str, **more: Tensor) -> Path:
    path = folder / "cdnv2_a.pth.tar"
    torch.save({"state_dict": {**weights(MODELS[0], layout), **more}, "epoch": 3}, path)
    return path


@pytest.mark.parametrize("layout", ["checkpoint", "converted_checkpoint"])
def test_the_base_answers_as_the_checkpoint_does(tmp_path: Path, layout: str) -> None:
    path = saved(tmp_path, layout)
    made = import_weights(path, tmp_path / "base", made_by="a test")
    base = load_base(tmp_path / "base")
    assert (base.card.architecture, base.card.form, base.content_hash) == (
        "cdnv2-a",
        "condensed",
        made.content_hash,
    )
    assert base.card.classes[:2] == ["class-0000", "class-0001"] and len(base.card.classes) == 1000
    assert base.card.provenance["layout"] == ("as trained" if layout == "checkpoint" else "as converted")
    picture = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = import_authors(weights(MODELS[0], layout))(picture)
        seen = base.network(base.card.classes, seed=0).eval()(picture)
    assert torch.allclose(seen, expected, atol=1e-5 * float(expected.abs().max()))


def test_grey_pictures_need_one_channel(tmp_path: Path) -> None:
    made = import_weights(
        saved(tmp_path, "converted_checkpoint"), tmp_path / "base", made_by="a test", channels=1, size=64
    )
    assert (made.card.channels, made.card.input_size, len(made.card.mean)) == (1, 64, 1)
    assert made.network(["a", "b", "c"], seed=1)(torch.zeros(1, 1, 64, 64)).shape == (1, 3)


def test_a_wrong_shape_and_a_strange_number_of_classes_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, "checkpoint", **{"features.norm_last.weight": torch.ones(801)})
    with pytest.raises(CheckpointError, match=r"norm_last.*801.*800"):
        import_weights(path, tmp_path / "base", made_by="a test")
    with pytest.raises(CheckpointError, match="2 classes"):
        import_weights(saved(tmp_path, "checkpoint"), tmp_path / "base", made_by="a test", classes=["a", "b"])
    with pytest.raises(SettingsError):
        import_weights(path, tmp_path / "base", made_by="a test", channels=2)
    assert not (tmp_path / "base").exists()
