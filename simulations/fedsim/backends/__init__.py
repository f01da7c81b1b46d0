"""Simulation backends: the same rounds, with the plants in this process or in Flower's simulation on Ray.

``run_backend`` is all that the rest of ``fedsim`` needs. A job says what to run; its workers are named as
``module:function``, because Ray's processes have to make them anew. For the same job both backends come to
the same model, bit for bit when the workers compute with one thread.
"""

from __future__ import annotations

from collections.abc import Callable

from fedserver.rounds.events import OnEvent, RunFinished, ignore
from fedsim.backends.job import SimulationJob, prepare_run
from fedsim.backends.outcome import never
from fedspect.errors import SettingsError, did_you_mean

__all__ = ["SimulationJob", "backend_names", "prepare_run", "run_backend"]


def backend_names() -> list[str]:
    """The names that ``run_backend`` accepts."""
    return ["local", "ray"]


def run_backend(
    name: str,
    job: SimulationJob,
    on_event: OnEvent = ignore,
    *,
    should_stop: Callable[[], bool] = never,
) -> RunFinished:
    """Run a job, or go on with it where it was cut.

    Args:
        name: ``local`` or ``ray``.
        job: what to run.
        on_event: is told what happens; with Ray, in another thread of this process.
        should_stop: asked between answers.

    Raises:
        SettingsError: there is no such backend, or the run folder holds another run.
        QuorumError: too few plants answered.
        InterruptedRunError: Ctrl-C or ``should_stop``; the next call goes on.

    """
    if name == "local":
        from fedsim.backends.local import run_local as run
    elif name == "ray":
        from fedsim.backends.ray import run_ray as run
    else:
        raise SettingsError(
            "there is no such backend",
            seen=name,
            accepted=", ".join(backend_names()),
            remedy=did_you_mean(name, backend_names()),
        )
    return run(job, on_event, should_stop)
