"""How `fedserver start` ends when it cannot go on, in the foreground and with ``--detach``."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest
from federation_parts import Federation
from link_parts import PATIENCE

from fedspect.errors import QuorumError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    made = Federation(tmp_path, rounds=1, gather=0.0)
    yield made
    made.close()


def test_a_run_that_gives_up_ends_at_once_and_with_its_own_exit_code(federation: Federation) -> None:
    federation.set(give_up=1.0)
    server = federation.start()
    assert server.process.wait(PATIENCE) == QuorumError.exit_code, server.said
    assert "round 1 of 1 needs 2 plants and has 0" in server.said
    assert "going on" not in server.said and "Traceback" not in server.said
    assert federation.leftovers() == []
