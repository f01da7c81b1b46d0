"""`fedclient doctor`: what may keep this device from taking part, each line with its mend.

Nothing here needs torch: the worker's interpreter is asked in a process of its own. What is read on a
Jetson (power mode, temperatures, L4T) is shown where the files are, and was never tried on a board.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from fedclient.node.enrol import clock_offset
from fedclient.node.home import Membership, PlantHome
from fedclient.node.trust import check_server
from fedspect.data.classes import ClassList
from fedspect.data.sources import find_pictures
from fedspect.errors import (
    ConnectionLostError,
    DiskFullError,
    EnrolmentError,
    FedspectError,
    WorkerError,
    WorkspaceError,
)
from fedspect.protocol.limits import CLOCK_TOLERANCE
from fedspect.protocol.names import join_address, split_address

Level = Literal["ok", "warning", "failure"]

GIB = 1 << 30
LITTLE_DISK, TOO_LITTLE_DISK = 4 * GIB, GIB // 2
LITTLE_MEMORY, TOO_LITTLE_MEMORY = 2 * GIB, GIB // 2
HOT = 85.0  # degrees Celsius
CONNECT_TIMEOUT = 5.0
ASK_WORKER_TIMEOUT = 180.0

_ASK = """
import json, platform
found = {"python": platform.python_version()}
for name in ("fedspect", "fedclient", "torch", "torchvision", "numpy", "grpc"):
    try:
        found[name] = getattr(__import__(name), "__version__", "installed")
    except Exception as error:
        found[name] = None
        found.setdefault("problems", []).append(f"{name}: {error}")
if found["torch"]:
    import torch
    found["cuda"] = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it stands, what was found, and what to do about it."""

    name: str
    level: Level
    found: str
    remedy: str = ""
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The line for ``--json``."""
        return asdict(self)


def examine(
    home: PlantHome, *, data: Path | None = None, worker_python: str | None = None
) -> Iterator[Check]:
    """All checks, as they are done; none raises."""
    membership: Membership | None = None
    try:
        membership = home.membership()
    except WorkspaceError:
        pass
    except FedspectError as error:
        yield _failed("membership", error)
    python = worker_python or (membership.worker_python if membership else None) or sys.executable
    yield from _guarded("node", _node)
    yield from _guarded("worker", lambda: _worker(python))
    yield from _guarded("memory", _memory)
    yield from _guarded("disk", lambda: _disk(home))
    yield from _guarded("device", _jetson)
    source = data or (Path(membership.data) if membership else None)
    if source is not None:
        yield from _guarded("pictures", lambda: _pictures(source, membership))
    if membership is None:
        yield Check(
            "federation", "warning", "this device has joined none", "fedclient join TOKEN --data FOLDER"
        )
        return
    joined = membership
    for address in joined.enrolment_addresses:
        yield from _guarded(f"enrolment {address}", lambda address=address: _enrolment(home, joined, address))  # type: ignore[misc]
    for address in joined.fleet_addresses:
        yield from _guarded(f"rounds {address}", lambda address=address: _reachable(address))  # type: ignore[misc]


def worst(checks: list[Check]) -> int:
    """The exit code for these checks: the first failure's, or 0."""
    return next((check.exit_code for check in checks if check.level == "failure"), 0)


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from look()
    except FedspectError as error:
        yield _failed(name, error)
    except (OSError, ValueError) as error:
        yield Check(name, "warning", f"could not be looked at: {error}")


def _failed(name: str, error: FedspectError) -> Check:
    found = error.what if error.seen is None else f"{error.what} ({error.seen})"
    return Check(name, "failure", found, error.remedy or "", error.exit_code)


def _node() -> Iterator[Check]:
    versions = {name: importlib.metadata.version(name) for name in ("flwr", "grpcio", "cryptography")}
    text = f"Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in versions.items())
    right = versions["flwr"].startswith("1.30.")
    yield Check("node", "ok" if right else "warning", text, "" if right else "install flwr 1.30")


