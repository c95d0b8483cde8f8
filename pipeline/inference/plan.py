"""Plan a segmentation: open the scene, check that the bundle fits its bands, type and resolution, cut it into blocks.

Everything that can be refused is refused here, before anything is written.
"""

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Literal

from models.bundle import Bundle, load_bundle
from models.encoding import Encoding, ProbabilityType, Thresholds, describe_decision
from models.engine import Device, EngineName, EngineSpec, PrecisionOption, resolve, slots_of
from models.engine_memory import UNKNOWN, EngineMemory, kept_memory, measure_memory
from models.errors import BundleError, PlanError, SceneError
from models.graph_form import fixed_shape
from models.metadata import BundleMetadata
from models.options import chosen, documents
from models.system import usable_cpus

from ..catalog.index import SceneIndex, is_index
from ..grid.geobox import GeoBox
from ..grid.tile_grid import Blend, Taper, TileGrid
from ..grid.tiling import TilingPlan, make_plan
from ..io.resample import Resampling
from ..io.scene import (
    UNNAMED,
    AnyOpen,
    SceneLike,
    advising_index,
    band_hint,
    open_source,
    opens_by_name,
    take_bands,
    take_named,
)
from ..io.source import Source
from ..io.untrusted import checked_bundle
from ..mosaic.open import MosaicLike, as_mosaic
from ..mosaic.source import MosaicSource
from .each import expected_overlap, mosaic_of
from .grid_choice import choose_grid, is_measured
from .memory import Cut, PixelBytes, Resources, cut_scene, machine_memory
from .merge import Merge
from .nonfinite import OnNonfinite
from .options import Halo, Overlap, SegmentOptions
from .predict import InferenceSpec
from .radiometry import bring_to_bundle, describe_values, doubts, units_known

if TYPE_CHECKING:
    from .calibrate import Calibration
    from .kept_precision import BegunRun, PrecisionChoice
    from .overlap import OverlapChoice

RESOLUTION_FACTOR = 2.0  # finer or coarser than trained on by more than this is refused
MERGING, MERGING_CLASS = 24, 10  # bytes of a pixel, and of each class, twice: sums, one scene's answer, distances
logger = logging.getLogger("swathe")


BundleLike = Bundle | str | os.PathLike[str]


