"""The authors' checkpoints: both layouts give the authors' own answers; a wrong file says what is wrong."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
import torch

from fedspect.errors import CheckpointError
from fedspect.model.authors_checkpoints import import_authors, read_checkpoint
from fedspect.model.condense import condense

REFERENCE = Path(os.environ.get("FEDSPECT_REFERENCE", Path(__file__).parents[4] / "shared" / "reference"))
pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REFERENCE.is_dir(), reason="the authors' reference values are not here"),
]
MODELS = ["cdnv2_a", "cdnv2_b", "cdnv2_c"]
LAYOUTS = ["checkpoint", "converted_checkpoint"]


@pytest.fixture(scope="module")
def golden() -> Dict[str, np.ndarray]:
    return dict(np.load(REFERENCE / "golden.npz"))


def reference_weights():
    """The script beside the reference that fills a layout with numbers."""
    place = importlib.util.spec_from_file_location("official_weights", REFERENCE / "official_weights.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def weights(model: str, layout: str) -> Dict[str, torch.Tensor]:
    content = json.loads((REFERENCE / f"{model}.json").read_text())
    filled = reference_weights().fill(content[layout], content["groups"])
    return {key: torch.from_numpy(np.asarray(value)) for key, value in filled.items()}


def answer(network: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(reference_weights().image(0))).numpy()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("model", MODELS)
def test_logits_agree_with_the_authors_own_code(model, layout, golden):
    network = import_authors(weights(model, layout))
    truth = golden[f"{model}.{layout}.logits"]
    assert network.architecture == model.replace("_", "-")
    assert np.abs(answer(network) - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("model", MODELS)
def test_condensing_changes_no_logit_and_agrees_with_the_authors_conversion(model, golden):
    learned = import_authors(weights(model, "checkpoint"))
    before, after = answer(learned), answer(condense(learned))
    assert np.abs(after - before).max() < 1e-5 * np.abs(before).max()
    truth = golden[f"{model}.checkpoint.converted.logits"]
    assert np.abs(after - truth).max() < 1e-4 * np.abs(truth).max()


def test_blocks_agree_inside(golden):
    network = import_authors(weights("cdnv2_a", "checkpoint"))
    features = torch.from_numpy(reference_weights().image(0))
    with torch.no_grad():
        for name, level in network.levels():
            features = level(features)
            if name in ("block1", "block4"):
                truth = golden[f"cdnv2_a.denseblock_{name[-1]}.corner"]
                assert np.abs(features[0, :8, :2, :2].numpy() - truth).max() < 1e-4 * np.abs(truth).max()


@pytest.mark.parametrize("wrapper", ["state_dict", "state_dict_ema", "model", None])
def test_wrapped_and_prefixed_files_are_read(tmp_path, wrapper):
    state = {f"module.{key}": value for key, value in weights("cdnv2_a", "converted_checkpoint").items()}
    content = state if wrapper is None else {wrapper: state, "epoch": 3}
    torch.save(content, tmp_path / "model.pth.tar")
    read = read_checkpoint(tmp_path / "model.pth.tar")
    assert import_authors(read).num_classes == 1000


def test_averaged_weights_are_preferred(tmp_path):
    plain = weights("cdnv2_a", "checkpoint")
    averaged = {key: value.clone() for key, value in plain.items()}
    averaged["classifier.bias"] += 1
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, tmp_path / "model.pth.tar")
    read = read_checkpoint(tmp_path / "model.pth.tar")
    assert torch.equal(read["classifier.bias"], averaged["classifier.bias"])


def test_grey_pictures_get_the_answer_of_three_equal_channels():
    state = weights("cdnv2_a", "checkpoint")
    colour, grey = import_authors(state), import_authors(state, channels=1)
    picture = torch.from_numpy(reference_weights().image(1)[:, :1])
    with torch.no_grad():
        expected, seen = colour(picture.expand(-1, 3, -1, -1)), grey(picture)
    assert torch.allclose(seen, expected, atol=1e-4 * float(expected.abs().max()))


def test_a_missing_key_is_named():
    state = weights("cdnv2_a", "checkpoint")
    del state["features.denseblock_3.denselayer_2.sfr.norm.bias"]
    with pytest.raises(CheckpointError, match=r"block3\.layer2\.sfr\.norm\.bias"):
        import_authors(state)


def test_an_unknown_key_is_named():
    state = {**weights("cdnv2_a", "checkpoint"), "features.stem.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"features\.stem\.weight"):
        import_authors(state)


def test_a_wrong_shape_is_named_with_both_shapes():
    state = weights("cdnv2_a", "checkpoint")
    state["features.norm_last.weight"] = torch.ones(801)
    with pytest.raises(CheckpointError, match=r"norm_last.*801.*800"):
        import_authors(state)


def test_a_mask_that_is_no_group_mask_is_refused():
    state = weights("cdnv2_a", "checkpoint")
    key = "features.denseblock_2.denselayer_1.conv_1._mask"
    state[key] = state[key].clone()
    state[key][0] = 1 - state[key][0]
    with pytest.raises(CheckpointError, match="conv_1"):
        import_authors(state)


def test_an_index_outside_is_refused():
    state = weights("cdnv2_a", "converted_checkpoint")
    key = "features.denseblock_2.denselayer_1.conv_1.index"
    state[key] = state[key] + 1000
    with pytest.raises(CheckpointError, match="points outside"):
        import_authors(state)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "sprung"),))

    torch.save({"state_dict": {"a": Trap()}}, tmp_path / "model.pth.tar")
    with pytest.raises(CheckpointError, match="more than weights"):
        read_checkpoint(tmp_path / "model.pth.tar")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 junk", b"hello", b"e" * 300])
def test_junk_is_refused(tmp_path, content):
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="no PyTorch checkpoint") as caught:
        read_checkpoint(tmp_path / "model.pth")
    assert caught.value.seen == tmp_path / "model.pth"  # and nothing of what torch says


def test_a_folder_is_called_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="is a folder"):
        read_checkpoint(tmp_path)


def test_a_file_without_weights_says_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="epoch"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.skipif(not hasattr(torch.serialization, "safe_globals"), reason="this torch refuses them all")
def test_the_command_line_that_authors_keep_in_the_file_is_no_hindrance(tmp_path):
    state = weights("cdnv2_a", "converted_checkpoint")
    torch.save({"state_dict": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "model.pth.tar")
    assert read_checkpoint(tmp_path / "model.pth.tar").keys() == state.keys()
