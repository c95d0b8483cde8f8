"""The report of a run, a page and JSON: where the time went, how quick it was, its slowest blocks, its workers."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.timing import PHASES

from ..jobs.run_log import RunLog, WorkerLog
from ..stats.table import format_number, format_share
from ..store.placing import Target, write_bytes
from .page import render_page
from .report_sections import block_section, format_seconds

PAGE = Path(__file__).parent / "run_page"
AT = (*PHASES, "rest", "idle")
WORDS = {
    "read": "reading and decoding", "wait": "waiting for a slot or for memory", "predict": "in the network",
    "write": "encoding and writing", "rest": "loading the engine and all else", "idle": "without a block",
}  # fmt: skip
BARS = 60  # of throughput over time
SLOWEST = 10  # blocks that are listed
MOST_ROWS = 200  # of workers and of what happened, on the page


def write_run_report(log: RunLog, output: str | os.PathLike[str]) -> tuple[str, str]:
    """Write what is known of a run as a page and as JSON.

    Parameters
    ----------
    log
        That a run has filled, to its end or to its failure.
    output
        Path or URL of the page, which ends in `.html`; or a folder, for `run.html` in it. The JSON lies beside it. What
        was there of a run before is replaced.

    Returns
    -------
    str, str
        The page and the JSON.
    """
    path = os.fspath(output)
    page = path if path.lower().endswith((".html", ".htm")) else f"{path.rstrip('/')}/run.html"
    data = f"{page.rsplit('.', 1)[0]}.json"
    write_bytes(_target(data), json.dumps(run_report(log), indent=1, default=str).encode())
    write_bytes(_target(page), render_page(PAGE, _context(log)).encode())
    return page, data


def _target(path: str) -> Target:
    if "://" in path:
        return path
    target = Path(path).expanduser()
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def run_report(log: RunLog) -> dict[str, Any]:
    """Return what is known of a run as JSON values, without the single blocks but the slowest."""
    edges, rates = _rates(log)
    return {
        **log.facts(),
        "begun": log.begun.isoformat(timespec="seconds"),
        "shape": log.shape,
        "block": log.block,
        "throughput": {"until_s": edges[1:].round(3).tolist(), "blocks_per_s": rates.round(4).tolist()},
        "slowest": [{"row": row, "column": column, "seconds": seconds} for row, column, seconds in _slowest(log)],
        "events": [{"second": at, "event": one.kind, "text": one.text, **one.facts} for at, one in log.happened],
    }


def _rates(log: RunLog) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return blocks per second over time, and where the bins of time begin and end."""
    ended = log.ended[np.isfinite(log.ended)]
    counts, edges = np.histogram(ended, BARS, (0, max(log.lasted, 1e-3)))
    return edges, counts / np.diff(edges)


def _slowest(log: RunLog) -> list[tuple[int, int, float]]:
    known = np.flatnonzero(np.isfinite(log.seconds))
    most = known[np.argsort(-log.seconds.ravel()[known], kind="stable")[:SLOWEST]]
    rows, columns = np.unravel_index(most, log.seconds.shape)
    seconds = log.seconds.ravel()[most]
    return [(int(r), int(c), round(float(s), 3)) for r, c, s in zip(rows, columns, seconds, strict=True)]


def _context(log: RunLog) -> dict[str, Any]:
    edges, rates = _rates(log)
    done_here, totals = log.done - log.resumed, log.totals()
    workers = sorted(log.workers.items(), key=lambda pair: -pair[1].busy)
    return {
        "title": f"{log.title.capitalize()} {log.output}",
        "summary": _summary(log, done_here),
        "error": log.error,
        "stats": [
            ("blocks done", f"{done_here:,}"),
            ("pixels per second", f"{format_number(log.pixels / max(1e-6, log.lasted) / 1e6)} M"),
            ("read", _bytes(totals["bytes_read"])),
            ("written", _bytes(totals["bytes_written"])),
            ("tried again", f"{log.retried:,}"),
        ],
        "spent": _shares(totals),
        "words": WORDS,
        "workers": [_worker_row(address, worker) for address, worker in workers[:MOST_ROWS]],
        "more_workers": max(0, len(workers) - MOST_ROWS),
        "bars": [
            {"left": n * 100 / BARS, "height": 100 * rate / (rates.max() or 1), "words": f"{format_seconds(edges[n])}: "
             f"{format_number(rate)} blocks per second"}
            for n, rate in enumerate(rates.tolist())
        ],
        "quickest": format_number(rates.max()),
        "lasted": format_seconds(log.lasted),
        "blocks": block_section(log.seconds, log.block, log.shape, log.title) if done_here else None,
        "slowest": [(row, column, format_seconds(seconds)) for row, column, seconds in _slowest(log)],
        "events": [(format_seconds(at), one.text) for at, one in list(log.happened)[-MOST_ROWS:]],
        "begun": f"{log.begun.day} {log.begun:%B %Y, %H:%M} UTC",
        "identity": log.identity,
    }  # fmt: skip


def _summary(log: RunLog, done_here: int) -> str:
    before = f", {log.resumed:,} were there before" if log.resumed else ""
    count = len(log.workers)
    where = f" on {count:,} worker{'s' * (count != 1)}" if count else ""
    end = " It did not come to its end." if log.error else ""
    return f"{done_here:,} of {log.blocks:,} blocks in {format_seconds(log.lasted)}{where}{before}.{end}"


def _shares(seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Return what the seconds were spent at, with shares in per cent."""
    whole, left, made = sum(seconds[name] for name in AT) or 1.0, 0.0, []
    for name in AT:
        share = 100 * seconds[name] / whole
        text = f"{WORDS[name]}: {format_seconds(seconds[name])}, {format_share(share / 100)}"
        made.append({"name": name, "left": left, "width": share, "time": format_seconds(seconds[name]),
                     "share": format_share(share / 100), "words": text})  # fmt: skip
        left += share
    return made


def _worker_row(address: str, worker: WorkerLog) -> dict[str, Any]:
    return {
        "address": address,
        "blocks": f"{worker.blocks:,}",
        "there": f"{format_seconds(worker.since)} to {format_seconds(worker.until)}",
        "spent": _shares({name: getattr(worker, name) for name in AT}),
        "busy": format_share(worker.busy / ((worker.busy + worker.idle) or 1.0)),
    }


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{format_number(count)} {unit}"
        count /= 1000
    return f"{format_number(count)} TB"
