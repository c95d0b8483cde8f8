"""What an evaluation has found, as facts; and the few scores of it that a bundle keeps."""

from dataclasses import dataclass
from math import isfinite

from models.bundle import Bundle
from models.metadata import ClassInfo

from ..data.samples import Sample
from ..metrics.scores import Scores
from .runner import Scored
from .worst_areas import Area


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation has found.

    Parameters
    ----------
    bundle
        That was scored.
    network, references
        Scores of the bundle, and of what it must beat.
    samples
        What they are scored on.
    areas
        Squares of the samples by how well the network does there, best first; see `areas`.
    distance, side
        Pixels: the width of boundaries, and the side of the squares that intervals and areas are made of.
    engine
        What the network was run by.
    notes
        What the reader should know.
    """

    bundle: Bundle
    network: Scored
    references: tuple[Scored, ...]
    samples: tuple[Sample, ...]
    areas: tuple[Area, ...]
    distance: int
    side: int
    engine: str
    notes: tuple[str, ...] = ()

    @property
    def threshold(self) -> float | None:
        """At which the network's classes were decided; None: the likeliest class."""
        return self.network.threshold

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """By value."""
        return self.bundle.metadata.classes


def summary(scores: Scores) -> dict[str, float]:
    """Give the few scores that a bundle keeps, to four digits: of two classes those of the second, else means."""
    counts = scores.counts.confusion
    if len(scores.names) == 2:
        told = {name: float(getattr(counts, name)[1]) for name in ("iou", "f1", "precision", "recall")}
    else:
        told = {"iou": counts.mean_iou, "f1": counts.mean_f1}
    told |= {"accuracy": counts.accuracy}
    # a class that neither is there nor was found has no score, and a bundle keeps finite numbers alone
    return {name: round(float(value), 4) for name, value in told.items() if isfinite(value)}
