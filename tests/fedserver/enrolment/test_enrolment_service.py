"""The enrolment service and its client over real TLS sockets on loopback."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import socket
import stat
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from office_parts import HASH, Office, join

from fedclient.node.enrolment import enrol
from fedclient.node.enrolment.enrol import joined, returned
from fedclient.node.enrolment.session import Session
from fedclient.node.home import PlantHome
from fedclient.node.joining import JoinedPlant
from fedserver.enrolment.authority import Authority
from fedserver.enrolment.rate_limits import RateLimit
from fedserver.enrolment.server import EnrolmentServer
from fedserver.enrolment.tokens import revoke
from fedserver.registry.base_files import BaseFiles
from fedserver.registry.versions import PublishedVersion
from fedspect.errors import (
    BaseModelError,
    ConnectionLostError,
    DamagedFileError,
    DiskFullError,
    EnrolmentError,
    FederationError,
    StorageError,
)
from fedspect.protocol.enrolment_pb2 import (
    ChallengeRequest,
    EnrolRequest,
    FetchVersionRequest,
    PublishedRequest,
    ReportRequest,
)
from fedspect.protocol.limits import LARGEST_ENROLMENT_MESSAGE, PROTOCOL
from fedspect.protocol.proof_of_possession import enrolment_statement


def test_a_plant_joins_with_one_token_and_gets_all_it_needs(office: Office, home: PlantHome) -> None:
    membership = join(home, office.token())
    assert (membership.plant, membership.federation) == ("plant-a", "steel")
    assert membership.classes == ["pit", "scratch"] and membership.aliases == {"hole": "pit"}
    assert membership.fleet_addresses == ["localhost:9092"]
    assert membership.settings == {"batch_size": 8}
    for name in ("card.json", "model.safetensors"):
        assert (home.base_folder(HASH) / name).read_bytes() == (office.base / name).read_bytes()
    assert office.plant().state == "joined"
    assert office.plant().report == {"counts": {"pit": 3}}
    assert office.admitted == ["plant-a"]
    assert PlantHome(home.folder).membership() == membership


def test_the_private_key_is_made_on_the_device_and_only_its_owner_can_read_it(
    office: Office, home: PlantHome
) -> None:
    join(home, office.token())
    assert stat.S_IMODE(home.key_path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700
    assert "PRIVATE" not in office.workspace.registry.path.read_text()


def test_a_plant_comes_back_with_its_key_alone(office: Office, home: PlantHome) -> None:
    membership = join(home, office.token())
    with returned(home, membership) as session:
        assert session.admission.plant == "plant-a"
        assert abs(session.clock_offset) < 30


def test_a_plant_that_comes_back_soon_does_not_write_the_registry_again(
    office: Office, home: PlantHome
) -> None:
    membership = join(home, office.token())
    before = office.workspace.registry.stamp()
    with returned(home, membership):
        assert office.workspace.registry.stamp() == before
    seen = office.plant().seen
    office.service._clock = lambda: time.time() + 61.0
    with returned(home, membership):
        assert (office.plant().seen or 0.0) > (seen or 0.0)


def test_a_base_model_is_fetched_again_only_when_it_is_damaged(office: Office, home: PlantHome) -> None:
    membership = join(home, office.token())
    weights = home.base_folder(HASH) / "model.safetensors"
    content, asked = weights.read_bytes(), office.base / "model.safetensors"
    asked.rename(office.base / "hidden")
    with returned(home, membership) as session:
        session.fetch_base(home)  # a question for the file would fail now
    asked.write_bytes(content)
    weights.write_bytes(b"damaged")
    with returned(home, membership) as session:
        session.fetch_base(home)
    assert weights.read_bytes() == content


# -- tokens ------------------------------------------------------------------------------------------------


def test_a_token_used_twice_is_refused_with_that_reason(
    office: Office, home: PlantHome, tmp_path: Path
) -> None:
    token = office.token()
    join(home, token)
    other = PlantHome(tmp_path / "other")
    other.prepare()
    with pytest.raises(EnrolmentError, match="used already"):
        join(other, token)


def test_the_same_device_may_join_again_with_its_token_when_the_answer_was_lost(
    office: Office, home: PlantHome
) -> None:
    token = office.token()
    join(home, token)
    home.membership_path.unlink()
    assert join(home, token).plant == "plant-a"


def test_an_expired_token_is_refused_with_that_reason(office: Office, home: PlantHome) -> None:
    with pytest.raises(EnrolmentError, match="expired"):
        join(home, office.token(lifetime=1, now=time.time() - 10))


def test_a_token_of_a_revoked_plant_is_refused_with_that_reason(office: Office, home: PlantHome) -> None:
    token = office.token()
    revoke(office.workspace.registry, "plant-a")
    with pytest.raises(EnrolmentError, match="revoked"):
        join(home, token)


def test_a_revoked_plant_cannot_come_back(office: Office, home: PlantHome) -> None:
    membership = join(home, office.token())
    revoke(office.workspace.registry, "plant-a")
    with pytest.raises(EnrolmentError, match="revoked"), returned(home, membership):
        pass


def test_a_stranger_with_a_made_up_token_learns_nothing(office: Office, home: PlantHome) -> None:
    token = dataclasses.replace(office.token(), secret=bytes(24))
    with pytest.raises(EnrolmentError, match="does not know this join token"):
        join(home, token)


# -- whom a plant talks to ---------------------------------------------------------------------------------


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The connections on which the plant was about to say something."""
    opened: list[object] = []
    original = enrol._stub

    def spy(*where: Any) -> Any:
        opened.append(where)
        return original(*where)

    monkeypatch.setattr(enrol, "_stub", spy)
    return opened


