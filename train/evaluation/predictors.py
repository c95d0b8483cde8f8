"""What is scored: a bundle, or a reference it must beat. Each gives, for a scene, the durable work of answering."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from models.bundle import Bundle
from models.metadata import ClassInfo
from pipeline.inference.plan import SegmentPlan, plan_source
from pipeline.inference.run import Segmentation
from pipeline.io.source import Source
from pipeline.jobs.job import Work

from .baselines import Reference, reference_work


class Predictor(Protocol):
    """What is scored: for a scene, the work that fills a store with its class map and probabilities, block by block."""

    @property
    def name(self) -> str:
        """For reports."""
        ...

    @property
    def graded(self) -> bool:
        """Whether its probabilities are more than 0 and 1, so that their calibration says something."""
        ...

    def metadata(self) -> Mapping[str, Any]:
        """Give what is worth to know of it beside its name, as JSON values."""
        ...

    def work(self, source: Source) -> Work:
        """Give the work for one scene. Raises SwatheError where the scene does not fit."""
        ...


@dataclass(frozen=True, slots=True)
class Network:
    """A `Predictor`: a bundle, by the pipeline's own function of blocks."""

    bundle: Bundle
    keywords: Mapping[str, Any]
    graded = True

    @property
    def name(self) -> str:
        """See `Predictor`."""
        return self.bundle.metadata.name

    def metadata(self) -> Mapping[str, Any]:
        """See `Predictor`."""
        return {"digest": self.bundle.digest}

    def prepared(self, source: Source) -> SegmentPlan:
        """Plan a scene."""
        of = None if len(self.bundle.metadata.classes) == 2 else "all"
        kept: dict[str, Any] = {"probability": "float32", "probability_of": of, "pyramid": False}
        return plan_source(source, self.bundle, **{**self.keywords, **kept})

    def work(self, source: Source) -> Work:
        """See `Predictor`."""
        return Segmentation(self.prepared(source))


@dataclass(frozen=True, slots=True)
class BaselinePredictor:
    """A `Predictor`: a reference."""

    reference: Reference
    classes: tuple[ClassInfo, ...]
    block: int

    @property
    def name(self) -> str:
        """See `Predictor`."""
        return self.reference.name

    @property
    def graded(self) -> bool:
        """See `Predictor`."""
        return self.reference.graded

    def metadata(self) -> Mapping[str, Any]:
        """See `Predictor`."""
        return self.reference.metadata()

    def work(self, source: Source) -> Work:
        """See `Predictor`."""
        return reference_work(self.reference, source, self.classes, self.block)
