from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509

import fedserver.enrolment.authority as module
from fedserver.enrolment.authority import Authority
from fedspect.errors import DamagedFileError, WorkspaceError


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "authority")
    made.create("steel")
    made.issue_server_certificate(["hq.example.org", "192.0.2.7", "2001:db8::1"])
    return made


def handshake(authority: Authority, trusted: Path, server_name: str) -> None:
    """One TLS connection over a real socket; raises what the client's library raises."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(authority.server_certificate_path, authority.server_key_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            try:
                server_context.wrap_socket(connection, server_side=True).close()
            except (ssl.SSLError, OSError):
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        client_context = ssl.create_default_context(cafile=str(trusted))
        try:
            with socket.create_connection(listener.getsockname(), timeout=10) as raw:
                client_context.wrap_socket(raw, server_hostname=server_name).close()
        finally:
            thread.join()


@pytest.mark.parametrize(
    "name", ["hq.example.org", "192.0.2.7", "2001:db8::1", "localhost", "127.0.0.1", "::1"]
)
def test_a_client_that_trusts_the_authority_accepts_every_name(authority: Authority, name: str) -> None:
    handshake(authority, authority.certificate_path, name)


def test_a_name_that_was_not_given_is_refused_by_a_client(authority: Authority) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, authority.certificate_path, "other.example.org")


def test_a_client_of_another_authority_refuses_the_server(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    other.create("steel")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority, other.certificate_path, "localhost")


def test_a_second_authority_never_replaces_the_first(authority: Authority) -> None:
    before = authority.fingerprint()
    with pytest.raises(WorkspaceError):
        authority.create("steel")
    assert authority.fingerprint() == before


def test_a_new_server_certificate_is_of_the_same_authority(authority: Authority) -> None:
    before, old = authority.fingerprint(), authority.server_certificate_path.read_bytes()
    authority.issue_server_certificate(["new.example.org"])
    assert authority.fingerprint() == before
    assert authority.server_certificate_path.read_bytes() != old
    handshake(authority, authority.certificate_path, "new.example.org")


def test_certificates_hold_for_a_device_whose_clock_lags_a_day(authority: Authority) -> None:
    yesterday = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    for certificate in x509.load_pem_x509_certificates(authority.server_certificate_path.read_bytes()):
        assert certificate.not_valid_before_utc < yesterday


def test_the_server_certificate_is_renewed_for_a_new_name_only(authority: Authority) -> None:
    assert authority.renewal_reason(["hq.example.org", "192.0.2.7"]) is None
    assert "new.example.org" in (authority.renewal_reason(["hq.example.org", "new.example.org"]) or "")


def test_the_server_certificate_is_renewed_before_it_expires(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SERVER_DAYS", module.RENEW_DAYS - 1)
    authority.issue_server_certificate(["hq.example.org"])
    assert authority.renewal_reason(["hq.example.org"]) == "the old one is about to expire"


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_damaged_server_certificate_is_replaced_and_a_damaged_authority_named(
    authority: Authority, content: bytes
) -> None:
    authority.server_certificate_path.write_bytes(content)
    assert authority.renewal_reason(["hq.example.org"]) == "the old one cannot be read"
    authority.certificate_path.write_bytes(content)
    with pytest.raises(DamagedFileError, match=r"authority\.pem"):
        authority.fingerprint()
