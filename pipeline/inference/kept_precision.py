"""The precision that was chosen for a run, kept: in its store, and in the user's cache for plans and other runs.

A measured speed is never twice the same. So a run that continues takes what its store says, also where the cache is
lost; only where nothing is kept is it measured.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from models.engine import EngineSpec, Precision
from models.errors import StoreError
from models.files import keep_file
from models.system import cache_folder, package_version

from ..io.source import Source
from ..store.files import Files
from ..store.store import MARKERS, read_metadata
from .options import SegmentOptions
from .predict import InferenceSpec

METHOD = 1  # counts up when another choice could be made of the same scene
GRAPH = f"{MARKERS}/int8.zip"  # in a store that is not complete: the graph of its run


@dataclass(frozen=True, slots=True)
class PrecisionChoice:
    """A precision, and why.

    Parameters
    ----------
    precision
        As it was chosen.
    graph
        Digest of the graph in int8; empty in other precisions.
    error
        What of the tolerance it takes.
    note
        For the user.
    asked
        Digest of what it was chosen for, see `asked_key`.
    """

    precision: Precision
    graph: str = ""
    error: float = 0.0
    note: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class BegunRun:
    """What the store of a run that was begun says of its precision.

    Parameters
    ----------
    choice
        As it was made when the run began.
    halo
        In pixels, of the run.
    graph
        The int8 graph, packed; empty where the store has none.
    complete
        Whether nothing is left to compute.
    overlap
        What was measured of an overlap when the run began; empty: nothing was.
    """

    choice: PrecisionChoice
    halo: int
    graph: bytes
    complete: bool
    overlap: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str) -> Self | None:
        """Read it from a store; None where there is no store, or it does not say."""
        try:
            metadata = read_metadata(path)
            if metadata is None or metadata.state == "creating" or not (metadata.precision or metadata.overlap):
                return None
            choice, graph = PrecisionChoice(**(metadata.precision or {"precision": "fp32"})), b""  # of no question
            with suppress(FileNotFoundError):
                graph = Files(path).read(GRAPH)
            return cls(choice, int(metadata.identity["halo"]), graph, metadata.state == "complete", metadata.overlap)
        except (StoreError, OSError, LookupError, TypeError, ValueError):  # whoever writes there says what is wrong
            return None


def engine_facts(spec: EngineSpec) -> dict[str, Any]:
    """Return what of an engine's settings decides a measurement, beside machine and bundle."""
    facts = asdict(replace(spec, threads=None, hardware=""))
    return {name: value for name, value in facts.items() if name not in ("onnx", "one_thread")}  # the bundle's own


def _facts(source: Source, inference: InferenceSpec, options: SegmentOptions) -> Mapping[str, Any]:
    grid = inference.plan.grid
    return {
        "source": source.identity(),
        "bundle": inference.digest,
        "engine": engine_facts(inference.spec),
        "halo": inference.plan.halo,
        "thresholds": inference.encoding.thresholds,
        "asked": options.precision,
        "tolerance": options.tolerance,
        **({} if grid is None else {"tiles": grid.side}),
    }


def asked_key(source: Source, inference: InferenceSpec, options: SegmentOptions) -> str:
    """Digest of scene, bundle and options: what stays the same when a run continues, wherever that is."""
    return digest_of({**_facts(source, inference, options), "asked halo": options.halo})


def cache_key(source: Source, inference: InferenceSpec, options: SegmentOptions) -> str:
    """Digest of that, and of all that a measurement depends on: hardware, and versions of the packages."""
    here = {
        "method": METHOD,
        "hardware": inference.spec.hardware,
        "versions": versions_here(),
    }
    return digest_of({**_facts(source, inference, options), **here})


def versions_here() -> list[str]:
    """Return the versions of the packages on which what is measured depends."""
    return [package_version(package) for package in ("nncf", "openvino", "torch")]


def digest_of(facts: Mapping[str, Any]) -> str:
    """Return the digest of facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def kept_choice(key: str) -> PrecisionChoice | None:
    """Return a choice from the user's cache; None: it is not there."""
    try:
        return PrecisionChoice(**json.loads((cache_folder("precision") / f"{key}.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def keep_choice(key: str, choice: PrecisionChoice) -> None:
    """Keep a choice in the user's cache, for plans and runs on this machine."""
    path, text = cache_folder("precision") / f"{key}.json", json.dumps(asdict(choice))
    keep_file(path, "the chosen precision", lambda part: part.write_text(text))
