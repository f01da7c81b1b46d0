"""Error hierarchy: every error that Fedspect raises on purpose, and the exit code that a command ends with.

::

    FedspectError                     1   something Fedspect noticed; the parent of all below
    ├── SettingsError                10   an option, a key of a TOML file or a value is not accepted
    ├── DataError                    20   pictures or their list cannot be used
    │   ├── NoPicturesError          21   nothing to work on was found
    │   ├── PictureError             22   one picture cannot be read, or is too large to be one
    │   ├── ClassError               23   classes are missing, unknown, or differ only in case
    │   ├── SplitError               24   too few pictures or groups for the split that was asked for
    │   └── ManifestError            25   a CSV or Parquet list of pictures is wrong
    ├── ModelError                   30   a network cannot be built or used as asked
    │   ├── CheckpointError          31   a weights file lacks a key, or a shape differs
    │   ├── BaseModelError           32   a base model's folder is damaged or of another kind
    │   └── InputSizeError           33   pictures are too small, or of another depth, for the network
    ├── UpdateError                  40   what a plant sent, or what it was sent, cannot be used
    │   ├── UpdateFormatError        41   bytes that are not an update of this format
    │   └── UpdateRefusedError       42   a well-formed update that must not touch the model
    ├── StorageError                 50   a file could not be written or read back
    │   ├── DiskFullError            51   no space left (or a quota is reached)
    │   ├── ReadOnlyError            52   the place may not be written to
    │   └── DamagedFileError         53   a file of our own is not what was written
    ├── FederationError              60   a federation cannot go on
    │   ├── WorkspaceError           61   a workspace or run folder is missing, foreign or of another version
    │   ├── AlreadyRunningError      62   another process holds this workspace
    │   ├── QuorumError              63   too few plants answered
    │   ├── EnrolmentError           64   a plant was not admitted
    │   └── ConnectionLostError      65   the other side cannot be reached
    ├── WorkerError                  70   the worker process failed or does not answer
    │   └── YieldedError             71   training gave its place to the line
    ├── EngineError                  80   an engine cannot be built or run
    │   ├── GateError                81   a candidate engine did not pass the gate
    │   └── EngineMemoryError        82   too little memory to build or run an engine
    └── InterruptedRunError         130   Ctrl-C; what was finished is on disk

Codes are stable: scripts of plants rely on them. Each has a page in ``docs/exit-codes/``.
2 is kept for what the command line itself refuses (an unknown option, a missing argument).
"""

from __future__ import annotations

import difflib
import errno
from typing import ClassVar, Iterable, Mapping, Optional, Type


class FedspectError(Exception):
    """What is wrong, the value seen, what is accepted and what to do next, as one message."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        seen: Optional[object] = None,
        accepted: Optional[str] = None,
        remedy: Optional[str] = None,
    ) -> None:
        self.what = what
        self.seen = seen
        self.accepted = accepted
        self.remedy = remedy
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.seen is not None:
            parts.append(f"seen: {self.seen}")
        if self.accepted is not None:
            parts.append(f"accepted: {self.accepted}")
        if self.remedy is not None:
            parts.append(f"to mend it: {self.remedy}")
        return "; ".join(parts)

    def as_dict(self) -> dict[str, object]:
        """The message's parts for ``--json`` and for logs."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "seen": None if self.seen is None else str(self.seen),
            "accepted": self.accepted,
            "remedy": self.remedy,
        }


class SettingsError(FedspectError):
    """An option, a key of a TOML file or a value is not accepted."""

    exit_code = 10


class DataError(FedspectError):
    """Pictures or their list cannot be used."""

    exit_code = 20


class NoPicturesError(DataError):
    """Nothing to work on was found."""

    exit_code = 21


class PictureError(DataError):
    """One picture cannot be read, or is too large to be one."""

    exit_code = 22


class ClassError(DataError):
    """Classes are missing, unknown, or differ only in case."""

    exit_code = 23


class SplitError(DataError):
    """Too few pictures or groups for the split that was asked for."""

    exit_code = 24


class ManifestError(DataError):
    """A CSV or Parquet list of pictures is wrong."""

    exit_code = 25


class ModelError(FedspectError):
    """A network cannot be built or used as asked."""

    exit_code = 30


