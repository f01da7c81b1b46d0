"""Callers that dawdle on the enrolment port: a call without its request, an answer that is not read."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any, Callable, Iterator

import grpc
import pytest
from office_parts import HASH, Office, join

from fedclient.node.enrolment.enrol import returned
from fedclient.node.home import PlantHome
from fedserver.enrolment import grpc_service as open_service
from fedserver.enrolment import service as enrolment
from fedserver.enrolment.rate_limits import ConcurrencyLimit
from fedserver.enrolment.server import LIMITS
from fedspect.errors import ConnectionLostError
from fedspect.protocol.enrolment_pb2 import ChallengeRequest, FetchBaseRequest
from fedspect.protocol.grpc_services import ENROLMENT
from fedspect.protocol.limits import PROTOCOL

CHALLENGE = f"/{ENROLMENT.full_name}/Challenge"
STREAMS = dict(LIMITS)["grpc.max_concurrent_streams"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def connection(office: Office, opened: ExitStack) -> grpc.Channel:
    """A connection of its own, without a key, until the test ends."""
    channel = grpc.secure_channel(
        f"localhost:{office.server.port}",
        grpc.ssl_channel_credentials(office.workspace.authority.certificate_path.read_bytes()),
        options=[("grpc.use_local_subchannel_pool", 1)],
    )
    return opened.enter_context(channel)


def hanging_calls(office: Office, opened: ExitStack, number: int, connections: int) -> list[Any]:
    """So many challenges on each of so many connections; none of their requests ever comes."""
    never = threading.Event()
    opened.callback(never.set)

    def nothing() -> Iterator[bytes]:
        never.wait()
        yield from ()

    return [
        channel.stream_unary(CHALLENGE).future(nothing())
        for channel in [connection(office, opened) for _ in range(connections)]
        for _ in range(number)
    ]


def test_calls_whose_requests_never_come_hold_up_nobody_else(
    office: Office, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_service, "REQUEST_WITHIN", 5.0)
    with ExitStack() as opened:
        calls = hanging_calls(office, opened, STREAMS, connections=6)
        assert join(home, office.token()).plant == "plant-a"
        refused = [call.exception(timeout=30) for call in calls]
        assert not any(call.cancelled() for call in calls)
    reasons = [error.details() for error in refused]
    assert sum("the request did not come" in text for text in reasons) == open_service.UNFINISHED_CALLS
    assert sum("too many unfinished calls" in text for text in reasons) == 48 - open_service.UNFINISHED_CALLS
    assert office.stub().challenge(ChallengeRequest(protocol=PROTOCOL), timeout=10).nonce


def test_a_call_that_ends_without_a_request_or_with_noise_is_told_so(office: Office) -> None:
    with ExitStack() as opened:
        call = connection(office, opened).stream_unary(CHALLENGE)
        for messages in ([], [b"\xff" * 50]):
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(messages), timeout=10)
            assert "without a request that can be read" in caught.value.details()


def test_whoever_does_not_read_a_download_is_hung_up_on(
    office: Office, home: PlantHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_service, "PIECE_WITHIN", 3.0)
    size = 30_000_000  # far more than lies between the two ends
    (office.base / "model.safetensors").write_bytes(bytes(size))
    office.server.stop()
    office.start()
    join(home, office.token())
    with returned(home, home.membership()) as session:
        request = FetchBaseRequest(
            session=session.admission.session, base_hash=HASH, name="model.safetensors"
        )
        asleep = [office.stub().fetch_base(request) for _ in range(enrolment.DOWNLOADS)]
        assert all(next(chunks).data for chunks in asleep)
        with pytest.raises(ConnectionLostError, match="too many downloads of this plant"):
            next(office.stub().fetch_base(request))
        wait_for(lambda: not office.service._downloads._counts, "the end of downloads that nobody reads")
        assert sum(len(chunk.data) for chunk in office.stub().fetch_base(request)) == size
        with pytest.raises(ConnectionLostError, match="a piece of the answer was not taken"):
            sum(len(chunk.data) for chunk in asleep[0])


def test_each_may_have_so_many_under_way_at_once() -> None:
    at_once = ConcurrencyLimit(1)
    with at_once.one("a") as first, at_once.one("a") as second, at_once.one("b") as other:
        assert (first, second, other) == (True, False, True)
    with at_once.one("a") as again:
        assert again
    assert not at_once._counts
