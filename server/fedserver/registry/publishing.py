"""Publishing: from a round of a run to a published version, and from a version to a base model's folder."""

from __future__ import annotations

from pathlib import Path

from fedserver.registry.versions import PublishedVersion, VersionRegistry
from fedserver.rounds.history import Evaluation, RunHistory
from fedserver.storage.run_store import RunStore
from fedserver.workspace import Workspace
from fedspect.errors import FederationError, WorkspaceError
from fedspect.protocol.versions import MeasuredAccuracy

RESULT, LAST, BEST, CLOSED_FORM = "result", "last", "best", "closed-form"


def publish(
    workspace: Workspace, run: Path, *, round_name: str = RESULT, note: str = ""
) -> tuple[PublishedVersion, bool]:
    """Publish the model of a round.

    Args:
        workspace: where to.
        run: the run's folder.
        round_name: a number, "last", "best" by the plants' own evaluation pictures, "closed-form" for the newest
            closed form whatever rounds came after it, or "result": the last, and where the run began at a closed
            form the best, so that rounds never make a version worse.
        note: what the operator wants to be read beside it.

    Returns:
        the version, and whether it is a new one: the same model again is the version that it already was.

    Raises:
        WorkspaceError: there is no such round, its model is not kept, or the version was retired.
        BaseModelError: the run's base model is not here.

    """
    store = RunStore(run)
    number = _round(store, round_name)
    facts, known = store.facts, store.evaluations()
    base = workspace.base(facts.base_hash)
    levels = facts.freeze_levels
    version, new = workspace.models.add(
        store.newest_closed_form() if round_name == CLOSED_FORM else store.head(number),
        base_hash=facts.base_hash,
        architecture=base.architecture or "unknown",
        classes=facts.classes,
        freeze_levels=base.default_freeze_levels if levels is None else levels,
        closed_form=facts.closed_form is not None,
        batch_norm=facts.rounds.batch_norm,
        run=run.name,
        rounds=number,
        metrics=_measured(known.get(number)),
        before=_measured(known.get(0)),
        note=note,
    )
    _check_not_retired(version)
    return version, new


def latest_offer(models: VersionRegistry) -> str:
    """The published version, as a sentence."""
    published = models.published()
    return "no version is published" if published is None else f"plants are to run version {published.name}"


def export_version(workspace: Workspace, version: PublishedVersion, folder: Path) -> str:
    """Write a version as a base model's folder, which fedsim, fedserver and others can start from.

    Returns:
        the base model's content hash.

    Raises:
        WorkspaceError: the folder is there and not empty.
        FederationError: torch is not installed here.
        BaseModelError, DamagedFileError, CheckpointError: base and head do not make a network.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkspaceError("the folder is not empty", seen=folder, remedy="choose another folder")
    base_files = workspace.base(version.card.base_hash)
    head = version.head()
    try:
        import torch

        from fedspect.model import load_base, load_head_state, save_base
    except ImportError as error:
        raise FederationError(
            "exporting needs torch at headquarters",
            seen=str(error),
            remedy="install the extra `worker` of fedspect here",
        ) from error
    base, card = load_base(base_files.folder), version.card
    network = base.starting_network(
        card.classes, seed=0, freeze_levels=card.freeze_levels, closed_form=card.closed_form
    )
    load_head_state(network, {name: torch.from_numpy(values.copy()) for name, values in head.items()})
    saved = save_base(
        folder,
        network,
        classes=card.classes,
        input_size=base.card.input_size,
        mean=base.card.mean,
        std=base.card.std,
        provenance={
            "made_by": "fedserver models export",
            "version": card.number,
            "version_hash": card.content_hash,
            "base_hash": card.base_hash,
            "run": card.run,
            "rounds": card.rounds,
            "metrics": card.metrics.mean,
        },
    )
    return saved.content_hash


def _check_not_retired(version: PublishedVersion) -> None:
    """Refuse to publish a version again that was retired."""
    if version.retired is not None:
        raise WorkspaceError(
            f"this model is version {version.name}, and was retired",
            seen=f"{version.retired.get('at')}: {version.retired.get('reason') or 'no reason given'}",
            remedy=f"`fedserver models retire {version.card.number} --undo` offers it again",
        )


def _round(store: RunStore, name: str) -> int:
    rounds = store.rounds()
    if name == RESULT:
        return store.result_round()
    if name == LAST:
        return rounds[-1]
    if name == CLOSED_FORM and store.facts.closed_form is not None:
        return 0
    if name == BEST:
        metric = store.facts.rounds.early_stop_metric
        best = RunHistory(store.history(), store.evaluations(), metric).best()
        return rounds[-1] if best is None else best
    if not (name.isascii() and name.isdigit() and len(name) < 9 and int(name) in rounds):
        raise WorkspaceError(
            "there is no such round",
            seen=name,
            accepted=f"{RESULT}, {LAST}, {BEST}, {CLOSED_FORM}, or a number from 0 to {rounds[-1]}",
        )
    return int(name)


def _measured(evaluation: Evaluation | None) -> MeasuredAccuracy:
    if evaluation is None:
        return MeasuredAccuracy()
    return MeasuredAccuracy(evaluated=evaluation.evaluated, mean=evaluation.mean, plants=evaluation.plants)
