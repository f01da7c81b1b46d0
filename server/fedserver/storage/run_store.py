"""Run store: after each round everything that the next one needs, made visible by one rename.

::

    run.json                  what the run is: facts and settings
    0000/ .. 0007/            one folder a round; 0000 is what the run began with
        head.safetensors      the served head (the last few rounds, and the best)
        server.safetensors    moments of the strategy, what the downlink still owes (the last round only)
        down.update           the message that leads from the version before to this one (the last few)
        round.json            the round's record and how each plant stands
        closing.json          the closing evaluation, if the run ended here
    history.jsonl             the records again, a line a round, for whoever likes to follow a file
    status.json               what the run is doing, and why its process ended (``outcome``)
    spool/                    answers of the round in progress; worthless after a restart
    closed-form/              plants' class statistics and what was made of them (``closed_form.store``)
    released/                 a file for each plant that an operator lets in again, until a round has it

A round's folder is filled under another name and then renamed, so a server that is killed at any moment
finds the rounds that were finished and nothing else. What can be derived (the history) is mended on
opening.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fedserver.closed_form.store import ClosedFormStore
from fedserver.rounds.history import Evaluation, RoundRecord, RunHistory
from fedserver.rounds.quarantine import QuarantineReleases
from fedserver.rounds.settings import RoundSettings
from fedserver.storage.run_state import ClientRecord, read_facts
from fedserver.storage.run_state import RunFacts as RunFacts
from fedserver.storage.run_state import RunState as RunState
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.files import (
    MAKING_PREFIX,
    append_line,
    read_json,
    remove_folder,
    write_folder,
    write_json,
    write_text,
)
from fedspect.locking import Occupied
from fedspect.update.downlink import MAX_CHAIN, Downlink, ServedModelState
from fedspect.update.schema import Arrays, is_statistic, version_of


class RunStore:
    """One run's folder.

    Raises:
        WorkspaceError: there is no run, or one of another format version.
        DamagedFileError: a file of it is not what was written.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.quarantine_releases = QuarantineReleases(folder / "released")
        self.closed_forms = ClosedFormStore(folder / "closed-form")
        self.facts = read_facts(folder)

    @classmethod
    def create(cls, folder: Path, facts: RunFacts, head: Mapping[str, np.ndarray]) -> RunStore:
        """Begin a run from ``head``; where statistics stay with the plants, from its learned part.

        Raises:
            WorkspaceError: the folder holds a run already.

        """
        if cls.exists(folder):
            raise WorkspaceError(
                "the folder holds a run already",
                seen=folder,
                remedy="go on with it, or choose another folder",
            )
        write_json(folder / "run.json", facts.model_dump(mode="json"))
        store = cls(folder)
        shared = facts.rounds.batch_norm == "average"
        sent = {name: values for name, values in head.items() if shared or not is_statistic(name)}
        store._put(RunState(0, ServedModelState.start(sent)), None, parent=None)
        return store

    @staticmethod
    def exists(folder: Path) -> bool:
        """Whether a run was begun here; one that was killed before it was complete may be begun again."""
        return (folder / "run.json").exists() and (folder / _name(0)).exists()

    def change_settings(self, rounds: RoundSettings) -> None:
        """Continue with other settings (more rounds, another deadline)."""
        self.facts = self.facts.model_copy(update={"rounds": rounds})
        write_json(self.folder / "run.json", self.facts.model_dump(mode="json"))

    def occupy(self) -> Occupied:
        """The lock that keeps a second server from this run."""
        return Occupied(self.folder / "lock", f"the run in {self.folder}")

    # -- reading -------------------------------------------------------------------------------------------

    def rounds(self) -> list[int]:
        """The rounds on disk, the first state (0) included."""
        folders = self.folder.glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def latest(self) -> RunState:
        """The state after the last round; ``history.jsonl`` is repaired and leftovers are removed on the way."""
        number = self.rounds()[-1]
        head = self.head(number)
        version = self.version(number)
        if version_of(head) != version:
            raise _damaged(self._round(number) / "head.safetensors", "its hash is another")
        server = self._tensors(number, "server.safetensors")
        residual = _part(server, "residual/")
        links = self._links(number)
        self._clean()
        self._mend_history()
        return RunState(
            number,
            ServedModelState(head, version, residual or None, links),
            _part(server, "moments/"),
            {name: ClientRecord(**row) for name, row in self._row(number)["plants"].items()},
        )

    def head(self, number: int) -> Arrays:
        """The head that a round made.

        Raises:
            WorkspaceError: it is no longer kept.

        """
        if not (self._round(number) / "head.safetensors").exists():
            raise WorkspaceError(
                f"the model of round {number} is not kept",
                accepted=", ".join(str(one) for one in self.kept_heads()),
            )
        head = self._tensors(number, "head.safetensors")
        return head if number else {**head, **self.closed_forms.tensors(self._first_version())}

    def newest_closed_form(self) -> Arrays:
        """The run's beginning with its newest closed form, whatever rounds began with."""
        return {**self._tensors(0, "head.safetensors"), **self.closed_forms.tensors()}

    def kept_heads(self) -> list[int]:
        """The rounds whose heads are on disk."""
        return [number for number in self.rounds() if (self._round(number) / "head.safetensors").exists()]

    def result_round(self) -> int:
        """The round whose model is what the run came to: the last; where the run began at a closed form, the best
        by the plants' own evaluation, so that rounds never make it worse (0 is the closed form itself).
        """
        last = self.rounds()[-1]
        if self.facts.closed_form is None:
            return last
        metric = self.facts.rounds.early_stop_metric
        best = RunHistory(self.history(), self.evaluations(), metric).best()
        return last if best is None or best not in self.kept_heads() else best

    def version(self, number: int) -> str:
        """The hash of the head that a round made, whether or not it is kept."""
        first = self._first_version() if number == 0 else None
        return str(self._row(number)["version"]) if first is None else first

    def version_with(self, tensors: Arrays) -> str:
        """The version of the run's beginning with a closed form of these tensors."""
        return version_of({**self._tensors(0, "head.safetensors"), **tensors})

    def history(self) -> list[RoundRecord]:
        """Every closed round, in order, each once."""
        rows = (self._row(number)["record"] for number in self.rounds() if number > 0)
        return [RoundRecord.model_validate(row) for row in rows]

    def evaluations(self) -> dict[int, Evaluation]:
        """Evaluations of the version that each round made, from the round after it or from the closing."""
        known = {}
        for record in self.history():
            if record.evaluation is not None:
                known[record.evaluation.round] = record.evaluation
        for number in self.rounds():
            closing = self.closing(number)
            if closing is not None:
                known[number] = closing
        return known

    def closing(self, number: int) -> Evaluation | None:
        """The closing evaluation of a run that ended with this round."""
        path = self._round(number) / "closing.json"
        return Evaluation.model_validate(read_json(path)["evaluation"]) if path.exists() else None

    # -- writing -------------------------------------------------------------------------------------------

    def close_round(self, state: RunState, record: RoundRecord, *, best: int | None = None) -> None:
        """Store a finished round: all of it or, after a crash, nothing.

        Args:
            state: where the run stands now; it tells of every release that was taken.
            record: what happened.
            best: the round whose head is kept beside the last few.

        """
        self._put(state, record, parent=record.parent)
        append_line(self.folder / "history.jsonl", record.model_dump_json())
        self.quarantine_releases.settle()
        self._prune(state.round, best)

    def close_run(self, number: int, evaluation: Evaluation) -> None:
        """Store the closing evaluation of the version that round ``number`` made."""
        write_json(self._round(number) / "closing.json", {"evaluation": evaluation.model_dump(mode="json")})

    def say(self, state: str, text: str, **facts: Any) -> None:
        """Write to ``status.json`` what the run is doing."""
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(self.folder / "status.json", {"state": state, "text": text, "at": now, **facts})

    def empty_spool(self) -> None:
        """Remove the answers of an interrupted round."""
        remove_folder(self.spool)

    # -- inside --------------------------------------------------------------------------------------------

    def _first_version(self) -> str | None:
        """The version that round 1 began with, or will; ``None`` while the run has no closed form."""
        if (self._round(1) / "round.json").exists():
            return str(self._row(1)["parent"])
        latest = self.closed_forms.latest()
        return None if latest is None else latest.version

    def _put(self, state: RunState, record: RoundRecord | None, *, parent: str | None) -> None:
        files = {"head.safetensors": save_tensors(dict(state.served.head))}
        server = {f"moments/{name}": values for name, values in state.moments.items()}
        server.update({f"residual/{name}": values for name, values in (state.served.residual or {}).items()})
        if server:
            files["server.safetensors"] = save_tensors(server)
        if state.served.links and state.served.links[-1].after == state.served.version:
            files["down.update"] = state.served.links[-1].blob
        row = {
            "version": state.served.version,
            "parent": parent,
            "record": None if record is None else record.model_dump(mode="json"),
            "plants": {name: one.model_dump(mode="json") for name, one in sorted(state.plants.items())},
        }
        files["round.json"] = json.dumps(row, ensure_ascii=False).encode("utf-8")
        write_folder(self._round(state.round), files)

    def _mend_history(self) -> None:
        """Rewrite the derived file if a crash left it short or torn."""
        text = "".join(record.model_dump_json() + "\n" for record in self.history())
        path = self.folder / "history.jsonl"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)

    def _prune(self, last: int, best: int | None) -> None:
        """Remove what rounds before ``last`` no longer need; a crash may leave a file until the next round."""
        keep = {0, best, *range(last + 1 - self.facts.rounds.keep_heads, last + 1)}
        heads = {int(path.parent.name) for path in self.folder.glob("[0-9]*/head.safetensors")}
        gone = [self._round(number) / "head.safetensors" for number in heads - keep]
        for number in range(max(0, last - 3), last):
            gone.append(self._round(number) / "server.safetensors")
            gone.append(self._round(max(0, number - MAX_CHAIN)) / "down.update")
        try:
            for path in gone:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder, "removing what is no longer needed") from error

    def _clean(self) -> None:
        for folder in self.folder.glob(f"{MAKING_PREFIX}*"):
            remove_folder(folder)

    def _links(self, number: int) -> tuple[Downlink, ...]:
        """The unbroken chain of messages that leads to this round's version, at most as long as is kept."""
        links: list[Downlink] = []
        while len(links) < MAX_CHAIN and number > 0:
            path = self._round(number) / "down.update"
            if not path.exists():
                break
            row = self._row(number)
            links.insert(0, Downlink(row["parent"], row["version"], path.read_bytes()))
            number -= 1
        return tuple(links)

    def _round(self, number: int) -> Path:
        return self.folder / _name(number)

    def _row(self, number: int) -> dict[str, Any]:
        path = self._round(number) / "round.json"
        row = read_json(path)
        if not isinstance(row, dict) or not {"version", "parent", "record", "plants"} <= set(row):
            raise _damaged(path, "keys are missing")
        return row

    def _tensors(self, number: int, name: str) -> Arrays:
        path = self._round(number) / name
        if not path.exists():
            return {}
        try:
            return load_tensors(path.read_bytes())
        except (SafetensorError, ValueError) as error:
            raise _damaged(path, str(error)) from error


def _name(number: int) -> str:
    return f"{number:04d}"


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {
        name[len(prefix) :]: values for name, values in sorted(tensors.items()) if name.startswith(prefix)
    }


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "a file of the run is not what was written",
        seen=f"{path}: {why}",
        remedy="restore a backup; or, where it is the last round's, remove that round's folder: the run goes on from "
        "the one before it, without the strategy's moments and what the downlink still owed, which only the last "
        "round keeps",
    )
