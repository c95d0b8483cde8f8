"""Look at the jobs of a cluster while it lasts: submit others for those that ended, and say what the rest wait for."""

import time
from asyncio import sleep
from collections import Counter
from contextlib import suppress
from typing import Any

from distributed.core import Status

from models.errors import ClusterError

NAMES = {"slurm": "Slurm", "pbs": "PBS", "lsf": "LSF", "sge": "SGE"}
LOOK = 5.0  # seconds between two looks
GONE = 60.0  # seconds without its workers after which a job of a queue that is not asked has ended
FRUITLESS = 5  # jobs that end before their workers come, one after the other: no others are submitted for them
SQUEUE = ["squeue", "--noheader", "--me", "--format=%i|%T|%r"]


class QueueWatch:
    """Replaces jobs that ended, and knows what the others wait for. Slurm is asked; of others, the workers tell.

    dask-jobqueue submits nothing for a job that the queue has ended.
    """

    def __init__(self, cluster: Any, kind: str) -> None:
        self.cluster = cluster
        self.kind = kind
        self.pending = Counter[str]()  # by the queue's reason
        self.seen = dict[str, float]()  # when a job's workers were last there
        self.fruitless = list[str]()
        self.refused = ""

    def submit(self, jobs: int) -> None:
        """Submit the first jobs.

        Raises
        ------
        ClusterError
            The queue takes none.
        """
        while len(self.cluster.worker_spec) < jobs:
            self.cluster.worker_spec.update(self.cluster.new_worker_spec())
        try:
            self.cluster.sync(self.cluster._correct_state)
        except (RuntimeError, OSError) as error:
            self._forget_refused()
            raise ClusterError(f"{NAMES[self.kind]} takes no job: {_said(error)}") from error

    def words(self) -> str:
        """Say what the queue is at, as "2 Slurm jobs pending (Resources)"."""
        name, count = NAMES[self.kind], self.pending.total()
        said = []
        if count:
            reasons = ", ".join(sorted(reason for reason in self.pending if reason != "None"))
            said.append(f"{_jobs(count, name)} pending" + (f" ({reasons})" if reasons else ""))
        if self.fruitless:
            ended = f"{_jobs(len(self.fruitless), name)} ended before a worker came, the last {self.fruitless[-1]}"
            said.append(f"{ended}; `logs` in the profile keeps what they print")
        if self.refused:
            said.append(f"{name} takes no job: {self.refused}")
        return "; ".join(said)

    async def keep(self) -> None:
        """Look at the jobs again and again."""
        while self.cluster.status in (Status.created, Status.starting, Status.running):
            with suppress(RuntimeError, OSError):  # a queue that does not answer is asked again
                await self._look()
            await sleep(LOOK)

    async def _look(self) -> None:
        jobs = {name: job for name, job in self.cluster.workers.items() if job.job_id}
        self._see(jobs)
        for name in await self._ended(jobs):
            job = jobs[name]
            if self.cluster.workers.get(name) is not job or not self._worth_it(str(job.job_id)):
                continue
            del self.cluster.workers[name]
            await job.close()
        await self._submit_missing()

    def _see(self, jobs: dict[Any, Any]) -> None:
        """Note whose workers are there; those of a job with several are named name-0, name-1."""
        there = {str(worker.name) for worker in self.cluster.scheduler.workers.values()}
        for name, job in jobs.items():
            if not there.isdisjoint((str(name), *(f"{name}-{place}" for place in range(job.worker_processes)))):
                self.seen[str(job.job_id)] = time.monotonic()
                self.fruitless.clear()

    async def _ended(self, jobs: dict[Any, Any]) -> list[Any]:
        """Return the names of the jobs that ended."""
        if self.kind != "slurm":
            now = time.monotonic()
            return [name for name, job in jobs.items() if now - self.seen.get(str(job.job_id), now) > GONE]
        lines = [line.split("|") for line in (await self.cluster.job_cls._call(SQUEUE)).splitlines()]
        known = {line[0]: line[1:] for line in lines if len(line) == 3}
        waiting = [known[str(job.job_id)] for job in jobs.values() if str(job.job_id) in known]
        self.pending = Counter(reason for state, reason in waiting if state == "PENDING")
        return [name for name, job in jobs.items() if str(job.job_id) not in known]

    def _worth_it(self, number: str) -> bool:
        """Whether another job is submitted for one that ended: not where one after the other ends at once."""
        if number not in self.seen and number not in self.fruitless:
            self.fruitless.append(number)
        return self.seen.pop(number, None) is not None or len(self.fruitless) <= FRUITLESS

    async def _submit_missing(self) -> None:
        self.refused = ""
        try:
            await self.cluster._correct_state()
        except (RuntimeError, OSError) as error:
            self.refused = _said(error)
            self._forget_refused()

    def _forget_refused(self) -> None:
        """Forget the jobs that were not taken: they are tried again, and nothing of them need be ended."""
        for name in [name for name, job in self.cluster.workers.items() if not job.job_id]:
            self.cluster.workers.pop(name).status = Status.closed


def _jobs(count: int, name: str) -> str:
    return f"{count} {name} job{'' if count == 1 else 's'}"


def _said(error: Exception) -> str:
    """Return what the queue's command said, of the many lines that dask-jobqueue makes of it."""
    text = str(error).partition("stderr:\n")[2].strip() or str(error)
    return text.strip().splitlines()[0]
