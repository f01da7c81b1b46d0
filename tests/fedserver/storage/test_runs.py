"""Which run a start goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest
from headquarters_parts import begun_run, close_round, edit, finish, finished_run, made_workspace

from fedserver.storage.run_state import ClientRecord
from fedserver.storage.runs import client_records, is_finished, named_run, run_folders
from fedserver.workspace import Workspace
from fedspect.errors import SettingsError, WorkspaceError


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return made_workspace(tmp_path)


def test_a_finished_run_is_answered_as_it_is_and_no_other_begins(workspace: Workspace) -> None:
    store = finished_run(workspace, rounds=2)
    again = begun_run(workspace, rounds=2)
    assert again.folder == store.folder and is_finished(again)
    assert len(run_folders(workspace.runs)) == 1


def test_a_run_that_was_begun_keeps_its_number_of_rounds_unless_told(workspace: Workspace) -> None:
    store = finished_run(workspace, rounds=2)
    edit(workspace, rounds=7)
    again = begun_run(workspace)
    assert again.folder == store.folder and again.facts.rounds.rounds == 2
    assert begun_run(workspace, new=True).facts.rounds.rounds == 7


def test_more_rounds_prolong_a_finished_run(workspace: Workspace) -> None:
    finished_run(workspace, rounds=2)
    again = begun_run(workspace, rounds=5)
    assert not is_finished(again) and again.rounds() == [0, 1, 2]


def test_a_new_run_begins_only_when_it_is_asked_for(workspace: Workspace) -> None:
    finished_run(workspace)
    assert begun_run(workspace, rounds=2, new=True).folder.name == "run-0002"


def test_a_run_whose_last_round_was_not_judged_yet_is_not_finished(workspace: Workspace) -> None:
    store = begun_run(workspace, rounds=1)
    assert not is_finished(store)
    close_round(store, 0.5, 0.6)
    assert not is_finished(store)
    finish(store, 0.6, 0.7)
    assert is_finished(store)


@pytest.mark.parametrize("closing", [0.6, 0.9])
def test_a_run_that_ended_early_stays_finished(workspace: Workspace, closing: float) -> None:
    edit(workspace, early_stop=2)
    store = begun_run(workspace, rounds=10)
    for accuracy in (0.7, 0.6, 0.6):
        close_round(store, accuracy, accuracy)
    finish(store, closing, closing)
    assert is_finished(begun_run(workspace, rounds=10))


def test_an_unfinished_run_does_not_go_on_with_other_frozen_levels(workspace: Workspace) -> None:
    begun_run(workspace, rounds=3)
    edit(workspace, freeze_levels=1)
    with pytest.raises(SettingsError, match="freeze_levels"):
        begun_run(workspace, rounds=3)


def test_runs_are_found_by_name_by_number_or_as_the_newest(workspace: Workspace) -> None:
    with pytest.raises(WorkspaceError, match="no run yet"):
        named_run(workspace.runs)
    begun_run(workspace)
    begun_run(workspace, new=True)
    assert named_run(workspace.runs).name == "run-0002"
    assert named_run(workspace.runs, "1").name == named_run(workspace.runs, "run-0001").name == "run-0001"
    with pytest.raises(WorkspaceError, match="no such run"):
        named_run(workspace.runs, "run-0009")


def test_round_10000_comes_after_round_9999_and_run_10000_after_run_9999(workspace: Workspace) -> None:
    """As text they would come before: a plant that is quarantined by now would stand as it did long ago."""
    store = begun_run(workspace)
    close_round(store, 0.5, client_records={"plant-1": ClientRecord(last_round=1)})
    (store.folder / "0001").rename(store.folder / "9999")
    close_round(store, 0.5, client_records={"plant-1": ClientRecord(last_round=2)})
    assert store.rounds() == [0, 9999, 10000]
    assert client_records(workspace.runs)["plant-1"]["last_round"] == 2
    store.folder.rename(workspace.runs / "run-9999")
    (workspace.runs / "run-10000").mkdir()
    assert [each.name for each in run_folders(workspace.runs)] == ["run-9999", "run-10000"]
