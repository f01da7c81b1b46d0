"""The user account that a process runs under: home folder and name, also where the system knows neither.

A container with a user number of its own has no entry in the list of users and often no ``HOME``. Libraries ask for
both when they are imported (Flower, torch) and end with an error of their own.
"""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from fedspect.errors import SettingsError

NO_HOME = "/nonexistent"
"""What ``HOME`` is then, as it is for Debian's user nobody: a path that nobody can write."""


def complete_environment() -> None:
    """Set ``HOME`` and ``USER`` for this process and its children where neither the environment nor the system does."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = NO_HOME
    try:
        getpass.getuser()
    except (ImportError, KeyError, OSError):
        os.environ["USER"] = f"user-{os.getuid()}"


def expanded(path: Path) -> Path:
    """``path`` with ``~`` as the home folder.

    Raises:
        SettingsError: there is none.

    """
    if path.parts[:1] == ("~",) and os.environ.get("HOME") == NO_HOME:
        raise SettingsError(
            "this user has no home folder",
            seen=f"{path} for user number {os.getuid()}",
            remedy="set HOME to a folder that this user may write, or name every folder: --home, FEDSPECT_HOME",
        )
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise SettingsError("there is no such user", seen=path, remedy="name the folder in full") from error
