"""Which keys the SuperLink lets in, and why it lets one in no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from fedserver.enrolment.plant_registry import PlantRegistry, RegisteredPlant
from fedserver.flower.control_api import Control
from fedserver.flower.node_register import Nodes, read_nodes
from fedspect.errors import ConnectionLostError, FederationError


class FakeControl:
    """The SuperLink's list of keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.silent_about: set[int] = set()

    def register(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def unregister(self, node: int) -> None:
        if node in self.silent_about:
            raise ConnectionLostError("Flower's SuperLink does not answer")
        self.keys[node - 1] = "gone"


def test_who_is_let_in_no_more_is_named_with_the_reason(tmp_path: Path) -> None:
    registry, control = PlantRegistry(tmp_path), FakeControl()
    talks: Any = control
    registry.create()
    names = ("plant-a", "plant-b", "plant-c", "plant-d")
    with registry.change() as roll:
        for name in names:
            roll.plants[name] = RegisteredPlant(name=name, state="joined", public_key=f"key of {name}")
    nodes = Nodes(registry, tmp_path / "nodes.json")
    assert nodes.follow(talks) == []
    assert control.keys == [f"key of {name}" for name in names]
    with registry.change() as roll:
        roll.plants["plant-a"].state = "left"
        roll.plants["plant-b"].state = "revoked"
        roll.plants["plant-c"].public_key = "another key"
    assert nodes.follow(talks) == [
        "plant-a left the federation",
        "plant-b was shut out",
        "plant-c goes on with another key",
    ]
    assert control.keys == ["gone", "gone", "gone", "key of plant-d", "another key"]
    assert read_nodes(tmp_path / "nodes.json") == {4: "plant-d", 5: "plant-c"}


def test_a_key_is_taken_out_at_the_next_look_where_the_superlink_did_not_answer(tmp_path: Path) -> None:
    registry, control = PlantRegistry(tmp_path), FakeControl()
    talks: Any = control
    registry.create()
    with registry.change() as roll:
        for name in ("plant-a", "plant-b"):
            roll.plants[name] = RegisteredPlant(name=name, state="joined", public_key=f"key of {name}")
    nodes = Nodes(registry, tmp_path / "nodes.json")
    nodes.follow(talks)
    with registry.change() as roll:
        for plant in roll.plants.values():
            plant.state = "revoked"
    control.silent_about = {2}
    with pytest.raises(ConnectionLostError):
        nodes.follow(talks)
    control.silent_about = set()
    assert nodes.follow(talks) == ["plant-a was shut out", "plant-b was shut out"]
    assert control.keys == ["gone", "gone"]


def test_a_device_that_was_exchanged_comes_in_only_when_the_old_key_is_out(tmp_path: Path) -> None:
    registry, control = PlantRegistry(tmp_path), FakeControl()
    talks: Any = control
    nodes = Nodes(registry, tmp_path / "nodes.json")
    nodes.admit(talks, RegisteredPlant(name="plant-a", state="joined", public_key="old key"))
    control.silent_about = {1}
    exchanged = RegisteredPlant(name="plant-a", state="joined", public_key="new key")
    with pytest.raises(ConnectionLostError):
        nodes.admit(talks, exchanged)
    control.silent_about = set()
    nodes.admit(talks, exchanged)
    assert control.keys == ["gone", "new key"]


class Refusal(grpc.RpcError):
    """gRPC's answer to a call that did not end well."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "so it is"


@pytest.mark.parametrize("call", ["unregister", "stop"])
def test_what_is_gone_already_is_fine_but_a_silent_superlink_is_not(call: str) -> None:
    control = object.__new__(Control)

    def answering(code: grpc.StatusCode) -> Any:
        def answer(request: Any, **_: Any) -> None:
            raise Refusal(code)

        return type("Stub", (), {"UnregisterNode": staticmethod(answer), "StopRun": staticmethod(answer)})()

    control._metadata = ()
    control._stub = answering(grpc.StatusCode.NOT_FOUND)
    getattr(control, call)(7)
    with pytest.raises(FederationError, match="refused a call"):
        control._call("StopRun", None)
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        control._stub = answering(code)
        with pytest.raises(ConnectionLostError):
            getattr(control, call)(7)
