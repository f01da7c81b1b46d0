"""Worker lookup: a plant's worker, in whatever process it is needed.

Flower's simulation gives a node nothing but its number, and Ray may send a plant's message to any of its
processes. So a worker is made from the run folder and the plant's name, kept for the next message that
comes to the same process, and what it must remember between rounds is on its disk.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from fedclient.node.message_handler import MessageHandler, WorkerPort
from fedspect.errors import SettingsError

MOST_KEPT = 64  # workers, each with a network

_kept: OrderedDict[tuple[str, Path, str], WorkerPort] = OrderedDict()
_lock = Lock()


@dataclass(frozen=True)
class FactoryWorkers:
    """The workers of a run, by the plant's number from 0; can be sent to another process."""

    factory: str
    """``module:function``."""
    run_folder: Path
    plants: tuple[str, ...]

    def worker(self, number: int) -> WorkerPort:
        """A plant's worker, made now or kept from before."""
        plant = self.plants[number]
        key = (self.factory, self.run_folder, plant)
        with _lock:
            worker = _kept.pop(key, None)
        if worker is None:
            worker = resolve_factory(self.factory)(self.run_folder, plant)
        with _lock:
            _kept[key] = worker
            while len(_kept) > MOST_KEPT:
                _kept.popitem(last=False)
        return worker

    def handler(self, number: int) -> MessageHandler:
        """What answers a plant's messages; its worker is made when the first one comes."""
        return MessageHandler(lambda: self.worker(number))


def forget_workers() -> None:
    """Let go of this process's workers and their networks."""
    with _lock:
        _kept.clear()


def resolve_factory(name: str) -> Callable[[Path, str], WorkerPort]:
    """The function that ``module:function`` names.

    Raises:
        SettingsError: there is no such module or function.

    """
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(
            "the maker of workers cannot be found", seen=f"{name}: {error}", accepted="module:function"
        ) from error
    return function  # type: ignore[no-any-return]
