"""Workspace: the one folder at headquarters that holds everything about a federation.

The folder is its owner's only (0700).

::

    fedserver.toml        what the operator decides
    authority/            certificate authority and server certificate (secrets 0600)
    registry/plants.json  who was invited, joined, revoked
    registry/deployments/ what plants reported of published versions
    bases/                base models that were imported or made here
    models/               published versions
    runs/                 rounds on disk, one folder a run
    state/                lock and addresses of the running server, Flower's own files, logs

All but ``state/`` is worth a backup; ``state/`` is made anew by every start.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedserver.enrolment.authority import Authority
from fedserver.enrolment.plant_registry import PlantRegistry
from fedserver.registry.base_files import BaseFiles, find_base
from fedserver.registry.deployment_reports import DeploymentReports
from fedserver.registry.versions import VersionRegistry
from fedserver.settings import ServerSettings
from fedserver.storage.run_state import read_facts
from fedserver.storage.runs import run_folders
from fedspect import files
from fedspect.errors import FedspectError, WorkspaceError, storage_error
from fedspect.locking import Occupied
from fedspect.protocol.names import checked_hosts, checked_name
from fedspect.settings import load_settings, settings_from
from fedspect.shipped_bases import SHIPPED
from fedspect.toml_writer import commented_toml

SETTINGS_FILE = "fedserver.toml"

_HEADING = """Fedspect headquarters. Made by `fedserver init`; edit freely, then run `fedserver start` again.
An unknown key or a value that is not accepted is answered with what is."""


@dataclass
class InitReport:
    """What ``create`` made and what it found in place."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Workspace:
    """Paths and parts of a workspace; opening one checks that it is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.settings_path = self.folder / SETTINGS_FILE
        self.authority = Authority(self.folder / "authority")
        self.registry = PlantRegistry(self.folder / "registry")
        self.models = VersionRegistry(self.folder / "models")
        self.deployments = DeploymentReports(self.folder / "registry" / "deployments")
        self.bases = self.folder / "bases"
        self.runs = self.folder / "runs"
        self.state = self.folder / "state"
        self.logs = self.state / "logs"
        self.running_path = self.state / "running.json"

    @classmethod
    def open(cls, folder: Path) -> Workspace:
        """An existing workspace.

        Raises:
            WorkspaceError: there is none in ``folder``.

        """
        workspace = cls(folder)
        if not workspace.settings_path.exists() or not workspace.authority.exists:
            raise WorkspaceError(
                "this folder is not a workspace",
                seen=workspace.folder,
                accepted=f"a folder with {SETTINGS_FILE} and authority/",
                remedy=f"run `fedserver init {folder} --host NAME`, or change to the right folder",
            )
        return workspace

    def settings(self, overrides: dict[str, Any] | None = None) -> ServerSettings:
        """The content of ``fedserver.toml``.

        Raises:
            SettingsError: the file is not accepted.

        """
        return load_settings(self.settings_path, ServerSettings, overrides)

    def base(self, content_hash: str | None = None) -> BaseFiles:
        """The base model that the settings name, or the one of that hash wherever the workspace has it.

        Raises:
            BaseModelError: there is none.

        """
        named = self.settings().base_folder(self.folder)
        if content_hash is None:
            return BaseFiles.read(named or self._shipped_base())
        imported = sorted(self.bases.iterdir()) if self.bases.is_dir() else []
        return find_base(content_hash, [named, *imported, *SHIPPED.values()])

    def _shipped_base(self) -> Path | None:
        """The shipped base that the newest run began with, so that an update of Fedspect changes no run's base."""
        for folder in run_folders(self.runs)[-1:]:
            with suppress(FedspectError):
                began = read_facts(folder).base_hash
                return next(
                    (each for each in SHIPPED.values() if BaseFiles.read(each).content_hash == began), None
                )
        return None

    def occupied(self) -> Occupied:
        """The lock that the running server holds."""
        return Occupied(self.state / "lock", f"a server on the workspace {self.folder}")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock of the running server for the block; what an earlier server wrote about itself is removed."""
        with self.occupied():
            self.running_path.unlink(missing_ok=True)
            yield

    def running(self) -> dict[str, Any] | None:
        """What the running server wrote about itself (addresses, process); ``None`` when none runs, empty while
        it is starting.
        """
        if self.occupied().holder() is None:
            return None
        try:
            content = files.read_json(self.running_path)
        except FileNotFoundError:
            return {}
        return content if isinstance(content, dict) else {}

    def close_to_others(self) -> str | None:
        """Set permissions to the owner only: runs and models hold what plants sent. Returns a warning, if any."""
        mode = stat.S_IMODE(self.folder.stat().st_mode)
        if not mode & 0o077:
            return None
        try:
            self.folder.chmod(0o700)
        except OSError as error:
            return f"other users may look into {self.folder} (mode {mode:o}): {error.strerror}"
        return f"{self.folder} was open to other users (mode {mode:o}); now only its owner may look into it"

    def ensure_server_certificate(self, hosts: list[str]) -> str | None:
        """Issue a server certificate where one is needed; the reason, or ``None`` when the old one serves."""
        reason = self.authority.renewal_reason(hosts)
        if reason is not None:
            self.authority.issue_server_certificate(hosts)
        return reason


def create(
    folder: Path, hosts: list[str], *, name: str | None = None, classes: list[str] | None = None
) -> InitReport:
    """Make a workspace, or complete one that a crash left unfinished; what exists is never changed.

    Raises:
        SettingsError: a host, the name or the classes cannot be one.
        WorkspaceError: the folder holds something else.
        StorageError: it cannot be written.

    """
    hosts = checked_hosts(hosts)
    workspace = Workspace(folder)
    report = InitReport()
    new = None if workspace.settings_path.exists() else _new_settings(workspace.folder, hosts, name, classes)
    _make_folder(workspace)
    if new is None:
        report.kept.append(SETTINGS_FILE)
        kept = workspace.settings()
        others = [host for host in hosts if host not in kept.network.hosts]
        if others:
            report.notes.append(
                f"{', '.join(others)} not added: put it into hosts under [network] in {SETTINGS_FILE}"
            )
        for key, given, there in (
            ("name", [name] if name else [], [kept.federation.name]),
            ("classes", classes or [], kept.federation.classes),
        ):
            if given and given != there:
                report.notes.append(
                    f"{key} stays {', '.join(there) or 'empty'}, not {', '.join(given)}: "
                    f"change it under [federation] in {SETTINGS_FILE}"
                )
        hosts = kept.network.hosts
        name = kept.federation.name
    else:
        name = new.federation.name
        files.write_text(workspace.settings_path, commented_toml(new, heading=_HEADING))
        report.made.append(SETTINGS_FILE)
    if workspace.authority.exists:
        report.kept.append("authority")
    else:
        workspace.authority.create(name)
        report.made.append("authority")
    reason = workspace.ensure_server_certificate(hosts)
    (report.kept if reason is None else report.made).append("server certificate")
    (report.kept if workspace.registry.path.exists() else report.made).append("registry")
    workspace.registry.create()
    for part in (workspace.models.folder, workspace.runs, workspace.logs):
        part.mkdir(parents=True, exist_ok=True)
    workspace.state.chmod(0o700)
    said = workspace.close_to_others()
    if said is not None:
        report.notes.append(said)
    return report


def _make_folder(workspace: Workspace) -> None:
    folder = workspace.folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A crash in `init` leaves some of these, and hidden files do no harm.
        ours = {SETTINGS_FILE, "authority", "registry", "bases", "models", "runs", "state"}
        foreign = [each.name for each in folder.iterdir() if each.name not in ours and each.name[0] != "."]
    except OSError as error:
        raise storage_error(error, folder, "making a workspace") from error
    if foreign and not workspace.settings_path.exists():
        raise WorkspaceError(
            "this folder holds something else",
            seen=f"{folder}: {', '.join(sorted(foreign)[:5])}",
            accepted="a new or an empty folder",
            remedy="choose another folder",
        )


def _new_settings(
    folder: Path, hosts: list[str], name: str | None, classes: list[str] | None
) -> ServerSettings:
    # Whoever names hosts wants plants to reach them; loopback alone stays inside.
    bind = "127.0.0.1" if _loopback_only(hosts) else "0.0.0.0"
    federation = {"name": checked_name(name or _name_from(folder), "federation"), "classes": classes or []}
    return settings_from(
        {"federation": federation, "network": {"hosts": hosts, "bind": bind}}, ServerSettings
    )


def _loopback_only(hosts: list[str]) -> bool:
    return all(host in ("localhost", "::1") or host.startswith("127.") for host in hosts)


def _name_from(folder: Path) -> str:
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in folder.name.lower())
    return kept.strip("._-")[:64] or "federation"
