"""Workers as jobs of a queue, by dask-jobqueue: Slurm, PBS, LSF, SGE."""

import sys
from asyncio import create_task, sleep
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from dask.utils import parse_bytes
from distributed.core import Status
from distributed.utils import get_ip_interface

from models.errors import ClusterError

from ..options import Cluster
from ..tls import NEW, security_of

LIBRARY = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
LOOK = 3.0  # seconds between two looks at the queue
MARGIN = 300.0  # seconds before its wall time at which a worker hands its work back, at most
SQUEUE = ["squeue", "--noheader", "--format=%i|%T|%r"]


@dataclass(frozen=True)
class QueueProfile:
    """Workers as jobs of a queue.

    Parameters
    ----------
    interface
        Network interface by which scheduler and workers speak to each other; they listen on no other.
    cores
        Of each job.
    memory
        Of each job.
    walltime
        Of each job, as hours:minutes:seconds. A worker hands its blocks back a little before.
    jobs
        How many jobs; those that end are replaced while the run lasts. With `maximum_jobs`, the fewest.
    maximum_jobs
        The most jobs, of which there are as many as the work needs. 0: always `jobs`.
    processes
        Workers in each job, which share its cores and memory.
    queue
        Where jobs wait: Slurm's partition.
    account
        Which is charged: a project in LSF and SGE.
    gpus
        Of each job, in Slurm; for other queues, ask by `directives`.
    directives
        Further options of the job, as they stand in a job script after `#SBATCH` or the like.
    environment
        Lines of shell that run before a worker starts, as `module load gdal`.
    python
        The interpreter on the nodes. Empty: the path of the one that starts the run.
    scheduler_host
        Address at which the scheduler listens. Empty: that of `interface`.
    shared_folder
        Folder that all nodes see, for the certificates of `--tls new`.
    """

    interface: str = field(metadata={"example": "eth0"})
    cores: int = field(metadata={"example": 4})
    memory: str = field(metadata={"example": "16GB"})
    walltime: str = "01:00:00"
    jobs: int = 1
    maximum_jobs: int = 0
    processes: int = 1
    queue: str = field(default="", metadata={"example": "normal"})
    account: str = field(default="", metadata={"example": "my-project"})
    gpus: int = 0
    directives: tuple[str, ...] = field(default=(), metadata={"example": ("--exclusive",)})
    environment: tuple[str, ...] = field(default=(), metadata={"example": ("module load gdal",)})
    python: str = field(default="", metadata={"example": "/shared/venv/bin/python"})
    scheduler_host: str = field(default="", metadata={"example": "10.0.0.1"})
    shared_folder: str = field(default="", metadata={"example": "/shared/scratch"})

    def __post_init__(self) -> None:
        if min(self.cores, self.jobs, self.processes) < 1 or self.gpus < 0:
            raise ClusterError("cores, jobs and processes are 1 or more, gpus 0 or more")
        if self.maximum_jobs and self.maximum_jobs < self.jobs:
            raise ClusterError(f"maximum_jobs is {self.maximum_jobs}, and jobs, the fewest, {self.jobs}")
        try:
            parse_bytes(self.memory)
        except ValueError as error:
            raise ClusterError(f"memory is {self.memory!r}; give it as 16GB") from error
        seconds(self.walltime)

    @property
    def on_this_machine(self) -> bool:
        """Whether all that is started listens to this machine alone."""
        return self.interface == "lo" and self.scheduler_host in ("", "127.0.0.1")


SlurmProfile = PbsProfile = LsfProfile = SgeProfile = QueueProfile


def seconds(walltime: str) -> float:
    """Return how long hours:minutes:seconds, or hours:minutes, are.

    Raises
    ------
    ClusterError
        It is no such time.
    """
    parts = walltime.split(":")
    if len(parts) not in (2, 3) or not all(part.isdecimal() for part in parts) or not any(map(int, parts)):
        raise ClusterError(f"walltime is {walltime!r}; give it as hours:minutes:seconds, 01:30:00")
    return float(sum(int(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=False)))


