"""Which grid tiles lie on, by what the network is and what is asked for; nothing is measured here."""

from models.errors import PlanError
from models.metadata import BundleMetadata

from ..grid.tile_grid import TileGrid
from .options import SegmentOptions

SHARE = 4  # the overlap is the tile's side divided by it, where none is asked for
SMALLEST = 256  # side of a tile, of networks that were trained on smaller chips and take any
HAS_HALO = "this network has an exact halo, by which tiled equals whole: give --overlap N to blend tiles all the same"


def fixed_side(metadata: BundleMetadata) -> int | None:
    """Return the side in pixels of the only tiles that a network takes; None: it takes any."""
    side = metadata.options.get("side")
    return side if isinstance(side, int) and side > 0 else None


def is_measured(metadata: BundleMetadata, options: SegmentOptions) -> bool:
    """Whether the overlap of a grid is to be measured on the scene."""
    return "auto" in (options.overlap, options.halo) and choose_grid(metadata, options) is not None


def choose_grid(metadata: BundleMetadata, options: SegmentOptions, overlap: int | None = None) -> TileGrid | None:
    """Choose the grid on which a network's tiles lie.

    Parameters
    ----------
    metadata
        Of the bundle.
    options
        What is asked for of tile, halo, overlap and blending.
    overlap
        As it was measured, where that is asked for.

    Returns
    -------
    TileGrid
        None: the network has an exact halo, takes tiles of any size, and no overlap is asked for.

    Raises
    ------
    PlanError
        The network takes no such tiles; the overlap leaves nothing of them; or there is nothing to blend.
    """
    field, side = metadata.receptive_field, fixed_side(metadata)
    if side is not None and options.tile not in (None, side):
        raise PlanError(f"{metadata.name} takes tiles of {side} x {side} pixels alone; --tile is {options.tile}")
    if options.overlap is None and field.halo is not None:
        exact = _exact_grid(field.stride, field.halo, side, options)
        if side is None or exact is not None:
            if options.blend == "feather":
                raise PlanError(HAS_HALO)
            return exact
    asked = _asked_overlap(options) if overlap is None else overlap
    if side is None:
        side = _up(options.tile or max(metadata.patch, SMALLEST, 2 * (asked or 0)), field.stride)
    step = (side - (side // SHARE if asked is None else asked)) // field.stride * field.stride
    if asked is None:
        step = max(step, field.stride)
    if step < 1:
        most = (side - 1) // field.stride * field.stride
        larger = ", or a larger --tile" if fixed_side(metadata) is None else ""
        raise PlanError(f"an overlap of {asked} leaves nothing of tiles of {side} pixels: at most {most}{larger}")
    taper = options.taper if options.blend == "feather" else None
    # at the scene's rim, too, no pixel lies at the very edge of its tile
    before = (side - step) // 2 // field.stride * field.stride
    return TileGrid(side, side - step, options.blend, taper, before, fixed=fixed_side(metadata) is not None)


def _exact_grid(stride: int, halo: int, side: int | None, options: SegmentOptions) -> TileGrid | None:
    """Return the grid under which tiled equals whole, of a network with such a halo that takes tiles of one side."""
    asked = options.halo if isinstance(options.halo, int) else halo
    if side is None or options.halo == "auto" or asked < halo or (side - 2 * halo) // stride < 1:
        return None
    step = (side - 2 * halo) // stride * stride
    return TileGrid(side, side - step, before=halo, fixed=True)


def _asked_overlap(options: SegmentOptions) -> int | None:
    """Return the overlap that is asked for in pixels; None: none, or it is to be measured."""
    if isinstance(options.halo, int):
        return 2 * options.halo
    return options.overlap if isinstance(options.overlap, int) else None


def _up(value: int, step: int) -> int:
    return -(-value // step) * step
