from __future__ import annotations

import json
import struct
import zlib
from typing import Any, Dict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedspect.errors import DiskFullError, UpdateFormatError
from fedspect.update.round_messages import (
    CHECKSUM,
    FRAME,
    MAX_HEADER_BYTES,
    PlantDescription,
    ReplyError,
    RoundReply,
    RoundTask,
)

BASE, VERSION, HELD = "a" * 64, "b" * 64, "c" * 64


def task(**fields: Any) -> RoundTask:
    given: Dict[str, Any] = {
        "run_id": "run-1",
        "round": 3,
        "total_rounds": 10,
        "base_hash": BASE,
        "version": VERSION,
        "payload_kind": "full",
        "payload": b"\x00\xffhead",
    }
    return RoundTask(**{**given, **fields})


def reply(**fields: Any) -> RoundReply:
    given: Dict[str, Any] = {
        "plant": "plant-1",
        "run_id": "run-1",
        "round": 3,
        "base_hash": BASE,
        "version": VERSION,
        "num_examples": 7,
        "counts": {"Crazing": 3, "Risse & Löcher": 4},
        "metrics": {"accuracy": 0.5},
        "confusion": [[1, 0], [1, 0]],
        "payload": b"change",
    }
    return RoundReply(**{**given, **fields})


def framed(header: bytes, payload: bytes = b"", kind: int = 1) -> bytes:
    frame = FRAME.pack(b"FSPX", 1, kind, len(header), len(payload))
    return (
        frame + CHECKSUM.pack(zlib.crc32(payload, zlib.crc32(header, zlib.crc32(frame)))) + header + payload
    )


def test_a_task_comes_back_as_it_was_sent() -> None:
    sent = task(payload_kind="change", holds=HELD, reply_encoding="int8", proximal_mu=0.01, seed=2**62)
    assert RoundTask.from_bytes(sent.to_bytes()) == sent


def test_a_reply_comes_back_as_it_was_sent() -> None:
    sent = reply()
    received = RoundReply.from_bytes(sent.to_bytes())
    assert received == sent
    assert (received.trained, received.payload_bytes) == (True, 6)


def test_a_description_comes_back_as_it_was_sent() -> None:
    sent = PlantDescription(
        plant="werk-süd".replace("ü", "u"), software="0.1.0", classes=["a", "b"], holds=HELD
    )
    assert PlantDescription.from_bytes(sent.to_bytes()) == sent


def test_the_same_message_has_the_same_bytes() -> None:
    assert reply().to_bytes() == reply().to_bytes()


def test_a_failure_travels_without_a_traceback() -> None:
    try:
        raise DiskFullError("no space left", seen="state")
    except DiskFullError as error:
        sent = reply(payload=b"", error=ReplyError.of(error))
    received = RoundReply.from_bytes(sent.to_bytes())
    assert received.error == ReplyError(
        kind="DiskFullError", exit_code=51, message="no space left; seen: state"
    )
    assert not received.trained


def test_an_unexpected_failure_has_exit_code_one_and_a_bounded_text() -> None:
    error = ReplyError.of(RuntimeError("x" * 10_000))
    assert (error.kind, error.exit_code, len(error.message)) == ("RuntimeError", 1, 2000)
    assert ReplyError.of(KeyError()).message == "KeyError()"


def test_a_message_larger_than_the_limit_is_refused_before_it_is_read() -> None:
    blob = reply(payload=bytes(1000)).to_bytes()
    with pytest.raises(UpdateFormatError, match="larger than any"):
        RoundReply.from_bytes(blob, max_bytes=len(blob) - 1)
    assert RoundReply.from_bytes(blob, max_bytes=len(blob))


def test_a_header_larger_than_the_limit_is_not_made() -> None:
    with pytest.raises(UpdateFormatError, match="header is too long"):
        reply(confusion=[[0] * 1000] * 1000).to_bytes()


def test_a_reply_is_not_read_as_a_task() -> None:
    with pytest.raises(UpdateFormatError, match="another kind"):
        RoundTask.from_bytes(reply().to_bytes())


