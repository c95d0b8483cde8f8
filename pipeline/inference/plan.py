"""From a scene, a bundle and options to a plan: everything that can be refused is refused here, before any writing."""

import os
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack

from models.bundle import Bundle, load_bundle
from models.engine import resolve
from models.errors import BundleError
from models.metadata import ReceptiveField

from ..grid.geobox import GeoBox
from ..grid.tiling import TilingPlan, make_plan
from ..io.scene import SceneLike
from ..io.source import Source
from .compatibility import check_fit, open_matching
from .options import SegmentKeywords, SegmentOptions
from .predict import InferenceSpec

BundleLike = Bundle | str | os.PathLike[str]


@dataclass(frozen=True)
class SegmentPlan:
    """A run that has not begun: where pixels come from, and what is done with them. `print` it to see what it costs."""

    source: Source
    inference: InferenceSpec
    options: SegmentOptions
    notes: tuple[str, ...]

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

    @property
    def memory(self) -> int:
        """Bytes that one block in work takes, without the network's own."""
        return self.plan.bytes_per_block(
            len(self.source.bands), self.source.dtype.itemsize, len(self.inference.metadata.classes)
        )

    @property
    def output_bytes(self) -> int:
        """Bytes of the full-resolution arrays before compression."""
        encoding = self.inference.encoding
        size = {"uint8": 1, "float16": 2, "float32": 4}.get(encoding.probability or "", 0)
        return self.plan.height * self.plan.width * (1 + size * len(encoding.kept))

    def __str__(self) -> str:
        plan, spec = self.plan, self.inference.spec
        halo = "exact: tiled equals whole" if plan.exact else "below the receptive radius, or there is none"
        lines = [
            f"scene    {self.geobox.describe()}",
            f"         {len(self.source.bands)} bands {', '.join(self.source.bands)}; {self.source.dtype}",
            f"bundle   {self.inference.metadata.name} {self.inference.digest[:12]}",
            f"engine   {spec.name} on {spec.device}, {spec.precision}",
            f"blocks   {len(plan):,} of up to {plan.block} x {plan.block} pixels",
            f"tiles    of up to {plan.tile * plan.tile_aspect} x {plan.tile} pixels",
            f"halo     {plan.halo} pixels per side ({halo}); "
            f"the network sees {plan.halo_overhead:.2f} pixels per pixel",
            f"memory   {self.memory / 1e6:,.0f} MB for each block in work, and the network's own",
            f"output   {self.output_bytes / 1e6:,.1f} MB before compression",
        ]
        return "\n".join(lines + [f"note     {note}" for note in self.notes])


def plan(scene: SceneLike, bundle: BundleLike, **keywords: Unpack[SegmentKeywords]) -> SegmentPlan:
    """Plan a run: open the scene, check that the bundle fits, cut it into blocks. Reads no pixels.

    Only `halo="auto"` reads and runs a little, to measure.

    Parameters
    ----------
    scene
        See `open_scene`.
    bundle
        A bundle, or the name or path of one.
    **keywords
        See `pipeline.inference.options.SegmentOptions`.

    Raises
    ------
    SwatheError
        The scene cannot be opened, does not fit the bundle, or the options make no sense.
    """
    options = SegmentOptions(**keywords)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    return _planned(open_matching(scene, loaded.metadata, options.bands), loaded, options)


def plan_source(source: Source, bundle: BundleLike, **keywords: Unpack[SegmentKeywords]) -> SegmentPlan:
    """As `plan`, for a scene that is open already and whose bands are the network's, in its order.

    Raises
    ------
    BundleError
        The source has not as many bands as the network.
    SwatheError
        As `plan`.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    options, wanted = SegmentOptions(**keywords), loaded.metadata.band_names
    if len(source.bands) != len(wanted):
        raise BundleError(
            f"{loaded.metadata.name} needs {len(wanted)} bands ({', '.join(wanted)}); the scene is read with "
            f"{len(source.bands)}: {', '.join(source.bands[:12])}"
        )
    return _planned(source, loaded, options)


def _planned(source: Source, loaded: Bundle, options: SegmentOptions) -> SegmentPlan:
    notes = check_fit(source, loaded.metadata, allow_mismatch=options.allow_mismatch)
    encoding, spec = options.encoding(loaded.metadata), resolve(options.spec())

    def inference(halo: int | None) -> InferenceSpec:
        cut = make_plan(
            source.geobox.shape, loaded.metadata.receptive_field, halo=halo, tile=options.tile, block=options.block
        )
        return InferenceSpec(str(loaded.path.resolve()), loaded.digest, loaded.metadata, spec, cut, encoding)

    if options.halo == "auto" and _worth_measuring(loaded.metadata.receptive_field):
        from .halo import smallest_halo

        chosen, error = smallest_halo(source, inference(None), options.tolerance)
        notes.append(f"halo auto: {chosen} pixels, measured error {error:.1g} within {options.tolerance:g}")
        return SegmentPlan(source, inference(chosen), options, tuple(notes))
    return SegmentPlan(
        source, inference(options.halo if isinstance(options.halo, int) else None), options, tuple(notes)
    )


def _worth_measuring(receptive_field: ReceptiveField) -> bool:
    """Without a radius there is no reference to measure against; `make_plan` says so."""
    return receptive_field.halo is not None and receptive_field.halo > receptive_field.stride
