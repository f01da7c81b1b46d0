"""Node register: which of Flower's nodes is which plant: kept by the running server, read by its ServerApp."""

from __future__ import annotations

import threading
from pathlib import Path

from fedserver.enrolment.plant_registry import PlantRegistry, RegisteredPlant
from fedserver.flower.control_api import Control
from fedspect import files

NODES_FILE = "nodes.json"


def read_nodes(path: Path) -> dict[int, str]:
    """Plants by node number."""
    try:
        return {int(node): str(plant) for node, plant in files.read_json(path).items()}
    except FileNotFoundError:
        return {}


class Nodes:
    """Makes the SuperLink's list of keys follow the registry, and remembers who got which number."""

    def __init__(self, registry: PlantRegistry, path: Path) -> None:
        self._registry = registry
        self._path = path
        self._keys: dict[str, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._seen: object = None

    def reset(self) -> None:
        """Forget everything: the SuperLink was started anew."""
        with self._lock:
            self._keys.clear()
            self._seen = None
            self._write()

    def follow(self, control: Control) -> list[str]:
        """Let in and shut out what the registry says; answers in words who was let go of, and why.

        Cheap when nothing has changed.

        Raises:
            ConnectionLostError: the SuperLink does not answer; the next call goes on where this one stopped.

        """
        seen = self._registry.stamp()
        if seen == self._seen:
            return []
        with self._lock:
            plants = self._registry.read().plants
            joined = {plant.name: plant for plant in plants.values() if plant.state == "joined"}
            gone = [
                name
                for name, (key, _) in self._keys.items()
                if name not in joined or joined[name].public_key != key
            ]
            for name in gone:
                control.unregister(self._keys[name][1])
            for name in gone:  # all of them are out; one call that fails is made again at the next look
                del self._keys[name]
            for plant in sorted(joined.values(), key=lambda each: each.name):
                self._admit(control, plant)
            self._write()
        self._seen = seen
        return [f"{name} {_why(plants.get(name))}" for name in gone]

    def admit(self, control: Control, plant: RegisteredPlant) -> None:
        """Let one plant in now, without waiting for the next look at the registry."""
        with self._lock:
            known = self._keys.get(plant.name)
            if known is not None and known[0] != plant.public_key:
                control.unregister(known[1])
                del self._keys[plant.name]
            self._admit(control, plant)
            self._write()

    def plants(self, nodes: set[int]) -> list[str]:
        """The plants behind these nodes, by name."""
        with self._lock:
            return sorted(name for name, (_, node) in self._keys.items() if node in nodes)

    def _admit(self, control: Control, plant: RegisteredPlant) -> None:
        if plant.name not in self._keys and plant.public_key is not None:
            self._keys[plant.name] = (plant.public_key, control.register(plant.public_key))

    def _write(self) -> None:
        files.write_json(self._path, {str(node): name for name, (_, node) in sorted(self._keys.items())})


def _why(plant: RegisteredPlant | None) -> str:
    """Why a plant's key is let in no more."""
    state = None if plant is None else plant.state
    return {"left": "left the federation", "joined": "goes on with another key"}.get(
        str(state), "was shut out"
    )
