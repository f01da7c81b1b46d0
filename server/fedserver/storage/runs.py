"""Runs of a workspace: resume the one that is unfinished, or begin the next.

A run's folder is ``runs/run-0001``; the round loop's store has its own layout below. Beginning a run needs
the base model's head, so this is the one place where headquarters needs torch, and only then.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedserver.registry.base_files import BaseFiles
from fedserver.rounds.event_log import EventTail
from fedserver.rounds.history import RunHistory
from fedserver.settings import ServerSettings
from fedspect import files
from fedspect.errors import FederationError, SettingsError, WorkspaceError

if TYPE_CHECKING:
    import numpy as np

    from fedserver.storage.run_store import RunStore

NAME = re.compile(r"run-[0-9]{4,}")


def run_folders(runs: Path) -> list[Path]:
    """The folders of all runs, oldest first."""
    if not runs.is_dir():
        return []
    found = [each for each in runs.iterdir() if NAME.fullmatch(each.name)]
    return sorted(found, key=lambda each: int(each.name.partition("-")[2]))  # run-10000 comes after run-9999


def named_run(runs: Path, name: str | None = None) -> Path:
    """The folder of the run with that name or number; of the newest when none is given.

    Raises:
        WorkspaceError: there is none.

    """
    folders = run_folders(runs)
    if name is None:
        found = folders[-1:]
    else:
        wanted = f"run-{int(name):04d}" if name.isascii() and name.isdigit() and len(name) < 9 else name
        found = [each for each in folders if each.name == wanted]
    if not found:
        raise WorkspaceError(
            "there is no such run" if folders else "there is no run yet",
            seen=name,
            accepted=", ".join(each.name for each in folders) or None,
            remedy="begin one with `fedserver start`",
        )
    return found[0]


def prepare_run(
    runs: Path, settings: ServerSettings, base: BaseFiles, *, rounds: int | None = None, new: bool = False
) -> RunStore:
    """The run to work on: the newest, or the next when there is none or ``new`` is set.

    ``rounds`` is the number of rounds of the whole run; more than were planned prolong it, also when it was
    finished. Without it a run that was begun keeps its plan, whatever the file says by now, and one that is
    finished is answered as it is: a server that a service starts again goes on serving what came of it.

    Raises:
        SettingsError: an unfinished run was begun with settings that cannot be changed on the way.
        FederationError: a new run is needed and torch is not installed.

    """
    from fedserver.storage.run_store import RunFacts, RunStore

    classes = settings.ready_classes()
    folders = run_folders(runs)
    if folders and not new and RunStore.exists(folders[-1]):
        store = RunStore(folders[-1])
        planned = store.facts.rounds.rounds if rounds is None else rounds
        wanted = settings.rounds.model_copy(update={"rounds": planned})
        if is_finished(store) and wanted.rounds <= store.facts.rounds.rounds:
            return store
        _check_unchanged(store, settings, base, classes)
        store.change_settings(wanted)
        return store
    number = int(folders[-1].name.split("-")[1]) + 1 if folders else 1
    if folders and not RunStore.exists(folders[-1]):
        number -= 1  # its beginning was cut: begin it again
    folder = runs / f"run-{number:04d}"
    facts = RunFacts(
        run_id=f"{settings.federation.name[:40]}-{folder.name}-{_digest(runs)}",
        base_hash=base.content_hash,
        classes=classes,
        freeze_levels=frozen_levels(settings, base),
        seed=settings.run.seed,
        strategy=settings.run.strategy,
        strategy_options=dict(settings.run.strategy_options),
        rounds=settings.rounds if rounds is None else settings.rounds.model_copy(update={"rounds": rounds}),
        closed_form=settings.run.closed_form if begins_closed(settings, base) else None,
    )
    if facts.rounds.rounds == 0 and facts.closed_form is None:
        raise SettingsError(
            "without rounds a run has to begin at a closed form",
            seen=f'rounds = 0, start = "{settings.run.start}", {frozen_levels(settings, base)} frozen levels',
            accepted='start = "closed-form" and at least one frozen level',
            remedy="ask for rounds, or let the run begin at a closed form",
        )
    return RunStore.create(folder, facts, first_head(settings, base, classes))


def first_head(settings: ServerSettings, base: BaseFiles, classes: list[str]) -> dict[str, np.ndarray]:
    """Initial head: the base model's unfrozen stages with a classifier for these classes, float32 by full name.

    Raises:
        FederationError: torch is not installed here.
        BaseModelError, ModelError: the base model cannot be used.

    """
    try:
        from fedspect.model import head_state, load_base
    except ImportError as error:
        raise FederationError(
            "beginning a run needs torch at headquarters",
            seen=str(error),
            remedy="install the extra `worker` of fedspect here; going on with a run does not need it",
        ) from error
    levels = frozen_levels(settings, base)
    network = load_base(base.folder).starting_network(
        classes, seed=settings.run.seed, freeze_levels=levels, closed_form=begins_closed(settings, base)
    )
    return {name: value.numpy().astype("float32") for name, value in head_state(network, levels).items()}


def frozen_levels(settings: ServerSettings, base: BaseFiles) -> int:
    """How many stages (levels) of the base model are frozen."""
    wanted = settings.model.freeze_levels
    return base.default_freeze_levels if wanted is None else wanted


def begins_closed(settings: ServerSettings, base: BaseFiles) -> bool:
    """Whether runs begin at a closed form; only frozen levels can be looked at."""
    return settings.run.start == "closed-form" and frozen_levels(settings, base) > 0


def read_status(run_folder: Path) -> dict[str, Any]:
    """The last status of the round loop; empty when there is none."""
    try:
        content = files.read_json(run_folder / "status.json")
    except FileNotFoundError:
        return {}
    return content if isinstance(content, dict) else {}


def client_records(runs: Path) -> dict[str, dict[str, Any]]:
    """How each plant stands in the newest run: last round, refusals, whether it is quarantined."""
    folders = run_folders(runs)
    newest = _newest_round(folders[-1]) if folders else None
    content = {} if newest is None else files.read_json(newest / "round.json")
    plants = content.get("plants") if isinstance(content, dict) else None
    return plants if isinstance(plants, dict) else {}


def release(runs: Path, plant: str) -> None:
    """Let a plant take part again in the newest run, which left it out after refused updates.

    Raises:
        WorkspaceError: there is no run.
        FederationError: the plant was not quarantined.

    """
    from fedserver.storage.run_store import RunStore

    folder = named_run(runs)
    if not (client_records(runs).get(plant, {}).get("quarantined") or _quarantined_meanwhile(folder, plant)):
        raise FederationError(
            f"{plant} was not quarantined",
            seen=folder.name,
            remedy=f"nothing is to be done; `fedserver plants show {plant}` says how it stands",
        )
    RunStore(folder).quarantine_releases.add(plant)


def _quarantined_meanwhile(folder: Path, plant: str) -> bool:
    """Whether it happened in the round that is open, of which nothing but events is on disk."""
    newest = _newest_round(folder)
    closed = 0 if newest is None else int(newest.name)
    logs = (folder / "events.old.jsonl", folder / "events.jsonl")
    rows = (row for log in logs for row in EventTail(log, from_start=True).new())
    return any(
        row.get("event") == "PlantRefused"
        and (row.get("plant"), row.get("quarantined")) == (plant, True)
        and row.get("round", 0) > closed
        for row in rows
    )


def _newest_round(folder: Path) -> Path | None:
    """The folder of a run's last closed round; by number, for 10000 comes after 9999."""
    rounds = [each.parent for each in folder.glob("[0-9]*/round.json") if each.parent.name.isdigit()]
    return max(rounds, key=lambda each: int(each.name), default=None)


