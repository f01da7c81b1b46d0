"""A worker that needs no torch: its step is always the same, and it misbehaves on request.

It is the real worker's process (``fedclient.worker.service``) with other work inside, named to
`fedclient join` as ``--worker-python`` (see ``tiny_parts.worker_command``). The head is whatever
``model.safetensors`` of the base model holds. Each round adds ``STEP`` to every value, so the head itself
tells how many rounds went into it. ``behaviour.json`` in the plant's home says how the next piece of work
goes; ``at-work`` is there while it lasts, with the process and the round.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import numpy as np
import safetensors.numpy

from fedclient.worker import service
from fedspect.errors import UpdateError
from fedspect.protocol.worker_pb2 import AboutReply, AboutRequest
from fedspect.update.downlink import receive_head
from fedspect.update.encoding import encode, seal
from fedspect.update.round_messages import PlantDescription, ReplyError, RoundReply, RoundTask
from fedspect.update.schema import Arrays, Schema

STEP = 0.0625
PICTURES = 12  # of each class
LOOK = 0.02


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """``behaviour.json``: how long the work takes, and what is wrong with the answer."""

    seconds: float = 0.0
    fault: str = ""
    once: bool = False
    """The fault is over after one answer: ``behaviour.json`` goes."""
    name: str = ""
    """Another plant's name to describe itself by."""
    dies: bool = False
    """The worker does not survive its work."""
    pictures: int = PICTURES
    """Of each class, as it says."""
    noise: bool = False
    """Change every value by something else, as training does; costs more to encode and to send."""

    @staticmethod
    def path(home: Path) -> Path:
        return home / "behaviour.json"

    @classmethod
    def read(cls, home: Path) -> Behaviour:
        path = cls.path(home)
        return cls(**json.loads(path.read_text())) if path.exists() else cls()


class TinyPlant:
    """What the service takes for its site and its worker."""

    def __init__(self, settings: Dict[str, Any]) -> None:
        self.name = str(settings["plant"])
        self.classes = list(settings["classes"])
        self.home = Path(settings["state"]).parent
        self.base = Path(settings["base"])
        self.start = safetensors.numpy.load_file(str(self.base / "model.safetensors"))
        self.base_hash = json.loads((self.base / "card.json").read_text())["content_hash"]
        self.schema = Schema.of(self.start)
        self.counts = dict.fromkeys(self.classes, PICTURES)
        self.held: Optional[Tuple[str, Arrays]] = None

    def report(self) -> Dict[str, Any]:
        return {"counts": self.counts, "problems": {}}

    def describe(self) -> PlantDescription:
        behaviour = Behaviour.read(self.home)
        return PlantDescription(
            plant=behaviour.name or self.name,
            software="tiny",
            classes=self.classes,
            counts=dict.fromkeys(self.classes, behaviour.pictures),
            base_hash=self.base_hash,
            holds=None if self.held is None else self.held[0],
        )

    def work_bytes(self, message: bytes, progress: Any = None) -> bytes:
        task = RoundTask.from_bytes(message)
        behaviour = Behaviour.read(self.home)
        mark = self.home / "at-work"
        mark.write_text(f"{os.getpid()} {task.round}")
        started = time.perf_counter()
        if behaviour.dies:
            os.kill(os.getpid(), 9)
        while time.perf_counter() - started < behaviour.seconds:
            time.sleep(LOOK)
        try:
            reply = self._reply(task, behaviour)
        except UpdateError as error:  # it was killed and holds no head any more
            reply = RoundReply(
                plant=self.name, run_id=task.run_id, round=task.round, base_hash=self.base_hash,
                version=task.version, error=ReplyError.of(error),
            )  # fmt: skip
        reply = reply.model_copy(update={"seconds": {"total": time.perf_counter() - started}})
        mark.unlink(missing_ok=True)
        if behaviour.once:
            Behaviour.path(self.home).unlink()
        return self._spoilt(reply.to_bytes(), behaviour.fault)

    def _reply(self, task: RoundTask, behaviour: Behaviour) -> RoundReply:
        held = self.held[1] if self.held is not None else None
        head = receive_head(
            task.payload_kind, task.payload, version=task.version, schema=self.schema, held=held
        )
        self.held = (task.version, head)
        fault = behaviour.fault
        pictures = 10**9 if fault == "a billion pictures" else behaviour.pictures
        counts = dict.fromkeys(self.classes, pictures)
        reply = RoundReply(
            plant=self.name,
            run_id=task.run_id,
            round=task.round,
            base_hash="0" * 64 if fault == "another base model" else self.base_hash,
            version=task.version,
            holds=task.version,
            encoding=task.reply_encoding,
            num_examples=sum(counts.values()) if task.train else 0,
            counts=counts if task.train else {},
            evaluated=PICTURES,
            metrics={"accuracy": min(1.0, 0.5 + task.round / 100), "loss": 1.0 / task.round},
            train_loss=1.0 / task.round,
        )
        if not task.train:
            return reply
        change = {name: np.full(values.shape, STEP, np.float32) for name, values in head.items()}
        if behaviour.noise:
            draw = np.random.default_rng(task.round)
            change = {name: 1e-3 * draw.normal(size=v.shape).astype(np.float32) for name, v in head.items()}
        return reply.model_copy(update={"payload": self._payload(change, task.reply_encoding, fault)})

    def _payload(self, change: Dict[str, np.ndarray], encoding: str, fault: str) -> bytes:
        crafted = {"not a number": np.nan, "infinite": np.inf, "huge": 1e30}
        if fault in crafted:
            values = np.zeros(self.schema.elements, dtype="<f4")
            values[self.schema.elements // 2] = crafted[fault]
            return seal("float32", self.schema, values.tobytes())
        if fault == "another shape":
            change = {name: np.full((7, 5), STEP, np.float32) for name in change}
        blob = encode(change, encoding=encoding)
        return blob[: len(blob) // 2] if fault == "a truncated update" else blob

    @staticmethod
    def _spoilt(message: bytes, fault: str) -> bytes:
        if fault == "a truncated message":
            return message[:-20]
        if fault == "noise":
            return bytes(range(256)) * 40
        if fault == "an answer of fifty megabytes":
            return message + bytes(50 << 20)
        return message


class TinyService(service.WorkerService):
    """The worker's service around a ``TinyPlant``."""

    def about(self, request: AboutRequest, context: Any) -> AboutReply:
        return AboutReply(json=json.dumps({"python": sys.version.split()[0], "torch": None}))

    def _found(self, report: Any) -> Any:
        return self._built(report)

    def _built(self, report: Any) -> Any:
        if self._worker is None:
            self._worker = TinyPlant(json.loads(self._settings_path.read_text()))
        return self._worker


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:2] != ["-m", "fedclient.worker.service"]:
        os.execv(sys.executable, [sys.executable, *arguments])  # what else a node asks of its worker's Python
    vars(service)["WorkerService"] = TinyService
    sys.exit(service.main(arguments[2:]))
