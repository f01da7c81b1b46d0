from __future__ import annotations

import pytest

from fedclient.commands.wording import version_texts

OFFERED = {"number": 5, "version": "05" * 32, "outcome": "activated", "why": ""}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ("rolled back", "rolled back since: anna: it lets pits pass"),
        ("activated", "replaced since: anna: it lets"),
    ],
)
def test_a_published_version_that_was_left_again_is_not_called_activated(event: str, words: str) -> None:
    line = {
        "number": 4,
        "version": "04" * 32,
        "at": 0.0,
        "event": event,
        "who": "anna",
        "why": "it lets pits pass",
    }
    on_line, published = version_texts(line, OFFERED)
    assert "version 4" in on_line
    assert words in published and "activated" not in published


def test_the_published_version_that_runs_is_named_once() -> None:
    line = {"number": 5, "version": "05" * 32, "at": 0.0, "event": "activated", "who": "", "why": ""}
    assert len(version_texts(line, OFFERED)) == 1
    assert (
        "refused: two escapes"
        in version_texts(None, {**OFFERED, "outcome": "refused", "why": "two escapes"})[0]
    )
