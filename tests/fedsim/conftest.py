"""What tests of the command share: pictures, and a way to call ``fedsim`` as a process would be."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from small_pictures import folder_of

from fedsim.cli import app
from fedspect.console import run_app


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, read as JSON."""
        return json.loads(self.out)


@pytest.fixture
def fedsim(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Call the command in this process, through the same entry as a process does."""

    def call(*arguments: object) -> Ended:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_app(app, [str(each) for each in arguments])
        code = ended.value.code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return Ended(code if isinstance(code, int) else 0, out, err)

    return call


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of ten small pictures."""
    return folder_of(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def environment() -> dict:
    """The environment of a process of our own."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "COLUMNS": "200",
    }