@dataclass(frozen=True)
class SegmentPlan:
    """A run that has not begun: where pixels come from, and what is done with them. `print` it to see what it costs."""

    source: Source
    inference: InferenceSpec
    options: SegmentOptions
    notes: tuple[str, ...]
    cut: Cut
    calibration: "Calibration | None" = None
    choice: "PrecisionChoice | None" = None  # of the precision, where that was left to be measured
    overlap: "OverlapChoice | None" = None  # of tiles on a grid, if anything was measured of them
    doubts: tuple[str, ...] = ()  # whether its values are such as the bundle was trained on

    @property
    def plan(self) -> TilingPlan:
        """How the scene is cut."""
        return self.inference.plan

    @property
    def geobox(self) -> GeoBox:
        """Where the scene lies."""
        return self.source.geobox

    @cached_property
    def scene_identity(self) -> dict[str, Any]:
        """What tells the scene's pixels from another's; a file is looked at once."""
        return self.source.identity()

    def log_doubts(self) -> None:
        """Say what is doubtful where nobody is shown the plan."""
        for text in self.doubts:
            logger.warning(text)

    @property
    def memory(self) -> int:
        """Bytes that a process of the run takes at most: interpreter, libraries, network, and all blocks in work."""
        return self.cut.peak_bytes

    @property
    def output_bytes(self) -> int:
        """Bytes of the full-resolution arrays before compression."""
        return self.plan.height * self.plan.width * _kept(self.inference.encoding)

    @property
    def decision(self) -> str:
        """How the class of a pixel is decided, in words."""
        metadata, thresholds = self.inference.metadata, self.inference.encoding.thresholds
        whose = ", the bundle's own" if self.options.threshold is None and metadata.thresholds else ""
        return describe_decision(thresholds, metadata.class_names) + whose

    def __repr__(self) -> str:
        count = len(self.plan)
        how = f"halo {self.plan.halo}" if self.plan.grid is None else f"overlap {self.plan.grid.overlap}"
        cut = f"{count:,} block{'s' * (count != 1)}, {how}"
        what = f"{self.inference.metadata.name} on {self.geobox.describe()}"
        return f"<SegmentPlan of {what}: {cut}; print it to see what it costs>"

    def __str__(self) -> str:
        plan, spec = self.plan, self.inference.spec
        lines = [
            f"scene    {self.geobox.describe()}",
            f"         {len(self.source.bands)} bands {', '.join(self.source.bands)}; {self.source.dtype}",
            *([f"         {means}"] if (means := describe_values(self.source, self.inference.metadata)) else []),
            f"bundle   {self.inference.metadata.name} {self.inference.digest[:12]}",
            f"classes  {self.decision}",
            f"engine   {spec.name} on {spec.device}, {spec.precision}",
            f"blocks   {len(plan):,} of up to {plan.block} x {plan.block} pixels",
            *(self._describe_halo() if plan.grid is None else self._describe_grid(plan.grid)),
            *self._describe_each(),
            f"memory   {self.cut.describe()}",
            *([f"time     {self.calibration.describe(plan, self.cut.cost)}"] if self.calibration else []),
            f"output   {self.output_bytes / 1e6:,.1f} MB before compression",
        ]
        return "\n".join(lines + [f"note     {note}" for note in (*self.notes, *self.cut.notes, *self.doubts)])

    def _describe_halo(self) -> list[str]:
        plan = self.plan
        halo = "exact: tiled equals whole" if plan.exact else "below the receptive radius"
        return [
            f"tiles    of up to {plan.tallest} x {plan.tile} pixels",
            f"halo     {plan.halo} pixels per side ({halo}); "
            f"the network sees {plan.halo_overhead:.2f} pixels per pixel",
        ]

    def _describe_grid(self, grid: TileGrid) -> list[str]:
        plan = self.plan
        blend = grid.blend if grid.taper is None else f"{grid.blend}, {grid.taper}"
        rows, columns = plan.largest_input
        how = f"not exact: tiles of {grid.side}, overlap {grid.overlap}"
        if plan.exact:
            how = f"halo {plan.halo}, exact: tiled equals whole"
        elif all(len(axis) == 1 for axis in plan.axes):
            how = "none: one tile holds the scene"
        elif self.overlap is not None and self.overlap.change is not None:
            how += f", measured change {self.overlap.change:.2g}"
        seen, alone = (f"{pixels:.2f}" for pixels in (plan.halo_overhead, plan.grid_overhead))
        shared = f"; {alone} but for tiles that blocks share, which both compute" if seen != alone else ""
        return [
            f"tiles    of {rows} x {columns} pixels on one grid over the scene; blend {blend}",
            f"overlap  {how}; the network sees {seen} pixels per pixel{shared}",
        ]

    def _describe_each(self) -> list[str]:
        mosaic, each = mosaic_of(self.source), self.inference.each
        if mosaic is None or each is None:
            return []
        return [f"each     {expected_overlap(mosaic):.2f} scenes a pixel, each computed, then merged by {each}"]

    @property
    def pixel(self) -> PixelBytes:
        """Bytes of a pixel, see `cut_scene`."""
        return _pixel(self.source, self.inference.encoding, self.inference.metadata, self.options)

    def for_workers(self, spec: EngineSpec, resources: Resources, measure: Callable[[], EngineMemory]) -> "SegmentPlan":
        """Return the plan for the workers of a cluster: their engine, their memory, their threads."""
        inference = self.inference
        known = kept_memory(inference.digest, spec) if spec.device == "cuda" else None
        cut = cut_scene(self.geobox.shape, inference.metadata.receptive_field, self.options, self.plan.halo,
                        self.pixel, resources, known, measure, self.plan.grid)  # fmt: skip
        return replace(self, inference=replace(inference, spec=spec, plan=cut.plan), cut=cut)

    def for_classes(
        self, spec: EngineSpec, classes: Sequence[Resources], measure: Callable[[], EngineMemory]
    ) -> "SegmentPlan":
        """Return the plan for workers that differ in memory and threads: its blocks are such as all of them can do.

        Raises
        ------
        PlanError
            As `cut_scene`, where none of them can do any.
        """
        plans, measured, refused = list[SegmentPlan](), cache(measure), None
        for resources in classes:
            try:
                plans.append(self.for_workers(spec, resources, measured))
            except PlanError as error:
                refused = error
        if refused is not None and not plans:
            raise refused
        return min(plans, key=lambda one: (one.plan.block, one.plan.tile))


