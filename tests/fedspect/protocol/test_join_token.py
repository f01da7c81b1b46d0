from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedspect.errors import EnrolmentError
from fedspect.protocol.join_token import (
    FINGERPRINT_BYTES,
    ID_BYTES,
    SECRET_BYTES,
    JoinToken,
    decode,
    encode,
)

TOKEN = JoinToken(
    plant="plant-a",
    expires=1_800_000_000,
    token_id=bytes(range(ID_BYTES)),
    secret=bytes(range(SECRET_BYTES)),
    fingerprint=bytes(range(FINGERPRINT_BYTES)),
    addresses=(("hq.example.org", 9094), ("192.0.2.7", 19094), ("2001:db8::1", 1)),
)

hosts = st.from_regex(r"[a-z][a-z0-9]{0,20}(\.[a-z][a-z0-9]{0,10}){0,3}", fullmatch=True)
tokens = st.builds(
    JoinToken,
    plant=st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,60}[a-z0-9])?", fullmatch=True),
    expires=st.integers(0, 2**64 - 1),
    token_id=st.binary(min_size=ID_BYTES, max_size=ID_BYTES),
    secret=st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES),
    fingerprint=st.binary(min_size=FINGERPRINT_BYTES, max_size=FINGERPRINT_BYTES),
    addresses=st.lists(st.tuples(hosts, st.integers(0, 65535)), min_size=1, max_size=5).map(tuple),
)


@given(tokens)
def test_a_token_survives_the_line_it_is_pasted_as(token: JoinToken) -> None:
    assert decode(encode(token)) == token


def test_blanks_and_line_breaks_of_a_terminal_do_not_matter() -> None:
    line = encode(TOKEN)
    assert decode(f"  {line[:40]}\n   {line[40:90]}\r\n{line[90:]}  ") == TOKEN


@given(st.data())
def test_one_changed_character_is_noticed(data: st.DataObject) -> None:
    line = encode(TOKEN)
    at = data.draw(st.integers(10, len(line) - 1))
    other = data.draw(st.sampled_from("ABCDEFabcdef0123456789-_").filter(lambda c: c != line[at]))
    try:
        changed = decode(line[:at] + other + line[at + 1 :])
    except EnrolmentError:
        return
    # Only the unused bits of the last character can change without changing a byte.
    assert at == len(line) - 1 and changed == TOKEN


@pytest.mark.parametrize("keep", range(0, len(encode(TOKEN)), 7))
def test_a_token_cut_short_is_refused(keep: int) -> None:
    with pytest.raises(EnrolmentError):
        decode(encode(TOKEN)[:keep])


@given(st.text(max_size=300) | st.text(max_size=300).map(lambda text: "fedspect1." + text))
def test_anything_else_ends_in_a_clear_error_and_never_a_traceback(text: str) -> None:
    with pytest.raises(EnrolmentError) as caught:
        decode(text)
    assert caught.value.remedy


def test_a_token_of_a_later_version_is_refused_by_name() -> None:
    with pytest.raises(EnrolmentError, match="another version"):
        decode("fedspect2." + encode(TOKEN)[10:])


def test_the_secret_stays_out_of_what_a_log_would_show() -> None:
    assert TOKEN.secret.hex() not in repr(TOKEN)
    assert str(TOKEN.secret) not in repr(TOKEN)
    assert "plant-a" in repr(TOKEN)
