"""Workers of an engine: Ray's, on a cluster or this machine, and SLURM's, through submitit.

Each begins calls of `engine.phase` elsewhere and says which have ended. What is begun when is the
engine's business.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from squeeze.errors import InputError
from squeeze.study.engine import RETRIES, Call, WorkerDiedError, Workers, phase

ENGINES = ("local", "ray", "slurm")
_NO_CLUSTER = (
    "no Ray cluster answers at {} ({}); start one with ray start --head, or leave out --address to "
    "use this machine"
)


def check_engine(engine: str, address: str | None, slurm: str | None = None) -> dict[str, Any]:
    """SLURM's options by name; raises `InputError` for an engine that there is not, or not here."""
    if engine not in ENGINES:
        raise InputError(f"--engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine != "ray" and address is not None:
        raise InputError("--address is Ray's; add --engine ray")
    if engine != "slurm" and slurm is not None:
        raise InputError("--slurm is for --engine slurm")
    package = {"ray": "ray", "slurm": "submitit"}.get(engine)
    if package is not None and importlib.util.find_spec(package) is None:
        raise InputError(f"{package} is not installed; run: pip install 'dpo-squeeze[{engine}]'")
    if engine == "slurm" and shutil.which("sbatch") is None:
        raise InputError("--engine slurm needs a machine of the cluster; there is no sbatch here")
    options: dict[str, Any] = {}
    for given in (slurm or "").split(",") if slurm else ():
        key, equals, value = (part.strip() for part in given.partition("="))
        if not (key.isidentifier() and equals and value):
            raise InputError(f"--slurm wants NAME=VALUE with commas, not {given!r}")
        options[key] = int(value) if value.isdecimal() else value
    return options


@contextmanager
def workers_of(
    engine: str, address: str | None, gpus: float | None, slurm: str | None = None
) -> Iterator[Workers]:
    """The workers of `--engine ray` or `slurm`; each phase takes one CPU and `gpus` GPUs.

    None: one, where Ray's cluster has any (it hides them from a phase that takes none), and what
    SLURM gives unasked. Raises `InputError` as `check_engine` does, and where no cluster answers.
    """
    options = check_engine(engine, address, slurm)
    with ray_workers(address, gpus) if engine == "ray" else slurm_workers(options, gpus) as found:
        yield found


@contextmanager
def ray_workers(address: str | None = None, gpus: float | None = None) -> Iterator[Workers]:
    """Those of a Ray cluster ("auto" on a machine of it); None starts Ray on this machine alone.

    Raises `InputError` where none answers, and for a phase that fails in no way of its own.
    """
    import ray

    if address is not None and (place := re.search(r"([^/@]+):(\d+)$", address)) is not None:
        try:  # Ray itself would try for minutes
            socket.create_connection((place[1], int(place[2])), timeout=10).close()
        except OSError as error:
            raise InputError(_NO_CLUSTER.format(address, error)) from error
    try:
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(_NO_CLUSTER.format(address or "this machine", error)) from error
    try:
        if gpus is None:
            gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0
        yield _Ray(ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(phase))
    except ray.exceptions.RayError as error:
        raise InputError(
            f"a phase failed on its worker, {RETRIES} times if the worker died ({error}); what "
            "was trained is kept: type the same command again"
        ) from error
    finally:
        ray.shutdown()


class _Ray:
    """Ray begins a phase again by itself where a worker dies."""

    def __init__(self, task: Any) -> None:
        self._task = task

    def begin(self, calls: Sequence[Call]) -> list[Any]:
        return [self._task.remote(*call) for call in calls]

    def ended(self, jobs: Sequence[Any]) -> list[Any]:
        import ray

        return ray.wait(list(jobs), num_returns=1, timeout=1.0)[0]

    def answer(self, job: Any) -> str | None:
        import ray

        return ray.get(job)  # type: ignore[no-any-return]


@contextmanager
def slurm_workers(
    options: dict[str, Any], gpus: float | None = None, cluster: str = "slurm"
) -> Iterator[Workers]:
    """SLURM's: phases that can begin at once are one array. `options` are submitit's parameters.

    What has not ended when the block does is cancelled. "local" as `cluster` starts processes here.
    """
    import submitit

    jobs: list[Any] = []

    def begin(calls: Sequence[Call]) -> list[Any]:
        executor = submitit.AutoExecutor(folder=calls[0][0].store / ".slurm", cluster=cluster)
        given = {"name": "squeeze", "cpus_per_task": 1} | options
        given |= {} if gpus is None else {"gpus_per_node": int(gpus)}
        try:
            executor.update_parameters(**given)
        except (NameError, TypeError, ValueError) as error:
            raise InputError(f"--slurm: submitit does not take it ({error})") from error
        with executor.batch():
            found = [executor.submit(phase, *call) for call in calls]
        jobs.extend(found)
        return found

    try:
        yield _Slurm(begin)
    finally:
        for job in jobs:
            if not job.done():
                job.cancel()


class _Slurm:
    def __init__(self, begin: Callable[[Sequence[Call]], list[Any]]) -> None:
        self.begin = begin

    def ended(self, jobs: Sequence[Any]) -> list[Any]:
        found = [job for job in jobs if job.done()]
        if not found:
            time.sleep(1.0)
        return found

    def answer(self, job: Any) -> str | None:
        from submitit.core.utils import UncompletedJobError

        try:
            return job.result()  # type: ignore[no-any-return]
        except UncompletedJobError as error:  # killed, cancelled, out of its time
            raise WorkerDiedError(str(error).strip().partition("\n")[0]) from error
