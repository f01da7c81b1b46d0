"""A whole federation of real commands whose plants do tiny work (``tiny_worker``): seconds to start, and a
head that tells how many rounds it has seen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import link_parts
import numpy as np
import pytest
import safetensors.numpy
from federation_parts import Federation, Process
from tiny_worker import STEP, Behaviour

from fedserver.enrolment import tokens
from fedserver.flower.superlink import SuperLink, free_port
from fedserver.rounds.history import RoundRecord
from fedserver.storage.run_state import RunFacts
from fedserver.storage.run_store import RunStore
from fedserver.workspace import Workspace, create
from fedspect import files
from fedspect.protocol.join_token import JoinToken

HERE = Path(__file__).resolve().parent
CLASSES = ("plain", "striped")
ENDLESS = 100_000  # rounds; tests end the server
PATIENCE = 300.0  # seconds; what is waited for takes one to twenty on a quiet machine


def tiny_head() -> Dict[str, np.ndarray]:
    return {"head.bias": np.ones(4, np.float32), "head.weight": np.ones((4, 9), np.float32)}


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """As ``link_parts.wait_for``, with the patience that tiny work needs."""
    return link_parts.wait_for(condition, what, PATIENCE)


class AtWork(NamedTuple):
    """What a worker's ``at-work`` says."""

    pid: int
    round: int