@documents(SegmentOptions)
def plan(
    scene: SceneLike | MosaicLike,
    bundle: BundleLike,
    *,
    calibrate: bool = False,
    bands: Sequence[str | int] | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    reflectance: bool = False,
    tile: int | None = None,
    block: int | None = None,
    halo: Halo = "exact",
    overlap: Overlap | None = None,
    blend: Blend = "crop",
    taper: Taper = "linear",
    tolerance: float = 0.004,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: PrecisionOption = "fp32",
    threads: int | None = None,
    compile: bool = False,
    threshold: Thresholds | Literal["likeliest"] | None = None,
    probability: ProbabilityType | None = "uint8",
    probability_of: str | None = None,
    overviews: bool = True,
    allow_mismatch: bool = False,
    memory: str | int | None = None,
    each: Merge | None = None,
    untrusted: bool = False,
    on_nonfinite: OnNonfinite = "fail",
) -> SegmentPlan:
    """Plan a run: open the scene, check that the bundle fits, cut it into blocks.

    Pixels are read only where something must be looked at: a few small windows, to compare values with those of the
    training; a bounded number of a band that is tagged as alpha; and for `halo="auto"`, and to measure what tiles on a
    grid change, which runs a little too.

    Parameters
    ----------
    scene
        See `open_scene`.
    bundle
        A bundle, or the name or path of one.
    calibrate
        Read a few real tiles of the scene, run them through the engine and write them to a temporary folder, so that
        the plan says how long the run takes in this process. Some seconds.
    {SegmentOptions}

    Raises
    ------
    SwatheError
        The scene cannot be opened, does not fit the bundle, or the options make no sense.
    """
    return plan_scene(scene, bundle, chosen(SegmentOptions, locals()), calibrated=calibrate, measured=True)


def plan_scene(
    scene: SceneLike | MosaicLike,
    bundle: BundleLike,
    options: SegmentOptions,
    *,
    calibrated: bool = False,
    measured: bool = False,
    elsewhere: bool = False,
    begun: "BegunRun | None" = None,
) -> SegmentPlan:
    """As `plan`, with options that are checked already.

    Parameters
    ----------
    scene, bundle, options, calibrated
        See `plan`.
    measured
        Measure what tiles on a grid change, where that decides nothing.
    elsewhere
        Other processes run it, see `SegmentPlan.for_workers`.
    begun
        What lies at the output, see `choose_precision`.
    """
    if options.untrusted:
        loaded = checked_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
    else:
        loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    with advising_index(scene):
        opened = open_matching(
            scene, loaded.metadata, options.bands, options.resampling, options.alpha, options.untrusted
        )
    if options.each is not None and not isinstance(opened, MosaicSource):
        raise PlanError(f"each {options.each} merges the scenes of a mosaic; this is one scene: leave it out")
    prepared = _planned(opened, loaded, options, sure=calibrated, elsewhere=elsewhere, begun=begun)
    if prepared.overlap is None and prepared.plan.grid is not None and not prepared.plan.exact:
        prepared = replace(prepared, overlap=_change(prepared, measured=measured))
    if calibrated:
        prepared = replace(prepared, calibration=_calibrated(prepared))
    return replace(prepared, doubts=tuple(doubts([prepared.source], loaded.metadata)))


def _change(prepared: SegmentPlan, *, measured: bool) -> "OverlapChoice | None":
    """Say what is known of an overlap that was not measured to be chosen."""
    from .overlap import OverlapChoice, kept_change, measure_change

    grid = prepared.plan.grid
    assert grid is not None
    if measured:
        with suppress(PlanError):  # nothing is observed that it could be measured on, and it decides nothing
            return OverlapChoice(grid.overlap, measure_change(prepared.source, prepared.inference))
    kept = kept_change(prepared.source, prepared.inference)
    return None if kept is None else OverlapChoice(grid.overlap, kept)


def _calibrated(prepared: SegmentPlan) -> "Calibration":
    from .calibrate import calibrate

    overviews = prepared.options.overviews
    return calibrate(prepared.source, prepared.inference, prepared.geobox, prepared.cut.cost.slots, overviews=overviews)


