"""TensorRT's Python API from 8.5 to 11: the differences, in one place.

Names are looked for, never versions compared: 8.x wants networks with an explicit batch, where 11 knows no
other; up to 10 a flag asks for FP16, 11 takes the precision of the ONNX; from 10 a build tells its progress.
Nothing here imports TensorRT by itself: the module is handed in, or found by name when it is needed.
"""

from __future__ import annotations

import importlib
from collections import deque
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple, Type

from fedspect.errors import EngineError, EngineMemoryError

MODULES = ("tensorrt", "tensorrt_rtx_bindings")
TYPES: Dict[str, str] = {
    "FLOAT": "float32",
    "HALF": "float16",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}
"""TensorRT's names of types; its own ``nptype`` fails under numpy 1.24 in 8.5."""
MEMORY_WORDS = ("out of memory", "outofmemory", "insufficient memory", "cannot allocate", "bad_alloc")
LAST_WORDS = 3
INFO = 3  # severities from 0 (internal error) to 4 (verbose)


def find_tensorrt(name: Optional[str] = None) -> Any:
    """The module called ``name``, or whichever of the usual ones is installed.

    Raises:
        EngineError: there is none, or it does not load.

    """
    reasons = []
    for each in (name,) if name else MODULES:
        try:
            return importlib.import_module(each)
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{each}: {error}")
    raise EngineError(
        "TensorRT is not installed for this Python",
        seen="; ".join(reasons),
        accepted="versions 8.5 to 11",
        remedy="on a Jetson use the system's own Python, which JetPack gives TensorRT; elsewhere onnxruntime",
    )


def version_of(tensorrt: Any) -> str:
    """The version and, where the module is not NVIDIA's usual one, the module: plans belong to both."""
    name = str(getattr(tensorrt, "__name__", "tensorrt"))
    version = str(tensorrt.__version__)
    return version if name == "tensorrt" else f"{version}-{name}"


class Words:
    """TensorRT's log messages, the last lines. ``logger`` goes to its constructors. ``logger`` goes to its
    constructors.
    """

    def __init__(self, tensorrt: Any) -> None:
        self._lines: Deque[Tuple[int, str]] = deque(maxlen=200)
        self.logger = _logger_class(tensorrt)(self._keep)

    def complaints(self) -> str:
        """The last warnings and errors, or failing those the last lines; one line of text."""
        worst = [text for severity, text in self._lines if severity < INFO]
        lines = worst or [text for _, text in self._lines]
        return " | ".join(line.strip()[:300] for line in lines[-LAST_WORDS:]) or "it said nothing"

    def error(self, what: str, *, detail: Optional[str] = None, remedy: str) -> EngineError:
        """The error that these words mean: too little memory is told apart."""
        seen = f"{detail}: {self.complaints()}" if detail else self.complaints()
        if speaks_of_memory(" ".join(text for severity, text in self._lines if severity < INFO)):
            return memory_error(what, seen)
        return EngineError(what, seen=seen, remedy=remedy)

    def _keep(self, severity: int, text: str) -> None:
        if severity <= INFO:
            self._lines.append((severity, text))


def speaks_of_memory(text: str) -> bool:
    """Whether an error's words mean that memory ran out."""
    return any(words in text.lower() for words in MEMORY_WORDS)


def memory_error(what: str, seen: object) -> EngineMemoryError:
    """Too little memory, and what helps."""
    return EngineMemoryError(
        f"{what}: too little memory",
        seen=seen,
        remedy="pause training on this device, close other programs, or choose a smaller batch; "
        "the line keeps its engine",
    )


def network_flags(tensorrt: Any) -> int:
    """Flags for ``create_network``: an explicit batch where the version knows another."""
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH", None)
    return 0 if flag is None else 1 << int(flag)


def half_flag(tensorrt: Any) -> Optional[Any]:
    """The builder's flag for FP16; ``None`` where the ONNX itself must be FP16."""
    return getattr(tensorrt.BuilderFlag, "FP16", None)


def type_name(kind: Any) -> str:
    """The numpy name of a TensorRT type; raises ``EngineError`` for one that no engine of ours has."""
    name = str(kind.name)
    if name not in TYPES:
        raise EngineError("a tensor has a type that numpy lacks", seen=name, accepted=", ".join(TYPES))
    return TYPES[name]


def parser_errors(parser: Any) -> str:
    """What a parser found, with the node's place."""
    errors: List[str] = []
    for place in range(min(int(parser.num_errors), LAST_WORDS)):
        error = parser.get_error(place)
        errors.append(f"node {error.node()}: {error.desc()}")
    return " | ".join(errors) or "it said nothing"


def progress_monitor(tensorrt: Any, tell: Callable[[float], bool]) -> Optional[Any]:
    """A monitor that reckons the share of the outermost phase; ``tell`` answers whether to go on.

    ``None`` where the version has none (before 10).
    """
    if not hasattr(tensorrt, "IProgressMonitor"):
        return None
    base: Type[Any] = tensorrt.IProgressMonitor

    class Monitor(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._phases: Dict[str, Tuple[Optional[str], int, int]] = {}  # parent, steps, steps done

        def phase_start(self, phase_name: str, parent_phase: Optional[str], num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, max(1, num_steps), 0)

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self._phases:
                parent, steps, _ = self._phases[phase_name]
                self._phases[phase_name] = (parent, steps, step + 1)
            outer = [name for name, (parent, _, _) in list(self._phases.items()) if not parent]
            return tell(max((self._share(name) for name in outer), default=0.0))

        def _share(self, name: str) -> float:
            _, steps, done = self._phases[name]
            inner = [self._share(each) for each, (up, _, _) in list(self._phases.items()) if up == name]
            return min(1.0, (done + max(inner, default=0.0)) / steps)

    return Monitor()


def _logger_class(tensorrt: Any) -> Any:
    base: Type[Any] = tensorrt.ILogger

    class Logger(base):  # type: ignore[misc]
        def __init__(self, keep: Callable[[int, str], None]) -> None:
            base.__init__(self)
            self._keep = keep

        def log(self, severity: Any, msg: str) -> None:
            self._keep(int(severity), str(msg))

    return Logger
