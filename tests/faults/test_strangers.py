"""Who is not let in: spent and false tokens, a false server, a second plant of one name, noise on every port."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Callable, Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from federation_parts import command
from flwr.common.constant import PUBLIC_KEY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from tiny_parts import TinyFederation, descendants, listening_ports, wait_for
from tiny_worker import Behaviour

from fedclient.node.home import PlantHome
from fedserver.enrolment import tokens
from fedserver.enrolment.authority import Authority
from fedserver.flower.fleet_port import CALLS_OF_ONE_PLANT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

NOT_ADMITTED, NOT_REACHED = 64, 65
Call = Callable[[], grpc.Future]


def refused_join(federation: TinyFederation, home: str, token: str) -> str:
    """What `fedclient join` says on a new device that is not let in."""
    answer = command(
        "fedclient.cli", "join", token, "--data", str(federation.folder), home=federation.home(home)
    )
    assert answer.returncode == NOT_ADMITTED, answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (federation.home(home) / "plant.json").exists()
    return answer.stderr


def test_a_token_is_good_for_one_device(federation: TinyFederation) -> None:
    token = str(federation.token("fourth"))
    node = federation.plant("fourth", token)
    node.wait_for("joined: at")
    said = refused_join(federation, "second-device", token)
    assert "this join token was used already" in said and "fedserver invite fourth" in said
    assert federation.fedserver("plants", "revoke", "fourth").returncode == 0
    assert node.process.wait(60.0) == NOT_ADMITTED
    assert "this plant was revoked" in node.said


def test_an_expired_token_is_refused_with_the_time(federation: TinyFederation) -> None:
    token = federation.token("late-comer", now=time.time() - 7200, lifetime=3600)
    said = refused_join(federation, "late-comer", str(token))
    assert "expired" in said


def test_the_token_of_a_revoked_plant_is_worth_nothing(federation: TinyFederation) -> None:
    token = federation.token("thief")
    tokens.revoke(federation.opened.registry, "thief")
    assert "this plant was revoked" in refused_join(federation, "thief", str(token))


def test_a_token_with_another_fingerprint_is_never_shown_to_this_server(federation: TinyFederation) -> None:
    token = federation.token("misled")
    said = refused_join(federation, "misled", str(dataclasses.replace(token, fingerprint=os.urandom(32))))
    assert "this is not the headquarters that the token names" in said and "nothing was sent" in said
    invitation = federation.opened.registry.read().plants["misled"].invitations[-1]
    assert invitation.used is None


@contextmanager
def another_server(folder: Path) -> Iterator[int]:
    """Somebody with a certificate of another authority for the same name; the port."""
    authority = Authority(folder)
    authority.create("another")
    authority.issue_server_certificate(["localhost"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate_path, authority.server_key_path)
    context.set_alpn_protocols(["h2"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
                    connection.recv(100)
            except ssl.SSLError:
                continue
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.close()


def test_a_plant_does_not_come_back_to_a_server_with_a_foreign_certificate(
    federation: TinyFederation, tmp_path: Path
) -> None:
    home = federation.home("copy-of-third")
    shutil.copytree(federation.home("third"), home)
    with another_server(tmp_path) as port:
        path = home / "plant.json"
        membership = json.loads(path.read_text())
        path.write_text(json.dumps({**membership, "enrolment_addresses": [f"localhost:{port}"]}))
        answer = command("fedclient.cli", "join", "--wait", "0", home=home)  # it would wait for ever
    assert answer.returncode == NOT_REACHED, answer.stderr
    assert "the server's certificate is not in order" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_second_plant_of_one_name_is_not_invited(federation: TinyFederation) -> None:
    answer = federation.fedserver("invite", "third")
    assert answer.returncode == NOT_ADMITTED
    assert "a plant of this name has joined already" in answer.stderr and "--replace" in answer.stderr


def test_a_device_that_calls_itself_by_another_plants_name_takes_no_part(federation: TinyFederation) -> None:
    federation.plant_processes["third"].end()
    since = federation.mark()
    federation.behave("third", Behaviour(name="good-a"))
    federation.plant("third").wait_for("joined: at")
    refused = federation.wait_for_event("PlantRefused", since=since)
    assert refused["kind"] == "joining" and "good-a" in refused["reason"]
    federation.wait_for_rounds(2)
    assert {one.plant for one in federation.records(federation.last() - 1)[0].plants} == {"good-a", "good-b"}
    federation.plant_processes["third"].end()


def test_garbage_on_every_open_port_ends_that_connection_only(federation: TinyFederation) -> None:
    server = federation.server.process.pid
    pids = descendants(server)
    ports = listening_ports(pids)
    network = federation.opened.settings().network
    assert {network.fleet_port, network.enrolment_port} < set(ports)
    assert len(ports) == 4  # these, Flower's Control API and its ServerApp API
    for port in ports:
        for garbage in (b"\0" * 5000, b"GET / HTTP/1.1\r\n\r\n", os.urandom(100_000)):
            with socket.create_connection(("127.0.0.1", port), timeout=5.0) as connection:
                connection.settimeout(0.5)
                try:
                    connection.sendall(garbage)
                    connection.recv(100)
                except OSError:
                    continue
    federation.wait_for_rounds(2)
    assert descendants(server) == pids
    wait_for(lambda: federation.server.process.poll() is None, "a living server")


def fleet_call(federation: TinyFederation, key: ec.EllipticCurvePrivateKey | None, opened: ExitStack) -> Call:
    """A call of the Fleet API whose content never comes, signed with this key."""
    network, never = federation.opened.settings().network, threading.Event()
    authority = federation.opened.authority.certificate_path.read_bytes()
    channel = opened.enter_context(
        grpc.secure_channel(
            f"localhost:{network.fleet_port}",
            grpc.ssl_channel_credentials(authority),
            [("grpc.use_local_subchannel_pool", 1)],
        )
    )
    opened.callback(never.set)
    call = channel.stream_unary("/flwr.proto.Fleet/ActivateNode")

    def nothing() -> Iterator[bytes]:
        never.wait()
        yield from ()

    def calling() -> grpc.Future:
        return call.future(nothing(), metadata=signed(key) if key is not None else (), timeout=60.0)

    return calling


def signed(key: ec.EllipticCurvePrivateKey) -> list[tuple[str, str | bytes]]:
    """What Flower knows a device by."""
    now = dt.datetime.now(dt.timezone.utc).isoformat()
    return [
        (PUBLIC_KEY_HEADER, public_key_to_bytes(key.public_key())),
        (TIMESTAMP_HEADER, now),
        (SIGNATURE_HEADER, sign_message(key, now.encode("ascii"))),
    ]


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def superlink_of(federation: TinyFederation) -> int:
    """The SuperLink's process."""
    names = {
        pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in descendants(federation.server.process.pid)
    }
    return next(pid for pid, name in names.items() if b"superlink_process" in name)