def plan_source(source: Source, bundle: BundleLike, options: SegmentOptions) -> SegmentPlan:
    """As `plan`, for a scene that is open already and whose bands are the network's, in its order. Reads no pixels.

    Raises
    ------
    BundleError
        The source has not as many bands as the network.
    SwatheError
        As `plan`.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    wanted = loaded.metadata.band_names
    if len(source.bands) != len(wanted):
        raise BundleError(
            f"{loaded.metadata.name} needs {len(wanted)} bands ({', '.join(wanted)}); the scene is read with "
            f"{len(source.bands)}: {', '.join(source.bands[:12])}"
        )
    return _planned(source, loaded, options)


def _planned(
    opened: Source,
    loaded: Bundle,
    options: SegmentOptions,
    *,
    sure: bool = False,
    elsewhere: bool = False,
    begun: "BegunRun | None" = None,
) -> SegmentPlan:
    """Plan; `sure`: the engine's memory is measured even where it decides nothing."""
    source = bring_to_bundle(opened, loaded.metadata, options)
    notes = check_fit(source, loaded.metadata, allow_mismatch=options.allow_mismatch)
    encoding, field = options.encoding(loaded.metadata), loaded.metadata.receptive_field
    spec = resolve(options.spec(loaded.metadata))

    place = (str(loaded.path.resolve()), loaded.digest, loaded.metadata)
    grid = choose_grid(loaded.metadata, options)
    halo, left, graph = options.halo if isinstance(options.halo, int) else None, options.tolerance, b""
    choice, taken = None, None
    if options.precision in ("auto", "int8"):
        from .precision import choose_precision

        plain = InferenceSpec(*place, spec, make_plan(source.geobox.shape, field, halo=halo, grid=grid), encoding)
        choice, chosen_spec, taken = choose_precision(source, loaded, plain, options, begun)
        notes.append(choice.note)
        spec, graph, left = chosen_spec.spec, chosen_spec.graph, max(0.0, options.tolerance - choice.error)
    overlap = None
    if grid is not None and is_measured(loaded.metadata, options):
        from .overlap import choose_overlap

        some = InferenceSpec(*place, spec, make_plan(source.geobox.shape, field, grid=grid), encoding, graph)
        overlap = choose_overlap(source, some, options, left, None if begun is None else begun.overlap)
        grid = choose_grid(loaded.metadata, options, overlap.overlap)
        notes += [overlap.note] if overlap.note else []
    if grid is None and options.halo == "auto" and field.halo is not None and field.halo > field.stride:
        if taken is not None:
            halo = taken.halo  # measured with the same graph, which a complete store no longer has
            notes.append(f"halo auto: {halo} pixels, as when the run began")
        else:
            from .halo import smallest_halo

            whole = InferenceSpec(*place, spec, make_plan(source.geobox.shape, field), encoding, graph)
            halo, error = smallest_halo(source, whole, left)
            notes.append(f"halo auto: {halo} pixels, measured error {error:.1g} within {left:.2g}")

    def measure() -> EngineMemory:
        found = measure_memory(loaded, spec)
        if found.measured:
            notes.append(f"the network's memory was measured, once on this machine: {found.per_pixel} bytes per pixel")
        return found

    here, known = Resources(machine_memory(), blocks_at_once(spec)), kept_memory(loaded.digest, spec)
    known = measure() if sure and known is None else known
    ours = replace(options, memory=None) if elsewhere else options  # whose memory it is, is known when they are
    if elsewhere and known is None:
        known = UNKNOWN
    cut = cut_scene(
        source.geobox.shape,
        field,
        ours,
        halo,
        _pixel(source, encoding, loaded.metadata, options),
        here,
        known,
        measure,
        grid,
    )
    inference = InferenceSpec(*place, spec, cut.plan, encoding, graph, options.each, options.on_nonfinite)
    return SegmentPlan(source, inference, options, tuple(notes), cut, choice=choice, overlap=overlap)


def blocks_at_once(spec: EngineSpec) -> int:
    """Return how many blocks are in work in this process at a time: on a GPU, those that wait, and some being read."""
    return slots_of(spec) + (0 if spec.device == "cpu" else min(8, spec.threads or usable_cpus()))


def _kept(encoding: Encoding) -> int:
    """Return the bytes of a pixel of the result."""
    size = {"uint8": 1, "float16": 2, "float32": 4}.get(encoding.probability or "", 0)
    return 1 + size * len(encoding.kept)


def _pixel(source: Source, encoding: Encoding, metadata: BundleMetadata, options: SegmentOptions) -> PixelBytes:
    """Return the bytes of a pixel; of its results, half of those in the making."""
    merging = 0 if options.each is None else MERGING + MERGING_CLASS * len(metadata.classes)
    merging += 2 * len(metadata.classes) + 1 if options.blend == "feather" else 0  # half of a float32 each, and masks
    raw, kept = len(source.bands) * source.dtype.itemsize + 1, _kept(encoding)
    answer = 1 + 4 * len(metadata.classes) if options.blend == "feather" else kept
    others = (fixed_shape(metadata)[1] or 1) - 1
    # as they are read, filled and stacked; their answers, and still those of the batch before
    return PixelBytes(raw, kept + merging, others * (3 * raw + 2 * answer))


