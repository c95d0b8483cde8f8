"""Results of an evaluation, and their tables as Markdown and page show them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from models.bundle import Bundle
from models.encoding import Decision, describe_decision
from models.metadata import ClassInfo

from ..data.samples import Sample
from ..metrics.scores import Scores
from .counts import ScoredSquare

NONE = "–"  # a share of nothing


@dataclass(frozen=True, slots=True)
class PredictorScores:
    """The scores of one predictor.

    Parameters
    ----------
    name
        Of the predictor.
    thresholds
        At which classes were decided, by value, None for the background. None: the likeliest class.
    threshold_from
        Who chose them, in words.
    pooled
        Of all samples together, with intervals.
    samples
        Of each, by its name.
    metadata
        Of the predictor, as JSON values.
    graded
        Whether its probabilities are more than 0 and 1.
    """

    name: str
    thresholds: Decision | None
    threshold_from: str
    pooled: Scores
    samples: Mapping[str, Scores]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    graded: bool = True

    @property
    def label(self) -> str:
        """Its name, with how it decides."""
        one = self.pooled.foreground
        if self.thresholds is None or one is None:
            return f"{self.name}, {describe_decision(self.thresholds, self.pooled.names).removeprefix('the ')}"
        return f"{self.name}, threshold {self.thresholds[one]:g}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation.

    Parameters
    ----------
    bundle
        That was scored.
    network, baselines
        Scores of the bundle, and of the baselines that it must beat.
    samples
        What they are scored on.
    squares
        Of the samples, by how well the network does there, best first.
    distance, side
        Pixels: the width of boundaries, and the side of the squares that intervals are made of.
    engine
        What the network was run by.
    notes
        What the reader should know.
    settings
        The digest of all that decides it, where one was given.
    """

    bundle: Bundle
    network: PredictorScores
    baselines: tuple[PredictorScores, ...]
    samples: tuple[Sample, ...]
    squares: tuple[ScoredSquare, ...]
    distance: int
    side: int
    engine: str
    notes: tuple[str, ...] = ()
    settings: str = ""

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {value:.3f}" for name, value in summary(self.network.pooled).items())
        many = f"{len(self.samples)} sample{'s' * (len(self.samples) != 1)}"
        return f"<Evaluation of {self.network.label} on {many}: {scores}>"

    @property
    def thresholds(self) -> dict[str, float]:
        """At which the network's classes were decided, by name; empty: the likeliest class."""
        pairs = zip(self.bundle.metadata.class_names, self.network.thresholds or (), strict=False)
        return {name: bound for name, bound in pairs if bound is not None}

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """By value."""
        return self.bundle.metadata.classes


def summary(scores: Scores) -> dict[str, float]:
    """Return the few scores that a bundle keeps, to four digits: those of the one foreground class, else means."""
    counts, one = scores.counts.confusion, scores.foreground
    if one is not None:
        kept = {name: float(getattr(counts, name)[one]) for name in ("iou", "f1", "precision", "recall")}
    else:
        kept = {"iou": counts.mean_iou, "f1": counts.mean_f1}
    kept |= {"accuracy": counts.accuracy}
    # a class that neither is there nor was found has no score, and a bundle keeps finite numbers alone
    return {name: round(float(value), 4) for name, value in kept.items() if isfinite(value)}


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its title, the heads of its columns, and rows of one cell per column, the first of which names it."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(found: Evaluation) -> list[Table]:
    """Return all tables: scores beside the baselines'; by class, of more than two; by sample, of several."""
    pooled, samples = found.network.pooled, found.network.samples
    heads = ["mean IoU", "mean F1", "accuracy", "mean boundary IoU", "ECE"]
    if pooled.foreground is not None:
        heads = ["F1", "precision", "recall", "boundary IoU", "object F1", "accuracy", "ECE"]
        heads.insert(0, f"IoU of {pooled.names[pooled.foreground]}")
    rows = [(found.network.label, *cells(pooled, graded=True))]
    rows += [(one.name, *cells(one.pooled, graded=one.graded)) for one in found.baselines]
    made = [Table("Scores", ("", *heads), tuple(rows))]
    if pooled.foreground is None:
        made.append(by_class(pooled, found.thresholds))
    if len(samples) > 1:
        each = ((name, *cells(scores, graded=True)) for name, scores in samples.items())
        made.append(Table("By sample", ("sample", *heads), tuple(each)))
    return made


