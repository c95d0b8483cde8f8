"""The options of a segmentation: of the command, of notebooks and of jobs."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Real
from typing import Any, Literal, get_args

from models.encoding import Decision, Encoding, ProbabilityType, Thresholds, check_probability, decision
from models.engine import Device, EngineName, EngineSpec, Precision, PrecisionOption, sees_all
from models.errors import PlanError
from models.graph_form import ONNX
from models.metadata import BundleMetadata

from ..grid.tile_grid import Blend, Taper
from ..io.resample import RESAMPLINGS, Resampling
from .merge import Merge
from .nonfinite import OnNonfinite

Halo = Literal["exact", "auto"] | int
Overlap = Literal["auto"] | int
OPTIONS = "options"  # in what a store says of its source: what `SegmentOptions.kept` returns
TINIEST = 1 << 20  # bytes; a budget below is a number without its unit


@dataclass(frozen=True, slots=True)
class SegmentOptions:
    """What a segmentation is asked for, checked: the keywords of `plan`, `segment` and `run`, which have all of them.

    Parameters
    ----------
    bands
        Names or numbers of the scene's bands that go into the network's, in its order. None: by the bundle's names.
    resampling
        How bands of coarser pixels are brought onto the finest grid of those taken: `nearest` keeps values as they were
        measured, `bilinear` and `cubic` interpolate. As in training.
    alpha
        Whether bands that are tagged as alpha are masks; see `open_scene`. None: by their values.
    scale
        The scene's value * scale + offset is in the unit of the bundle's bands, as reflectance. One number, or one per
        band in the network's order; wins over what the scene says. None: as the scene says.
    offset
        See `scale`. None: as the scene says, else 0.
    reflectance
        The scene's values are reflectance from 0 to 1: scale 1, offset 0.
    tile
        Side in pixels of what the network answers at once. None: a good choice. Of tiles on a grid, see `overlap`, all
        that the network sees at once. None: what the network takes, or was trained on, 256 at least.
    block
        Side in pixels of what one task does. None: a good choice.
    halo
        `exact`: tiled equals whole. `auto`: the smallest whose measured error is within `tolerance`. Or pixels. Of a
        network without an exact halo, `auto` and N pixels are an `overlap` of `auto` and 2 N.
    overlap
        Pixels that tiles share with the next, on one grid counted from the scene's origin, for networks that have no
        exact halo: what sees its whole input, or takes tiles of one size. `auto`: the least whose measured change is
        within `tolerance`. None: the exact halo where there is one, else a quarter of the tile.
    blend
        Of tiles on a grid: `crop` takes each pixel from the tile in whose inner part it lies; `feather` weighs the
        probabilities of all tiles that hold it.
    taper
        Of `feather`: how weights fall, `linear` or `cosine` over the overlap, `gaussian` over the tile.
    tolerance
        Largest error that `auto` accepts, of precision and halo together: of a halo the largest change of a
        probability; of a precision, and of an overlap where the grid is moved by half a step, the mean change and
        twice the share of pixels whose class changes.
    engine
        `torch`, `openvino`, or `auto`: torch on CUDA where there is a GPU, else OpenVINO if it is installed.
    device
        `cpu`, `cuda`, or `auto`: CUDA where there is a GPU.
    precision
        `fp32`; `bf16` or `fp16` are faster on hardware that has them, and change probabilities by about 1e-2. `int8`:
        faster still on CPUs, by ranges that the scene's own pixels set, or the bundle carries. `auto`: the fastest here
        whose error, measured on the scene's own pixels, is within `tolerance`.
    threads
        Threads on a CPU. None: all that this process may use.
    compile
        Let `torch.compile` optimise the network (torch only; a minute at the start).
    threshold
        A pixel takes the likeliest class but the background, where its probability is above this; else the background.
        One for all classes, or one for each but the background by name. None: the bundle's own. `likeliest`: none.
    probability
        Type in which probabilities are kept; None: they are not.
    probability_of
        `all` classes, or one by name. None: all, but of two classes only the second, since the first is what remains.
    overviews
        Whether the store gets overviews.
    allow_mismatch
        Run although the scene's dtype or resolution is not what the bundle was trained on.
    memory
        What one process may take, as "6 GB"; tiles and blocks are chosen within it so that as little as possible is
        computed twice. None: at most 0.6 of what the machine, its container or the Dask worker has, and more only where
        it saves time in proportion.
    each
        Of a mosaic: segment each scene on its own grid, then merge. `inner` takes a pixel from the scene in which it
        lies farthest from an edge or from nodata, up to the halo or 64 pixels; beyond, and of equals, the first scene.
        `mean` of the probabilities; `feather`: weighted by that distance; `max`: of each class, brought to a sum of 1.
        Probabilities of scenes on other grids are resampled, bilinear unless the mosaic's `resampling` is nearest.
        None: merge, then segment the mosaic as one scene.
    untrusted
        Decode scene and bundle in a process of their own, which has no network, sees the scene's folder alone, writes
        nothing, and is ended where it takes too long or too much memory: see `open_scene`. Not of a mosaic.
    on_nonfinite
        Where the network's answer is NaN or infinite, or a sample is so large that it would be: `fail`, the block
        fails, and says where; `nodata`, these pixels are nodata, and counted. It decides whether a block is written,
        never what it holds, and may be another when a run is continued.
    """

    bands: Sequence[str | int] | None = None
    resampling: Resampling = "nearest"
    alpha: bool | None = None
    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    reflectance: bool = False
    tile: int | None = None
    block: int | None = None
    halo: Halo = "exact"
    overlap: Overlap | None = None
    blend: Blend = "crop"
    taper: Taper = "linear"
    tolerance: float = 0.004
    engine: EngineName = "auto"
    device: Device = "auto"
    precision: PrecisionOption = "fp32"
    threads: int | None = None
    compile: bool = False
    threshold: Thresholds | Literal["likeliest"] | None = None
    probability: ProbabilityType | None = "uint8"
    probability_of: str | None = None
    overviews: bool = True
    allow_mismatch: bool = False
    memory: str | int | None = None
    each: Merge | None = None
    untrusted: bool = False
    on_nonfinite: OnNonfinite = "fail"

    def __post_init__(self) -> None:
        if self.threshold != "likeliest":
            given: Any = self.threshold
            check_probability("a threshold", given, otherwise=", or 'likeliest'")
        if self.resampling not in RESAMPLINGS:
            raise PlanError(f"resampling is {', '.join(RESAMPLINGS)}; received {self.resampling!r}")
        self._check_radiometry()
        if self.memory is not None:
            parse_memory(self.memory)
        if isinstance(self.halo, str) and self.halo not in ("exact", "auto"):
            raise PlanError(f"halo is 'exact', 'auto' or a number of pixels; received {self.halo!r}")
        self._check_overlap()
        if self.precision not in get_args(PrecisionOption):
            known = ", ".join(get_args(PrecisionOption))
            raise PlanError(f"precision is one of {known}; received {self.precision!r}")
        if self.each not in (None, *get_args(Merge)):
            raise PlanError(f"each is {', '.join(get_args(Merge))}; received {self.each!r}")
        if self.on_nonfinite not in get_args(OnNonfinite):
            raise PlanError(f"on_nonfinite is {', '.join(get_args(OnNonfinite))}; received {self.on_nonfinite!r}")
        if self.tolerance <= 0:
            raise PlanError(f"tolerance must be above 0; received {self.tolerance}")
        if self.probability not in (None, "uint8", "float16", "float32"):
            raise PlanError(f"probabilities are kept as uint8, float16, float32 or not; received {self.probability!r}")

    def _check_radiometry(self) -> None:
        for name, given in (("scale", self.scale), ("offset", self.offset)):
            numbers: list[Any] = [*given] if isinstance(given, list | tuple) else [given]
            for number in numbers:
                usable = isinstance(number, Real) and isfinite(float(number)) and (name == "offset" or number != 0)
                if number is not None and not usable:
                    but = " but 0" if name == "scale" else ""
                    raise PlanError(f"{name} is a finite number{but}, or a list of them; received {number!r}")
        if self.reflectance and (self.scale is not None or self.offset is not None):
            raise PlanError("reflectance means scale 1 and offset 0: give it, or scale and offset")

    def _check_overlap(self) -> None:
        whole = isinstance(self.overlap, int) and not isinstance(self.overlap, bool) and self.overlap >= 0
        if self.overlap not in (None, "auto") and not whole:
            raise PlanError(f"overlap is 'auto' or a number of pixels; received {self.overlap!r}")
        if self.overlap is not None and self.halo != "exact":
            raise PlanError("tiles have a halo or an overlap: give one of them")
        for name, given, known in (("blend", self.blend, Blend), ("taper", self.taper, Taper)):
            if given not in get_args(known):
                raise PlanError(f"{name} is {', '.join(get_args(known))}; received {given!r}")
        if self.taper != "linear" and self.blend != "feather":
            raise PlanError("taper is of --blend feather")

    @property
    def says_radiometry(self) -> bool:
        """Whether it is said what the scene's values mean."""
        return self.reflectance or self.scale is not None or self.offset is not None

    def kept(self) -> dict[str, Any]:
        """Return what decides pixels and is not as by default, as a store keeps it."""
        passing = ("memory", "threads", "tile", "block")
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        usual = {field.name: field.default for field in fields(self)}
        return {name: value for name, value in given.items() if value != usual[name] and name not in passing}

    def spec(self, metadata: BundleMetadata | None = None) -> EngineSpec:
        """Return the engine that is asked for, for a bundle; where its precision is to be measured, in fp32.

        Without a bundle, for networks of torch.
        """
        precision: Precision = "fp32" if self.precision == "auto" or self.precision == "int8" else self.precision
        onnx = metadata is not None and metadata.architecture == ONNX
        alone = metadata is not None and sees_all(metadata)
        return EngineSpec(self.engine, self.device, precision, self.threads, self.compile, onnx=onnx, one_thread=alone)

    def encoding(self, metadata: BundleMetadata) -> Encoding:
        """Return what is kept of the network's answer for the classes of a bundle."""
        kept = self._kept(metadata) if self.probability else ()
        return Encoding(self.decision(metadata), self.probability, kept)

    def decision(self, metadata: BundleMetadata) -> Decision | None:
        """Return the thresholds by class value: what is asked for, or the bundle's own. None: the likeliest class.

        Raises
        ------
        PlanError
            A threshold is asked for and the bundle has no background; or they are not one for each other class.
        """
        asked = metadata.thresholds or None if self.threshold is None else self.threshold
        if asked is None or isinstance(asked, str):
            return None
        return decision(asked, metadata.class_names, metadata.background_value)

    def _kept(self, metadata: BundleMetadata) -> tuple[int, ...]:
        names = metadata.class_names
        if self.probability_of is None:
            return (1,) if len(names) == 2 else tuple(range(len(names)))
        if self.probability_of == "all":
            return tuple(range(len(names)))
        if self.probability_of not in names:
            raise PlanError(f"the bundle has no class {self.probability_of!r}; it has: {', '.join(names)}")
        return (names.index(self.probability_of),)


def parse_memory(given: str | int) -> int:
    """Read a number of bytes, as "6 GB" or "500 MiB".

    Raises
    ------
    PlanError
        It is something else, or less than a megabyte.
    """
    from dask.utils import parse_bytes

    try:
        size = 0 if isinstance(given, bool) else int(parse_bytes(given))
    except (ValueError, TypeError, AttributeError, OverflowError):
        size = 0
    if size < TINIEST:
        raise PlanError(f"memory is a size with its unit, as '6 GB' or '800 MB'; received {given!r}")
    return size
