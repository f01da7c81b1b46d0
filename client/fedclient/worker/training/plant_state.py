"""Client state on disk between rounds, so that a killed round can be repeated.

Three things, each in files that are replaced whole or not at all:

* the *heads* that it holds, each named by its version and proved by it when read;
* what it carries from round to round: the *residual* of its error feedback and, with FedBN, its own running
  *statistics*. They are kept per round. A round starts from the newest state of an **earlier** round, so
  however often it is begun it begins from the same state, and a round that was never finished leaves
  nothing behind;
* its last *reply*: a task that comes a second time, byte for byte, is answered at once.

A file that is damaged is left out and named in ``remarks``; what is lost then is a residual or a download.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError

from fedspect.errors import DamagedFileError, UpdateFormatError, storage_error
from fedspect.files import read_json, write_bytes, write_json
from fedspect.update.round_messages import RoundReply
from fedspect.update.schema import Arrays, Schema, version_of

KEPT_ROUNDS = 2
MOST_BYTES = 2 << 30


@dataclass(frozen=True)
class Carried:
    """Client state: what a round starts from and what it leaves for the next."""

    residual: Optional[Arrays] = None
    """What coarse encodings have not sent yet."""
    statistics: Optional[Arrays] = None
    """The plant's own running statistics (FedBN)."""


class HeldVersion(BaseModel):
    """``held.json``: the head that the plant holds, and the one before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    previous: Optional[str] = None


class _Stamp(BaseModel):
    """A round state's metadata (safetensors holds text only)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    round: int
    serial: int
    """Counts up over all runs: the newest has the highest."""


