"""Runs work for a command in the worker's interpreter, which has torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from fedclient.node.home import PlantHome
from fedspect.errors import WorkerError, WorkspaceError, error_from

Progress = Callable[[str, int, int], None]


def ask_worker(home: PlantHome, module: str, arguments: list[str], progress: Progress) -> Any:
    """Run ``python -m module`` (which uses ``fedclient.worker.child_process``) and return its reply.

    Raises:
        FedspectError: what the worker raised.
        WorkerError: it cannot be started, or ended without an answer.

    """
    command = [_python(home), "-m", module, "--settings", str(home.folder / "worker.json"), *arguments]
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    except OSError as error:
        raise WorkerError(
            "the worker's interpreter cannot be started",
            seen=f"{command[0]}: {error.strerror}",
            remedy="name the interpreter that has torch: fedclient join --worker-python PATH",
        ) from error
    assert child.stdout is not None
    try:
        for line in child.stdout:
            said = json.loads(line)
            if "reply" in said:
                return said["reply"]
            failure = error_from(said.get("error"))
            if failure is not None:
                raise failure
            progress(*said["progress"])
    finally:
        child.kill()
        code = child.wait()
        child.stdout.close()
    raise WorkerError("the worker ended without an answer", seen=f"exit code {code}")


def _python(home: PlantHome) -> str:
    try:
        return home.membership().worker_python or sys.executable
    except WorkspaceError:
        return sys.executable
