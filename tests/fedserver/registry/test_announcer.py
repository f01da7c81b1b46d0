"""What a running server says and does about versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from headquarters_parts import finished_run, made_workspace

from fedserver.registry.announcer import VersionAnnouncer
from fedserver.registry.publishing import publish
from fedserver.workspace import Workspace
from fedspect.errors import WorkspaceError
from fedspect.protocol.versions import DeploymentReport


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


def announcer(workspace: Workspace) -> tuple[VersionAnnouncer, list[str]]:
    said: list[str] = []
    return VersionAnnouncer(workspace.models, workspace.base().content_hash, said.append), said


def test_the_end_of_a_run_is_published_once(workspace: Workspace) -> None:
    store = finished_run(workspace)
    made, said = announcer(workspace)
    made.publish(workspace, store.folder)
    made.publish(workspace, store.folder)
    assert len(said) == 1 and said[0].startswith("published version 1 (")
    made.look()
    made.look()
    assert said[1:] == [f"plants are given version {workspace.models.versions()[0].name}"]


def test_a_version_that_was_retired_is_not_published_again_and_a_server_says_so(workspace: Workspace) -> None:
    store = finished_run(workspace)
    version, _ = publish(workspace, store.folder)
    workspace.models.retire(version, "too many escapes")
    with pytest.raises(WorkspaceError, match="was retired"):
        publish(workspace, store.folder)
    made, said = announcer(workspace)
    made.publish(workspace, store.folder)
    assert len(said) == 1 and "could not be published" in said[0] and "too many escapes" in said[0]


def test_what_an_operator_publishes_or_retires_is_noticed(workspace: Workspace) -> None:
    made, said = announcer(workspace)
    made.look()
    assert said == []
    facts = {"architecture": "plain-cnn", "classes": ["a", "b"], "freeze_levels": 0, "run": "r", "rounds": 1}
    other = {**facts, "base_hash": workspace.base().content_hash}
    version, _ = workspace.models.add({"w": np.ones((2, 2), np.float32)}, **other)
    made.look()
    workspace.models.retire(version, "")
    made.look()
    workspace.models.add({"w": np.zeros((2, 2), np.float32)}, base_hash="ab" * 32, **facts)
    made.look()
    assert "are given version 1" in said[0] and "no version" in said[1] and "another base model" in said[2]


def test_what_plants_report_is_said_with_the_reasons(workspace: Workspace) -> None:
    made, said = announcer(workspace)
    told = {"version": "ab" * 32, "number": 3, "outcome": "refused", "reasons": ["2 pictures differ"]}
    made.deployed("plant-a", DeploymentReport.model_validate(told))
    made.look()
    assert said == ["plant-a: version 3 was refused: 2 pictures differ"]


def test_a_run_that_cannot_be_published_ends_nothing(workspace: Workspace, tmp_path: Path) -> None:
    store = finished_run(workspace)
    made, said = announcer(workspace)
    (tmp_path / "base").rename(tmp_path / "gone")
    made.publish(workspace, store.folder)
    assert "could not be published" in said[0]
