"""Deployment pointer: which engines the line runs. It moves by one rename, so it is always there and whole.

::

    deployments/
        current.json          the pointer: a deployment's id, those to go back to, and the last move
        records/<id>.json     a candidate that has engines: passed, refused or retired (``records``)
        history.jsonl         everything that was decided, a line each (``history``)
        lock                  held while something is decided

The pointer carries its own line of the history. A process that is killed between moving the pointer and
writing that line leaves a history that is mended by the next reader: no move goes unrecorded. And where the
pointer cannot be read, the history's moves tell where it stood.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Set

from pydantic import ValidationError

from fedclient.worker.deployments.history import MOST_EARLIER, History, last_pointer, left_behind
from fedclient.worker.deployments.record import Deployment, Entry, Event, Pointer, entry_of
from fedclient.worker.deployments.records import Records, damaged
from fedspect.errors import DamagedFileError, GateError, StorageError, storage_error
from fedspect.files import read_json, write_json
from fedspect.locking import exclusive

ENGINES_KEPT = 3  # current, and two to go back to: their engines stay in the store
MOST_NAMED = 3  # deployments that an error gives reasons of


class Deployments:
    """The deployments of one device; ``folder`` is ``deployments/`` in the plant's home.

    Any process of the plant may use it; changes wait for each other. Reading takes no lock.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pointer_path = folder / "current.json"
        self.history_path = folder / "history.jsonl"
        self._history = History(self.history_path)
        self._records = Records(folder / "records")

    # -- reading -------------------------------------------------------------------------------------------

    def stamp(self) -> str:
        """Changes whenever the pointer moves; empty while there is none. One call of ``stat``.

        Raises:
            StorageError: the disk does not tell.

        """
        try:
            facts = self.pointer_path.stat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise storage_error(error, self.pointer_path, "looking which engine is current") from error
        return f"{facts.st_ino}-{facts.st_mtime_ns}-{facts.st_size}"

    def current(self) -> Optional[Deployment]:
        """What the line is to run; None before the first activation.

        Raises:
            DamagedFileError: pointer or record are not what was written.

        """
        pointer = self._pointer()
        if pointer is None:
            return None
        move = pointer.move
        return self.get(pointer.current).model_copy(
            update={"activated_at": move.at, "who": move.who, "why": move.why}
        )

    def earlier(self) -> Iterator[Deployment]:
        """Those before the current one that are neither refused nor retired, the nearest first."""
        pointer = self._pointer()
        if pointer is not None:
            yield from filter(None, map(self._records.passed, reversed(pointer.earlier)))

    def previous(self) -> Optional[Deployment]:
        """What ``rollback`` would go to."""
        return next(self.earlier(), None)

    def get(self, deployment_id: str) -> Deployment:
        """A deployment by its id.

        Raises:
            GateError: there is none of that name.
            DamagedFileError: its record is not what was written.

        """
        return self._records.get(deployment_id)

    def list(self) -> List[Deployment]:
        """All candidates that have engines, the oldest first; damaged records are left out."""
        return self._records.list()

    def history(self) -> List[Entry]:
        """What was decided, the oldest first; a torn line is left out."""
        entries = self._history.entries()
        missing = self._unwritten(entries)
        return entries if missing is None else [*entries, missing]

    def left_behind(self, version: str) -> Optional[Entry]:
        """The rollback by which this device went back from a version; None where it did not, or took it again
        since.
        """
        return left_behind(self.history(), version)

    def engines_in_use(self) -> Set[str]:
        """Ids of engines that must not be removed: those of the current deployment and the nearest ones to
        go back to.
        """
        pointer = self._pointer()
        return set() if pointer is None else set(pointer.engines)

    # -- deciding ------------------------------------------------------------------------------------------

    def add(
        self, deployment: Deployment, *, who: str = "", why: str = "", refused: Sequence[str] = ()
    ) -> Deployment:
        """Store a candidate that has engines; with ``refused`` (the reasons) one that did not pass.

        The pointer does not move. A candidate of the same id is replaced, but what passed and the line has run
        is not taken away by a later refusal: that is written into the history only. A version that is retired
        stays so, however well it passes when it is built again.

        Returns:
            What is on record from now on.

        Raises:
            StorageError: it cannot be written; nothing has changed then.

        """
        record = deployment.model_copy(
            update={
                "state": "refused" if refused else "passed",
                "reasons": tuple(refused),
                "added_at": deployment.added_at or time.time(),
            }
        )
        with self._deciding():
            retired = [one for one in self.list() if one.version == record.version and one.state == "retired"]
            if retired and not refused:
                record = record.model_copy(update={"state": "retired", "reasons": retired[-1].reasons})
            proven = self._records.passed(record.id) if refused and self._ran(record.id) else None
            if proven is None:
                self._records.keep(record)
            self._history.append(
                entry_of("refused" if refused else "added", record, who, "; ".join(refused) or why)
            )
            self._records.forget_old(self._reachable())
        return proven or record

    def activate(self, deployment_id: str, *, who: str, why: str, force: bool = False) -> Deployment:
        """Let the line run this deployment from now on.

        Raises:
            GateError: there is none of that name, or it was refused or retired and ``force`` is not given.
            StorageError: the pointer cannot be written; the current deployment stays.

        """
        with self._deciding():
            deployment = self.get(deployment_id)
            forced = deployment.state != "passed"
            if forced and not force:
                raise GateError(
                    f"deployment {deployment.id} was {deployment.state}",
                    seen="; ".join(deployment.reasons) or None,
                    remedy="build a better version, or take it all the same with --force",
                )
            pointer = self._pointer_or_none()
            if pointer is not None and pointer.current == deployment_id:
                return self._as_current(deployment, pointer.move)
            pointer = pointer or last_pointer(self._history.entries())
            earlier = [] if pointer is None else [*pointer.earlier, pointer.current]
            earlier = [each for each in earlier if each != deployment_id][-MOST_EARLIER:]
            move = entry_of("activated", deployment, who, why, forced=forced)
            return self._move(pointer, deployment, earlier, move)

    def rollback(
        self, *, who: str, why: str, usable: Callable[[Deployment], bool] = lambda deployment: True
    ) -> Deployment:
        """Go back to the deployment before the current one; again, to the one before that.

        What was refused or retired is passed over, and what is not ``usable`` (its engines are gone or damaged).
        A pointer that cannot be read is no obstacle: the history knows where it stood.

        Raises:
            GateError: there is nothing to go back to.
            StorageError: the pointer cannot be written; the current deployment stays.

        """
        if not self.pointer_path.exists() and not self.history_path.exists():
            raise GateError("the line runs no engine yet, so there is nothing to go back to")
        with self._deciding():
            pointer = self._pointer_or_none() or last_pointer(self._history.entries())
            if pointer is None:
                raise GateError("the line runs no engine yet, so there is nothing to go back to")
            earlier, passed_over = list(pointer.earlier), []
            while earlier:
                deployment_id = earlier.pop()
                deployment = self._records.passed(deployment_id)
                if deployment is not None and usable(deployment):
                    return self._move(
                        pointer, deployment, earlier, entry_of("rolled back", deployment, who, why)
                    )
                passed_over.append(deployment_id)
            raise self._nothing_left(pointer.current, passed_over)

    def retire(self, version: str, *, who: str, why: str) -> List[Deployment]:
        """Mark a version as withdrawn by headquarters. What the line runs stays; activating it needs force.

        Raises:
            StorageError: it cannot be written.

        """
        with self._deciding():
            marked = [each for each in self.list() if each.version == version and each.state != "retired"]
            for each in marked:
                self._records.keep(
                    each.model_copy(update={"state": "retired", "reasons": (*each.reasons, why)})
                )
                self._history.append(entry_of("retired", each, who, why))
            return marked

    def note(
        self,
        event: Event,
        version: str,
        number: int,
        *,
        who: str,
        why: str,
        figures: Optional[Mapping[str, Any]] = None,
    ) -> None:
        """Record what happened to a candidate that has no record: refused or failed before it had engines.

        Raises:
            StorageError: the line cannot be written.

        """
        with self._deciding():
            self._history.append(
                Entry(
                    at=time.time(),
                    event=event,
                    version=version,
                    number=number,
                    who=who,
                    why=why,
                    figures=dict(figures or {}),
                )
            )

    # -- parts ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _deciding(self) -> Iterator[None]:
        """One decision at a time; what a killed process left unwritten is written first."""
        with exclusive(self.folder / "lock"):
            entries = self._history.entries()
            missing = self._unwritten(entries)
            if missing is not None:
                with contextlib.suppress(StorageError):  # it waits in the pointer until there is room
                    self._history.append(missing)
            else:
                self._history.bound(entries)
            yield

    def _pointer(self) -> Optional[Pointer]:
        try:
            return Pointer.model_validate(read_json(self.pointer_path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(error, self.pointer_path, "reading which engine is current") from error
        except ValidationError as error:
            raise damaged(self.pointer_path, error) from error

    def _pointer_or_none(self) -> Optional[Pointer]:
        """The pointer; a damaged one counts as none: the next activation repairs it."""
        try:
            return self._pointer()
        except DamagedFileError:
            return None

    def _move(
        self, pointer: Optional[Pointer], deployment: Deployment, earlier: List[str], move: Entry
    ) -> Deployment:
        serial = 1 + max([entry.serial for entry in self.history()], default=0)
        before = None if pointer is None else pointer.current
        move = move.model_copy(update={"serial": serial, "before": before})
        kept = [deployment.id, *reversed(earlier)][:ENGINES_KEPT]
        moved = Pointer(current=deployment.id, earlier=earlier, engines=self._engines_of(kept), move=move)
        try:
            write_json(self.pointer_path, moved.model_dump(mode="json"))
        except StorageError:
            if self._pointer_or_none() != moved:  # it may be in place, and only its folder not flushed
                raise
        with contextlib.suppress(StorageError):  # the line runs it, and the pointer carries this entry
            self._history.append(move)
        return self._as_current(deployment, move)

    def _nothing_left(self, current: str, passed_over: Sequence[str]) -> GateError:
        """What ``rollback`` says at its end: what it passed over and why, and what a person can still do."""
        reasons, forced = [], None
        for each in passed_over:
            try:
                deployment = self.get(each)
            except (GateError, DamagedFileError):
                reasons.append(f"{each}: its record is gone or damaged")
                continue
            if deployment.state == "passed":
                reasons.append(f"{each}: engines gone or damaged")
                continue
            forced = forced or each
            reasons.append(f"{each}: {deployment.state} ({'; '.join(deployment.reasons)})")
        more = f"; and {len(reasons) - MOST_NAMED} more" if len(reasons) > MOST_NAMED else ""
        named = f"; passed over: {'; '.join(reasons[:MOST_NAMED])}{more}" if reasons else ""
        force = (
            f"`fedclient engines activate {forced} --force` takes that one all the same; " if forced else ""
        )
        return GateError(
            "there is no earlier deployment to go back to",
            seen=f"current: {current}{named}",
            remedy=f"{force}`fedclient engines list` shows what can be activated; `fedclient engines build`"
            " builds engines again",
        )

    def _engines_of(self, deployment_ids: Sequence[str]) -> List[str]:
        found: Set[str] = set()
        for each in deployment_ids:
            with contextlib.suppress(GateError, DamagedFileError):
                found.update(self.get(each).engines.values())
        return sorted(found)

    def _as_current(self, deployment: Deployment, move: Entry) -> Deployment:
        return deployment.model_copy(update={"activated_at": move.at, "who": move.who, "why": move.why})

    def _unwritten(self, entries: Sequence[Entry]) -> Optional[Entry]:
        """The pointer's last move, where the history lacks it."""
        pointer = self._pointer_or_none()
        if pointer is None or any(entry.serial == pointer.move.serial for entry in entries):
            return None
        return pointer.move

    def _ran(self, deployment_id: str) -> bool:
        """Whether the line has run it."""
        return any(entry.serial and entry.id == deployment_id for entry in self.history())

    def _reachable(self) -> Set[str]:
        """Deployments that the pointer can come to."""
        pointer = self._pointer_or_none()
        return set() if pointer is None else {pointer.current, *pointer.earlier}
