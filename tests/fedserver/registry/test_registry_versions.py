"""The registry of versions: nothing is overwritten, nothing half is seen, the newest that counts is offered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedserver.registry.versions import PublishedVersion, VersionRegistry
from fedspect import files
from fedspect.errors import DamagedFileError, DiskFullError, WorkspaceError

BASE = "ab" * 32


def head(seed: int = 0) -> dict[str, np.ndarray]:
    return {"head.weight": np.random.default_rng(seed).normal(size=(4, 5)).astype(np.float32)}


def publish(models: VersionRegistry, seed: int = 0, base_hash: str = BASE) -> PublishedVersion:
    facts = {"architecture": "plain-cnn", "classes": ["pit", "scratch"], "freeze_levels": 1}
    return models.add(head(seed), base_hash=base_hash, run="run-0001", rounds=seed, **facts)[0]


@pytest.fixture
def models(tmp_path: Path) -> VersionRegistry:
    return VersionRegistry(tmp_path / "models")


def test_versions_count_up_and_each_names_the_one_before_on_its_base(models: VersionRegistry) -> None:
    first, second = publish(models, 1), publish(models, 2)
    other = publish(models, 3, base_hash="cd" * 32)
    third = publish(models, 4)
    assert [each.card.number for each in models.versions()] == [1, 2, 3, 4]
    assert first.card.parent is None and other.card.parent is None
    assert second.card.parent == first.card.content_hash
    assert third.card.parent == second.card.content_hash


def test_a_head_reads_back_as_it_was_published(models: VersionRegistry) -> None:
    version = publish(models)
    assert np.array_equal(models.versions()[0].head()["head.weight"], head()["head.weight"])
    assert version.folder.name == f"0001-{version.card.content_hash[:12]}"


def test_the_same_model_again_is_the_version_that_it_was(models: VersionRegistry) -> None:
    first = publish(models)
    before = {path: path.stat().st_mtime_ns for path in models.folder.rglob("*.*")}
    again, new = models.add(
        head(),
        base_hash=BASE,
        architecture="other",
        classes=["x", "y"],
        freeze_levels=0,
        run="run-0009",
        rounds=9,
    )
    assert not new and again.card == first.card
    assert {path: path.stat().st_mtime_ns for path in models.folder.rglob("*.*")} == before


def test_what_plants_are_to_run_is_the_newest_that_is_not_retired(models: VersionRegistry) -> None:
    assert models.published() is None
    first, second = publish(models, 1), publish(models, 2)
    assert models.published() == second
    retired = models.retire(second, "it lets scratches through")
    assert retired.retired is not None and retired.retired["reason"] == "it lets scratches through"
    assert models.published() == first
    assert models.reinstate(retired).retired is None
    assert models.published() == second


def test_a_retired_version_is_nobodys_parent_and_its_number_is_not_given_again(
    models: VersionRegistry,
) -> None:
    first = publish(models, 1)
    models.retire(publish(models, 2), "")
    third = publish(models, 3)
    assert third.card.number == 3 and third.card.parent == first.card.content_hash


def test_a_version_is_found_by_number_by_hash_or_as_the_published_one(models: VersionRegistry) -> None:
    first, second = publish(models, 1), publish(models, 2)
    assert models.named("1") == first
    assert models.named(second.card.content_hash[:8]) == second
    assert models.named("published") == second
    for wrong in ("7", "zzzz", "", "a"):
        with pytest.raises(WorkspaceError) as caught:
            models.named(wrong)
        assert "2 (" in (caught.value.accepted or "")


@pytest.mark.parametrize("name", ["head.safetensors", "card.json"])
def test_a_damaged_version_is_named_with_its_file(models: VersionRegistry, name: str) -> None:
    path = publish(models).folder / name
    path.write_bytes(path.read_bytes()[:-9] + b"\0" * 9)
    with pytest.raises(DamagedFileError, match=name):
        models.versions()[0].head()


def test_a_full_disk_leaves_the_registry_as_it_was(
    models: VersionRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(models, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            publish(models, 2)
    assert [each.card.number for each in models.versions()] == [1]
    assert publish(models, 2).card.number == 2
    assert not list(models.folder.glob(f"{files.MAKING_PREFIX}*"))


KILLED = """
import os, signal, sys
from pathlib import Path
from fedserver.registry.versions import VersionRegistry
import numpy as np
step, count = int(sys.argv[2]), 0
def hook(name):
    original = getattr(os, name)
    def hooked(*given, **more):
        global count
        count += 1
        if count > step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*given, **more)
    setattr(os, name, hooked)
for name in ("fsync", "mkdir", "rename"):
    hook(name)
VersionRegistry(Path(sys.argv[1])).add(
    {"w": np.ones((2, 3), np.float32)}, base_hash="ab" * 32, architecture="a", classes=["x", "y"],
    freeze_levels=1, run="run-0001", rounds=1,
)
"""


@pytest.mark.slow
def test_a_publisher_killed_at_any_moment_leaves_a_whole_version_or_none(tmp_path: Path) -> None:
    ended = []
    for step in range(12):
        models = VersionRegistry(tmp_path / str(step))
        publish(models, 1)
        words = [sys.executable, "-c", KILLED, str(models.folder), str(step)]
        ended.append(
            subprocess.run(
                words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False
            ).returncode
        )
        for version in models.versions():
            version.head()
        after = publish(models, 2)
        assert after.card.number == len(models.versions())
        assert not list(models.folder.glob(f"{files.MAKING_PREFIX}*"))
        if ended[-1] == 0:
            break
    assert ended[0] == -signal.SIGKILL and ended[-1] == 0
