"""An enrolment service and a plant's home for whoever asks."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from office_parts import Office

from fedclient.node.home import PlantHome


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.server.stop()


@pytest.fixture
def home(tmp_path: Path) -> PlantHome:
    made = PlantHome(tmp_path / "plant")
    made.prepare()
    return made