@pytest.mark.parametrize("key", [None, ec.generate_private_key(ec.SECP384R1())], ids=["no key", "a key"])
def test_a_strangers_calls_are_refused_before_their_content_comes(
    federation: TinyFederation, key: ec.EllipticCurvePrivateKey | None
) -> None:
    superlink = superlink_of(federation)
    with ExitStack() as opened:
        calling = fleet_call(federation, key, opened)
        calls = [calling() for _ in range(600)]
        answers = {call.exception(timeout=60.0).code() for call in calls}
        assert threads_of(superlink) < 300
    assert grpc.StatusCode.UNAUTHENTICATED in answers and grpc.StatusCode.DEADLINE_EXCEEDED not in answers
    federation.wait_for_rounds(2)


def test_a_plants_calls_whose_content_never_comes_hold_up_nobody_else(federation: TinyFederation) -> None:
    federation.plant_processes["third"].end()
    with ExitStack() as opened:
        key = PlantHome(federation.home("third")).key()
        calls = [fleet_call(federation, key, opened)() for _ in range(3 * CALLS_OF_ONE_PLANT)]
        refused = 2 * CALLS_OF_ONE_PLANT
        wait_for(lambda: sum(call.done() for call in calls) == refused, f"{refused} refused calls")
        assert {call.exception().details() for call in calls if call.done()} == {
            "too many calls of this plant at once"
        }
        federation.wait_for_rounds(2)
    federation.plant("third")
