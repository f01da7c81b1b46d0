"""Yield policy: whether training may use this device now, or must yield to the line.

Four things block it: the engineer paused the plant; the hour is not one of those allowed; too little memory is
free, or the worker uses too much; other programs keep the processors busy. The first two are known without a
measurement, and the node gives a round back at once. The worker asks between any two batches. A blocker then
makes it wait in place, where it uses no processor, for ``patience`` seconds; after that, or at once where the
blocker is known to last longer, the round is given back to headquarters with the reason, and its work is done
again when the plant is asked again. So neither the line nor headquarters ever waits for training.

The pause is a file, so that it survives restarts of everything.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional

from fedclient.hours import Hours
from fedclient.plant_settings import PlantSettings, SettingsFile
from fedspect import files
from fedspect.errors import FedspectError, YieldedError

if TYPE_CHECKING:
    from fedclient.device_use import Device

PAUSE_MARK = "paused.json"
LOOK_EVERY = 0.5  # seconds between two looks, and between two tries while waiting
MEBI = 1 << 20


@dataclass(frozen=True)
class Blocker:
    """Why training must not run: ``kind`` is paused, hours, memory or load."""

    kind: str
    reason: str
    until: Optional[float] = None
    """When it ends by itself (seconds since 1970), where that is known."""

    def as_dict(self) -> Dict[str, Any]:
        """For ``--json`` and for headquarters."""
        return asdict(self)

    def error(self) -> YieldedError:
        """The error that headquarters is told."""
        return YieldedError(f"training yields to the line: {self.reason}")


class YieldPolicy:
    """The policy of the plant whose home is ``folder``; measures twice a second at most."""

    def __init__(
        self,
        folder: Path,
        *,
        device: Optional[Device] = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        local: Callable[[float], time.struct_time] = time.localtime,
    ) -> None:
        self.mark = PauseFile(folder)
        self.file = SettingsFile(folder)
        self._device = device
        self._clock = clock
        self._sleep = sleep
        self._local = local
        self._looked = float("-inf")
        self._found: Optional[Blocker] = None

    @property
    def settings(self) -> PlantSettings:
        """The plant's current settings."""
        return self.file.current()

    def schedule_blocker(self) -> Optional[Blocker]:
        """The blocker that does not depend on the device's load: pause or hours."""
        now = self._clock()
        paused = self.mark.blocker(now)
        if paused is not None:
            return paused
        hours = Hours.parse(self.settings.training.hours, self._local)
        if hours.allow(now):
            return None
        opening = hours.opening(now)
        again = "" if opening is None else f"; again at {time.strftime('%H:%M', self._local(opening))}"
        return Blocker("hours", f"its hours are {hours}{again}", opening)

    def blocker(self) -> Optional[Blocker]:
        """The first blocker found, of all."""
        now = self._clock()
        if not self._looked <= now < self._looked + LOOK_EVERY:
            self._looked, self._found = now, self.schedule_blocker() or self._device_blocker()
        return self._found

    def _device_blocker(self) -> Optional[Blocker]:
        limits, device = self.settings.training, self._used()
        taken, free = device.memory_taken() // MEBI, device.memory_free() // MEBI
        if limits.memory_limit and taken > limits.memory_limit:
            return Blocker(
                "memory",
                f"the worker uses {taken} MiB, its limit is {limits.memory_limit}",
                float("inf"),
            )
        if limits.memory_free and free < limits.memory_free:
            return Blocker("memory", f"{free} MiB of memory are free, {limits.memory_free} must stay so")
        load = round(100 * device.load()) if limits.load_limit else 0
        if limits.load_limit and load > limits.load_limit:
            return Blocker(
                "load", f"others use {load} % of the processors, the limit is {limits.load_limit} %"
            )
        return None

    def _used(self) -> Device:
        if self._device is None:
            from fedclient.device_use import Device  # `fedclient status` asks for what stands only

            self._device = Device()
        return self._device

    def between_batches(self, while_waiting: Callable[[Blocker], None] = lambda blocker: None) -> None:
        """Return when training may go on; may take ``patience`` seconds.

        Raises:
            YieldedError: the round is to be given back. Whatever ``while_waiting`` raises passes through.

        """
        began: Optional[float] = None
        while True:
            blocker = self.blocker()
            if blocker is None:
                return
            now = self._clock()
            began = now if began is None else began
            end = began + self.settings.training.patience
            if now >= end or (blocker.until is not None and blocker.until > end):
                raise blocker.error()
            while_waiting(blocker)
            self._sleep(LOOK_EVERY)


class PauseFile:
    """Marks the plant as paused: since when, and until when if that was said."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / PAUSE_MARK

    def put(self, *, since: float, until: Optional[float] = None) -> None:
        """Pause."""
        files.write_json(self.path, {"since": since, "until": until})

    def remove(self) -> bool:
        """Resume; whether it was paused."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def blocker(self, now: float) -> Optional[Blocker]:
        """The blocker of the pause; a file that cannot be read is a pause, for whoever wrote it meant one."""
        try:
            content = files.read_json(self.path)
            until = content.get("until")
            until = None if until is None else float(until)
            since = f" since {time.strftime('%Y-%m-%d %H:%M', time.localtime(float(content['since'])))}"
        except FileNotFoundError:
            return None
        except (FedspectError, OSError, AttributeError, KeyError, TypeError, ValueError):
            until, since = None, ""
        if until is not None and now >= until:
            return None
        end = "" if until is None else f" until {time.strftime('%H:%M', time.localtime(until))}"
        return Blocker("paused", f"paused by the plant's engineer{since}{end}", until)
