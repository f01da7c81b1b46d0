from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_state import RunFacts
from fedserver.workspace import SETTINGS_FILE, Workspace, create
from fedspect.errors import AlreadyRunningError, ReadOnlyError, SettingsError, StorageError, WorkspaceError
from fedspect.files import write_json
from fedspect.shipped_bases import SHIPPED


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_init_makes_everything_a_server_needs(tmp_path: Path) -> None:
    report = create(tmp_path / "hq", ["hq.example.org"], name="steel", classes=["scratch", "pit"])
    workspace = Workspace.open(tmp_path / "hq")
    settings = workspace.settings()
    assert report.made == [SETTINGS_FILE, "authority", "server certificate", "registry"]
    assert settings.federation.name == "steel"
    assert settings.ready_classes() == ["scratch", "pit"]
    assert settings.network.hosts == ["hq.example.org"]
    assert settings.network.bind == "0.0.0.0"
    assert workspace.registry.read().plants == {}


def test_only_its_owner_may_look_into_a_workspace(tmp_path: Path) -> None:
    assert create(tmp_path / "hq", ["hq.example.org"]).notes == []
    assert stat.S_IMODE((tmp_path / "hq").stat().st_mode) == 0o700
    (tmp_path / "old").mkdir(mode=0o755)
    notes = create(tmp_path / "old", ["hq.example.org"]).notes
    assert len(notes) == 1 and "mode 755" in notes[0]
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o700


def test_a_loopback_workspace_listens_on_loopback_only(tmp_path: Path) -> None:
    create(tmp_path / "hq", ["localhost", "127.0.0.1"])
    assert Workspace.open(tmp_path / "hq").settings().network.bind == "127.0.0.1"


def test_init_twice_changes_nothing_and_says_so(tmp_path: Path) -> None:
    create(tmp_path / "hq", ["hq.example.org"])
    before = snapshot(tmp_path / "hq")
    report = create(tmp_path / "hq", ["hq.example.org", "192.0.2.7"])
    assert report.made == []
    assert report.kept == [SETTINGS_FILE, "authority", "server certificate", "registry"]
    assert "192.0.2.7" in report.notes[0]
    assert snapshot(tmp_path / "hq") == before


@pytest.mark.parametrize("lost", ["authority/server.pem", "registry/plants.json", "authority/authority.pem"])
def test_init_completes_what_a_crash_left_half_made(tmp_path: Path, lost: str) -> None:
    create(tmp_path / "hq", ["hq.example.org"])
    (tmp_path / "hq" / lost).unlink()
    report = create(tmp_path / "hq", ["hq.example.org"])
    assert report.made
    assert Workspace.open(tmp_path / "hq").authority.renewal_reason(["hq.example.org"]) is None


def test_only_the_owner_can_read_keys_and_the_registry(tmp_path: Path) -> None:
    create(tmp_path / "hq", ["hq.example.org"])
    for secret in ("authority/authority.key", "authority/server.key", "registry/plants.json"):
        assert stat.S_IMODE((tmp_path / "hq" / secret).stat().st_mode) == 0o600
    for folder in ("authority", "state"):
        assert stat.S_IMODE((tmp_path / "hq" / folder).stat().st_mode) == 0o700


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkspaceError, match="something else"):
        create(tmp_path, ["hq.example.org"])
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_opening_a_folder_that_is_no_workspace_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError) as caught:
        Workspace.open(tmp_path)
    assert "fedserver init" in (caught.value.remedy or "")


def test_hosts_and_classes_that_cannot_be_ones_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        create(tmp_path / "hq", ["https://hq"])
    assert not (tmp_path / "hq").exists()
    with pytest.raises(SettingsError, match="differ only in case"):
        create(tmp_path / "hq", ["hq"], classes=["pit", "Pit"])


def test_a_key_with_a_typing_slip_is_answered_with_the_right_one(tmp_path: Path) -> None:
    create(tmp_path / "hq", ["hq"])
    path = tmp_path / "hq" / SETTINGS_FILE
    path.write_text(path.read_text().replace("quorum =", "qorum ="))
    with pytest.raises(SettingsError, match=r"rounds\.quorum"):
        Workspace.open(tmp_path / "hq").settings()


def test_a_parent_that_is_a_file_ends_in_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((StorageError, ReadOnlyError)):
        create(tmp_path / "file" / "hq", ["hq"])


HOLD = """
import sys, time
from pathlib import Path
from fedserver.workspace import Workspace
with Workspace.open(Path(sys.argv[1])).occupied():
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_server_is_refused_by_name_and_a_killed_one_leaves_no_lock(tmp_path: Path) -> None:
    create(tmp_path / "hq", ["hq"])
    workspace = Workspace.open(tmp_path / "hq")
    command = [sys.executable, "-c", HOLD, str(tmp_path / "hq")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    ) as first:
        assert first.stdout is not None and first.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunningError, match=f"process {first.pid} on "):
            workspace.occupied().acquire()
        assert workspace.running() == {}
        first.kill()
    with workspace.occupied():
        pass
    assert workspace.running() is None


def test_class_names_of_another_encoding_are_refused_in_a_sentence_and_leave_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "hq"
    with pytest.raises(SettingsError, match=r"federation\.classes is not text.*UTF-8"):
        create(folder, ["localhost"], name="steel", classes=["L\udcf6cher", "gut"])
    assert not folder.exists()


def test_a_run_keeps_the_shipped_base_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(tmp_path / "hq", ["localhost"])
    workspace = Workspace.open(tmp_path / "hq")
    default = workspace.base()
    earlier = tmp_path / "earlier"
    earlier.mkdir()
    (earlier / "card.json").write_text(json.dumps({"content_hash": "e" * 64}))
    (earlier / "model.safetensors").write_bytes(b"weights")
    monkeypatch.setitem(SHIPPED, "earlier", earlier)
    assert workspace.base().content_hash == default.content_hash
    facts = RunFacts(
        run_id="a-run",
        base_hash="e" * 64,
        classes=["a", "b"],
        seed=1,
        strategy="fedavg",
        strategy_options={},
        rounds=RoundSettings(),
    )
    write_json(workspace.runs / "run-0001" / "run.json", facts.model_dump(mode="json"))
    assert workspace.base().content_hash == "e" * 64
    assert workspace.base(default.content_hash).content_hash == default.content_hash
