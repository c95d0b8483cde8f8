"""A scene that was cut into tiles: rasters of the same bands on one grid, side by side, read as one.

GDAL's own index of tiles (GTI) gives nodata without a word where a tile cannot be read, so tiles are read here, each as
a scene of its own. Where no tile lies, nothing was observed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import SceneError, SeveralScenesError
from models.limits import MOST_PIXELS

from ..grid.geobox import GeoBox, Window, describe_crs, same_crs
from .palette import COLORS as PALETTE_COLORS
from .raster import AlikeRasters, RasterBand, RasterSource, part_identity
from .source import BandNames, Pixels, describe_source

PIECE = 2048  # side of what is compared at once where tiles overlap
ALIKE = 0.01  # of a pixel: writers round transforms


@dataclass(frozen=True, slots=True)
class TiledSource(AlikeRasters):
    """Tiles, each with its window of the scene. Where tiles overlap, the first that observed a pixel gives it."""

    geobox: GeoBox
    tiles: tuple[tuple[Window, RasterSource], ...]
    file_notes: tuple[str, ...] = ()

    expensive_reads, scatter_once = False, True
    masks = True  # where no tile lies

    @override
    def __repr__(self) -> str:
        return describe_source(self)

    @property
    @override
    def _first(self) -> RasterSource:
        return self.tiles[0][1]

    @property
    def raster_bands(self) -> tuple[RasterBand, ...]:
        """Facts of the bands, as the first tile has them."""
        return self._first.raster_bands

    @property
    def notes(self) -> tuple[str, ...]:
        """What the tiles tell, and how many there are."""
        return self.file_notes

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, each once."""
        return tuple(dict.fromkeys(path for _, tile in self.tiles for path in tile.paths))

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        made = self.no_pixels(window.shape)
        data, valid = made.data, made.valid
        for place, tile in self.tiles:
            shared = place.overlap(window)
            if shared is None:
                continue
            pixels, here = tile.read(shared.within(place)), shared.within(window).slices
            new = pixels.valid & ~valid[here]
            np.copyto(data[:, *here], pixels.data, where=new)
            valid[here] |= new
        return made

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Return where the tiles observed anything: bool `(y, x)`."""
        return self.read(window).valid

    def select(self, bands: BandNames) -> "TiledSource":
        """Take bands by name or number (from 1), in the order given. Raises SceneError where there is none such."""
        return replace(self, tiles=tuple((place, tile.select(bands)) for place, tile in self.tiles))

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""
        return replace(self, file_notes=(*self.file_notes, note))

    def identity(self) -> dict[str, Any]:
        """Return content and place of the tiles, and which bands are taken."""
        tiles = sorted(self.tiles, key=lambda each: (each[0].top, each[0].left))
        return {
            "tiles": [[part_identity(tile.paths[0]), place.top, place.left] for place, tile in tiles],
            "bands": [band.index for band in self.raster_bands],
            "nodata": [None if v is None else repr(v) for v in self.nodata],
            "grid": self.geobox.describe(),
            **({"choices": choices} if any(choices := [tile.choices() for _, tile in tiles]) else {}),
        }


def lie_apart(sources: Sequence[RasterSource]) -> bool:
    """Whether rasters lie beside each other, not on each other: no two share half of the smaller one's extent."""
    import shapely

    if any(source.geobox.transform is None for source in sources):
        return False
    boxes = np.array([shapely.box(*_extent(source.geobox)) for source in sources])
    one, other = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    one, other = one[one < other], other[one < other]
    shared = shapely.area(shapely.intersection(boxes[one], boxes[other]))
    return not (shared > np.minimum(shapely.area(boxes[one]), shapely.area(boxes[other])) / 2).any()


def _extent(geobox: GeoBox) -> tuple[float, float, float, float]:
    found = geobox.bounds()
    assert found is not None  # in its own CRS
    return found


