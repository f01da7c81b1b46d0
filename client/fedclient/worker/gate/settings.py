"""Settings of the gate, ``engines.toml``: which engines are built, and every limit with a default."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Mapping, Optional

from pydantic import Field
from typing_extensions import Annotated

from fedclient.engine_files import FILES, GROUP
from fedspect.files import write_text
from fedspect.plugins import NameIn
from fedspect.settings import Settings, load_settings
from fedspect.toml_writer import commented_toml

SETTINGS_FILE = "engines.toml"
HEADING = (
    "What this plant's engines are and what a new one must prove before the line runs it.\nSee docs/gate.md."
)


class EngineChoice(Settings):
    """Which engines are built."""

    kind: Annotated[str, NameIn(GROUP, ("auto", *FILES))] = "auto"
    """The runtime, or a kind that another package adds (docs/extend/engine.md); auto takes
    TensorRT where it and a GPU are there, else ONNX Runtime."""
    precision: Literal["auto", "float32", "float16"] = "auto"
    """How the engine counts; auto is float16 with TensorRT, else float32."""
    threads: int = Field(1, ge=1, le=64)
    """Threads of an engine on the CPU while it is tried."""


class GateSettings(Settings):
    """The limits of the gate. Which classes are good and how sure an answer must be is the line's to say
    (`fedclient thresholds`).
    """

    logits_tolerance: float = Field(1e-4, gt=0, le=1)
    """Largest difference of a float32 engine's logits from the trained model's, as a share of their scale."""
    logits_tolerance_float16: float = Field(0.02, gt=0, le=1)
    """The same of a float16 engine."""
    more_escapes: int = Field(0, ge=0)
    """Golden pictures with a defect that may pass beyond those that pass with the current engine."""
    more_false_rejects: float = Field(0.02, ge=0, le=1)
    """Good golden pictures that may be rejected beyond those of the current engine, as a share of the good
    ones; one picture is always allowed.
    """
    more_asked: float = Field(0.05, ge=0, le=1)
    """Golden pictures of which a person would be asked beyond those of the current engine, as a share of all;
    one picture is always allowed.
    """
    more_wrong: float = Field(0.02, ge=0, le=1)
    """Golden pictures that may be called wrong beyond those of the current engine, as a share of all; one
    picture is always allowed.
    """
    lowest_accuracy: float = Field(0.5, ge=0, le=1)
    """Mean over the classes of the share that is called right, below which no engine is let in."""
    latency_limit_ms: Optional[float] = Field(None, gt=0)
    """Longest time for one picture on this device, in milliseconds (the median of all runs); none by default."""
    slower: float = Field(1.5, ge=1)
    """How many times as long as with the current engine one picture may take; both are timed in turns, and
    the quickest answers of both are compared."""
    runs: int = Field(20, ge=3, le=1000)
    """Timed runs of one picture."""
    golden_limit: int = Field(500, ge=1, le=5000)
    """Most pictures of the held-out share that become golden."""
    without_pictures: Literal["agree", "refuse"] = "agree"
    """A plant without any golden picture: let an engine in that agrees with the trained model on drawn
    pictures, or let none in.
    """


class DeploySettings(Settings):
    """``engines.toml``."""

    engine: EngineChoice = Field(default_factory=EngineChoice)
    """Which engines are built."""
    gate: GateSettings = Field(default_factory=GateSettings)
    """What a new engine must prove."""


def read_deploy_settings(home: Path, overrides: Optional[Mapping[str, Any]] = None) -> DeploySettings:
    """The plant's settings; a file with all defaults, explained, is written where there is none. ``overrides``
    (by dotted key; None: not given) go before the file.

    Raises:
        SettingsError: a key or value is not accepted.
        StorageError: the file cannot be written.

    """
    path = home / SETTINGS_FILE
    if not path.exists():
        write_text(path, commented_toml(DeploySettings(), heading=HEADING))
    return load_settings(path, DeploySettings, overrides)
