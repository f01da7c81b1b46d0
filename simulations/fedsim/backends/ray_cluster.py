"""Joining a Ray cluster that is there already: the way for a simulation that outgrows one machine.

Ray's own variable ``RAY_ADDRESS`` names the cluster's head. Plants then work on any of its nodes, so the run folder and
the pictures must lie at the same place on each: that is seen to before a round begins, since a plant that finds nothing
would say so much later, and once for each plant.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedspect import console
from fedspect.errors import FederationError, WorkspaceError
from fedspect.files import write_text

ADDRESS = "RAY_ADDRESS"
MARK = ".ray-shared"
ANSWER = 10.0  # seconds in which the head must take a connection


@contextmanager
def joined_cluster(run_folder: Path, shared: Sequence[Path], **init: Any) -> Iterator[None]:
    """Connect to the cluster that ``RAY_ADDRESS`` names, for Flower's simulation to use; nothing without one.

    Raises:
        FederationError: the cluster does not answer, or is of another version of Ray or Python.
        WorkspaceError: a node does not see the run folder or the pictures.

    """
    address = os.environ.get(ADDRESS)
    if not address:
        yield
        return
    import ray

    path = os.pathsep.join(each for each in sys.path if each)
    try:
        host, _, port = address.rpartition(":")
        if port.isdigit():  # Ray itself would try for minutes
            socket.create_connection((host, int(port)), timeout=ANSWER).close()
        ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, **init)
    except (RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        raise FederationError(
            "the Ray cluster cannot be joined",
            seen=f"{ADDRESS}={address}: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}",
            accepted="host:port of a head that runs the same versions of Ray and Python",
            remedy=f"start one with 'ray start --head', or unset {ADDRESS} to stay on this machine",
        ) from error
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        processors = sum(node["Resources"].get("CPU", 0) for node in nodes)
        console.note(
            f"joined the Ray cluster at {address}: {len(nodes)} nodes, {processors:g} processors; the run folder and "
            "the pictures must lie at the same place on each"
        )
        _check_shared(nodes, run_folder, shared)
        yield
    finally:
        ray.shutdown()  # leaves the cluster as it was


def _check_shared(nodes: Sequence[Any], run_folder: Path, shared: Sequence[Path]) -> None:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    mark = os.urandom(16).hex()
    write_text(run_folder / MARK, mark)
    wanted = [str(path.resolve()) for path in (run_folder / MARK, *shared)]
    try:
        answers = [
            ray.remote(_missing)
            .options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            )
            .remote(wanted, mark)
            for node in nodes
        ]
        for node, missing in zip(nodes, ray.get(answers), strict=True):
            if missing:
                raise WorkspaceError(
                    "a node of the Ray cluster does not see what the run needs",
                    seen=f"{missing[0]} on {node['NodeManagerAddress']}",
                    accepted="the run folder and the pictures at the same place on every node",
                    remedy="put both on a file system that all nodes share, such as NFS, and name them by that path",
                )
    finally:
        (run_folder / MARK).unlink(missing_ok=True)


def _missing(paths: list[str], mark: str) -> list[str]:
    """Runs on a node: which paths are not there, the first being a file that holds ``mark``."""
    seen = [path for path in paths if not Path(path).exists()]
    if paths[0] not in seen and Path(paths[0]).read_text(encoding="utf-8") != mark:
        seen.insert(0, paths[0])
    return [str(Path(path).parent) if path == paths[0] else path for path in seen]
