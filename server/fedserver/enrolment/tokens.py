"""Join tokens: issue one, redeem it once, revoke it.

A token's secret is shown once and then only its hash is known here. Using one is a single change of the
registry under its lock, so two devices with the same token cannot both win.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time

from fedserver.enrolment.plant_registry import (
    Invitation,
    PlantRecords,
    PlantRegistry,
    RegisteredPlant,
    fingerprint_of,
)
from fedspect.errors import EnrolmentError, SettingsError
from fedspect.protocol.join_token import ID_BYTES, SECRET_BYTES, JoinToken
from fedspect.protocol.names import checked_name

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
LONGEST_LIFE = 366 * 86_400


def duration(text: str) -> int:
    """Seconds of "90s", "30m", "24h", "7d" or "2w".

    Raises:
        SettingsError: it is none of these.

    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    seconds = int(match.group(1)) * _UNITS[match.group(2)] if match else 0
    if not 0 < seconds <= LONGEST_LIFE:
        raise SettingsError(
            "not a length of time", seen=repr(text), accepted="90s, 30m, 24h, 7d; at most 52w"
        )
    return seconds


def invite(
    registry: PlantRegistry,
    plant: str,
    *,
    lifetime: int,
    addresses: list[tuple[str, int]],
    fingerprint: bytes,
    replace: bool = False,
    now: float | None = None,
) -> JoinToken:
    """A new token for ``plant``, good once and for ``lifetime`` seconds; an older unused one is withdrawn.

    Raises:
        SettingsError: the name cannot be one.
        EnrolmentError: a plant of that name has joined, and ``replace`` is not set.

    """
    checked_name(plant)
    now = time.time() if now is None else now
    token = JoinToken(
        plant=plant,
        expires=int(now + lifetime),
        token_id=secrets.token_bytes(ID_BYTES),
        secret=secrets.token_bytes(SECRET_BYTES),
        fingerprint=fingerprint,
        addresses=tuple(addresses),
    )
    with registry.change() as records:
        entry = records.plants.setdefault(plant, RegisteredPlant(name=plant))
        if entry.state == "joined" and not replace:
            raise EnrolmentError(
                "a plant of this name has joined already",
                seen=plant,
                remedy="choose another name, or add --replace when its device was exchanged",
            )
        if entry.state in ("left", "revoked"):
            entry.state, entry.public_key = "invited", None
        for old in entry.invitations:
            if old.used is None:
                old.withdrawn = True
        entry.invitations = [
            *entry.invitations[-9:],
            Invitation(
                token_id=token.token_id.hex(),
                secret_hash=_hash(token.secret),
                created=now,
                expires=token.expires,
            ),
        ]
    return token


def redeem(
    registry: PlantRegistry, token_id: bytes, secret: bytes, public_key: str, *, now: float | None = None
) -> RegisteredPlant:
    """Admit the device with ``public_key`` and this token; an answer may get lost, so the same device may ask again.

    Raises:
        EnrolmentError: the token is unknown, used, expired or withdrawn, or the key belongs to another plant.

    """
    now = time.time() if now is None else now
    with registry.change() as records:
        plant, invitation = _find(records, token_id, secret)
        owner = records.by_key(public_key)
        if plant.state == "revoked":
            raise _refused("this plant was revoked", plant)
        if invitation.used is not None:
            if (
                invitation.used_by == fingerprint_of(public_key)
                and owner is plant
                and plant.state == "joined"
            ):
                return plant.model_copy(deep=True)
            raise _refused("this join token was used already", plant)
        if invitation.withdrawn:
            raise _refused("this join token was withdrawn", plant)
        if now >= invitation.expires:
            when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(invitation.expires))
            raise _refused(f"this join token expired on {when}", plant)
        if owner is not None and owner is not plant:
            raise EnrolmentError(
                "this device is another plant already",
                seen=f"{owner.name} ({owner.state})",
                remedy="run `fedclient leave` on it first, or use another --home",
            )
        invitation.used, invitation.used_by = now, fingerprint_of(public_key)
        plant.state, plant.public_key = "joined", public_key
        plant.joined = plant.seen = now
        return plant.model_copy(deep=True)


def revoke(registry: PlantRegistry, name: str) -> RegisteredPlant:
    """Revoke a plant: its key and its tokens are worth nothing from now on.

    Raises:
        EnrolmentError: there is no such plant.

    """
    with registry.change() as records:
        plant = records.named(name)
        plant.state = "revoked"
        for invitation in plant.invitations:
            invitation.withdrawn = invitation.withdrawn or invitation.used is None
        return plant.model_copy(deep=True)


def _find(records: PlantRecords, token_id: bytes, secret: bytes) -> tuple[RegisteredPlant, Invitation]:
    wanted, given = token_id.hex(), _hash(secret)
    for plant in records.plants.values():
        for invitation in plant.invitations:
            if invitation.token_id == wanted and hmac.compare_digest(invitation.secret_hash, given):
                return plant, invitation
    # One answer for an unknown token and for a wrong secret: a guesser learns nothing.
    raise EnrolmentError(
        "headquarters does not know this join token",
        remedy="ask headquarters for a new one (`fedserver invite`)",
    )


def _refused(what: str, plant: RegisteredPlant) -> EnrolmentError:
    command = f"fedserver invite {plant.name}{' --replace' if plant.state == 'joined' else ''}"
    return EnrolmentError(what, seen=plant.name, remedy=f"ask headquarters for a new one (`{command}`)")


def _hash(secret: bytes) -> str:
    return hashlib.sha256(secret).hexdigest()