def test_a_wrong_fingerprint_ends_it_before_anything_is_sent(
    office: Office, home: PlantHome, channels: list[object]
) -> None:
    token = dataclasses.replace(office.token(), fingerprint=hashlib.sha256(b"another").digest())
    with pytest.raises(EnrolmentError, match="not the headquarters that the token names"):
        join(home, token)
    assert channels == []
    assert not home.key_path.exists()


def test_a_server_that_only_shows_the_right_authority_beside_a_foreign_certificate_is_refused(
    office: Office, home: PlantHome, tmp_path: Path, channels: list[object]
) -> None:
    """The authority's certificate is public: an impostor can append it to his own chain."""
    impostor = Authority(tmp_path / "impostor")
    impostor.create("steel")
    impostor.issue_server_certificate(["localhost"])
    chain = (
        impostor.server_certificate_path.read_bytes()
        + office.workspace.authority.certificate_path.read_bytes()
    )
    impostor.server_certificate_path.write_bytes(chain)
    server = EnrolmentServer(office.service, impostor, "127.0.0.1", 0)
    server.start()
    with pytest.raises(EnrolmentError, match="certificate is not in order"):
        join(home, office.token(addresses=[("localhost", server.port)]))
    assert channels == []
    server.stop()


def test_a_server_called_by_a_name_that_is_not_in_its_certificate_is_refused(
    office: Office, home: PlantHome
) -> None:
    elsewhere = EnrolmentServer(office.service, office.workspace.authority, "127.0.0.2", 0)
    elsewhere.start()
    with pytest.raises(EnrolmentError, match="certificate is not in order") as caught:
        join(home, office.token(addresses=[("127.0.0.2", elsewhere.port)]))
    elsewhere.stop()
    assert "hosts in fedserver.toml" in (caught.value.remedy or "")


