"""Device checks: memory, disk, and on a Jetson its model, power mode, processors and temperature.

What is read of a Jetson is files below ``root``, so that a test can lay them down. It follows what is
documented of L4T; it was never tried on a board, so every line shows what was read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil

from fedclient.node.doctor.checks import GIB, Check, ok, warning
from fedspect.errors import DiskFullError, WorkerError

LITTLE_DISK, TOO_LITTLE_DISK = 4 * GIB, GIB // 2
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 2 * GIB, GIB // 2
WARM, HOT = 80.0, 95.0  # degrees Celsius; a Jetson slows down from about 97 on
JETPACK = {"32": "JetPack 4", "34": "JetPack 5", "35": "JetPack 5", "36": "JetPack 6"}

RELEASE = "etc/nv_tegra_release"
MODEL = "proc/device-tree/model"
POWER_STATUS = "var/lib/nvpmodel/status"
POWER_MODES = "etc/nvpmodel.conf"


def memory() -> Iterator[Check]:
    """Free memory and swap.

    Raises:
        WorkerError: too little to train at all.

    """
    found, swap = psutil.virtual_memory(), psutil.swap_memory()
    text = f"{found.available / GIB:.1f} of {found.total / GIB:.1f} GiB free"
    text += f", {swap.free / GIB:.1f} of {swap.total / GIB:.1f} GiB swap" if swap.total else ", no swap"
    if found.available < TOO_LITTLE_MEMORY:
        raise WorkerError("too little memory", seen=text, remedy="end other programs, or add swap")
    if found.available < LITTLE_MEMORY:
        yield warning(
            "memory", text, "training and builds of engines may have to wait; end other programs, or add swap"
        )
    else:
        yield ok("memory", text)


def disk(folder: Path) -> Iterator[Check]:
    """Free disk space of the plant's folder.

    Raises:
        DiskFullError: too little for a base model and a round.

    """
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    text = f"{free / GIB:.1f} GiB free at {folder}"
    if free < TOO_LITTLE_DISK:
        raise DiskFullError("too little disk", seen=text, remedy="free some space, or use another --home")
    if free < LITTLE_DISK:
        yield warning("disk", text, "set a smaller `cache` under [device] in plant.toml, or free some space")
    else:
        yield ok("disk", text)


def is_jetson(root: Path) -> bool:
    """Whether this is one."""
    return (root / RELEASE).exists()


def jetson(root: Path) -> Iterator[Check]:
    """Model, software and power mode of a Jetson; nothing elsewhere."""
    if not is_jetson(root):
        return
    release = (root / RELEASE).read_text("utf-8", "replace")
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release)
    model = _text(root / MODEL).rstrip("\0") or "a Jetson"
    if found is None:
        yield warning("device", f"{model}, {release.splitlines()[0][:100]}", "this release is not known")
    elif JETPACK.get(found[1], "JetPack 4") == "JetPack 4":
        yield warning(
            "device",
            f"{model}, L4T {found[1]}.{found[2]} ({JETPACK.get(found[1], 'unknown')})",
            "JetPack 5 or 6 is needed",
        )
    else:
        yield ok("device", f"{model}, L4T {found[1]}.{found[2]} ({JETPACK[found[1]]})")
    yield from _power_mode(root)
    online, present = (_text(root / f"sys/devices/system/cpu/{name}") for name in ("online", "present"))
    if online and online != present:
        yield warning(
            "processors", f"{online} of {present} are on", "a power mode with more cores trains faster"
        )


def _power_mode(root: Path) -> Iterator[Check]:
    """The power mode by nvpmodel's own files: the current number, and what each number means."""
    current = re.search(r"pmode:\s*(\d+)", _text(root / POWER_STATUS))
    modes = {
        int(number): name
        for number, name in re.findall(
            r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", _text(root / POWER_MODES)
        )
    }
    if current is None:
        yield warning("power mode", f"not written in /{POWER_STATUS}", "ask `sudo nvpmodel -q`")
        return
    number = int(current[1])
    text = f"{number} ({modes.get(number, 'a number that nvpmodel.conf does not name')})"
    strongest = max(modes, key=lambda each: (_watts(modes[each]), _cores(modes[each])), default=number)
    if _watts(modes.get(strongest, "")) > _watts(modes.get(number, "")):
        remedy = f"more power trains faster, if supply and cooling bear it: sudo nvpmodel -m {strongest}"
        yield warning("power mode", f"{text}, {modes[strongest]} is the strongest", remedy)
    else:
        yield ok("power mode", text)


def temperature(root: Path) -> Iterator[Check]:
    """The highest temperature that the kernel measures; nothing where it measures none."""
    zones = []
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        read = _text(zone / "temp")
        if re.fullmatch(r"-?\d{1,7}", read) and int(read) > -100_000:  # -256000: a sensor that is off
            zones.append((int(read) / 1000.0, _text(zone / "type") or zone.name))
    if not zones:
        return
    degrees, name = max(zones)
    text = f"{degrees:.0f} °C ({name})"
    if degrees >= HOT:
        yield warning("temperature", text, "too hot: it slows itself down; see to fan, dust and air")
    elif degrees >= WARM:
        yield warning("temperature", text, "warm before training has begun; see to fan, dust and air")
    else:
        yield ok("temperature", text)


def _watts(mode: str) -> float:
    """The power in a mode's name such as MODE_15W_6CORE; MAXN is without a limit."""
    if mode.startswith("MAXN"):
        return float("inf")
    found = re.search(r"(\d+)W", mode)
    return float(found[1]) if found else 0.0


def _cores(mode: str) -> int:
    found = re.search(r"(\d+)CORE", mode)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return ""
