"""One home for all tests of the line that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedclient.worker.line.home import LineHome
from line_parts import activate, copy_home, make_home


@pytest.fixture(scope="session")
def built_home(tmp_path_factory: pytest.TempPathFactory) -> LineHome:
    """Three versions built, none current."""
    return make_home(tmp_path_factory.mktemp("line") / "home")


@pytest.fixture
def home(built_home: LineHome, tmp_path: Path) -> LineHome:
    """A home of the test's own, with version 1 current."""
    copy = copy_home(built_home, tmp_path / "home")
    activate(copy, 1)
    return copy
