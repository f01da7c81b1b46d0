"""Network checks: name, port, certificate and clock; before joining from the token, then from the membership."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Iterator

from fedclient.node.channels import connect, proxy_for, way
from fedclient.node.doctor.checks import Check, failure, guarded, ok, warning
from fedclient.node.enrolment.enrol import clock_offset
from fedclient.node.enrolment.trust import check_server, find_authority
from fedclient.node.home import PlantHome
from fedclient.node.membership import Membership
from fedclient.plant_settings import SettingsFile
from fedspect.errors import ConnectionLostError, EnrolmentError
from fedspect.protocol.join_token import JoinToken
from fedspect.protocol.limits import CLOCK_TOLERANCE
from fedspect.protocol.names import join_address, split_address

CONNECT_TIMEOUT = 5.0  # seconds
ENDS_SOON = 14 * 86_400.0

Address = tuple[str, int]


def joined(home: PlantHome, membership: Membership) -> Iterator[Check]:
    """Checks of the way to a headquarters that admitted this device."""
    authority = home.authority_path.read_bytes()
    proxy = SettingsFile(home.folder).current().network.proxy
    for text in membership.enrolment_addresses:
        address = split_address(text)
        yield from guarded(f"enrolment {text}", functools.partial(_enrolment, address, authority, proxy))
    for text in membership.fleet_addresses:
        address = split_address(text)
        yield from guarded(f"rounds {text}", functools.partial(reachable, "rounds", address, proxy))


def invited(home: PlantHome, token: JoinToken) -> Iterator[Check]:
    """Checks of the way to a headquarters that a token names; the token is not used up."""
    proxy = SettingsFile(home.folder).current().network.proxy
    left = token.expires - time.time()
    if left <= 0:
        yield failure(
            "token", EnrolmentError("the token has expired", remedy="ask headquarters for a new one")
        )
    else:
        yield ok("token", f"for {token.plant}, good for another {left / 3600:.1f} hours")
    for address in token.addresses:
        text = join_address(*address)
        look = functools.partial(reachable, "enrolment", address, proxy)
        found = list(guarded(f"enrolment {text}", look))
        yield from found
        if all(check.level == "ok" for check in found):
            yield from guarded(f"certificate {text}", functools.partial(_by_token, address, token, proxy))


def reachable(what: str, address: Address, proxy: str) -> Iterator[Check]:
    """Name resolution and a TCP connection; behind a proxy the name is resolved by the proxy.

    Raises:
        ConnectionLostError: one of them does not.

    """
    host, port = address
    text = join_address(host, port)
    told = way(text, proxy)
    try:
        if proxy_for(address, proxy) is None:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConnectionLostError(
            "its name is not known here",
            seen=", ".join(filter(None, [f"{host}: {error.strerror or error}", told])),
            remedy="ask whoever runs the network for the name, or headquarters for a token with an address",
        ) from error
    try:
        with connect(address, proxy=proxy, timeout=CONNECT_TIMEOUT) as connection:
            there = connection.getpeername()[0]
    except OSError as error:
        raise ConnectionLostError(
            "it cannot be reached",
            seen=", ".join(filter(None, [f"{text}: {error.strerror or error}", told])),
            remedy="see that `fedserver start` runs there, and the name, the port and firewalls in between; "
            "where only a proxy leads out, set proxy under [network] in plant.toml",
        ) from error
    reached = "reached" if proxy_for(address, proxy) else f"reached {join_address(str(there), port)}"
    yield ok(f"{what} {text}", ", ".join(filter(None, [reached, told])))


def _enrolment(address: Address, authority: bytes, proxy: str) -> Iterator[Check]:
    yield from reachable("enrolment", address, proxy)
    yield from guarded(f"certificate {join_address(*address)}", lambda: _certified(address, authority, proxy))


def _by_token(address: Address, token: JoinToken, proxy: str) -> Iterator[Check]:
    authority, _ = find_authority([address], token.fingerprint, proxy=proxy)
    yield from _certified(address, authority, proxy)


def _certified(address: Address, authority: bytes, proxy: str) -> Iterator[Check]:
    text = join_address(*address)
    end = check_server(address, authority, proxy=proxy)
    until = time.strftime("%Y-%m-%d", time.localtime(end))
    if end - time.time() < ENDS_SOON:
        yield warning(
            f"certificate {text}",
            f"good until {until} only",
            "headquarters issues a new one at its next `fedserver start`",
        )
    else:
        yield ok(f"certificate {text}", f"of the authority that the token named, good until {until}")
    ahead = -clock_offset(address, authority, proxy=proxy)
    if abs(ahead) > CLOCK_TOLERANCE:
        yield warning(
            "clock",
            f"{ahead:+.1f} s from headquarters'",
            "set the clock (timedatectl set-ntp true): certificates are checked with it",
        )
    else:
        yield ok("clock", f"{ahead:+.1f} s from headquarters'")
