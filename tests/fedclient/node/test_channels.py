"""Proxies between a plant and headquarters: when they are used, and what is said of them."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterator

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fedclient.node.channels import is_loopback, proxy_for, secure_channel, shown, variables, way
from fedclient.node.enrolment.trust import check_server, find_authority
from fedclient.node.flower.fleet_connection import FleetConnection, LinkLostError
from fedclient.node.home import PlantHome
from fedserver.enrolment.authority import Authority
from fedspect.errors import ConnectionLostError, EnrolmentError, SettingsError
from fedspect.protocol.join_token import JoinToken
from fedspect.protocol.limits import ping_options
from relays import ConnectProxy, Proxy

HQ = ("hq.example.org", 9094)
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("setting", ["none", "environment", DEAD])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.4.5.6", "::1"])
def test_loopback_never_goes_through_a_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str, setting: str
) -> None:
    monkeypatch.setenv("https_proxy", DEAD)
    assert is_loopback(host) and proxy_for((host, 9094), setting) is None


@pytest.mark.parametrize(
    "variable", ["grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY", "GRPC_PROXY"]
)
def test_a_variable_counts_only_where_the_plant_says_so_and_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://who:secret@proxy.example.org:3128")
    assert variables() == [variable]
    assert proxy_for(HQ, "none") is None
    assert f"not through the proxy that {variable} names" in way("hq.example.org:9094", "none")
    assert proxy_for(HQ, "environment") == "http://who:secret@proxy.example.org:3128"
    told = way("hq.example.org:9094", "environment")
    assert "proxy.example.org:3128" in told and variable in told and "secret" not in told


@pytest.mark.parametrize("variable", ["no_proxy", "NO_PROXY", "no_grpc_proxy"])
def test_what_is_excluded_is_reached_directly(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("https_proxy", "proxy.example.org:3128")
    assert proxy_for(HQ, "environment") == "http://proxy.example.org:3128"
    monkeypatch.setenv(variable, ".example.org")
    assert proxy_for(HQ, "environment") is None and proxy_for(("hq.example.net", 1), "environment")


@pytest.mark.parametrize("url", ["https://proxy:3128", "socks5://proxy:1080", "http://"])
def test_a_proxy_that_grpc_cannot_use_is_refused_with_the_mend(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("https_proxy", url)
    with pytest.raises(SettingsError, match=r"cannot be used.*plant\.toml"):
        proxy_for(HQ, "environment")
    assert shown("http://a:b@proxy:1") == "http://proxy:1"


class Server:
    """A gRPC server without a method, of an authority of its own, for the name hq.example.org."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder)
        self.authority.create("steel")
        self.authority.issue_server_certificate([HQ[0]])
        self.pem = self.authority.certificate_path.read_bytes()
        self._server = grpc.server(ThreadPoolExecutor(1), options=ping_options())
        pair = (
            self.authority.server_key_path.read_bytes(),
            self.authority.server_certificate_path.read_bytes(),
        )
        self.port = self._server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "authority")
    yield made
    made.close()


@pytest.fixture
def proxy(server: Server) -> Iterator[ConnectProxy]:
    made = ConnectProxy(server.port)
    yield made
    made.close()


def answer(channel: grpc.Channel) -> grpc.StatusCode:
    """The code of a call that the server does not know: UNIMPLEMENTED says that it was asked."""
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/nobody/knows")(b"", timeout=60.0)
    code = caught.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def test_handshakes_and_calls_go_through_the_proxy_that_the_plant_names(
    server: Server, proxy: ConnectProxy
) -> None:
    with_name = proxy.url.replace("//", "//who:secret@")
    pem, address = find_authority([HQ], server.authority.fingerprint(), proxy=with_name)
    assert pem == server.pem and address == HQ
    assert all("CONNECT hq.example.org:9094" in each for each in proxy.asked)
    assert all("Proxy-Authorization: Basic d2hvOnNlY3JldA==" in each for each in proxy.asked)
    before = len(proxy.asked)
    assert answer(secure_channel(HQ, pem, largest=1 << 20, proxy=with_name)) == grpc.StatusCode.UNIMPLEMENTED
    assert len(proxy.asked) == before + 1


def test_a_connection_that_a_firewall_has_forgotten_is_given_up_and_made_anew(server: Server) -> None:
    relay = Proxy(server.port)
    address = ("localhost", relay.port)
    with secure_channel(address, server.pem, largest=1 << 20, proxy="none", keepalive=1.0) as channel:
        assert answer(channel) == grpc.StatusCode.UNIMPLEMENTED
        relay.forget()
        assert answer(channel) == grpc.StatusCode.UNAVAILABLE  # well before its own time is over
        while (code := answer(channel)) == grpc.StatusCode.UNAVAILABLE:  # it waits a moment between two tries
            time.sleep(0.1)
        assert code == grpc.StatusCode.UNIMPLEMENTED
    relay.close()


def test_calls_to_this_machine_work_whatever_the_environment_says(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy", "GRPC_ADDRESS_HTTP_PROXY"):
        monkeypatch.setenv(name, DEAD)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "127.0.0.0/8")
    address = ("localhost", server.port)
    assert find_authority([address], server.authority.fingerprint(), proxy="environment")[1] == address
    channel = secure_channel(address, server.pem, largest=1 << 20, proxy="environment")
    assert answer(channel) == grpc.StatusCode.UNIMPLEMENTED


def test_an_error_names_the_variable_and_what_became_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", DEAD)
    with pytest.raises(ConnectionLostError, match="https_proxy of the environment"):
        find_authority([HQ], b"", proxy="environment")
    with pytest.raises(
        ConnectionLostError, match=r"not through the proxy that https_proxy names.*plant\.toml"
    ):
        find_authority([("hq.invalid", 9094)], b"")


def test_a_firewall_that_inspects_tls_is_named_by_the_certificate_that_it_shows(
    server: Server, tmp_path: Path
) -> None:
    mine = Authority(tmp_path / "mine")
    mine.create("mine")
    pem, address = mine.certificate_path.read_bytes(), ("localhost", server.port)
    link = FleetConnection(f"localhost:{server.port}", pem, ec.generate_private_key(ec.SECP384R1()))
    for attempt, kind in (
        (lambda: check_server(address, pem), EnrolmentError),
        (lambda: find_authority([address], mine.fingerprint()), EnrolmentError),
        (link.__enter__, LinkLostError),
    ):
        with pytest.raises(kind, match=r"issued by 'CN=Fedspect authority of steel'.*inspects TLS"):
            attempt()


def test_the_doctor_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server, proxy: ConnectProxy
) -> None:
    from fedclient.node.doctor import network
    from fedclient.plant_settings import SettingsFile

    home = PlantHome(tmp_path / "home")
    home.prepare()
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    token = JoinToken(
        plant="plant-a",
        token_id=b"t" * 16,
        secret=b"s" * 32,
        fingerprint=server.authority.fingerprint(),
        addresses=(HQ,),
        expires=2_000_000_000,
    )
    found = {check.name: check for check in network.invited(home, token)}["enrolment hq.example.org:9094"]
    assert found.level == "failure" and "HTTPS_PROXY" in found.found
    SettingsFile(home.folder).change({"network.proxy": "environment"})
    checks = {check.name: check for check in network.invited(home, token)}
    found = checks["enrolment hq.example.org:9094"]
    assert found.level == "ok" and f"through the proxy {proxy.url} (HTTPS_PROXY" in found.found
