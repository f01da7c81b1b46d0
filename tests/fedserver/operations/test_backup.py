"""A workspace copied while it lives, restored elsewhere, and gone on with."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

import linear_plants
from fedserver.cli import app
from fedserver.enrolment.tokens import invite
from fedserver.operations.backup import back_up
from fedserver.operations.restore import restore
from fedserver.rounds.history import RoundRecord
from fedserver.rounds.loop import RoundLoop
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_state import ClientRecord, RunFacts, RunState
from fedserver.storage.run_store import RunStore
from fedserver.storage.runs import run_folders
from fedserver.workspace import Workspace, create
from fedspect.console import run_app
from fedspect.errors import DamagedFileError, DiskFullError, WorkspaceError
from linear_plants import LinearPlant
from scripted_transport import ScriptedTransport


def facts(rounds: int) -> RunFacts:
    settings = {"rounds": rounds, "quorum": 2, "expected_plants": 2, "gather": 5.0, "give_up": 5.0}
    return RunFacts(
        run_id="steel-run-0001",
        base_hash=linear_plants.BASE_HASH,
        classes=list(linear_plants.CLASSES),
        seed=3,
        strategy="fedadam",
        strategy_options={"eta": 0.05},
        rounds=RoundSettings(**settings, deadline=None, poll=0.0001),
    )


def workspace(folder: Path) -> Workspace:
    create(folder, ["localhost"], name="steel", classes=["pit", "scratch"])
    made = Workspace.open(folder)
    invite(
        made.registry,
        "plant-a",
        lifetime=60.0,
        addresses=[("localhost", 9094)],
        fingerprint=made.authority.fingerprint(),
    )
    return made


def work_on(store: RunStore, plants: Path) -> None:
    """Let two plants do the rounds that are left."""
    workers = [LinearPlant(f"plant-{n}", plants / f"plant-{n}") for n in (1, 2)]
    RoundLoop(ScriptedTransport(workers), store).run()


def close_round(store: RunStore, state: RunState) -> RunState:
    number = state.round + 1
    target = {name: values + np.float32(0.01) for name, values in state.served.head.items()}
    served = state.served.advance(target, encoding="int8")
    moments = {"m/head.bias": np.full(3, number, dtype=np.float32)}
    closed = RunState(number, served, moments, {"plant-1": ClientRecord(last_round=number)})
    row = RoundRecord(
        round=number,
        version=served.version,
        parent=state.served.version,
        started="2024-01-01T00:00:00+00:00",
        seconds=1.0,
        plants=[],
        refused=[],
        lost={},
        evaluation=None,
        train_loss=None,
        bytes_up=1,
        bytes_down=2,
        notes=[],
    )
    store.close_round(closed, row)
    return closed


def copy_of(made: Workspace) -> io.BytesIO:
    stream = io.BytesIO()
    back_up(made, stream)
    stream.seek(0)
    return stream


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file of a workspace that is worth keeping, with its mode."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "state" and not path.name.endswith("lock")
    }


def test_a_run_goes_on_from_a_backup_restored_elsewhere_as_it_would_have_here(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    store = RunStore.create(made.runs / "run-0001", facts(3), linear_plants.start_head())
    work_on(store, tmp_path / "plants")
    shutil.copytree(tmp_path / "plants", tmp_path / "the-same-plants")
    (made.runs / "run-0001" / "spool").mkdir()
    (made.runs / "run-0001" / "spool" / "an-answer").write_bytes(b"of a round in progress")
    (made.logs / "server.jsonl").write_text("{}\n")
    copied = restore(copy_of(made), tmp_path / "elsewhere" / "hq")

    again = Workspace.open(tmp_path / "elsewhere" / "hq")
    assert copied.federation == "steel" and copied.notes == ()
    assert (again.folder / "state").is_dir() and not list((again.folder / "state").iterdir())
    assert not (again.runs / "run-0001" / "spool").exists()
    expected = {name: file for name, file in content(made.folder).items() if "/spool/" not in name}
    assert content(again.folder) == expected
    assert again.authority.renewal_reason(["localhost"]) is None
    assert again.registry.read() == made.registry.read()

    heads = []
    for here, plants in ((made, "plants"), (again, "the-same-plants")):
        store = RunStore(here.runs / "run-0001")
        store.change_settings(facts(5).rounds)
        work_on(store, tmp_path / plants)
        heads.append(store.latest())
    assert heads[0].round == heads[1].round == 5
    assert heads[0].served.version == heads[1].served.version


def test_secrets_stay_their_owners_and_so_do_their_folders(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    restore(copy_of(made), tmp_path / "again")
    for secret in ("authority/authority.key", "authority/server.key", "registry/plants.json"):
        assert stat.S_IMODE((tmp_path / "again" / secret).stat().st_mode) == 0o600
    for folder in ("authority", "state"):
        assert stat.S_IMODE((tmp_path / "again" / folder).stat().st_mode) == 0o700


def test_every_backup_taken_while_rounds_close_is_a_run_that_goes_on(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    store = RunStore.create(made.runs / "run-0001", facts(100), linear_plants.start_head())
    done = threading.Event()

    def keep_closing() -> None:
        state = store.latest()
        while not done.is_set():
            state = close_round(store, state)

    closing = threading.Thread(target=keep_closing)
    closing.start()
    try:
        copies = []
        while store.rounds()[-1] < 12:
            copies.append(copy_of(made))
    finally:
        done.set()
        closing.join()
    rounds = []
    for number, stream in enumerate(copies[:: max(1, len(copies) // 8)]):
        restore(stream, tmp_path / f"again-{number}")
        restored = RunStore(tmp_path / f"again-{number}" / "runs" / "run-0001")
        state = restored.latest()
        assert state.round == 0 or state.moments["m/head.bias"][0] == state.round
        assert len(restored.history()) == state.round
        close_round(restored, state)
        rounds.append(state.round)
    assert rounds[-1] > rounds[0]


@pytest.mark.parametrize("what", ["a file", "a workspace"])
def test_restore_refuses_to_write_over_anything(tmp_path: Path, what: str) -> None:
    made = workspace(tmp_path / "hq")
    if what == "a file":
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "precious.txt").write_text("x")
    else:
        workspace(tmp_path / "there")
    before = content(tmp_path / "there")
    with pytest.raises(WorkspaceError, match="never restored over"):
        restore(copy_of(made), tmp_path / "there")
    assert content(tmp_path / "there") == before


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_backup_that_was_cut_restores_nothing(tmp_path: Path, share: float) -> None:
    made = workspace(tmp_path / "hq")
    RunStore.create(made.runs / "run-0001", facts(3), linear_plants.start_head())
    whole = copy_of(made).getvalue()
    trailer = len(whole) - len(whole.rstrip(b"\0"))
    cut = whole[: int((len(whole) - trailer) * share)]
    with pytest.raises(DamagedFileError, match="not a whole backup"):
        restore(io.BytesIO(cut), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    whole = copy_of(made).getvalue()
    changed = whole.replace(b"BEGIN PRIVATE KEY", b"BEGIN PRIVATE KEX", 1)
    with pytest.raises(DamagedFileError, match="not what was written"):
        restore(io.BytesIO(changed), tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "workspace/../../evil", "evil", "workspace"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    stream.seek(0)
    with pytest.raises(DamagedFileError):
        restore(stream, tmp_path / "deep" / "again")
    assert list(tmp_path.rglob("evil")) == []


def test_a_link_in_a_backup_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("workspace/authority")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(info)
    stream.seek(0)
    with pytest.raises(DamagedFileError):
        restore(stream, tmp_path / "again")


def test_a_base_model_outside_is_named(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    text = made.settings_path.read_text()
    made.settings_path.write_text(text.replace('base = "default"', 'base = "../base"'))
    assert str(tmp_path / "base") in back_up(made, io.BytesIO()).notes[0]


def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    RunStore.create(made.runs / "run-0001", facts(3), linear_plants.start_head())
    stream = copy_of(made)

    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 4096:
                raise OSError(28, "No space left on device")
            return super().read(size)

    with pytest.raises(DiskFullError):
        restore(Full(stream.getvalue()), tmp_path / "again")
    assert not (tmp_path / "again").exists()


def fedserver(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        run_app(app, list(words))
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_the_command_writes_a_file_for_its_owner_only_and_nothing_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = workspace(tmp_path / "hq")
    (tmp_path / "backups").mkdir()
    code, out, said = fedserver(capsys, "backup", str(tmp_path / "backups"), "-w", str(made.folder))
    assert code == 0 and "keys" in said
    (file,) = (tmp_path / "backups").iterdir()
    assert out.strip() == str(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert fedserver(capsys, "backup", str(file), "-w", str(made.folder))[0] == 61
    assert fedserver(capsys, "backup", str(made.folder / "b.tar"), "-w", str(made.folder))[0] == 61

    assert fedserver(capsys, "restore", str(file), str(tmp_path / "again"))[0] == 0
    assert content(tmp_path / "again") == content(made.folder)
    assert run_folders(Workspace.open(tmp_path / "again").runs) == []
    code, _, said = fedserver(capsys, "restore", str(file), str(tmp_path / "again"))
    assert code == 61 and "never restored over" in said
    assert fedserver(capsys, "restore", str(tmp_path / "none.tar"), str(tmp_path / "other"))[0] == 61


def test_a_backup_goes_through_a_pipe(tmp_path: Path) -> None:
    made = workspace(tmp_path / "hq")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def command(*words: str, stdin: bytes = b"") -> bytes:
        call = [sys.executable, "-m", "fedserver.cli", *words]
        return subprocess.run(call, env=environment, input=stdin, capture_output=True, check=True).stdout

    piped = command("backup", "-", "-w", str(made.folder))
    command("restore", "-", str(tmp_path / "again"), stdin=piped)
    assert content(tmp_path / "again") == content(made.folder)


def test_only_its_owner_may_look_into_a_workspace_that_was_restored(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir(mode=0o755)
    copy = copy_of(workspace(tmp_path / "hq"))
    for folder in (tmp_path / "again", tmp_path / "new"):
        copy.seek(0)
        restore(copy, folder)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
