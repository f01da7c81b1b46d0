"""Courtesy to the line: whether training may use this device just now.

Four things speak against it: the engineer paused the plant; the hour is not one of those allowed; too little
memory is free, or the trainer has taken too much; other programs keep the processors busy. The first two
*stand*: they are known without a look at the device, and the node gives a round back at once. The trainer
asks between any two batches. What speaks against training then makes it wait in place, where it uses no
processor, for ``patience`` seconds; after that, or at once where the end is known to be further away, the
round is given back to headquarters with the reason, and its work is done again when the plant is asked
again. So neither the line nor headquarters ever waits for training.

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
    """What speaks against training: ``kind`` is paused, hours, memory or load."""

    kind: str
    reason: str
    until: Optional[float] = None
    """When it ends by itself (seconds since 1970), where that is known."""

    def as_dict(self) -> Dict[str, Any]:
        """For ``--json`` and for headquarters."""
        return asdict(self)

    def error(self) -> YieldedError:
        """What headquarters is told."""
        return YieldedError(f"training yields to the line: {self.reason}")


class YieldPolicy:
    """Answers for the plant whose home is ``folder``; looks twice a second at most."""

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
        """The plant's settings as they are now."""
        return self.file.current()

    def standing(self) -> Optional[Blocker]:
        """What speaks against training whatever the device is doing: the pause and the hours."""
        now = self._clock()
        paused = self.mark.objection(now)
        if paused is not None:
            return paused
        hours = Hours.parse(self.settings.training.hours, self._local)
        if hours.allow(now):
            return None
        opening = hours.opening(now)
        again = "" if opening is None else f"; again at {time.strftime('%H:%M', self._local(opening))}"
        return Blocker("hours", f"its hours are {hours}{again}", opening)

    def objection(self) -> Optional[Blocker]:
        """All that speaks against training at this moment; the first that is found."""
        now = self._clock()
        if not self._looked <= now < self._looked + LOOK_EVERY:
            self._looked, self._found = now, self.standing() or self._pressing()
        return self._found

    def _pressing(self) -> Optional[Blocker]:
        limits, device = self.settings.training, self._used()
        taken, free = device.memory_taken() // MEBI, device.memory_free() // MEBI
        if limits.memory_limit and taken > limits.memory_limit:
            return Blocker(
                "memory",
                f"the trainer has taken {taken} MiB, its limit is {limits.memory_limit}",
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

    def between_batches(self, while_waiting: Callable[[Blocker], None] = lambda objection: None) -> None:
        """Return when training may go on; may take ``patience`` seconds.

        Raises:
            YieldedError: the round is to be given back. Whatever ``while_waiting`` raises passes through.

        """
        began: Optional[float] = None
        while True:
            objection = self.objection()
            if objection is None:
                return
            now = self._clock()
            began = now if began is None else began
            end = began + self.settings.training.patience
            if now >= end or (objection.until is not None and objection.until > end):
                raise objection.error()
            while_waiting(objection)
            self._sleep(LOOK_EVERY)


class PauseFile:
    """The file that says that the plant is paused, since when, and until when if that was said."""

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

    def objection(self, now: float) -> Optional[Blocker]:
        """What the mark says; a mark that cannot be read is a pause, for whoever made it meant one."""
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