def fit_bands(source: AnyOpen | MosaicSource, metadata: BundleMetadata, bands: Sequence[str | int] | None) -> Source:
    """Take the bands that the network needs, in its order.

    Parameters
    ----------
    source
        The scene, with all its bands.
    metadata
        Of the bundle.
    bands
        The user's choice, in the network's order. None: by the bundle's names, or what these are commonly called;
        where the scene's bands have no names, all of them if their number is right.

    Raises
    ------
    BundleError
        They cannot be told apart, or are too few or too many.
    """
    wanted = metadata.band_names
    if bands is not None:
        if len(bands) != len(wanted):
            raise BundleError(
                f"{metadata.name} needs {len(wanted)} bands ({', '.join(wanted)}); --bands names {len(bands)}"
            )
        return take_bands(source, bands)
    if (named := take_named(source, wanted)) is not None:
        return named
    if len(source.bands) == len(wanted) and all(UNNAMED.fullmatch(name) for name in source.bands):
        return source
    shown = ", ".join(source.bands[:12]) + (", ..." if len(source.bands) > 12 else "")
    raise BundleError(
        f"{metadata.name} needs the bands {', '.join(wanted)}; the scene has {len(source.bands)}: {shown}. "
        + band_hint(source, wanted)
    )


def open_matching(
    scene: SceneLike | MosaicLike,
    metadata: BundleMetadata,
    bands: Sequence[str | int] | None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    untrusted: bool = False,
) -> Source:
    """Open a scene with the bands that the network needs, in its order; see `fit_bands`, and `open_scene` for the rest.

    Raises
    ------
    SceneError, BundleError
        It cannot be opened, or its bands do not fit.
    """
    if untrusted:
        if isinstance(scene, MosaicSource | SceneIndex) or any(map(is_index, _paths_of(scene))):
            raise PlanError("a mosaic's scenes are not decoded apart: leave --untrusted out, or segment each scene")
        return fit_bands(open_source(scene, None, resampling, alpha, untrusted), metadata, bands)
    if (mosaic := as_mosaic(scene, resampling)) is not None:
        return fit_bands(mosaic, metadata, bands)
    assert not isinstance(scene, MosaicSource | SceneIndex)  # `as_mosaic` has opened those
    wanted = metadata.band_names if bands is None else bands
    if len(wanted) != len(metadata.band_names) or not opens_by_name(scene, wanted):
        return fit_bands(open_source(scene, None, resampling, alpha), metadata, bands)
    if bands is not None:
        return open_source(scene, bands, resampling, alpha)
    try:
        return open_source(scene, wanted, resampling, alpha)
    except SceneError as why:  # the bands may fit all the same; where they do not, say both
        try:
            return fit_bands(open_source(scene, None, resampling, alpha), metadata, None)
        except BundleError as error:
            raise BundleError(f"{error}\n({why})") from error


def _paths_of(scene: Any) -> list[str]:
    given = scene if isinstance(scene, list | tuple) else [scene]
    return [os.fspath(one) for one in given if isinstance(one, str | os.PathLike)]


def check_fit(source: Source, metadata: BundleMetadata, *, allow_mismatch: bool = False) -> list[str]:
    """Check numeric type and resolution.

    Returns
    -------
    list of str
        What the user should know although the run goes on.

    Raises
    ------
    BundleError
        The scene is in other units or at another scale than the network was trained on, and `allow_mismatch` is False.
    """
    refusals, here, trained = [], source.geobox.resolution(), metadata.resolution
    if source.dtype.name != metadata.dtype and not units_known(source, metadata):
        refusals.append(f"{metadata.name} was trained on {metadata.dtype} values; the scene has {source.dtype.name}")
    if here and trained and not trained[0] / RESOLUTION_FACTOR <= here <= trained[1] * RESOLUTION_FACTOR:
        span = f"{trained[0]:g}" if trained[0] == trained[1] else f"{trained[0]:g} to {trained[1]:g}"
        refusals.append(f"{metadata.name} was trained at {span} m per pixel; the scene has {here:.3g} m")
    if refusals and not allow_mismatch:
        known = refusals[0].endswith(source.dtype.name) and any(band.radiometry for band in metadata.bands)
        say = "say what its values are by --scale and --offset or --reflectance, " if known else ""
        raise BundleError(f"{'; '.join(refusals)}. Convert the scene, {say}or pass --allow-mismatch if you know better")
    notes = [*refusals, *source.notes]
    if source.geobox.crs is None:
        notes.append("the scene has no CRS: the map has none either, and its resolution is not checked")
    return notes
