"""The exit codes: one each, stable, in the tree that the docstring draws, each with a page."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from fedspect import errors

PAGES = Path(__file__).parents[2] / "docs" / "exit-codes"


def all_errors() -> list:
    found, waiting = [], [errors.FedspectError]
    while waiting:
        each = waiting.pop()
        found.append(each)
        waiting += each.__subclasses__()
    return [each for each in found if each.__module__ == errors.__name__]


def test_every_error_has_its_own_code():
    codes = [each.exit_code for each in all_errors()]
    assert len(codes) == len(set(codes))
    assert 0 not in codes and 2 not in codes  # success, and the command line's own refusals


def test_the_codes_that_scripts_rely_on_have_not_moved():
    codes = {each.__name__: each.exit_code for each in all_errors()}
    assert codes == {
        "FedspectError": 1,
        "SettingsError": 10,
        "DataError": 20,
        "NoPicturesError": 21,
        "PictureError": 22,
        "ClassError": 23,
        "SplitError": 24,
        "ManifestError": 25,
        "ModelError": 30,
        "CheckpointError": 31,
        "BaseModelError": 32,
        "InputSizeError": 33,
        "UpdateError": 40,
        "UpdateFormatError": 41,
        "UpdateRefusedError": 42,
        "StorageError": 50,
        "DiskFullError": 51,
        "ReadOnlyError": 52,
        "DamagedFileError": 53,
        "FederationError": 60,
        "WorkspaceError": 61,
        "AlreadyRunningError": 62,
        "QuorumError": 63,
        "EnrolmentError": 64,
        "ConnectionLostError": 65,
        "WorkerError": 70,
        "YieldedError": 71,
        "EngineError": 80,
        "GateError": 81,
        "EngineMemoryError": 82,
        "InterruptedRunError": 130,
    }


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = {name: int(code) for name, code in re.findall(r"(\w+Error)\s+(\d+)\s", errors.__doc__ or "")}
    assert drawn == {each.__name__: each.exit_code for each in all_errors()}


@pytest.mark.parametrize("error", all_errors(), ids=lambda each: each.__name__)
def test_every_code_has_a_page_that_names_it(error):
    page = (PAGES / f"{error.exit_code}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {error.exit_code}: ")
    assert f"`{error.__name__}`" in page
    assert "## What it means" in page and "## What to do" in page
    assert f"({error.exit_code}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")


def test_there_is_no_page_of_a_code_that_does_not_exist():
    codes = {each.exit_code for each in all_errors()} | {2}
    assert {int(page.stem) for page in PAGES.glob("[0-9]*.md")} == codes


def test_a_message_says_what_was_seen_what_is_accepted_and_what_to_do():
    error = errors.SettingsError("alpha is negative", seen=-1, accepted="more than 0", remedy="leave it out")
    assert str(error) == "alpha is negative; seen: -1; accepted: more than 0; to mend it: leave it out"
    assert error.as_dict() == {
        "error": "SettingsError",
        "exit_code": 10,
        "what": "alpha is negative",
        "seen": "-1",
        "accepted": "more than 0",
        "remedy": "leave it out",
    }


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, errors.DiskFullError),
        (errno.EDQUOT, errors.DiskFullError),
        (errno.EROFS, errors.ReadOnlyError),
        (errno.EACCES, errors.ReadOnlyError),
        (errno.EIO, errors.StorageError),
    ],
)
def test_what_the_system_answers_becomes_the_storage_error_that_it_means(number, kind):
    error = errors.storage_error(OSError(number, "words of the system"), "a/file", "writing")
    assert type(error) is kind
    assert error.seen == "a/file"


def test_an_error_survives_the_way_through_a_file():
    error = errors.QuorumError("too few", seen="one", remedy="wait")
    again = errors.error_from(json.loads(json.dumps(error.as_dict())))
    assert isinstance(again, errors.QuorumError)
    assert str(again) == str(error)
    later = errors.error_from({"error": "Mapping", "what": "of a later release"}, errors.EngineError)
    assert type(later) is errors.EngineError and later.what == "of a later release"
    assert errors.error_from({"error": "QuorumError", "what": 3}) is None
    assert errors.error_from(None) is None
