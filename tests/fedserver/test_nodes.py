"""Which keys the SuperLink lets in, and why it lets one in no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedserver.nodes import Nodes, read_nodes
from fedserver.registry import Plant, Registry


class Control:
    """The SuperLink's list of keys."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def register(self, key: str) -> int:
        self.keys.append(key)
        return len(self.keys)

    def unregister(self, node: int) -> None:
        self.keys[node - 1] = "gone"


def test_who_is_let_in_no_more_is_named_with_the_reason(tmp_path: Path) -> None:
    registry, control = Registry(tmp_path), Control()
    talks: Any = control
    registry.create()
    names = ("plant-a", "plant-b", "plant-c", "plant-d")
    with registry.change() as roll:
        for name in names:
            roll.plants[name] = Plant(name=name, state="joined", public_key=f"key of {name}")
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
