"""Names of plants and federations, and network addresses: what is accepted, said once for both sides."""

from __future__ import annotations

import ipaddress
import re
from typing import List, Tuple

from fedspect.errors import SettingsError
from fedspect.protocol.limits import LONGEST_NAME

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def checked_name(name: str, what: str = "plant") -> str:
    """``name`` as it is, when it can name a plant or a federation (and so a file and a column of a report).

    Raises:
        SettingsError: it cannot.

    """
    if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
        raise SettingsError(
            f"not a name for a {what}",
            seen=repr(name[: 2 * LONGEST_NAME]),
            accepted=f"up to {LONGEST_NAME} lower-case letters, digits, dots, dashes and underscores; "
            "the first and last a letter or digit",
        )
    return name


def checked_host(host: str) -> str:
    """A DNS name or an IP address, without brackets or port.

    Raises:
        SettingsError: it is neither.

    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    labels = bare.split(".")
    numbers = all(label.isdigit() for label in labels)
    if not bare or len(bare) > 253 or numbers or not all(_LABEL.fullmatch(label) for label in labels):
        raise SettingsError(
            "not a host name or address",
            seen=repr(host[:300]),
            accepted="a DNS name such as hq.example.org or an address such as 192.0.2.7; no port, no scheme",
        )
    return bare.lower()


def join_address(host: str, port: int) -> str:
    """``host:port`` as gRPC and people write it; IPv6 in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(address: str) -> Tuple[str, int]:
    """The host and the port of ``host:port``.

    Raises:
        SettingsError: it is not of that form.

    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port[:6]) < 65536:
        raise SettingsError("not an address", seen=repr(address[:300]), accepted="host:port")
    return checked_host(host), int(port)


def checked_hosts(hosts: List[str]) -> List[str]:
    """Hosts in the given order, checked, each once."""
    return list(dict.fromkeys(checked_host(host) for host in hosts))
