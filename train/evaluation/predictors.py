"""What is scored: a bundle, or a baseline that it must beat. Each makes the block job that predicts a scene."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from models.bundle import Bundle
from models.metadata import ClassInfo
from pipeline.inference.plan import SegmentPlan, plan_source
from pipeline.inference.run import Segmentation
from pipeline.io.source import Source
from pipeline.jobs.job import BlockJob

from .baselines import Reference, baseline_job


class Predictor(ABC):
    """What is scored: for a scene, the job that fills a store with its class map and probabilities, block by block."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """For reports."""

    @property
    def graded(self) -> bool:
        """Whether its probabilities are more than 0 and 1, so that their calibration says something."""
        return True

    @abstractmethod
    def metadata(self) -> Mapping[str, Any]:
        """Return what is worth to know of it beside its name, as JSON values."""

    @abstractmethod
    def job(self, source: Source) -> BlockJob:
        """Return the job for one scene. Raises SwatheError where the scene does not fit."""


@dataclass(frozen=True, slots=True)
class Network(Predictor):
    """A bundle, by the pipeline's own function of blocks."""

    bundle: Bundle
    keywords: Mapping[str, Any]

    @property
    @override
    def name(self) -> str:
        return self.bundle.metadata.name

    @override
    def metadata(self) -> Mapping[str, Any]:
        return {"digest": self.bundle.digest}

    def prepared(self, source: Source) -> SegmentPlan:
        """Plan a scene."""
        of = None if len(self.bundle.metadata.classes) == 2 else "all"
        kept: dict[str, Any] = {"probability": "float32", "probability_of": of, "overviews": False}
        return plan_source(source, self.bundle, **{**self.keywords, **kept})

    @override
    def job(self, source: Source) -> BlockJob:
        return Segmentation(self.prepared(source))


@dataclass(frozen=True, slots=True)
class BaselinePredictor(Predictor):
    """A baseline, in blocks of a side in pixels."""

    reference: Reference
    classes: tuple[ClassInfo, ...]
    block: int

    @property
    @override
    def name(self) -> str:
        return self.reference.name

    @property
    @override
    def graded(self) -> bool:
        return self.reference.graded

    @override
    def metadata(self) -> Mapping[str, Any]:
        return self.reference.metadata()

    @override
    def job(self, source: Source) -> BlockJob:
        return baseline_job(self.reference, source, self.classes, self.block)
