"""Settings of the line, ``line/line.toml``: how sure an answer must be, and how much of the device the line takes."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from pydantic import Field, field_validator

from fedspect.files import write_text
from fedspect.settings import Settings, load_settings
from fedspect.toml_writer import commented_toml

SETTINGS_FILE = "line.toml"

HEADING = """How this plant's line answers. Written once with what is in force; changes are taken up by a running
`fedclient serve` within a second, and a file with a mistake leaves it as it was."""


class VerdictSettings(Settings):
    """Decision policy: what becomes of a piece."""

    good_classes: List[str] = Field(default_factory=list)
    """Classes that mean that a piece is good. None: no picture passes, it is rejected or a person is asked."""
    sure: float = Field(default=0.8, gt=0, le=1)
    """How sure an answer must be before the line obeys it; below, a person is asked. A piece passes when the
    probabilities of all good classes reach this together, and is rejected when all others do."""
    sure_of: Dict[str, float] = Field(default_factory=dict)
    """The same for single classes, when they are the most probable one: { scratch = 0.95 }."""

    @field_validator("sure_of")
    @classmethod
    def _are_probabilities(cls, value: Dict[str, float]) -> Dict[str, float]:
        for name, sure in value.items():
            if not 0 < sure <= 1:
                raise ValueError(
                    f"{name} = {sure:g} is no probability, which is above 0 and at most 1, as 0.95"
                )
        return value

    def unknown(self, classes: Sequence[str]) -> Tuple[str, ...]:
        """What is named here and is none of these classes."""
        return tuple(
            name for name in dict.fromkeys([*self.good_classes, *self.sure_of]) if name not in classes
        )

    def known(self, classes: Sequence[str]) -> VerdictSettings:
        """Only what is said of these classes; nothing passes as one that is left out."""
        good = [name for name in self.good_classes if name in classes]
        sure_of = {name: value for name, value in self.sure_of.items() if name in classes}
        return self.model_copy(update={"good_classes": good, "sure_of": sure_of})


class ServingSettings(Settings):
    """What ``fedclient serve`` takes of the device."""

    threads: int = Field(default=1, ge=1, le=64)
    """Processor threads of an engine that runs on the CPU."""
    most_pictures: int = Field(default=8, ge=1, le=256)
    """Pictures that are answered together at most."""
    latency_ms: float = Field(default=100.0, gt=0, le=60_000)
    """Milliseconds that a batch may take: fewer pictures are put together where the engine is slow."""
    gather_ms: float = Field(default=2.0, ge=0, le=1000)
    """Milliseconds that a picture waits for others that are being read at that moment."""
    waiting_pictures: int = Field(default=64, ge=1, le=10_000)
    """Pictures that may wait for an answer. More are refused at once ("resource exhausted")."""
    clients: int = Field(default=32, ge=1, le=1000)
    """Requests that may be under way at the same time."""
    largest_request_mib: int = Field(default=32, ge=1, le=1024)
    """Mebibytes of the largest request."""
    largest_megapixels: float = Field(default=16.0, gt=0, le=80)
    """Million pixels of the largest picture in a request, whatever its file's size."""
    unpacked_mib: int = Field(default=256, ge=16, le=1 << 16)
    """Mebibytes that pictures may take while they are decoded, all requests together; others wait."""
    drain_seconds: float = Field(default=10.0, ge=0, le=600)
    """Seconds that requests under way get when the process is told to end."""


class ReviewSettings(Settings):
    """Review queue: pictures with the verdict `ask`, kept for labelling in ``line/review``."""

    most_pictures: int = Field(default=1000, ge=0, le=1_000_000)
    """Pictures that are kept; the oldest go first. 0: none."""
    most_mib: int = Field(default=1024, ge=1, le=1 << 20)
    """Mebibytes of all of them together."""
    heat_maps: bool = False
    """Keep beside each, in review/why, where its class comes from, as PNG. It costs about one more answer for each
    picture and memory for a second graph, and is there for engines of the kind onnxruntime."""


class DriftSettings(Settings):
    """When the line's pictures count as others than those that the model learned from."""

    window: int = Field(default=200, ge=20, le=100_000)
    """Pictures that are looked at together."""
    tolerance: float = Field(default=2.0, ge=1, le=100)
    """The alarm's limit as a multiple of what windows of the reference pictures themselves reach."""


class LineSettings(Settings):
    """All of it."""

    verdicts: VerdictSettings = Field(default_factory=VerdictSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    review: ReviewSettings = Field(default_factory=ReviewSettings)
    drift: DriftSettings = Field(default_factory=DriftSettings)


def read_settings(folder: Path, overrides: Optional[Mapping[str, object]] = None) -> LineSettings:
    """The settings in the folder ``line``; where there are none, the defaults.

    Raises:
        SettingsError: the file cannot be read, or a value is not accepted.

    """
    path = folder / SETTINGS_FILE
    return load_settings(path if path.exists() else None, LineSettings, overrides)


def write_settings(folder: Path, settings: LineSettings) -> Path:
    """Write the settings with a comment over each value; raises ``StorageError``."""
    path = folder / SETTINGS_FILE
    write_text(path, commented_toml(settings, heading=HEADING))
    return path
