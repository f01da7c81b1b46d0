"""A line that never stops asking: an unmodified Triton client in threads, and everything that it was told."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, List

import numpy as np
import tritonclient.grpc as triton
from link_parts import wait_for
from tritonclient.utils import InferenceServerException

MODEL = "surface"
PAUSE = 0.05
"""Seconds between two questions of one client: a line that leaves processors to training."""


class Load:
    """Several clients that ask one device about pictures until they are told to end."""

    def __init__(self, address: str, pictures: List[Path], clients: int = 2) -> None:
        self.address = address
        self.contents = [path.read_bytes() for path in pictures]
        self.versions: Counter[str] = Counter()
        """Answers by the version that gave them."""
        self.errors: List[str] = []
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        with triton.InferenceServerClient(self.address) as client:
            wait_for(lambda: ready(client), f"a line at {self.address}")
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def wait_for_version(self, number: int) -> None:
        wait_for(lambda: self.versions[str(number)] or self.errors, f"version {number} at {self.address}")
        assert self.errors == []

    def answers_of(self, number: int, seconds: float = 2.0) -> int:
        """Answers of one version within some seconds from now."""
        before = self.versions[str(number)]
        time.sleep(seconds)
        return self.versions[str(number)] - before

    def _ask(self, number: int) -> None:
        with triton.InferenceServerClient(self.address) as client:
            place = number
            while not self._end.is_set():
                place = (place + 1) % len(self.contents)
                try:
                    response = client.infer(MODEL, [encoded(self.contents[place])]).get_response()
                except InferenceServerException as error:
                    with self._lock:
                        self.errors.append(str(error))
                    return
                with self._lock:
                    self.versions[response.model_version] += 1
                time.sleep(PAUSE)


def ready(client: Any) -> bool:
    try:
        return bool(client.is_model_ready(MODEL))
    except InferenceServerException:
        return False


def encoded(content: bytes) -> Any:
    given = triton.InferInput("picture", [1], "BYTES")
    given.set_data_from_numpy(np.array([content], dtype=np.object_))
    return given


def classes_told(address: str, pictures: List[Path]) -> List[str]:
    """What a device calls each picture."""
    with triton.InferenceServerClient(address) as client:
        replies = [client.infer(MODEL, [encoded(path.read_bytes())]) for path in pictures]
    return [str(reply.as_numpy("class")[0], "utf-8") for reply in replies]
