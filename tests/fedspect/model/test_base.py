"""Base models: what is written is what is read, the hash names the content, and damage is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fedspect.errors import BaseModelError
from fedspect.model import base, build_network, default_base, load_base, save_base
from fedspect.model.base import BaseNetwork

CLASSES = ["crazing", "inclusion", "patches"]


def network_a(seed: int = 0):
    return build_network("cdnv2-a", 3, channels=1, form="condensed", seed=seed)


def save(folder: Path, network=None, **options) -> BaseNetwork:
    values = {
        "classes": CLASSES,
        "input_size": 64,
        "mean": [0.5],
        "std": [0.25],
        "provenance": {"by": "test"},
    }
    return save_base(folder, network or network_a(), **{**values, **options})


def picture():
    return torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def answer(network):
    with torch.no_grad():
        return network.eval()(picture())


def same(first: BaseNetwork, second: BaseNetwork) -> bool:
    return (
        first.card == second.card
        and first.state.keys() == second.state.keys()
        and all(torch.equal(value, second.state[key]) for key, value in first.state.items())
    )


@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_is_what_is_loaded(tmp_path, half):
    saved = save(tmp_path, half=half)
    loaded = load_base(tmp_path)
    assert same(saved, loaded)
    assert torch.equal(answer(saved.network(CLASSES, seed=0)), answer(loaded.network(CLASSES, seed=9)))
    assert loaded.card.provenance == {"by": "test"}


def test_full_precision_gives_the_very_network(tmp_path):
    network = network_a(4)
    assert torch.equal(answer(save(tmp_path, network).network(CLASSES, seed=0)), answer(network))


def test_half_precision_takes_half_the_room_and_keeps_vectors_whole(tmp_path):
    network = network_a()
    full, half = save(tmp_path / "full", network), save(tmp_path / "half", network, half=True)
    sizes = [(tmp_path / name / base.WEIGHTS_FILE).stat().st_size for name in ("full", "half")]
    assert sizes[1] < 2.7e6 < 4.7e6 < sizes[0] < 5.2e6
    assert torch.equal(half.state["block5.norm.running_var"], full.state["block5.norm.running_var"])
    before, after = answer(network), answer(half.network(CLASSES, seed=0))
    assert (after - before).abs().max() < 0.02 * before.abs().max()


def test_the_hash_names_the_content_not_how_it_is_stored(tmp_path):
    half = save(tmp_path / "half", half=True)
    again = save(tmp_path / "full", half.network(CLASSES, seed=0))
    assert again.content_hash == half.content_hash
    assert (
        save(tmp_path / "other", provenance={"by": "someone else"}).content_hash
        == save(tmp_path / "this").content_hash
    )


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["crazing", "patches", "inclusion"]},
        {"input_size": 96},
        {"mean": [0.4]},
        {"std": [0.2]},
        {"network": network_a(1)},
    ],
)
def test_whatever_changes_an_answer_changes_the_hash(tmp_path, change):
    assert save(tmp_path / "a", **change).content_hash != save(tmp_path / "b").content_hash


def test_the_classifier_stays_for_the_same_classes_and_is_new_for_others(tmp_path):
    model = save(tmp_path)
    kept = model.network(CLASSES, seed=1)
    fresh, twin = (model.network(["good", "bad"], seed=1) for _ in range(2))
    assert model.keeps_classifier(CLASSES) and not model.keeps_classifier(CLASSES[::-1])
    assert torch.equal(kept.classifier.weight, model.state["classifier.weight"])
    assert fresh.num_classes == 2 and torch.equal(fresh.classifier.weight, twin.classifier.weight)
    assert torch.equal(fresh.hidden.linear.weight, kept.hidden.linear.weight)


def test_networks_of_one_base_share_no_memory(tmp_path):
    model = save(tmp_path)
    with torch.no_grad():
        model.network(CLASSES, seed=0).classifier.weight.zero_()
    assert bool(model.state["classifier.weight"].any())


def test_a_base_says_how_pictures_are_prepared(tmp_path):
    preprocessing = save(tmp_path).preprocessing
    assert (preprocessing.size, preprocessing.channels) == (64, 1)
    assert (tuple(preprocessing.mean), tuple(preprocessing.std)) == ((0.5,), (0.25,))


@pytest.mark.parametrize("form", ["learned", "plain"])
def test_other_forms_are_bases_too(tmp_path, form):
    architecture = "plain-cnn" if form == "plain" else "cdnv2-a"
    network = build_network(architecture, 3, channels=1)
    save(tmp_path, network)
    loaded = load_base(tmp_path)
    assert loaded.card.form == form
    assert torch.equal(answer(loaded.network(CLASSES, seed=0)), answer(network))


@pytest.mark.parametrize("name", [base.CARD_FILE, base.WEIGHTS_FILE])
def test_a_folder_without_a_file_is_no_base(tmp_path, name):
    save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BaseModelError, match=f"not a base model.*{name}"):
        load_base(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BaseModelError, match="nowhere"):
        load_base(tmp_path / "nowhere")


def test_one_changed_byte_is_noticed(tmp_path):
    save(tmp_path)
    content = bytearray((tmp_path / base.WEIGHTS_FILE).read_bytes())
    content[-5] ^= 1
    (tmp_path / base.WEIGHTS_FILE).write_bytes(bytes(content))
    with pytest.raises(BaseModelError, match="not what its card says"):
        load_base(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk that is no safetensors file", b"\xff" * 64])
def test_damaged_weights_are_named(tmp_path, content):
    save(tmp_path)
    (tmp_path / base.WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(BaseModelError, match="weights are damaged"):
        load_base(tmp_path)


def test_half_a_file_is_noticed(tmp_path):
    save(tmp_path)
    content = (tmp_path / base.WEIGHTS_FILE).read_bytes()
    (tmp_path / base.WEIGHTS_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(BaseModelError, match="damaged"):
        load_base(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.1, 0.2]}, "one number a channel"),
        ({"std": [0.0]}, "above 0"),
        ({"classes": ["a", "a", "b"]}, "twice"),
        ({"format_version": 9}, "version 9"),
        ({"colour": "red"}, "colour"),
        ({"input_size": 64.5}, "input_size"),
        ({"input_size": 96}, "not what its card says"),
        ({"content_hash": "0" * 64}, "not what its card says"),
    ],
)
def test_an_edited_card_is_refused(tmp_path, change, message):
    save(tmp_path)
    card = json.loads((tmp_path / base.CARD_FILE).read_text())
    (tmp_path / base.CARD_FILE).write_text(json.dumps({**card, **change}))
    with pytest.raises(BaseModelError, match=message):
        load_base(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_card_that_is_none_is_refused(tmp_path, content):
    save(tmp_path)
    (tmp_path / base.CARD_FILE).write_text(content)
    with pytest.raises(BaseModelError, match="card"):
        load_base(tmp_path)


def rewritten(folder: Path, key: str, value) -> None:
    """Give a base another tensor (or none), with a card whose hash is right for it."""
    weights, card_path = folder / base.WEIGHTS_FILE, folder / base.CARD_FILE
    stored = safetensors.torch.load_file(str(weights))
    stored.pop(key, None)
    if value is not None:
        stored[key] = value
    card = json.loads(card_path.read_text())
    unhashed = ("provenance", "content_hash", "closed_form")  # the last only where it is set
    facts = {name: card[name] for name in card if name not in unhashed}
    card["content_hash"] = base.content_hash(facts, stored)
    card_path.write_text(json.dumps(card))
    weights.write_bytes(safetensors.torch.save(stored))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("classifier.bias", None, "missing.*classifier.bias"),
        ("classifier.more", torch.zeros(3), "no place.*classifier.more"),
        ("classifier.bias", torch.zeros(4), r"classifier.bias.*\(4,\)"),
        ("classifier.bias", torch.full((3,), float("nan")), "finite.*classifier.bias"),
        (
            "block2.layer1.lgc.index",
            torch.full((24,), 24, dtype=torch.int16),
            "index.*block2.layer1.lgc.index",
        ),
    ],
)
def test_content_that_does_not_fit_is_refused_even_with_the_right_hash(tmp_path, key, value, message):
    save(tmp_path)
    rewritten(tmp_path, key, value)
    with pytest.raises(BaseModelError, match=message):
        load_base(tmp_path)


def test_files_beyond_the_limit_are_not_read(tmp_path, monkeypatch):
    save(tmp_path)
    monkeypatch.setattr(base, "MAX_WEIGHTS_BYTES", 1000)
    with pytest.raises(BaseModelError, match="too large"):
        load_base(tmp_path)


def test_a_network_that_diverged_is_not_saved(tmp_path):
    network = network_a()
    with torch.no_grad():
        network.hidden.linear.bias[3] = float("inf")
    with pytest.raises(BaseModelError, match=r"hidden\.linear\.bias"):
        save(tmp_path, network)
    assert not list(tmp_path.iterdir())


def test_weights_too_large_for_half_precision_are_named(tmp_path):
    network = network_a()
    with torch.no_grad():
        network.classifier.weight[0, 0] = 1e6
    with pytest.raises(BaseModelError, match=r"classifier\.weight"):
        save(tmp_path, network, half=True)


def test_classes_must_be_as_many_as_the_network_has(tmp_path):
    with pytest.raises(BaseModelError, match="2 classes"):
        save(tmp_path, classes=["a", "b"])


def test_the_default_base_answers_or_says_that_there_is_none(monkeypatch, tmp_path):
    if (base.DEFAULT_FOLDER / base.CARD_FILE).exists():
        model = default_base()
        size = model.card.input_size
        network = model.network(["good", "bad"], seed=0).eval()
        with torch.no_grad():
            assert network(torch.zeros(1, model.card.channels, size, size)).shape == (1, 2)
    monkeypatch.setattr(base, "DEFAULT_FOLDER", tmp_path / "none")
    with pytest.raises(BaseModelError, match="fedsim pretrain"):
        default_base()
