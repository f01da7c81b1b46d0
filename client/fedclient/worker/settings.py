"""Settings of the worker, ``worker.json``, written by the node. No torch: a plant's commands read it too."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedspect.errors import DamagedFileError
from fedspect.files import read_json

LABELLED = (
    "labelled"  # in the plant's home: pictures of the line that a person has labelled, a folder per class
)


class WorkerSettings(BaseModel):
    """``worker.json``; paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    plant: str
    classes: List[str] = Field(min_length=1)
    aliases: Dict[str, str] = Field(default_factory=dict)
    data: Path
    """A folder of pictures, or a CSV or Parquet list."""
    base: Path
    """The base model's folder."""
    state: Path
    cache: Path
    training: Dict[str, Any] = Field(default_factory=dict)
    """What the federation prescribes, with the plant's own device, threads and limits."""
    freeze_levels: Optional[int] = None
    bit_depth: Optional[int] = Field(None, ge=8, le=16)
    """Of the plant's camera, for files of 16 bits; None: as all pictures tell it together."""
    seed: int = 0
    closed_form: bool = False
    """Whether the federation's runs begin at a closed form."""

    @property
    def home(self) -> Path:
        """The plant's own folder, in which ``state`` lies beside engines, deployments and golden pictures."""
        return self.state.parent

    @classmethod
    def read(cls, path: Path) -> WorkerSettings:
        """Read the node's file.

        Raises:
            DamagedFileError: it is missing or not what the node writes.

        """
        try:
            return cls.model_validate(read_json(path))
        except FileNotFoundError as error:
            raise DamagedFileError("the worker's settings are missing", seen=path) from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise DamagedFileError(
                "the worker's settings cannot be read",
                seen=f"{path}: {where}: {first['msg']}",
                remedy="bring node and worker to the same version of Fedspect",
            ) from error