def arguments(kind: str, profile: QueueProfile, options: Cluster) -> dict[str, Any]:
    """Return what dask-jobqueue's class takes for a profile.

    Raises
    ------
    ClusterError
        This machine has no such interface; `--tls new` without a folder that all nodes see; GPUs of another queue.
    """
    if profile.gpus and kind != "slurm":
        raise ClusterError(f"gpus is for Slurm; ask {kind} for them by `directives`")
    if options.tls == NEW and not profile.shared_folder:
        raise ClusterError("--tls new needs `shared_folder` in the profile, where the nodes find the certificates")
    try:
        host = profile.scheduler_host or get_ip_interface(profile.interface)
    except ValueError as error:
        raise ClusterError(f"interface {profile.interface!r}: {error}") from error
    security = security_of(options)
    account = {"account" if kind in ("slurm", "pbs") else "project": profile.account or None}
    return account | {
        "queue": profile.queue or None,
        "cores": profile.cores,
        "memory": profile.memory,
        "processes": profile.processes,
        "walltime": profile.walltime[:-3] if kind == "lsf" and profile.walltime.count(":") == 2 else profile.walltime,
        "interface": profile.interface,
        "python": profile.python or sys.executable,
        "nanny": True,
        "death_timeout": 300,
        "job_extra_directives": [*profile.directives, *([f"--gres=gpu:{profile.gpus}"] if profile.gpus else [])],
        "job_script_prologue": list(profile.environment),
        "worker_extra_args": _worker_options(seconds(profile.walltime)),
        "scheduler_options": {"host": host, "dashboard_address": f"{host}:0"},
        "security": security,
        "protocol": "tls://" if security else "tcp://",
        "shared_temp_directory": profile.shared_folder or None,
        "log_directory": None,
        "silence_logs": False,
    }


def _worker_options(walltime: float) -> list[str]:
    """Workers leave at times of their own, all before the queue ends their jobs."""
    margin = min(MARGIN, walltime / 4)
    return [
        "--lifetime", f"{walltime - margin:.0f}s", "--lifetime-stagger", f"{margin / 2:.0f}s",
        "--dashboard-address", "127.0.0.1:0",  # by Dask's default, on all addresses
    ]  # fmt: skip


def start(profile: QueueProfile, options: Cluster) -> Any:
    """Start a scheduler here, and submit jobs whose workers come to it.

    Raises
    ------
    ClusterError
        As `arguments`.
    """
    kind = str(options.scheduler).partition(":")[0]
    library = getattr(import_module("dask_jobqueue"), LIBRARY[kind])
    cluster = library(**arguments(kind, profile, options))
    if profile.maximum_jobs:
        cluster.adapt(minimum_jobs=profile.jobs, maximum_jobs=profile.maximum_jobs)
    else:
        cluster.scale(jobs=profile.jobs)
    queue = _Queue(cluster, kind)
    cluster.waiting_for = queue.words
    cluster.loop.add_callback(queue.watch)
    return cluster


class _Queue:
    """Replaces jobs that ended while their cluster lasts, and knows what the others wait for."""

    def __init__(self, cluster: Any, kind: str) -> None:
        self.cluster = cluster
        self.kind = kind
        self.pending = Counter[str]()  # by the queue's reason

    def words(self) -> str:
        """Say what the queue is at, as "2 Slurm jobs pending (Resources)"."""
        count = self.pending.total()
        reasons = ", ".join(reason for reason in sorted(self.pending) if reason != "None")
        what = f"{count} Slurm job{'s' if count > 1 else ''} pending"
        return (f"{what} ({reasons})" if reasons else what) if count else ""

    async def watch(self) -> None:
        """Look at the queue again and again."""
        while self.cluster.status in (Status.created, Status.starting, Status.running):
            with suppress(RuntimeError, OSError):  # a queue that does not answer is asked again
                if self.kind == "slurm":
                    await self._look()
                await self.cluster._correct_state()
            await sleep(LOOK)

    async def _look(self) -> None:
        """Forget the jobs that Slurm no longer knows, so that others are submitted in their place."""
        jobs = {name: job for name, job in self.cluster.workers.items() if getattr(job, "job_id", None)}
        told = [line.split("|") for line in (await self.cluster.job_cls._call(SQUEUE)).splitlines()]
        known = {number: (state, reason) for number, state, reason in (line for line in told if len(line) == 3)}
        states = [known[str(job.job_id)] for job in jobs.values() if str(job.job_id) in known]
        self.pending = Counter(reason for state, reason in states if state == "PENDING")
        for name, job in jobs.items():
            if str(job.job_id) not in known and self.cluster.workers.get(name) is job:
                del self.cluster.workers[name]
                create_task(job.close()).add_done_callback(lambda task: task.exception())