def cells(scores: Scores, *, graded: bool) -> tuple[str, ...]:
    """Return one row of scores: those of the one foreground class, else means over classes.

    Parameters
    ----------
    scores
        Of one predictor.
    graded
        Whether its probabilities are more than 0 and 1, so that their calibration says something.
    """
    total, one = scores.counts, scores.foreground
    counts, reliability = total.confusion, total.top if one is None else total.foreground
    ece = format_score(reliability.ece) if reliability is not None and graded else NONE
    if one is None:
        means = (counts.mean_f1, counts.accuracy, total.boundary.mean_iou)
        return format_score(counts.mean_iou) + interval(scores, "mean_iou"), *map(format_score, means), ece
    iou = format_score(counts.iou[one]) + interval(scores, "iou", one)
    rest = (format_score(values[one]) for values in (counts.f1, counts.precision, counts.recall, total.boundary.iou))
    return iou, *rest, objects(scores, one), format_score(counts.accuracy), ece


def format_score(value: float) -> str:
    """Return a score to three digits."""
    return f"{float(value):.3f}" if isfinite(value) else NONE


def interval(scores: Scores, name: str, value: int | None = None) -> str:
    """Return a score's interval in brackets, with a blank before; nothing where there is none."""
    found = scores.intervals
    if found is None:
        return ""
    if value is None:
        low, high = found.overall_low[name], found.overall_high[name]
    else:
        low, high = found.low[name][value], found.high[name][value]
    return f" ({format_score(float(low))}–{format_score(float(high))})" if isfinite(low) and isfinite(high) else ""


def objects(scores: Scores, value: int) -> str:
    """Return the F1 of a class's objects."""
    return NONE if scores.objects is None else format_score(scores.objects.f1[value])


def by_class(scores: Scores, thresholds: Mapping[str, float]) -> Table:
    """Return the scores of each class, with the threshold that it was decided at, if any was."""
    counts, boundary = scores.counts.confusion, scores.counts.boundary
    named = ("class", "threshold", "IoU", "F1", "precision", "recall", "boundary IoU", "object F1", "pixels")
    rows = []
    for value, name in enumerate(scores.names):
        iou = format_score(counts.iou[value]) + interval(scores, "iou", value)
        shares = (counts.f1[value], counts.precision[value], counts.recall[value], boundary.iou[value])
        found = NONE if value == scores.background else objects(scores, value)
        threshold = f"{thresholds[name]:g}" if name in thresholds else NONE
        rows.append((name, threshold, iou, *map(format_score, shares), found, f"{int(counts.support[value]):,}"))
    return Table("By class", named, tuple(rows))


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    lines = [table.heads, (":---", *("---:" for _ in table.heads[1:])), *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def notes(found: Evaluation) -> list[str]:
    """Return what a reader of the tables should know, one line each."""
    intervals = found.network.pooled.intervals
    level = f"{100 * (intervals.level if intervals else 0.95):.0f} %"
    lines = [f"In brackets: {level} intervals from squares of {found.side} pixels drawn anew."]
    if intervals is not None and intervals.note:
        lines.append(f"{intervals.note[:1].upper()}{intervals.note[1:].rstrip('.')}.")
    lines.append(f"Boundary IoU: {found.distance} pixels wide. Objects match at an IoU above 0.5.")
    if found.network.threshold_from.startswith("chosen"):
        lines.append("Thresholds were chosen on these very samples: no test of them.")
    return lines + [f"{note[:1].upper()}{note[1:].rstrip('.')}." for note in found.notes]


def as_markdown(found: Evaluation) -> str:
    """Return all tables with their notes, as `scores.md` holds them."""
    first, *rest = tables(found)
    parts = [markdown(first), *(f"{table.title}:\n\n{markdown(table)}" for table in rest), "\n".join(notes(found))]
    return "\n\n".join(parts) + "\n"
