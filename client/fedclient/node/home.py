"""Plant home: a plant's own folder with its key, the trusted authority, the membership and the node's status.

::

    node.key          the device's private key, made here, never leaves (0600)
    authority.pem     the authority of headquarters, as compared with the token's fingerprint
    plant.json        federation, plant, addresses, classes, base model, where the pictures are
    base/<hash>/      the base model
    state/            what the worker keeps between rounds
    plant.toml        what the plant's engineer decides: hours, limits, versions
    paused.json       there while the plant is paused
    status.json       what the node is doing, for `fedclient status`
    versions/         published versions, and what became of them here
    lock              held while the node runs
    report.json       the site report: what the worker found of the pictures
    log.jsonl         what happened, a line an event
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

from fedclient.default_home import default_home
from fedspect import files
from fedspect.account import expanded
from fedspect.errors import DamagedFileError, WorkspaceError, storage_error
from fedspect.locking import Occupied

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

    from fedclient.node.membership import Membership


class PlantHome:
    """The folder of one plant on this device."""

    def __init__(self, folder: Optional[Path] = None) -> None:
        self.folder = expanded(folder or default_home()).absolute()
        self.key_path = self.folder / "node.key"
        self.authority_path = self.folder / "authority.pem"
        self.membership_path = self.folder / "plant.json"
        self.status_path = self.folder / "status.json"
        self.log_path = self.folder / "log.jsonl"
        self.report_path = self.folder / "report.json"
        self.state = self.folder / "state"

    def prepare(self) -> None:
        """Make the folder with permissions for its owner only."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.folder.chmod(0o700)
            self.state.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder, "making the plant's folder") from error

    def occupied(self) -> Occupied:
        """The lock that the running node holds."""
        return Occupied(self.folder / "lock", f"a plant in {self.folder}")

    def key(self) -> ec.EllipticCurvePrivateKey:
        """The device's private key; made at the first call.

        Raises:
            DamagedFileError: there is one that cannot be read.

        """
        from cryptography.hazmat.primitives import serialization  # no other use of a home waits for these
        from cryptography.hazmat.primitives.asymmetric import ec

        if not self.key_path.exists():
            made = ec.generate_private_key(ec.SECP384R1())
            content = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            files.write_bytes(self.key_path, content, mode=0o600)
            return made
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
        except (ValueError, TypeError) as error:
            raise _lost_key(self.key_path, str(error)) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _lost_key(self.key_path, "another kind of key")
        return key

    def membership(self) -> Membership:
        """The stored membership; ``None`` where this device never joined.

        Raises:
            WorkspaceError: it has never joined one.
            DamagedFileError: the file cannot be read.

        """
        from pydantic import ValidationError  # `fedclient --help` and `stop` do without pydantic

        from fedclient.node.membership import Membership

        try:
            return Membership.model_validate(files.read_json(self.membership_path))
        except FileNotFoundError as error:
            raise WorkspaceError(
                "this plant has not joined a federation",
                seen=self.folder,
                remedy="run `fedclient join TOKEN --data FOLDER` with a token from headquarters",
            ) from error
        except ValidationError as error:
            raise DamagedFileError(
                "what this plant knows of its federation cannot be read",
                seen=f"{self.membership_path}: {error.errors()[0]['msg']}",
                remedy="join again with a new token",
            ) from error

    def remember(self, membership: Membership, authority_pem: bytes) -> None:
        """Store the membership last, for it says that the rest is there."""
        files.write_bytes(self.authority_path, authority_pem)
        files.write_json(self.membership_path, membership.model_dump(), mode=0o600)

    def forget(self) -> None:
        """Remove the key and the membership; pictures and what the worker keeps are untouched."""
        for path in (self.membership_path, self.key_path, self.authority_path, self.status_path):
            path.unlink(missing_ok=True)

    def base_folder(self, base_hash: str) -> Path:
        """The folder of a base model."""
        return self.folder / "base" / base_hash

    def status(self) -> Optional[Dict[str, Any]]:
        """The node's last status, ``None`` when it never ran."""
        try:
            content = files.read_json(self.status_path)
        except FileNotFoundError:
            return None
        return content if isinstance(content, dict) else None


def _lost_key(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(
        "the device's key cannot be read",
        seen=f"{path}: {why}",
        remedy="run `fedclient leave --forget` and join again with a new token",
    )