def test_the_next_address_is_tried_when_one_does_not_answer(office: Office, home: PlantHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = int(listener.getsockname()[1])
    addresses = [("localhost", closed), ("localhost", office.server.port)]
    assert join(home, office.token(addresses=addresses)).plant == "plant-a"


def test_a_server_that_is_not_there_is_named_with_its_address(office: Office, home: PlantHome) -> None:
    token = office.token()
    office.server.stop()
    with pytest.raises(ConnectionLostError, match=f"localhost:{office.server.port}"):
        join(home, token)


def test_a_new_server_certificate_of_the_same_authority_is_not_noticed(
    office: Office, home: PlantHome
) -> None:
    membership = join(home, office.token())
    port = office.server.port
    office.server.stop()
    office.workspace.authority.issue_server_certificate(["localhost", "new.example.org"])
    office.start(port)
    with returned(home, membership) as session:
        assert session.admission.plant == "plant-a"


@contextmanager
def a_stranger(office: Office, folder: Path) -> Iterator[str]:
    """The address of somebody with a certificate of another authority for the same name."""
    authority = Authority(folder / "stranger")
    authority.create("steel")
    authority.issue_server_certificate(["localhost"])
    server = EnrolmentServer(office.service, authority, "127.0.0.1", 0)
    server.start()
    try:
        yield f"localhost:{server.port}"
    finally:
        server.stop()


def test_a_server_with_a_foreign_certificate_is_passed_over_and_waited_for(
    office: Office, home: PlantHome, tmp_path: Path
) -> None:
    membership, here = join(home, office.token()), f"localhost:{office.server.port}"
    with a_stranger(office, tmp_path) as there:
        known = membership.model_copy(update={"enrolment_addresses": [there, here]})
        with returned(home, known) as session:
            assert session.admission.plant == "plant-a"
        known = membership.model_copy(update={"enrolment_addresses": [there]})
        with pytest.raises(ConnectionLostError, match=r"certificate is not in order.* clock"), returned(
            home, known
        ):
            pass


def test_a_plant_waits_while_a_stranger_answers_and_joins_once_headquarters_does(
    office: Office, home: PlantHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership, authority = join(home, office.token()), home.authority_path.read_bytes()
    said: list[str] = []
    plant, stop = JoinedPlant(home, say=said.append), threading.Event()
    with a_stranger(office, tmp_path) as there:
        home.remember(membership.model_copy(update={"enrolment_addresses": [there]}), authority)
        monkeypatch.setattr(stop, "wait", lambda seconds: home.remember(membership, authority))
        assert plant._admitted(stop, None, {}) is not None
    (waiting,) = said
    assert "certificate is not in order" in waiting and "trying again" in waiting and "clock" in waiting
    revoke(office.workspace.registry, "plant-a")
    with pytest.raises(EnrolmentError, match="revoked"):
        plant._admitted(stop, None, {})


@pytest.mark.parametrize("first", [True, False])
def test_a_server_that_is_started_again_while_the_base_model_comes_is_asked_again(
    office: Office, home: PlantHome, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    token = office.token()
    if not first:
        join(home, token)
        (home.base_folder(HASH) / "card.json").unlink()
    said: list[str] = []
    plant, stop, restarts = JoinedPlant(home, say=said.append), threading.Event(), [office.server.port]

    def admitted(session: Session) -> None:
        if restarts:
            office.server.stop()
            office.start(restarts.pop())

    monkeypatch.setattr(plant, "_see_clock", admitted)
    monkeypatch.setattr(stop, "wait", lambda seconds: None)
    assert plant._admitted(stop, token if first else None, {"data": "/pictures"}) is not None
    assert "this session is over; trying again" in said[0]


def test_a_plain_service_on_the_port_is_no_headquarters(office: Office, home: PlantHome) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
        listener.settimeout(5)
        with pytest.raises(ConnectionLostError):
            import threading

            threading.Thread(
                target=lambda: listener.accept()[0].sendall(b"SSH-2.0-x\r\n"), daemon=True
            ).start()
            join(home, office.token(addresses=[("localhost", port)]))


# -- what a stranger may do --------------------------------------------------------------------------------


def test_a_device_must_hold_the_private_key_of_the_public_one(office: Office, home: PlantHome) -> None:
    token = office.token()
    own, stolen = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    stub = office.stub()
    nonce = stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10).nonce
    public_key = enrol._public_bytes(stolen)
    statement = enrolment_statement(
        nonce=nonce, fingerprint=token.fingerprint, token_id=token.token_id, public_key=public_key
    )
    request = EnrolRequest(
        token_id=token.token_id,
        secret=token.secret,
        public_key=public_key,
        nonce=nonce,
        signature=enrol._sign(own, statement),
    )
    with pytest.raises(EnrolmentError, match="did not prove"):
        stub.enrol(request, timeout=10)
    assert office.plant().state == "invited"


def test_a_nonce_is_good_once(office: Office) -> None:
    token = office.token()
    key = ec.generate_private_key(ec.SECP384R1())
    public_key = enrol._public_bytes(key)
    stub = office.stub()
    nonce = stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10).nonce
    statement = enrolment_statement(
        nonce=nonce, fingerprint=token.fingerprint, token_id=token.token_id, public_key=public_key
    )
    request = EnrolRequest(
        token_id=token.token_id,
        secret=token.secret,
        public_key=public_key,
        nonce=nonce,
        signature=enrol._sign(key, statement),
    )
    assert stub.enrol(request, timeout=10).plant == "plant-a"
    with pytest.raises(ConnectionLostError, match="too late"):
        stub.enrol(request, timeout=10)


@pytest.mark.parametrize(
    "public_key",
    [b"", b"garbage", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", b"x" * 100_000],
)
def test_garbage_for_a_key_is_refused(office: Office, public_key: bytes) -> None:
    stub = office.stub()
    nonce = stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10).nonce
    with pytest.raises(EnrolmentError, match="did not prove"):
        stub.enrol(EnrolRequest(public_key=public_key, nonce=nonce, signature=b"s"), timeout=10)


def test_a_message_beyond_the_bound_is_cut_off(office: Office) -> None:
    with pytest.raises(ConnectionLostError, match="resource_exhausted"):
        office.stub().enrol(EnrolRequest(public_key=b"x" * (LARGEST_ENROLMENT_MESSAGE + 1)), timeout=10)


def test_an_address_that_tries_too_often_has_to_wait(office: Office) -> None:
    stub = office.stub()
    with pytest.raises(ConnectionLostError, match="too many tries"):
        for _ in range(200):
            stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10)


