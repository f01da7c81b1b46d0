from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_parts import PREPARED, Deployment, distance, expected, exported, lively, phases, pictures

from fedclient.worker.engines import EngineStore, build_engine, open_engine, open_model
from fedspect.errors import EngineError


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plant's home whose store holds the three engines of one version."""
    home = tmp_path_factory.mktemp("home")
    exported(home / "onnx")
    for part in ("whole", "backbone", "head"):
        build_engine(home / "onnx" / f"{part}.onnx", EngineStore(home / "engines"))
    return home


def ids(home: Path) -> dict[str, str]:
    return {stored.sidecar["part"]: stored.id for stored in EngineStore(home / "engines").list()}


def test_a_built_engine_says_what_it_is_and_answers(built: Path) -> None:
    store = EngineStore(built / "engines")
    stored = store.get(ids(built)["whole"])
    for name in ("version", "classes", "base_hash", "normalisation", "built_at", "build_seconds", "sha256"):
        assert stored.sidecar[name], name
    pixels = pictures(PREPARED)
    with open_engine(stored, threads=2) as engine:
        assert (engine.kind, engine.precision) == ("onnxruntime", "float32")
        assert engine.inputs.shape == (None, 1, 64, 64) and engine.inputs.dtype == "uint8"
        assert engine.metadata["part"] == "whole"
        assert distance(engine.run(pixels), expected(lively(), PREPARED, pixels)) < 1e-4
    with pytest.raises(EngineError, match="closed"):
        engine.run(pixels)


@pytest.mark.parametrize("parts", [("backbone", "head"), ("whole",)])
def test_a_model_answers_as_the_trained_network(built: Path, parts: tuple[str, ...]) -> None:
    found = ids(built)
    model = open_model(Deployment({part: found[part] for part in parts}), EngineStore(built / "engines"))
    pixels = pictures(PREPARED, 3)
    answer = model.answer(pixels)
    assert distance(answer.logits, expected(lively(), PREPARED, pixels)) < 1e-4
    np.testing.assert_allclose(answer.probabilities.sum(1), 1, rtol=1e-5)
    assert (answer.probabilities.argmax(1) == answer.logits.argmax(1)).all()
    assert answer.features.shape[0] == 3 and (answer.features.shape[1] > 0) == (len(parts) == 2)
    assert model.preprocessing == PREPARED and model.classes[0] == "class-0"
    model.close()
    with pytest.raises(EngineError, match="closed"):
        model.answer(pixels)


def test_many_threads_get_the_answers_of_their_own_pictures(built: Path) -> None:
    found = ids(built)
    engines = {"backbone": found["backbone"], "head": found["head"]}
    model = open_model(Deployment(engines), EngineStore(built / "engines"))
    pixels = pictures(PREPARED, 16)
    wanted = model.answer(pixels).logits
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda place: model.answer(pixels[place : place + 1]).logits[0], range(16)))
    assert distance(np.stack(seen), wanted) < 1e-5


def test_engines_that_do_not_belong_together_are_refused(built: Path) -> None:
    found, store = ids(built), EngineStore(built / "engines")
    good = Deployment({"backbone": found["backbone"], "head": found["head"]})
    with pytest.raises(EngineError, match="another model"):
        open_model(replace(good, base_hash="cd" * 32), store)
    with pytest.raises(EngineError, match="other classes"):
        open_model(replace(good, classes=("one", "two")), store)
    with pytest.raises(EngineError, match="another model"):
        open_model(Deployment({"backbone": found["head"], "head": found["head"]}), store)
    with pytest.raises(EngineError, match="make no model"):
        open_model(Deployment({"head": found["head"]}), store)
    with pytest.raises(EngineError, match="no such engine"):
        open_model(Deployment({"whole": "onnxruntime-float32-none"}), store)


def test_what_does_not_fit_is_refused_in_words(built: Path) -> None:
    model = open_model(Deployment({"whole": ids(built)["whole"]}), EngineStore(built / "engines"))
    pixels = pictures(PREPARED)
    for wrong in (pixels.astype(np.float32), pixels[:, :, :32], pixels[0], pixels[:0]):
        with pytest.raises(EngineError, match="do not fit"):
            model.answer(wrong)
    with pytest.raises(EngineError, match="does not fit"):
        model.engines[0].run(pixels[..., :8])


def test_what_was_built_is_found_and_not_built_again(built: Path) -> None:
    store, events = EngineStore(built / "engines"), []  # type: EngineStore, List[BuildEvent]
    before = {stored.id: stored.sidecar["built_at"] for stored in store.list()}
    again = build_engine(built / "onnx" / "head.onnx", store, progress=events.append)
    assert again.sidecar["built_at"] == before[again.id]
    assert phases(events) == ["starting", "reading"]
