"""Workers as jobs of a queue, by dask-jobqueue: Slurm, PBS, LSF, SGE."""

import signal
import sys
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from dask.utils import parse_bytes
from distributed.utils import get_ip_interface

from models.errors import ClusterError

from ..options import Cluster
from ..tls import NEW, security_of
from .queue_watch import QueueWatch

LIBRARY = {"slurm": "SLURMCluster", "pbs": "PBSCluster", "lsf": "LSFCluster", "sge": "SGECluster"}
DROPPED = {"slurm": ("-o /dev/null",), "pbs": ("-j oe", "-o /dev/null"), "lsf": ("-o /dev/null",),
           "sge": ("-o /dev/null",)}  # fmt: skip  # else each job leaves files in the current folder
MARGIN = 300.0  # seconds before its wall time at which a worker hands its work back, at most
ALONE = 300  # seconds that a worker waits for its scheduler: the run may have been killed while its job was pending
WORTH_A_JOB = "500ms"  # of work that is known, which ask for one job more: the few known tasks stand for many
LEAST = 60.0  # seconds of wall time, the unit of queues


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
    logs
        Folder for what jobs print, which all nodes see. Empty: that is dropped.
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
    logs: str = field(default="", metadata={"example": "/shared/logs"})

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
    """Return how long hours:minutes:seconds are.

    Raises
    ------
    ClusterError
        It is no such time, or shorter than a minute.
    """
    parts = walltime.split(":")
    total = sum(int(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True)) if _digits(parts) else 0
    if total < LEAST:
        raise ClusterError(f"walltime is {walltime!r}; give it as hours:minutes:seconds, 01:30:00; a minute or more")
    return float(total)


def _digits(parts: list[str]) -> bool:
    return len(parts) == 3 and all(part.isascii() and part.isdecimal() for part in parts)


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
    directives = list(profile.directives) + ([f"--gres=gpu:{profile.gpus}"] if profile.gpus else [])
    return {
        "account" if kind in ("slurm", "pbs") else "project": profile.account or None,
        "queue": profile.queue or None,
        "job_name": "swathe",
        "cores": profile.cores,
        "memory": profile.memory,
        "processes": profile.processes,
        "walltime": profile.walltime.rpartition(":")[0] if kind == "lsf" else profile.walltime,
        "interface": profile.interface,
        "python": profile.python or sys.executable,
        "death_timeout": ALONE,
        "job_extra_directives": directives + ([] if profile.logs else list(DROPPED[kind])),
        "job_script_prologue": list(profile.environment),
        "worker_extra_args": _worker_options(seconds(profile.walltime)),
        "scheduler_options": {"host": host, "dashboard_address": f"{host}:0"},
        "security": security,
        "protocol": "tls://" if security else "tcp://",
        "shared_temp_directory": profile.shared_folder or None,
        "log_directory": profile.logs or None,
        "silence_logs": False,
    }


def _worker_options(walltime: float) -> list[str]:
    """Workers leave at times of their own, all before the queue ends their jobs, which began before they did."""
    margin = min(MARGIN, walltime / 2)
    return [
        "--lifetime", f"{walltime - margin:.0f}s", "--lifetime-stagger", f"{margin / 4:.0f}s",
        "--dashboard-address", "127.0.0.1:0",  # by Dask's default, on all addresses
    ]  # fmt: skip


def start(profile: QueueProfile, options: Cluster) -> Any:
    """Start a scheduler here, and submit jobs whose workers come to it.

    Raises
    ------
    ClusterError
        As `arguments`; or the queue takes no jobs.
    """
    kind = str(options.scheduler).partition(":")[0]
    cluster = _class_of(kind)(**arguments(kind, profile, options))
    try:
        watch = QueueWatch(cluster, kind)
        watch.submit(profile.jobs)
    except BaseException:
        cluster.close()
        raise
    if profile.maximum_jobs:
        limits = {"minimum_jobs": profile.jobs, "maximum_jobs": profile.maximum_jobs}
        cluster.adapt(**limits, target_duration=WORTH_A_JOB)
    cluster.waiting_for = watch.words
    cluster.loop.add_callback(watch.keep)
    return cluster


def _class_of(kind: str) -> Any:
    """Import the library without its handler of Ctrl-C, which would end the process with 0 and without a word."""
    handler = signal.getsignal(signal.SIGINT)
    library = import_module("dask_jobqueue")
    if signal.getsignal(signal.SIGINT) is not handler:
        signal.signal(signal.SIGINT, handler)
    return getattr(library, LIBRARY[kind])