def test_many_addresses_together_have_to_wait_too(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = itertools.count()
    monkeypatch.setattr("fedserver.enrolment.service.address_of", lambda peer: f"address-{next(numbers)}")
    office.service._tries_of_all = RateLimit(5, 0.0)
    stub = office.stub()
    for _ in range(5):
        assert stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10).nonce
    with pytest.raises(ConnectionLostError, match="by too many at once"):
        stub.challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10)


@pytest.mark.parametrize("prescribed", ["{", "[" * 100_000, "[1]", "9" * 5000, '"text"'])
def test_what_cannot_be_prescribed_is_an_error_with_a_page(
    office: Office, home: PlantHome, prescribed: str
) -> None:
    with joined(home, office.token()) as (session, _):
        session.admission.settings_json = prescribed
        with pytest.raises(EnrolmentError, match="prescribes something that cannot be understood"):
            session.membership(["localhost:1"], b"f" * 32)


def test_garbage_on_the_port_leaves_the_service_answering(office: Office, home: PlantHome) -> None:
    for garbage in (b"\0" * 2000, b"GET / HTTP/1.0\r\n\r\n", os.urandom(50_000)):
        with socket.create_connection(("127.0.0.1", office.server.port), timeout=5) as connection:
            connection.sendall(garbage)
    assert join(home, office.token()).plant == "plant-a"


@pytest.mark.parametrize(
    "report",
    [
        "",
        "[]",
        "{",
        "9" * 5000,
        "[" * 5000,
        '{"a": "' + "x" * 140_000 + '"}',
        '{"counts": {"a": "x"}}',
        '{"counts": {"a": -1}}',
        '{"counts": [1]}',
        '{"counts": {"a": 1' + "0" * 4000 + "}}",
        '{"counts": {"\\ud800": 1}}',
        '{"training": {"kind": "paused"}}',
        '{"training": "paused"}',
    ],
)
def test_a_report_that_is_none_is_refused_and_nothing_is_kept(
    office: Office, home: PlantHome, report: str
) -> None:
    with joined(home, office.token()) as (session, _), pytest.raises(EnrolmentError, match="report"):
        session._stub.report(ReportRequest(session=session.admission.session, report_json=report), timeout=10)
    assert office.plant().report == {}


@pytest.mark.parametrize("session", [b"", bytes(32)])
def test_nothing_is_given_without_a_session(office: Office, session: bytes) -> None:
    with pytest.raises(EnrolmentError, match="session is over"):
        office.stub().report(ReportRequest(session=session, report_json="{}"), timeout=10)


def test_a_session_ends_with_the_plants_membership(office: Office, home: PlantHome) -> None:
    with joined(home, office.token()) as (session, _):
        revoke(office.workspace.registry, "plant-a")
        with pytest.raises(FederationError, match="session is over") as caught:
            session.fetch_base(home)
    assert not isinstance(caught.value, EnrolmentError)  # who asks again hears why