def join_tiles(sources: Sequence[RasterSource]) -> TiledSource:
    """Put tiles together.

    Raises
    ------
    SceneError
        They differ in bands, type, nodata, CRS or resolution; they lie on shifted grids; they overlap, and say
        different things there.
    """
    if len({source.palette for source in sources}) > 1 and all(source.palette for source in sources):
        sources = [source.select(PALETTE_COLORS) for source in sources]  # an index is another colour in each tile
    first = sources[0]
    for source in sources:
        _refuse_unlike(source, first)
    places = [_place(source, first) for source in sources]
    top, left = min(place.top for place in places), min(place.left for place in places)
    height, width = max(place.bottom for place in places) - top, max(place.right for place in places) - left
    if height * width > MOST_PIXELS:
        raise SeveralScenesError(
            f"the tiles span {height:,} x {width:,} pixels, too many: {first.paths[0]} lies far from others"
        )
    grid = GeoBox(height, width, first.geobox.affine * Affine.translation(left, top), first.geobox.crs)
    tiles = tuple((place.shift(-top, -left), source) for place, source in zip(places, sources, strict=True))
    _refuse_contradictions(tiles)
    notes = list(dict.fromkeys(note for source in sources for note in source.file_notes))
    covered = _covered([place for place, _ in tiles], grid.shape)
    holes = f"; {100 * (1 - covered):.3g} % of the scene lies under none and is missing" if covered < 1 else ""
    return TiledSource(grid, tiles, (*notes, f"the scene is {len(tiles)} tiles{holes}"))


def _refuse_unlike(source: RasterSource, first: RasterSource) -> None:
    def facts(of: RasterSource) -> list[tuple[str, str]]:
        return [
            ("bands", ", ".join(of.bands) + (" with a colour table" if of.palette else "")),
            ("type", ", ".join(dict.fromkeys(band.dtype for band in of.raster_bands))),
            ("nodata", ", ".join(str(value) for value in dict.fromkeys(map(repr, of.nodata)))),
            ("scale and offset", ", ".join(dict.fromkeys(f"{b.scale:g}, {b.offset:g}" for b in of.raster_bands))),
        ]

    for (what, here), (_, there) in zip(facts(source), facts(first), strict=True):
        if here != there:
            raise SeveralScenesError(
                f"tiles differ in {what}: {source.paths[0]} has {here}; {first.paths[0]} has {there}"
            )
    if not same_crs(source.geobox.crs, first.geobox.crs):
        here, there = describe_crs(source.geobox.crs), describe_crs(first.geobox.crs)
        raise SeveralScenesError(f"tiles differ in CRS: {source.paths[0]} has {here}; {first.paths[0]} has {there}")


def _place(source: RasterSource, first: RasterSource) -> Window:
    """Return where a tile lies, in pixels of the first."""
    if source.geobox.transform is None:
        raise SceneError(f"{source.paths[0]} has no position, so that it is not known where the tile lies")
    there = ~first.geobox.affine * source.geobox.transform
    height, width = source.geobox.shape
    row, column = round(there.f), round(there.c)
    far = there * (width, height)
    if max(abs(there.f - row), abs(there.c - column), abs(far[0] - column - width), abs(far[1] - row - height)) > ALIKE:
        raise SeveralScenesError(
            f"tiles lie on different grids: {source.paths[0]} has {source.geobox.describe()};\n"
            f"{first.paths[0]} has {first.geobox.describe()}. Warp them onto one first, as with gdalwarp"
        )
    return Window(row, row + height, column, column + width)


def _refuse_contradictions(tiles: Sequence[tuple[Window, RasterSource]]) -> None:
    """Refuse tiles that overlap where both observed a pixel and its values differ."""
    import shapely

    boxes = np.array([shapely.box(p.left, p.top, p.right, p.bottom) for p, _ in tiles])
    ones, others = shapely.STRtree(boxes).query(boxes, predicate="intersects")
    for one, other in zip(ones.tolist(), others.tolist(), strict=True):
        (place, tile), (over, cover) = tiles[one], tiles[other]
        shared = place.overlap(over)
        if one >= other or shared is None:
            continue
        for part in shared.split(PIECE):
            here, there = tile.read(part.within(place)), cover.read(part.within(over))
            both = here.valid & there.valid
            if not np.array_equal(here.data[:, both], there.data[:, both], equal_nan=here.data.dtype.kind == "f"):
                raise SeveralScenesError(
                    f"{tile.paths[0]} and {cover.paths[0]} overlap, and differ there: they are not tiles of one scene. "
                    "Give one of them, or merge them first, as with gdalwarp"
                )


def _covered(places: Sequence[Window], shape: tuple[int, int]) -> float:
    """Return the share of a scene that lies under windows."""
    rows = np.unique([edge for place in places for edge in (place.top, place.bottom)])
    columns = np.unique([edge for place in places for edge in (place.left, place.right)])
    under = np.zeros((rows.size - 1, columns.size - 1), bool)
    for place in places:
        down, across = (
            np.searchsorted(rows, (place.top, place.bottom)),
            np.searchsorted(columns, (place.left, place.right)),
        )
        under[down[0] : down[1], across[0] : across[1]] = True
    return float((under * np.diff(rows)[:, None] * np.diff(columns)).sum() / (shape[0] * shape[1]))
