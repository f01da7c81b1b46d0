"""The ServerApp: it goes on with the run of a folder, and says what ended it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flwr.app.user_config import UserConfig
from flwr.common import Context, RecordDict

import fedspect.files
import linear_plants
from fedclient.node.message_handler import Answer, MessageHandler
from fedserver.flower.serverapp import app, build_server_app
from fedserver.rounds.event_log import EventLog
from fedserver.rounds.events import Event, PlantLost
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_store import RunFacts, RunStore
from fedspect.errors import FedspectError, QuorumError, SettingsError
from fedspect.files import read_json_lines
from fedspect.protocol.messages import DESCRIBE
from flower_grid import InProcessGrid
from linear_plants import LinearPlant


def begun(folder: Path, **rounds: Any) -> tuple[RunStore, InProcessGrid]:
    facts = RunFacts(
        run_id="a-run",
        base_hash=linear_plants.BASE_HASH,
        classes=list(linear_plants.CLASSES),
        seed=3,
        strategy="fedavg",
        strategy_options={},
        rounds=RoundSettings(**{"rounds": 2, "quorum": 2, "give_up": 0.0, "poll": 0.001, **rounds}),
    )
    store = RunStore.create(folder / "run", facts, linear_plants.start_head())
    handlers = [handler(LinearPlant(f"plant-{n}", folder / f"plant-{n}")) for n in (1, 2)]
    return store, InProcessGrid(handlers)


def handler(plant: LinearPlant) -> MessageHandler:
    return MessageHandler(lambda: plant)


def context(**config: Any) -> Context:
    return Context(1, 0, UserConfig(), RecordDict(), UserConfig(config))


def refusing_to_train(kind: str, body: bytes) -> Answer:
    description = LinearPlant("plant-2", Path("nowhere")).describe()
    return Answer(description) if kind == DESCRIBE else Answer(failure="no memory")


def test_the_bundles_app_runs_the_folder_that_the_configuration_names(tmp_path: Path) -> None:
    store, grid = begun(tmp_path)
    app(grid, context(**{"run-folder": str(store.folder)}))
    assert store.rounds() == [0, 1, 2]
    events = read_json_lines(store.folder / "events.jsonl")
    assert [row["event"] for row in events if row["event"].startswith("R")] == [
        "RoundStarted",
        "RoundClosed",
        "RoundStarted",
        "RoundClosed",
        "RoundStarted",
        "RunFinished",
    ]


def test_a_configuration_without_a_folder_is_an_error_of_settings() -> None:
    with pytest.raises(SettingsError, match="run folder"):
        app(InProcessGrid([]), context())


def test_what_ended_a_run_is_handed_over_where_someone_listens(tmp_path: Path) -> None:
    store, grid = begun(tmp_path, quorum=3, gather=0.0)
    errors: list[FedspectError] = []
    build_server_app(lambda _: store.folder, on_error=errors.append)(grid, context())
    assert [type(error) for error in errors] == [QuorumError]
    with pytest.raises(QuorumError):
        build_server_app(lambda _: store.folder)(grid, context())


def test_whoever_listens_hears_of_trouble_once_and_the_log_has_it_where_nobody_does(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, grid = begun(tmp_path)
    grid.handlers = [grid.handlers[0], refusing_to_train]
    heard: list[Event] = []
    errors: list[FedspectError] = []
    build_server_app(lambda _: store.folder, on_event=heard.append, on_error=errors.append)(grid, context())
    lost = "plant-2 gave no answer in round 1: no memory"
    assert [str(event) for event in heard].count(lost) == 1 and caplog.messages == []
    build_server_app(lambda _: store.folder, on_error=errors.append)(grid, context())
    assert caplog.messages == [lost]
    assert [type(error) for error in errors] == [QuorumError] * 2


def test_the_event_log_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fedspect.files, "LARGEST_LOG", 2000)
    log = EventLog(tmp_path / "events.jsonl")
    for number in range(1, 200):
        log(PlantLost("plant-1", number, "it went offline"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events.jsonl", "events.old.jsonl"]
    assert all(path.stat().st_size < 2200 for path in tmp_path.iterdir())
    last = (tmp_path / "events.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {
        "event": "PlantLost",
        "plant": "plant-1",
        "round": 199,
        "reason": "it went offline",
        "text": "plant-1 gave no answer in round 199: it went offline",
    }