@pytest.mark.parametrize("revoked", [False, True])
def test_a_session_ends_when_another_device_takes_the_plants_place(
    office: Office, home: PlantHome, tmp_path: Path, revoked: bool
) -> None:
    other = PlantHome(tmp_path / "other")
    other.prepare()
    with joined(home, office.token()) as (old, _):
        if revoked:
            revoke(office.workspace.registry, "plant-a")
        with joined(other, office.token(replace=not revoked)) as (new, _):
            with pytest.raises(EnrolmentError, match="session is over"):
                old.report({"counts": {"pit": 99}})
            with pytest.raises(EnrolmentError, match="session is over"):
                old.leave()
            new.report({"counts": {"pit": 3}})
    assert office.plant().state == "joined"
    assert office.plant().report == {"counts": {"pit": 3}}


def test_a_plant_of_another_protocol_is_told_so(office: Office) -> None:
    with pytest.raises(EnrolmentError, match="different versions"):
        office.stub().challenge(ChallengeRequest(protocol=PROTOCOL + 1), timeout=10)


# -- what a plant does not believe -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", ".hidden", "", "a/b", "a\nb"])
def test_a_file_with_a_strange_name_is_written_nowhere(
    office: Office, home: PlantHome, name: str, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    with joined(home, office.token()) as (session, _):
        session.admission.base_files[0].name = name
        with pytest.raises(EnrolmentError, match="strange name"):
            session.fetch_base(home)
    made = set(tmp_path.rglob("*")) - set(before)
    assert {path.name for path in made if path.is_file()} <= {"node.key", "plants.lock"}


def test_a_base_model_that_claims_to_be_huge_is_refused_before_a_byte_is_fetched(
    office: Office, home: PlantHome
) -> None:
    with joined(home, office.token()) as (session, _):
        session.admission.base_files[0].size = 1 << 40
        with pytest.raises(EnrolmentError, match="too large"):
            session.fetch_base(home)


@pytest.mark.parametrize("change", ["longer", "other"])
def test_a_base_model_that_is_not_what_was_announced_is_not_kept(
    office: Office, home: PlantHome, change: str
) -> None:
    weights = office.base / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content + b"more" if change == "longer" else content[:-1] + b"\0")
    if weights.read_bytes() == content:
        weights.write_bytes(content[:-1] + b"\1")
    with joined(home, office.token()) as (session, _), pytest.raises(DamagedFileError, match="announced"):
        session.fetch_base(home)
    assert not (home.base_folder(HASH) / "model.safetensors").exists()


def test_a_disk_that_is_full_at_the_plant_ends_in_one_clear_error(
    office: Office, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with joined(home, office.token()) as (session, _):
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(DiskFullError):
            session.fetch_base(home)
    assert not any(home.base_folder(HASH).glob("*.safetensors"))


# -- leaving -----------------------------------------------------------------------------------------------


def test_a_plant_that_leaves_is_forgotten_at_headquarters(office: Office, home: PlantHome) -> None:
    membership = join(home, office.token())
    with returned(home, membership) as session:
        session.leave()
    assert office.plant().state == "left"
    assert office.left == ["plant-a"]
    with pytest.raises(EnrolmentError, match="this plant left the federation"), returned(home, membership):
        pass
    office.token()  # which makes its key unknown
    with pytest.raises(EnrolmentError, match="does not know this device"), returned(home, membership):
        pass


def test_without_a_base_model_headquarters_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError) as caught:
        BaseFiles.read(tmp_path / "nothing")
    assert "fedserver.toml" in (caught.value.remedy or "")
    (tmp_path / "card.json").write_text("[]")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises((BaseModelError, StorageError)):
        BaseFiles.read(tmp_path)


# -- published versions ------------------------------------------------------------------------------------


def publish(office: Office, seed: int = 0) -> PublishedVersion:
    head = {"head.weight": np.random.default_rng(seed).normal(size=(300, 300)).astype(np.float32)}
    facts = {"base_hash": HASH, "architecture": "cdnv2-a", "classes": ["pit", "scratch"], "freeze_levels": 8}
    return office.workspace.models.add(head, run="run-0001", rounds=seed, **facts)[0]


def activated(made: PublishedVersion, **more: Any) -> dict[str, Any]:
    return {
        "version": made.card.content_hash,
        "number": made.card.number,
        "outcome": "activated",
        "reasons": [],
        "figures": {"accuracy": 0.9},
        "seconds": 4.5,
        **more,
    }