def is_finished(store: RunStore) -> bool:
    """Whether nothing is left to do: the last round is closed, or early stopping has ended the run, and the
    plants have done the closing evaluation.
    """
    last, settings = store.rounds()[-1], store.facts.rounds
    if store.closing(last) is None:
        return False
    course = RunHistory(store.history(), store.evaluations(), settings.early_stop_metric)
    return last >= settings.rounds or course.should_stop_early(settings.early_stop)


def _check_unchanged(store: RunStore, settings: ServerSettings, base: BaseFiles, classes: list[str]) -> None:
    facts, run = store.facts, settings.run
    pairs: dict[str, tuple[object, object]] = {
        "base model": (facts.base_hash[:12], base.content_hash[:12]),
        "classes": (facts.classes, classes),
        "seed": (facts.seed, run.seed),
        "strategy": (facts.strategy, run.strategy),
        "strategy_options": (facts.strategy_options, dict(run.strategy_options)),
        "batch_norm": (facts.rounds.batch_norm, settings.rounds.batch_norm),
    }
    if facts.freeze_levels is not None:
        pairs["freeze_levels"] = (facts.freeze_levels, frozen_levels(settings, base))
    starts = {True: "closed-form", False: "fresh"}
    pairs["start"] = (starts[facts.closed_form is not None], starts[begins_closed(settings, base)])
    for what, (before, now) in pairs.items():
        if before != now:
            raise SettingsError(
                f"the run {store.folder.name} was begun with another {what}",
                seen=now,
                accepted=str(before),
                remedy="put it back in fedserver.toml, or begin a new run with --new-run",
            )


def _digest(runs: Path) -> str:
    """Distinguishes the runs of one workspace from those of another that has the same names."""
    return hashlib.sha256(str(runs).encode("utf-8")).hexdigest()[:8]