class PlantState:
    """The state of one plant for one base model; ``folder`` is its own."""

    def __init__(self, folder: Path, *, base_hash: str) -> None:
        self.folder = folder / base_hash[:16]
        self.remarks: List[str] = []

    # Heads

    def held(self) -> Optional[str]:
        """The version of the head on the disk, if there is one."""
        held = self._held()
        return held.version if held is not None and self._head_file(held.version).is_file() else None

    def head(self, version: str, schema: Schema) -> Optional[Arrays]:
        """A head by its version, if it is on the disk and is what its name says."""
        path = self._head_file(version)
        arrays = self._load(path)
        if arrays is None:
            return None
        if Schema.of(arrays) != schema or version_of(arrays) != version:
            self._leave_out(path, "it is not the head that its name says")
            return None
        return arrays

    def keep_head(self, head: Mapping[str, np.ndarray], version: str) -> None:
        """Store this head, and keep the one before it a little longer."""
        held = self._held()
        if held is not None and held.version == version and self._head_file(version).is_file():
            return
        previous = held.version if held is not None and held.version != version else None
        write_bytes(self._head_file(version), safetensors.numpy.save(_contiguous(head)))
        write_json(self.folder / "held.json", HeldVersion(version=version, previous=previous).model_dump())
        for path in (self.folder / "heads").glob("*.safetensors"):
            if path.stem not in (version, previous):
                _remove(path)

    def forget_heads(self) -> None:
        """Remove all heads: the next task must bring the whole head."""
        _remove(self.folder / "held.json")

    def _held(self) -> Optional[HeldVersion]:
        try:
            return HeldVersion.model_validate(read_json(self.folder / "held.json"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError, DamagedFileError) as error:
            self.remarks.append(f"held.json is left out: {error}"[:500])
            return None

    def _head_file(self, version: str) -> Path:
        return self.folder / "heads" / f"{version}.safetensors"

    # What is carried from round to round

    def before(self, run_id: str, round_number: int, schema: Schema) -> Carried:
        """The state after the newest earlier round of this run; an empty one at the run's start."""
        stamps = {path: stamp for path, stamp in self._stamps().items() if stamp.run_id == run_id}
        earlier = [path for path, stamp in stamps.items() if stamp.round < round_number]
        for path in sorted(earlier, key=lambda path: -stamps[path].round):
            carried = self._carried(path, schema)
            if carried is not None:
                return carried
        return Carried()

    def latest_statistics(self, run_id: str) -> Optional[Arrays]:
        """The newest statistics that another run left."""
        stamps = {path: stamp for path, stamp in self._stamps().items() if stamp.run_id != run_id}
        for path in sorted(stamps, key=lambda path: -stamps[path].serial):
            arrays = self._load(path)
            statistics = _part(arrays, "statistics/") if arrays else None
            if statistics:
                return statistics
        return None

    def commit(self, run_id: str, round_number: int, carried: Carried) -> None:
        """Store this state for the rounds after this one; later rounds of an abandoned try are dropped."""
        stamps = self._stamps()
        serial = 1 + max((stamp.serial for stamp in stamps.values()), default=0)
        arrays: Dict[str, np.ndarray] = {}
        for prefix, part in (("residual/", carried.residual), ("statistics/", carried.statistics)):
            arrays.update({prefix + name: values for name, values in (part or {}).items()})
        path = self.folder / "rounds" / f"{run_id}-{round_number:06d}.safetensors"
        stamp = _Stamp(run_id=run_id, round=round_number, serial=serial)
        write_bytes(path, safetensors.numpy.save(_contiguous(arrays), {"stamp": stamp.model_dump_json()}))
        stamps[path] = stamp
        newest = sorted(stamps, key=lambda path: -stamps[path].serial)[:KEPT_ROUNDS]
        for path, stamp in stamps.items():
            abandoned = stamp.run_id == run_id and stamp.round > round_number
            if abandoned or path not in newest:
                _remove(path)

    def _carried(self, path: Path, schema: Schema) -> Optional[Carried]:
        arrays = self._load(path)
        if arrays is None:
            return None
        residual, statistics = _part(arrays, "residual/"), _part(arrays, "statistics/")
        if residual and Schema.of(residual) != schema:
            self.remarks.append("a residual of another head is left out")
            residual = {}
        return Carried(residual or None, statistics or None)

    def _stamps(self) -> Dict[Path, _Stamp]:
        stamps: Dict[Path, _Stamp] = {}
        for path in sorted((self.folder / "rounds").glob("*.safetensors")):
            try:
                with safetensors.safe_open(str(path), framework="numpy") as file:
                    stamps[path] = _Stamp.model_validate_json((file.metadata() or {}).get("stamp", ""))
            except (OSError, ValidationError, safetensors.SafetensorError) as error:
                self._leave_out(path, error)
        return stamps

    # The last reply

    def reply_to(self, task: bytes) -> Optional[RoundReply]:
        """The stored reply to this very task, if it was the last."""
        try:
            content = (self.folder / "reply.bin").read_bytes()
        except OSError:
            return None
        if content[:32] != hashlib.sha256(task).digest():
            return None
        try:
            return RoundReply.from_bytes(content[32:], MOST_BYTES)
        except UpdateFormatError as error:
            self._leave_out(self.folder / "reply.bin", error)
            return None

    def keep_reply(self, task: bytes, reply: RoundReply) -> None:
        """Store the reply to this task in place of the last."""
        write_bytes(self.folder / "reply.bin", hashlib.sha256(task).digest() + reply.to_bytes())

    # Files

    def _load(self, path: Path) -> Optional[Arrays]:
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError("it is larger than any head")
            return dict(safetensors.numpy.load(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            self._leave_out(path, error)
            return None

    def _leave_out(self, path: Path, why: object) -> None:
        self.remarks.append(f"{path.name} is damaged and was left out: {why}"[:500])
        _remove(path)


def _part(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {name[len(prefix) :]: values for name, values in arrays.items() if name.startswith(prefix)}


def _contiguous(arrays: Mapping[str, np.ndarray]) -> Arrays:
    return {name: np.asarray(values, dtype=np.float32, order="C") for name, values in arrays.items()}


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise storage_error(error, path, "removing a file") from error