def test_a_plant_gets_the_published_version_and_reports_what_became_of_it(
    office: Office, home: PlantHome
) -> None:
    join(home, office.token())
    with returned(home, home.membership()) as session:
        assert session.published() is None
        made = publish(office)
        version = session.published()
        assert version is not None
        assert (version.number, version.version_hash, version.base_hash) == (1, made.card.content_hash, HASH)
        folder = session.fetch_version(home, version)
        session.report_deployment(activated(made))
    assert folder == home.folder / "versions" / made.card.content_hash
    for name in ("card.json", "head.safetensors"):
        assert (folder / name).read_bytes() == (made.folder / name).read_bytes()
    kept = office.workspace.deployments.of("plant-a")
    assert kept.line is not None and kept.line.report.number == 1
    assert kept.line.report.figures == {"accuracy": 0.9}
    assert office.deployed == [("plant-a", "activated")]


def test_a_new_version_and_a_retired_one_are_noticed_without_a_restart(
    office: Office, home: PlantHome
) -> None:
    with joined(home, office.token()) as (session, _):
        publish(office, 1)
        second = publish(office, 2)
        version = session.published()
        assert version is not None and version.number == 2
        office.workspace.models.retire(second, "it lets scratches through")
        with pytest.raises(FederationError, match="any more"):
            session.fetch_version(home, version)
        version = session.published()
        assert version is not None and version.number == 1


def test_a_version_that_is_there_is_not_fetched_again(office: Office, home: PlantHome) -> None:
    made = publish(office)
    with joined(home, office.token()) as (session, _):
        version = session.published()
        assert version is not None
        session.fetch_version(home, version)
        (made.folder / "head.safetensors").unlink()
        session.fetch_version(home, version)


def test_a_head_that_is_not_the_version_is_not_kept(office: Office, home: PlantHome) -> None:
    publish(office)
    with joined(home, office.token()) as (session, _):
        version = session.published()
        assert version is not None
        version.version_hash = "ef" * 32
        with pytest.raises(FederationError, match="does not offer"):
            session.fetch_version(home, version)
        version.version_hash = publish(office, 1).card.content_hash
        with pytest.raises(DamagedFileError):
            session.fetch_version(home, version)
    assert not list(home.folder.rglob("head.safetensors"))


@pytest.mark.parametrize(
    "change",
    [
        {"outcome": "marvellous"},
        {"version": "../../etc"},
        {"seconds": float("nan")},
        {"reasons": ["x"] * 51},
        {"figures": {"x": "y" * 40_000}},
        {"number": -1},
    ],
)
def test_a_deployment_report_that_is_none_is_refused_and_nothing_is_kept(
    office: Office, home: PlantHome, change: dict[str, Any]
) -> None:
    made = publish(office)
    with joined(home, office.token()) as (session, _), pytest.raises(EnrolmentError, match="report"):
        session.report_deployment(activated(made, **change))
    assert office.workspace.deployments.of("plant-a").reports == []


def test_nothing_of_a_version_is_given_without_a_session(office: Office) -> None:
    made = publish(office)
    request = FetchVersionRequest(session=bytes(32), version_hash=made.card.content_hash, name="card.json")
    with pytest.raises(EnrolmentError, match="session is over"):
        list(office.stub().fetch_version(request, timeout=10))
    with pytest.raises(EnrolmentError, match="session is over"):
        office.stub().published(PublishedRequest(session=b""), timeout=10)


@pytest.mark.parametrize("name", ["../0001/card.json", "retired.json", "", "/etc/passwd"])
def test_no_other_file_of_a_versions_folder_is_given(office: Office, home: PlantHome, name: str) -> None:
    made = publish(office)
    with joined(home, office.token()) as (session, _):
        request = FetchVersionRequest(
            session=session.admission.session, version_hash=made.card.content_hash, name=name
        )
        with pytest.raises(FederationError, match="no such file"):
            list(office.stub().fetch_version(request, timeout=10))


def test_a_plant_that_asks_too_often_has_to_wait(office: Office, home: PlantHome) -> None:
    with joined(home, office.token()) as (session, _), pytest.raises(ConnectionLostError, match="too many"):
        for _ in range(200):
            session.published()
