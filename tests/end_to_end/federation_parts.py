"""A whole federation of real commands: headquarters and plants as processes, tiny pictures, a tiny base
model.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
from link_parts import PATIENCE, python_path, wait_for
from PIL import Image

from fedserver.flower.superlink import free_port
from fedserver.storage.run_store import RunStore
from fedspect.model.base import save_base
from fedspect.model.network import build_network

CLASSES = ("plain", "striped")


def make_base(folder: Path) -> None:
    """An untrained model A for pictures of 64 px."""
    network = build_network("cdnv2-a", len(CLASSES), channels=1, form="condensed", seed=1)
    save_base(
        folder, network, classes=CLASSES, input_size=64, mean=[0.5], std=[0.25], provenance={"test": True}
    )


def make_pictures(folder: Path, seed: int, count: int = 12) -> None:
    """Noise, with and without stripes: one folder per class."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            image = random.normal(128, 20, (64, 64))
            if name == "striped":
                image += 60 * np.sign(np.sin(np.arange(64) / 3 + random.uniform(0, 6)))[None, :]
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


def command(*words: str, home: Optional[Path] = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    environment = {**python_path(), **({"FEDSPECT_HOME": str(home)} if home else {})}
    return subprocess.run(
        [sys.executable, "-m", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Process:
    """A command that stays, with what it prints in a file."""

    def __init__(self, log: Path, *words: str, home: Optional[Path] = None) -> None:
        self.log = log
        environment = {**python_path(), **({"FEDSPECT_HOME": str(home)} if home else {})}
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words], env=environment, stdout=output, stderr=output
            )

    @property
    def said(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, words: str) -> None:
        def look() -> bool:
            if words in self.said:
                return True
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said}"
            return False

        wait_for(look, f"{words!r} in {self.log.name}")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=PATIENCE)


class Federation:
    """A workspace and the folders of its plants."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.workspace = folder / "hq"
        self.processes: List[Process] = []
        made = self.fedserver("init", str(self.workspace), "--host", "localhost", "--name", "steel")
        assert made.returncode == 0, made.stderr
        make_base(folder / "base")
        self.set(
            base="../base",
            classes=list(CLASSES),
            fleet_port=free_port(),
            enrolment_port=free_port(),
            batch_size=8,
            local_epochs=1,
            **settings,
        )

    def set(self, **settings: Any) -> None:
        """Edit fedserver.toml as an operator does: one value a line."""
        path = self.workspace / "fedserver.toml"
        text = path.read_text()
        for key, value in settings.items():
            text, changed = re.subn(rf"(?m)^(# )?{key} =.*$", f"{key} = {json.dumps(value)}", text, count=1)
            assert changed == 1, key
        path.write_text(text)

    def fedserver(self, *words: str) -> subprocess.CompletedProcess[str]:
        more = () if words[0] == "init" else ("-w", str(self.workspace))
        return command("fedserver.cli", *words, *more)

    def start(self, *words: str) -> Process:
        log = self.folder / "start.log"
        log.unlink(missing_ok=True)
        return self._kept(Process(log, "fedserver.cli", "start", "-w", str(self.workspace), *words))

    def invite(self, plant: str) -> str:
        answer = self.fedserver("invite", plant)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout.strip()

    def join(self, plant: str, token: str = "", *, seed: int = 0, words: tuple[str, ...] = ()) -> Process:
        """`fedclient join`: with a token the first time, without one later."""
        given: List[str] = []
        if token:
            data = self.folder / f"pictures-{plant}"
            if not data.exists():
                make_pictures(data, seed)
            given = [token, "--data", str(data)]
        settings = self.home(plant) / "plant.toml"
        if (
            not settings.exists()
        ):  # a trainer that steps back from busy programs would make a test of minutes one of hours
            settings.parent.mkdir(parents=True, exist_ok=True)
            settings.write_text("[device]\nnice = 0\n")
        log = self.folder / f"{plant}.log"
        log.unlink(missing_ok=True)
        return self._kept(Process(log, "fedclient.cli", "join", *given, *words, home=self.home(plant)))

    def home(self, plant: str) -> Path:
        return self.folder / f"home-{plant}"

    def fedclient(self, plant: str, *words: str) -> subprocess.CompletedProcess[str]:
        return command("fedclient.cli", *words, home=self.home(plant))

    def plants(self) -> Dict[str, Dict[str, Any]]:
        answer = self.fedserver("plants", "--json")
        assert answer.returncode == 0, answer.stderr
        return {row["plant"]: row for row in json.loads(answer.stdout)}

    def rounds(self) -> List[int]:
        """The rounds in the history of the newest run."""
        folder = sorted((self.workspace / "runs").glob("run-*"))[-1]
        return [record.round for record in RunStore(folder).history()]

    def close(self) -> None:
        for process in reversed(self.processes):
            process.end()

    def leftovers(self) -> List[int]:
        """Processes that still carry the workspace's mark."""
        mark = f"FEDSPECT_SUPERLINK_OF={self.workspace}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]

    def _kept(self, process: Process) -> Process:
        self.processes.append(process)
        return process
