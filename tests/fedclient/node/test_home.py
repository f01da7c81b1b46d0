from __future__ import annotations

from pathlib import Path

import pytest

from fedclient.default_home import HOME_VARIABLE, default_home
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedspect.errors import DamagedFileError, WorkspaceError

MEMBERSHIP = Membership(
    plant="plant-a",
    federation="steel",
    fingerprint="00" * 32,
    enrolment_addresses=["localhost:1"],
    fleet_addresses=["localhost:2"],
    classes=["pit"],
    base_hash="ab" * 32,
    data="/pictures",
)


@pytest.fixture
def home(tmp_path: Path) -> PlantHome:
    made = PlantHome(tmp_path / "plant")
    made.prepare()
    return made


def test_what_was_agreed_is_read_back_and_forgotten_on_leaving(home: PlantHome) -> None:
    key = home.key()
    home.remember(MEMBERSHIP, b"certificate")
    assert PlantHome(home.folder).membership() == MEMBERSHIP
    assert PlantHome(home.folder).key().private_numbers() == key.private_numbers()
    home.forget()
    assert not home.key_path.exists()
    with pytest.raises(WorkspaceError, match="not joined"):
        home.membership()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"plant": 1}', b"\xff"])
def test_a_damaged_membership_says_to_join_again(home: PlantHome, content: bytes) -> None:
    home.membership_path.write_bytes(content)
    with pytest.raises(DamagedFileError):
        home.membership()


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_damaged_key_is_never_replaced_in_silence(home: PlantHome, content: bytes) -> None:
    home.key_path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"node\.key"):
        home.key()
    assert home.key_path.read_bytes() == content


def test_a_home_is_where_the_environment_or_the_users_data_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    assert default_home() == tmp_path
    monkeypatch.delenv(HOME_VARIABLE)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_home() == tmp_path / "fedspect" / "plant"