def _worker(python: str) -> Iterator[Check]:
    try:
        asked = subprocess.run(
            [python, "-c", _ASK], capture_output=True, text=True, timeout=ASK_WORKER_TIMEOUT, check=False
        )
        found = json.loads(asked.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        raise WorkerError(
            "the worker's interpreter does not answer",
            seen=f"{python}: {error}",
            remedy="name the Python that has torch: fedclient join --worker-python PATH",
        ) from error
    text = f"{python}: Python {found['python']}, torch {found['torch']}"
    if not found["torch"] or not found["fedclient"]:
        raise WorkerError(
            "the worker's interpreter lacks what it needs",
            seen=f"{text}; {'; '.join(found.get('problems', []))}",
            remedy="install fedspect with its extra `worker` for that interpreter, or name another",
        )
    gpu = found.get("cuda")
    if gpu:
        yield Check("worker", "ok", f"{text}, GPU {gpu}")
    else:
        yield Check("worker", "warning", f"{text}, no GPU", "training works on the processor, more slowly")


def _memory() -> Iterator[Check]:
    import psutil

    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if memory.available < TOO_LITTLE_MEMORY:
        raise WorkerError("too little memory", seen=text, remedy="end other programs, or add swap")
    little = memory.available < LITTLE_MEMORY
    yield Check("memory", "warning" if little else "ok", text, "a smaller batch needs less" if little else "")


def _disk(home: PlantHome) -> Iterator[Check]:
    folder = home.folder
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB free at {home.folder}"
    if free < TOO_LITTLE_DISK:
        raise DiskFullError("too little disk", seen=text, remedy="free some space, or use another --home")
    little = free < LITTLE_DISK
    yield Check(
        "disk", "warning" if little else "ok", text, "the feature cache will be short" if little else ""
    )


def _jetson() -> Iterator[Check]:
    release = Path("/etc/nv_tegra_release")
    if release.exists():
        yield Check("device", "ok", release.read_text("utf-8", "replace").splitlines()[0][:100])
        mode = shutil.which("nvpmodel")
        if mode:
            said = subprocess.run(
                [mode, "-q"], capture_output=True, text=True, timeout=10, check=False
            ).stdout
            yield Check("power mode", "ok", " ".join(said.split())[:100])
    zones = []
    for zone in Path("/sys/class/thermal").glob("thermal_zone*"):
        try:
            zones.append((int((zone / "temp").read_text()) / 1000.0, (zone / "type").read_text().strip()))
        except (OSError, ValueError):
            continue
    if zones:
        degrees, name = max(zones)
        hot = degrees >= HOT
        yield Check(
            "temperature", "warning" if hot else "ok", f"{degrees:.0f} °C ({name})", "cool it" if hot else ""
        )


def _pictures(source: Path, membership: Membership | None) -> Iterator[Check]:
    classes = None if membership is None else ClassList(tuple(membership.classes), membership.aliases)
    listing = find_pictures(source, classes=classes)
    text = f"{len(listing.pictures)} in {source}, {len(listing.problems)} that cannot be used"
    bad = bool(listing.problems)
    remedy = f"the first: {listing.problems[0].name}: {listing.problems[0].kind}" if bad else ""
    yield Check("pictures", "warning" if bad else "ok", text, remedy)


def _enrolment(home: PlantHome, membership: Membership, address: str) -> Iterator[Check]:
    name = f"enrolment {address}"
    authority = home.authority_path.read_bytes()
    yield from _reachable(address, name)
    try:
        check_server(split_address(address), authority)
    except EnrolmentError as error:
        yield _failed(f"certificate {address}", error)
        return
    yield Check(f"certificate {address}", "ok", "of the authority that the token named")
    offset = clock_offset(split_address(address), authority)
    far = abs(offset) > CLOCK_TOLERANCE
    yield Check(
        "clock",
        "warning" if far else "ok",
        f"{-offset:+.1f} s from headquarters'",
        "set the clock (timedatectl set-ntp true): certificates are checked with it" if far else "",
    )


def _reachable(address: str, name: str = "") -> Iterator[Check]:
    host, port = split_address(address)
    try:
        with socket.create_connection((host, port), timeout=CONNECT_TIMEOUT) as connection:
            there = connection.getpeername()[0]
    except OSError as error:
        raise ConnectionLostError(
            "it cannot be reached",
            seen=f"{address}: {error.strerror or error}",
            remedy="see that `fedserver start` runs there, and the name, the port and firewalls in between",
        ) from error
    yield Check(name or f"rounds {address}", "ok", f"reached {join_address(str(there), port)}")
