"""The table of `swathe cluster doctor`."""

import sys
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ..inference.doctor import ClusterReport, WorkerReport

PLAIN = 240  # columns of what is no terminal
COLUMNS = (
    "worker", "host", "threads", "memory", "python", "dask", "engine", "hardware", "GPUs", "there and back",
    "clock", "verdict",
)  # fmt: skip


def print_report(report: "ClusterReport") -> None:
    """Print what was found of a cluster: in a terminal as wide as that is, else a row to a line."""
    here = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if here else PLAIN, highlight=False, soft_wrap=not here)
    table = Table(box=box.SIMPLE if here else None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, no_wrap=not here)
    for worker in report.workers:
        table.add_row(*map(Text, _row(worker)))  # an address may look like markup
    console.print(table)
    for worker in report.workers:
        if worker.unfit:
            console.print(f"{worker.address} is unfit: {worker.unfit}", markup=False)
    rate = report.tasks_per_second
    fit = f"{report.fit} of {len(report.workers)} workers fit"
    console.print(f"{fit}{f'; {report.queue}' if report.queue else ''}", markup=False)
    if rate is not None:
        console.print(f"{rate:,.0f} empty tasks a second", markup=False)
    if report.dashboard:
        console.print(f"dashboard {report.dashboard}", markup=False)


def _row(worker: "WorkerReport") -> tuple[str, ...]:
    trip = "no answer" if worker.round_trip is None else f"{worker.round_trip * 1000:.1f} ms"
    return (
        worker.address,
        worker.host,
        str(worker.threads),
        f"{worker.memory / 1e9:.1f} GB" if worker.memory else "unbounded",
        worker.versions.get("python", "-"),
        worker.versions.get("distributed", "-"),
        worker.engine or "-",
        worker.hardware or "-",
        f"{worker.gpus:g}" if worker.gpus else "-",
        trip,
        "-" if worker.clock is None else f"{worker.clock:+.2f} s",
        "unfit" if worker.unfit else "fit",
    )
