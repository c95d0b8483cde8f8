"""Scores as people read them: rows of a table, for a terminal's Markdown and for a page alike. Text only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from ..metrics.scores import Scores

if TYPE_CHECKING:
    from .result import Evaluation
    from .runner import Scored

NONE = "–"  # a share of nothing


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its title, the heads of its columns, and rows of one cell per column, the first of which names it."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: "Evaluation") -> list[Table]:
    """Give all tables of an evaluation: scores beside references; by class, of more than two; by sample, of several."""
    made = [compared(found)]
    if len(found.classes) > 2:
        made.append(by_class(found.network.pooled))
    if len(found.network.samples) > 1:
        made.append(by_sample(found.network.samples))
    return made


def compared(found: "Evaluation") -> Table:
    """Give the network's scores, and those of what it must beat below."""
    names = found.network.pooled.names
    first = label(found.network)
    rows = [(first, *cells(found.network.pooled, graded=True))]
    rows += [(one.name, *cells(one.pooled, graded=one.graded)) for one in found.references]
    return Table("Scores", ("", *heads(names)), tuple(rows))


def label(scored: "Scored") -> str:
    """Name the network with how it decides."""
    how = "likeliest class" if scored.threshold is None else f"threshold {scored.threshold:g}"
    return f"{scored.name}, {how}"


def heads(names: Sequence[str]) -> tuple[str, ...]:
    """Give the heads of the scores' columns."""
    if len(names) == 2:
        return (f"IoU of {names[1]}", "F1", "precision", "recall", "boundary IoU", "object F1", "accuracy", "ECE")
    return ("mean IoU", "mean F1", "accuracy", "mean boundary IoU", "ECE")


def cells(scores: Scores, *, graded: bool) -> tuple[str, ...]:
    """Give one row of scores: of two classes those of the second, else means over classes.

    Parameters
    ----------
    scores
        Of one predictor.
    graded
        Whether its probabilities are more than 0 and 1, so that their calibration says something.
    """
    tally = scores.counts
    counts, two = tally.confusion, len(scores.names) == 2
    reliability = tally.foreground if two else tally.top
    ece = say(reliability.ece) if reliability is not None and graded else NONE
    if not two:
        iou = say(counts.mean_iou) + interval(scores, "mean_iou")
        return iou, say(counts.mean_f1), say(counts.accuracy), say(tally.boundary.mean_iou), ece
    iou = say(counts.iou[1]) + interval(scores, "iou", 1)
    rest = (say(values[1]) for values in (counts.f1, counts.precision, counts.recall, tally.boundary.iou))
    return iou, *rest, objects(scores, 1), say(counts.accuracy), ece


def say(value: float) -> str:
    """Give a score to three digits."""
    return f"{float(value):.3f}" if isfinite(value) else NONE


def interval(scores: Scores, name: str, value: int | None = None) -> str:
    """Give a score's interval in brackets, with a blank before; nothing where there is none."""
    found = scores.intervals
    if found is None:
        return ""
    if value is None:
        low, high = found.overall_low[name], found.overall_high[name]
    else:
        low, high = found.low[name][value], found.high[name][value]
    return f" ({say(float(low))}–{say(float(high))})" if isfinite(low) and isfinite(high) else ""


def objects(scores: Scores, value: int) -> str:
    """Give the F1 of a class's objects."""
    return NONE if scores.objects is None else say(scores.objects.f1[value])


def by_class(scores: Scores) -> Table:
    """Give the scores of each class."""
    counts, boundary = scores.counts.confusion, scores.counts.boundary
    named = ("class", "IoU", "F1", "precision", "recall", "boundary IoU", "object F1", "pixels")
    rows = []
    for value, name in enumerate(scores.names):
        shares = (counts.f1, counts.precision, counts.recall, boundary.iou)
        first = say(counts.iou[value]) + interval(scores, "iou", value)
        found = NONE if value == 0 else objects(scores, value)
        rows.append((name, first, *(say(each[value]) for each in shares), found, f"{int(counts.support[value]):,}"))
    return Table("By class", named, tuple(rows))


def by_sample(samples: Mapping[str, Scores]) -> Table:
    """Give the scores of each sample."""
    names = next(iter(samples.values())).names
    rows = ((name, *cells(scores, graded=True)) for name, scores in samples.items())
    return Table("By sample", ("sample", *heads(names)), tuple(rows))


def markdown(table: Table) -> str:
    """Give a table in Markdown."""
    lines = [table.heads, (":---", *("---:" for _ in table.heads[1:])), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def notes(found: "Evaluation") -> list[str]:
    """Say what a reader of the tables should know, one line each."""
    told = [f"In brackets: {_level(found)} intervals from squares of {found.side} pixels drawn anew."]
    intervals = found.network.pooled.intervals
    if intervals is not None and intervals.note:
        told.append(f"{intervals.note[:1].upper()}{intervals.note[1:].rstrip('.')}.")
    told.append(f"Boundary IoU: {found.distance} pixels wide. Objects match at an IoU above 0.5.")
    if found.network.threshold_from.startswith("chosen"):
        told.append("The threshold was chosen on these very samples: no test of it.")
    return told + [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in found.notes]


def _level(found: "Evaluation") -> str:
    intervals = found.network.pooled.intervals
    return f"{100 * (intervals.level if intervals else 0.95):.0f} %"


def as_markdown(found: "Evaluation") -> str:
    """Give all tables with their notes, as `scores.md` holds them."""
    first, *rest = tables(found)
    parts = [markdown(first), *(f"{table.title}:\n\n{markdown(table)}" for table in rest), "\n".join(notes(found))]
    return "\n\n".join(parts) + "\n"