class CheckpointError(ModelError):
    """A weights file lacks a key, or a shape differs."""

    exit_code = 31


class BaseModelError(ModelError):
    """A base model's folder is damaged or of another kind."""

    exit_code = 32


class InputSizeError(ModelError):
    """Pictures are too small, or of another depth, for the network."""

    exit_code = 33


class UpdateError(FedspectError):
    """What a plant sent, or what it was sent, cannot be used."""

    exit_code = 40


class UpdateFormatError(UpdateError):
    """Bytes that are not an update of this format."""

    exit_code = 41


class UpdateRefusedError(UpdateError):
    """A well-formed update that must not touch the model."""

    exit_code = 42


class StorageError(FedspectError):
    """A file could not be written or read back."""

    exit_code = 50


class DiskFullError(StorageError):
    """No space is left, or a quota is reached."""

    exit_code = 51


class ReadOnlyError(StorageError):
    """The place may not be written to."""

    exit_code = 52


class DamagedFileError(StorageError):
    """A file of our own is not what was written."""

    exit_code = 53


class FederationError(FedspectError):
    """A federation cannot go on."""

    exit_code = 60


class WorkspaceError(FederationError):
    """A workspace or run folder is missing, foreign or of another version."""

    exit_code = 61


class AlreadyRunningError(FederationError):
    """Another process holds this workspace."""

    exit_code = 62


class QuorumError(FederationError):
    """Too few plants answered."""

    exit_code = 63


class EnrolmentError(FederationError):
    """A plant was not admitted."""

    exit_code = 64


class ConnectionLostError(FederationError):
    """The other side cannot be reached."""

    exit_code = 65


class WorkerError(FedspectError):
    """The worker process failed or does not answer."""

    exit_code = 70


class YieldedError(WorkerError):
    """Training gave its place to the line: the plant is paused, or the device is needed."""

    exit_code = 71


class EngineError(FedspectError):
    """An engine cannot be built or run."""

    exit_code = 80


class GateError(EngineError):
    """A candidate engine did not pass the gate."""

    exit_code = 81


class EngineMemoryError(EngineError):
    """Too little memory, of the GPU or of the device, to build or run an engine."""

    exit_code = 82


class InterruptedRunError(FedspectError):
    """Ctrl-C; what was finished is on disk."""

    exit_code = 130


LONGEST_PART = 1000
"""Characters of each part of an error that cross a wire: the sender may be anybody, and trailers hold 8 kB."""


def error_from(facts: object, otherwise: Type[FedspectError] = FedspectError) -> Optional[FedspectError]:
    """Rebuild an error from the JSON of ``as_dict``; ``None`` when ``facts`` are not of that form.

    A kind that this release does not know becomes ``otherwise``.
    """
    if not isinstance(facts, Mapping) or not isinstance(facts.get("what"), str):
        return None
    kind = globals().get(str(facts.get("error")))
    if not (isinstance(kind, type) and issubclass(kind, FedspectError)):
        kind = otherwise
    seen, accepted, remedy = (
        None if facts.get(key) is None else str(facts[key])[:LONGEST_PART]
        for key in ("seen", "accepted", "remedy")
    )
    return kind(facts["what"][:LONGEST_PART], seen=seen, accepted=accepted, remedy=remedy)


def storage_error(error: OSError, path: object, doing: str) -> StorageError:
    """The storage error that an ``OSError`` means, with the path and what was being done."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            f"no space left while {doing}",
            seen=path,
            remedy="free some space or choose another folder; nothing that was finished is lost",
        )
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ReadOnlyError(
            f"not allowed to write while {doing}",
            seen=path,
            remedy="choose a folder that this user may write to, or change its permissions",
        )
    return StorageError(
        f"{error.strerror or error} while {doing}", seen=path, remedy="check the disk and the path"
    )


def nearest(name: str, names: Iterable[str]) -> Optional[str]:
    """The accepted name that a mistyped one looks most like; None if it looks like none of them."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return near[0] if near else None


def did_you_mean(name: str, names: Iterable[str]) -> Optional[str]:
    """The remedy for a mistyped name, if there is one that it looks like."""
    near = nearest(name, names)
    return None if near is None else f"did you mean {near}?"