class TinyFederation(Federation):
    """A workspace with a run that has begun, and plants by name."""

    def __init__(
        self,
        folder: Path,
        *,
        hosts: Sequence[str] = ("localhost",),
        head: Optional[Mapping[str, np.ndarray]] = None,
        disk: Optional[Path] = None,
        program: str = "fedserver.cli",
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.program = program
        self.workspace = (disk or folder) / "hq"
        self.processes: List[Process] = []
        self.plant_processes: Dict[str, Process] = {}
        create(self.workspace, list(hosts), name="steel", classes=list(CLASSES))
        self.head = dict(head or tiny_head())
        self._make_base(folder / "base")
        given = {"encoding": "float32", "encoding_down": "float32", "rounds": ENDLESS, "poll": 0.05}
        given.update(
            base=str(folder / "base"), fleet_port=free_port(), enrolment_port=free_port(), **settings
        )
        self.set(**given)
        self.opened = Workspace.open(self.workspace)
        self._begin_run()
        self.worker_command = folder / "tiny-worker"
        self.worker_command.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "tiny_worker.py"}" "$@"\n'
        )
        self.worker_command.chmod(self.worker_command.stat().st_mode | stat.S_IXUSR)

    def _make_base(self, folder: Path) -> None:
        """Files that the server hands out like a base model; its weights are the run's first head."""
        content = safetensors.numpy.save(self.head)
        files.write_bytes(folder / "model.safetensors", content)
        self.base_hash = hashlib.sha256(content).hexdigest()
        files.write_json(folder / "card.json", {"content_hash": self.base_hash})

    def _begin_run(self) -> None:
        settings = self.opened.settings()
        facts = RunFacts(
            run_id="steel-run-0001",
            base_hash=self.base_hash,
            classes=list(CLASSES),
            seed=settings.run.seed,
            strategy=settings.run.strategy,
            strategy_options={},
            rounds=settings.rounds,
        )
        self.run = RunStore.create(self.opened.runs / "run-0001", facts, self.head)

    # -- processes -----------------------------------------------------------------------------------------

    def token(self, plant: str, *, lifetime: int = 3600, **more: Any) -> JoinToken:
        """What `fedserver invite` prints."""
        network = self.opened.settings().network
        return tokens.invite(
            self.opened.registry,
            plant,
            lifetime=lifetime,
            addresses=[(host, network.enrolment_port) for host in network.hosts],
            fingerprint=self.opened.authority.fingerprint(),
            **more,
        )

    server: Process

    def start(self, *words: str) -> Process:
        """`fedserver start`."""
        log = self.folder / "start.log"
        log.unlink(missing_ok=True)
        self.server = self._kept(Process(log, self.program, "start", "-w", str(self.workspace), *words))
        return self.server

    def serverapp(self) -> int:
        """The number of the ServerApp's process."""
        marked = SuperLink(self.opened.state / "flower", self.opened.authority, self.folder / "log").marked()

        def look() -> int:
            lines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in marked}
            return next((pid for pid, line in lines.items() if b"serverapp" in line.split(b"--")[0]), 0)

        return int(wait_for(look, "the ServerApp's process"))

    def begin(self, *plants: str, behaviour: Optional[Behaviour] = None) -> Process:
        """Start the server and join these plants; the first round begins as soon as there is a quorum."""
        self.start()
        for plant in plants:
            if behaviour is not None:
                self.behave(plant, behaviour)
            self.plant(plant, str(self.token(plant)))
        return self.server

    def plant(
        self, name: str, token: str = "", *, home: Optional[Path] = None, under: Sequence[str] = ()
    ) -> Process:
        """`fedclient join`, with a token or without; ``under``: a module that runs it, with its arguments."""
        module = [*under, "fedclient.cli"]
        given: List[str] = []
        if token:
            data = self.folder / "pictures"
            data.mkdir(exist_ok=True)
            given = [token, "--data", str(data), "--worker-python", str(self.worker_command)]
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        process = self._kept(Process(log, *module, "join", *given, home=home or self.home(name)))
        self.plant_processes[name] = process
        return process

    def well(self, plants: Sequence[str]) -> None:
        """Bring everything back that a test left broken, and wait for a round with all plants."""
        for name in plants:
            self.behave(name)
            if self.plant_processes[name].process.poll() is not None:
                self.plant(name)
        before = self.last()

        def look() -> bool:
            return any(
                record.round > before
                and {one.plant for one in record.plants if one.weight > 0} == set(plants)
                for record in self.records(before)
            )

        self._wait(look, f"a round with {', '.join(plants)}")

    def kill_plant(self, name: str) -> None:
        """The node dies, and its worker with it."""
        self.plant_processes[name].kill()

    # -- what plants do ------------------------------------------------------------------------------------

    def behave(self, plant: str, behaviour: Behaviour = Behaviour()) -> None:  # noqa: B008 - it is frozen
        self.home(plant).mkdir(parents=True, exist_ok=True)
        files.write_json(Behaviour.path(self.home(plant)), dataclasses.asdict(behaviour))

    def at_work(self, plant: str) -> AtWork:
        """A worker in the middle of its work."""
        mark = self.home(plant) / "at-work"
        pid, number = self._wait(lambda: mark.exists() and mark.read_text().split(), f"work at {plant}")
        return AtWork(int(pid), int(number))

    # -- what the run says ---------------------------------------------------------------------------------

    def _wait(self, condition: Callable[[], Any], what: str) -> Any:
        """As ``wait_for``; in vain, it tells what the server and the plants said last."""
        try:
            return wait_for(condition, what)
        except AssertionError as error:
            logs = [self.folder / "start.log", *(one.log for one in self.plant_processes.values())]
            said = [f"{log.name}:\n{log.read_text('utf-8', 'replace')[-1500:]}" for log in logs]
            raise AssertionError("\n".join([str(error), *said])) from error

    def last(self) -> int:
        """The last round that was closed."""
        return self.run.rounds()[-1]

    def records(self, after: int) -> List[RoundRecord]:
        """The rounds that were closed after this one."""
        numbers = [number for number in self.run.rounds() if number > max(after, 0)]
        rows = [files.read_json(self.run.folder / f"{number:04d}" / "round.json") for number in numbers]
        return [RoundRecord.model_validate(row["record"]) for row in rows]

    def wait_for_rounds(self, more: int) -> int:
        """Wait for so many more rounds; the last one's number."""
        wanted = self.last() + more
        self._wait(lambda: self.last() >= wanted, f"round {wanted}")
        return wanted

    def events(self, kind: str = "", since: int = 0) -> List[Dict[str, Any]]:
        rows = files.read_json_lines(self.run.folder / "events.jsonl")[since:]
        return [row for row in rows if kind in ("", row["event"])]

    def wait_for_event(self, kind: str, words: str = "", *, since: int = 0) -> Dict[str, Any]:
        def look() -> Optional[Dict[str, Any]]:
            return next((row for row in self.events(kind, since) if words in row["text"]), None)

        found: Dict[str, Any] = self._wait(look, f"{kind} with {words!r}")
        return found

    def mark(self) -> int:
        """Where the events stand, for ``since``."""
        return len(self.events())

    def check_history(self) -> None:
        """Every round once, in order, every plant's answer once, and the last head made of exactly so many steps."""
        last = self.last()
        head = self.run.head(last)  # at once: rounds go on, and old heads are not kept
        history = self.run.history()
        rounds = [record.round for record in history]
        assert len(rounds) >= last and rounds == list(range(1, len(rounds) + 1))
        used = [
            (result.plant, record.round - result.late_by)
            for record in history
            for result in record.plants
            if result.weight > 0
        ]
        assert len(used) == len(set(used))
        for record in history:
            assert sum(result.weight for result in record.plants) == pytest.approx(1.0)
        for name, values in head.items():
            assert (values == self.head[name] + np.float32(STEP * last)).all(), (last, name, values)

    def status(self) -> Dict[str, Any]:
        content = files.read_json(self.run.folder / "status.json")
        assert isinstance(content, dict)
        return content

    def close(self) -> None:
        for process in self.processes:
            if process.process.poll() is None:
                process.process.terminate()
        super().close()


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fill a disk to its last byte; the file that does it. Once more, it takes what was given free meanwhile."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


def descendants(pid: int) -> List[int]:
    """The process and everything below it."""
    found = [pid]
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += descendants(int(child))
    return found


def listening_ports(pids: Sequence[int]) -> List[int]:
    """TCP ports on which these processes listen (IPv4 and IPv6)."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = os.readlink(link)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def ended(process: Process) -> int:
    """The exit code of a command that ends by itself."""
    return process.process.wait(PATIENCE)
