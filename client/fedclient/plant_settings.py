"""Settings of a plant, ``plant.toml``: what its engineer decides about this device.

`fedclient join` writes the file with a comment over every value. Node and worker read it again when it
changes, so that hours and limits take effect at once. A file that cannot be read any more does not end a
plant that runs: the last settings stay, and `fedclient status` says what is wrong.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

from pydantic import Field, field_validator

from fedclient.hours import Hours
from fedspect import files
from fedspect.errors import FedspectError, SettingsError
from fedspect.settings import Settings, load_settings, settings_from
from fedspect.toml_writer import commented_toml

SETTINGS_FILE = "plant.toml"
HEADING = """What this plant's engineer decides. The line comes first: training waits where these say so.
Hours and limits take effect within seconds; what [device], [camera] and [network] say at the next
`fedclient join`."""


class TrainingHoursSettings(Settings):
    """Hours of training, and what it must leave to the line."""

    hours: List[str] = Field(default_factory=list, max_length=50)
    """Windows of the day in this device's local time, such as ["22:00-06:00", "12:00-12:45"]; a window may
    go over midnight. Empty: at any time.
    """
    memory_free: int = Field(256, ge=0, le=1 << 20)
    """MiB of memory that must stay free for the line; with less, training waits. 0: no such limit."""
    memory_limit: int = Field(0, ge=0, le=1 << 20)
    """MiB of memory that the worker may take; beyond, it gives its round back. 0: no such limit."""
    load_limit: int = Field(0, ge=0, le=100)
    """Percent of all processors that everything else on the device may be using; with more, training
    waits. 0: no such limit.
    """
    patience: float = Field(60.0, ge=0, le=3600)
    """Seconds that a round which has begun waits in place before it is given back to headquarters."""

    @field_validator("hours")
    @classmethod
    def _hours_are_windows(cls, hours: List[str]) -> List[str]:
        return [str(window) for window in Hours.parse(hours).windows]


class DeviceSettings(Settings):
    """What the worker may use of this device."""

    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """"auto" (a GPU if there is one), "cpu", "cuda" or "cuda:1"."""
    threads: int = Field(0, ge=0, le=1024)
    """Processor threads of training; 0: as many as there are processors."""
    nice: int = Field(10, ge=0, le=19)
    """Niceness of training: how far it yields processors to other programs; 0: not at all."""
    cache: int = Field(2048, ge=0, le=1 << 20)
    """MiB of disk for the frozen-feature cache, which makes a round several times faster."""
    silence: int = Field(300, ge=30, le=86_400)
    """Seconds without a heartbeat after which a worker that hangs is ended and started again. It gives
    one every ten seconds, also in the middle of a long step and while it waits for the line.
    """


class CameraSection(Settings):
    """The camera of this plant."""

    bit_depth: int = Field(0, ge=0, le=16)
    """Bits per channel, 8 to 16, that files of 16 bits hold: 10, 12 or 14 for most cameras. 0: the smallest number
    that holds all pictures of the plant. Training and line read all files by it.
    """

    @field_validator("bit_depth")
    @classmethod
    def _is_a_depth(cls, value: int) -> int:
        if 0 < value < 8:
            raise ValueError(f"{value} is no bit depth, which is 8 to 16, or 0 to find it")
        return value


class VersionsSettings(Settings):
    """How published versions reach the line."""

    automatic: bool = True
    """Whether a new version is fetched, tried on this plant's golden pictures and, if it passes, run."""
    look_every: float = Field(20.0, ge=1, le=86_400)
    """Seconds between two polls of headquarters."""
    keep: int = Field(5, ge=2, le=1000)
    """How many versions stay on the disk."""


class NetworkSection(Settings):
    """The way to headquarters."""

    proxy: str = Field("none", pattern=r"^(none|environment|http://[^\s/]+)$")
    """"none": directly, whatever proxy variables are set; "environment": as grpc_proxy, https_proxy, http_proxy and
    no_proxy say; or "http://HOST:PORT". This device itself (localhost) is never asked for through a proxy.
    """


class PlantSettings(Settings):
    """All of ``plant.toml``."""

    training: TrainingHoursSettings = Field(default_factory=TrainingHoursSettings)
    """When training may run, and what it must leave to the line."""
    device: DeviceSettings = Field(default_factory=DeviceSettings)
    """What the trainer may use of this device."""
    camera: CameraSection = Field(default_factory=CameraSection)
    """The camera of this plant."""
    versions: VersionsSettings = Field(default_factory=VersionsSettings)
    """How published versions come to the line."""
    network: NetworkSection = Field(default_factory=NetworkSection)
    """The way to headquarters."""


class SettingsFile:
    """The file of one plant, read again when it changes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / SETTINGS_FILE
        self.problem: Optional[str] = None
        """Why the file as it is now is not what ``current`` answers."""
        self._stamp: Optional[Tuple[int, int]] = None
        self._settings = PlantSettings()

    def read(self) -> PlantSettings:
        """The settings on disk; the defaults where there is no file.

        Raises:
            SettingsError: a key is unknown or a value is not accepted.

        """
        return load_settings(self.path if self.path.exists() else None, PlantSettings)

    def current(self) -> PlantSettings:
        """The last settings that could be read; never raises."""
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_size)
        except OSError:
            stamp = (0, 0)
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._settings, self.problem = self.read(), None
            except FedspectError as error:
                self.problem = str(error)
        return self._settings

    def prepare(self) -> None:
        """Write the commented file where there is none."""
        if not self.path.exists():
            files.write_text(self.path, commented_toml(PlantSettings(), heading=HEADING), mode=0o600)

    def change(self, values: Mapping[str, Any]) -> None:
        """Set dotted keys (``training.hours``) in the file; comments and all other values stay.

        Raises:
            SettingsError: a value is not accepted, or the file cannot be read; it stays as it is then.

        """
        import tomlkit

        self.prepare()
        self.read()
        document = tomlkit.parse(self.path.read_text(encoding="utf-8"))
        for key, value in values.items():
            table, name = key.split(".")
            section = document.setdefault(table, tomlkit.table())
            if not isinstance(section, dict):
                raise SettingsError(f"{table} must be a table", seen=repr(section))
            section[name] = value
        settings_from(document.unwrap(), PlantSettings, overridden=tuple(values))
        files.write_text(self.path, tomlkit.dumps(document), mode=0o600)
