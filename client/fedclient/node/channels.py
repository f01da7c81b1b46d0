"""Connections to headquarters: TLS, keepalive, and whether an HTTP proxy is in between.

gRPC follows the proxy variables of the environment by itself, sockets do not; a company sets them for every program
alike, and headquarters is often the one machine that the proxy cannot reach. So a plant goes directly unless ``proxy``
in ``plant.toml`` says otherwise, every connection of a plant follows the same setting, and loopback never goes
through a proxy.
"""

from __future__ import annotations

import base64
import http.client
import ipaddress
import os
import socket
from typing import Any
from urllib import request
from urllib.parse import unquote, urlsplit

import grpc

from fedspect.errors import SettingsError
from fedspect.protocol.limits import grpc_options
from fedspect.protocol.names import join_address, split_address

KEEPALIVE = 30.0
"""Seconds of silence after which a connection is asked whether it lives. What drops silent connections without a word
(a firewall, a NAT table) is kept from it, and a dead one is noticed."""
VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy", "grpc_address_http_proxy")

Address = tuple[str, int]


def secure_channel(
    address: Address, authority: bytes, *, largest: int, proxy: str, keepalive: float = KEEPALIVE
) -> grpc.Channel:
    """A gRPC channel to a server of ``authority``.

    Args:
        address: host and port.
        authority: its certificate, PEM.
        largest: bytes of one message.
        proxy: the setting of ``plant.toml``.
        keepalive: seconds; twice as many later a silent connection is given up.

    Raises:
        SettingsError: the proxy that should be used cannot be.

    """
    url = proxy_for(address, proxy)
    options: list[tuple[str, Any]] = [
        *grpc_options(largest),
        ("grpc.keepalive_time_ms", int(1000 * keepalive)),
        ("grpc.keepalive_timeout_ms", int(2000 * keepalive)),  # a ping waits behind an upload on a slow line
        ("grpc.http2.ping_timeout_ms", int(2000 * keepalive)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.enable_http_proxy", 0 if url is None else 1),
        ("grpc.address_http_proxy_enabled_addresses", ""),
    ]
    options += [] if url is None else [("grpc.http_proxy", url)]
    return grpc.secure_channel(
        join_address(*address), grpc.ssl_channel_credentials(authority), options=options
    )


def connect(address: Address, *, proxy: str, timeout: float) -> socket.socket:
    """A TCP connection, through the proxy (HTTP CONNECT) where the setting says so.

    Raises:
        OSError: nobody answers, or the proxy refuses.
        SettingsError: the proxy that should be used cannot be.

    """
    url = proxy_for(address, proxy)
    if url is None:
        return socket.create_connection(address, timeout=timeout)
    parts = urlsplit(url)
    tunnel = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=timeout)
    headers = {}
    if parts.username:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret).decode('ascii')}"
    tunnel.set_tunnel(*address, headers=headers)
    try:
        tunnel.connect()
    except http.client.HTTPException as error:
        raise OSError(f"the proxy {shown(url)} answers no HTTP") from error
    return tunnel.sock


def proxy_for(address: Address, setting: str) -> str | None:
    """The URL of the proxy through which a connection goes, ``None`` for none.

    Raises:
        SettingsError: it is of a kind that gRPC cannot use.

    """
    host, port = address
    if setting == "none" or is_loopback(host):
        return None
    url = setting if setting != "environment" else _of_environment(host, port)
    if url is None:
        return None
    url = url if "://" in url else f"http://{url}"
    if urlsplit(url).scheme != "http" or not urlsplit(url).hostname:
        raise SettingsError(
            "this proxy cannot be used",
            seen=shown(url),
            accepted="http://HOST:PORT",
            remedy='set proxy under [network] in plant.toml to an HTTP proxy, or to "none"',
        )
    return url


def variables() -> list[str]:
    """The variables of this process that name a proxy."""
    return sorted(name for name, value in os.environ.items() if value and name.lower() in VARIABLES)


def way(address: str, setting: str) -> str:
    """What proxies have to do with the way to ``address``, for an error or a check; empty when nothing has."""
    url = proxy_for(split_address(address), setting)
    names = ", ".join(variables())
    if url is not None:
        source = f"{names} of the environment" if setting == "environment" else "plant.toml"
        return f"through the proxy {shown(url)} ({source})"
    if names and not is_loopback(split_address(address)[0]):
        why = "no_proxy excludes it" if setting == "environment" else '[network] proxy = "none" in plant.toml'
        return f"not through the proxy that {names} names ({why})"
    return ""


def shown(url: str) -> str:
    """A proxy's URL without name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def is_loopback(host: str) -> bool:
    """Whether a connection to ``host`` does not leave this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _of_environment(host: str, port: int) -> str | None:
    found = request.getproxies_environment()
    none = {"no": found.get("no_grpc") or found.get("no", "")}
    for place in (host, join_address(host, port)):
        if request.proxy_bypass_environment(place, none):  # type: ignore[attr-defined]  # not in the stubs
            return None
    return found.get("grpc") or found.get("https") or found.get("http")
