from __future__ import annotations

import pytest

from fedspect.errors import SettingsError
from fedspect.protocol.names import checked_host, checked_name, join_address, split_address


@pytest.mark.parametrize("name", ["plant-a", "a", "werk.7", "plant_2", "x" * 64])
def test_a_name_of_letters_digits_and_dashes_is_accepted(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "Plant", "-a", "a-", "a/b", "../x", "a b", "ä", "x" * 65, ".", "a\n"])
def test_a_name_that_could_not_name_a_file_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="not a name"):
        checked_name(name)


@pytest.mark.parametrize(
    ("host", "kept"),
    [("HQ.Example.org", "hq.example.org"), ("192.0.2.7", "192.0.2.7"), ("[2001:DB8::1]", "2001:db8::1")],
)
def test_hosts_are_kept_in_one_spelling(host: str, kept: str) -> None:
    assert checked_host(host) == kept


@pytest.mark.parametrize("host", ["", "https://hq", "hq:9094", "a..b", "-a.org", "1.2.3", "999.1.1.1", "a b"])
def test_a_host_with_scheme_port_or_typing_slip_is_refused(host: str) -> None:
    with pytest.raises(SettingsError, match="not a host"):
        checked_host(host)


@pytest.mark.parametrize("address", [("hq.example.org", 1), ("2001:db8::1", 65535), ("10.0.0.1", 9092)])
def test_an_address_survives_being_joined_and_split(address: tuple[str, int]) -> None:
    assert split_address(join_address(*address)) == address


@pytest.mark.parametrize("address", ["hq", "hq:", "hq:0", "hq:65536", "hq:99999999999", ":9", "hq:a", "hq:²"])
def test_an_address_without_a_usable_port_is_refused(address: str) -> None:
    with pytest.raises(SettingsError):
        split_address(address)
