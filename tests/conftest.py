"""What holds for all tests."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import hypothesis
import pytest

# How long an example takes says something of the machine, not of the code.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C through: a shell that starts the tests in the background has it ignored, and children inherit that."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--run-soak`` for what takes a quarter of an hour."""
    parser.addoption("--run-soak", action="store_true", help="run the soak: minutes of random kills")


LONG = (  # a process that takes up one of these last would let the others wait for it
    "end_to_end",
    "faults",
    "fedclient/node/test_worker_client.py",
    "fedclient/worker/gate",
    "fedclient/commands/test_engines_command.py",
    "fedsim/test_run.py",
    "fedclient/worker/engines/test_engine_build.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put long files first, and leave the soak out unless it was asked for."""
    root = Path(__file__).parent
    items.sort(key=lambda item: not item.path.relative_to(root).as_posix().startswith(LONG))
    if not config.getoption("--run-soak"):
        for item in items:
            if item.get_closest_marker("soak") is not None:
                item.add_marker(pytest.mark.skip(reason="minutes of random kills: only with --run-soak"))