def test_another_format_version_says_so() -> None:
    blob = bytearray(task().to_bytes())
    blob[4] = 9
    with pytest.raises(UpdateFormatError, match="format version; seen: 9"):
        RoundTask.from_bytes(bytes(blob))


@pytest.mark.parametrize(
    "fields",
    [
        {"round": 0},
        {"round": -1},
        {"run_id": "../../etc"},
        {"run_id": ""},
        {"base_hash": "abc"},
        {"base_hash": "A" * 64},
        {"payload_kind": "none"},
        {"payload_kind": "full", "payload": b""},
        {"payload_kind": "change"},
        {"payload_kind": "full", "holds": HELD},
        {"payload_kind": "pickle"},
        {"reply_encoding": "float8"},
        {"reply_density": 0.0},
        {"local_epochs": 0},
        {"local_epochs": 10**9},
        {"learning_rate": float("nan")},
        {"proximal_mu": -1.0},
        {"batch_norm": "none"},
        {"seed": -1},
        {"colour": "red"},
    ],
    ids=str,
)
def test_a_task_that_makes_no_sense_is_refused(fields: Dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        task(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"plant": "a/b"},
        {"plant": "x" * 65},
        {"num_examples": -1},
        {"counts": {"a": -1}},
        {"counts": {"": 1}},
        {"counts": {str(number): 1 for number in range(1001)}},
        {"metrics": {"accuracy": float("inf")}},
        {"train_loss": float("nan")},
        {"error": {"kind": "X", "message": "m"}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_reply_that_makes_no_sense_is_refused(fields: Dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        reply(**fields)


def test_a_billion_pictures_can_be_claimed_so_that_the_checks_can_name_them() -> None:
    assert RoundReply.from_bytes(reply(num_examples=10**9).to_bytes()).num_examples == 10**9


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"round": NaN}',
        b'{"payload": "x"}',
        json.dumps({**task().model_dump(), "round": "many"}).encode(),
        json.dumps({**task().model_dump(), "round": 10**400}).encode(),
    ],
    ids=["empty", "torn", "list", "null", "no fields", "not text", "deep", "nan", "payload", "word", "huge"],
)
def test_a_header_that_is_no_task_is_a_format_error(header: bytes) -> None:
    with pytest.raises(UpdateFormatError):
        RoundTask.from_bytes(framed(header, b"x"))


def test_a_header_error_names_the_field() -> None:
    header = json.dumps({**task().model_dump(), "round": 0}).encode()
    with pytest.raises(UpdateFormatError, match="not valid at round"):
        RoundTask.from_bytes(framed(header, b"x"))


def test_claimed_lengths_are_not_believed() -> None:
    for header_length, payload_length in (
        (MAX_HEADER_BYTES + 1, 0),
        (10, 2**63),
        (2**32 - 1, 2**64 - 1),
        (0, 0),
    ):
        blob = struct.pack("<4sBBIQ", b"FSPX", 1, 1, header_length, payload_length) + bytes(20)
        with pytest.raises(UpdateFormatError, match="do not add up"):
            RoundTask.from_bytes(blob)


@settings(deadline=None)
@given(st.data())
def test_every_truncation_and_every_changed_byte_is_a_format_error(data: st.DataObject) -> None:
    blob = reply().to_bytes()
    with pytest.raises(UpdateFormatError):
        RoundReply.from_bytes(blob[: data.draw(st.integers(0, len(blob) - 1))])
    mutated = bytearray(blob)
    mutated[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(UpdateFormatError):
        RoundReply.from_bytes(bytes(mutated))


@settings(deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=20), st.sampled_from([1, 2, 3]))
def test_any_header_is_read_or_a_format_error(header: bytes, payload: bytes, kind: int) -> None:
    read = {1: RoundTask.from_bytes, 2: RoundReply.from_bytes, 3: PlantDescription.from_bytes}[kind]
    with pytest.raises(UpdateFormatError):
        read(framed(header, payload, kind))


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError):
        task().round = 4
