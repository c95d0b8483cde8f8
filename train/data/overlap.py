"""Overlap of samples on the ground: which lie over or beside each other, in any CRS. Reads no pixel."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.io.longitude import cut_at_antimeridian, full_circle

from .samples import Sample

ALONG = 33  # points along each side of an outline that is brought to another CRS, where its sides are bent
WIDE = 180.0  # degrees around an outline that no local map holds
HALF = 0.5  # of a pixel: positions are rounded by those who write them

Outlines = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Contact:
    """Two samples, by their places in the sequence given, and the part of the smaller one that both cover, 0 to 1."""

    first: int
    second: int
    share: float


def overlapping(samples: Sequence[Sample]) -> list[Contact]:
    """Find samples whose areas lie over each other on the ground, by more than rounding (half a pixel).

    Parameters
    ----------
    samples
        Of any CRS. Those without CRS or transform lie nowhere, and over nothing.

    Returns
    -------
    list of Contact
        Each pair once, the first before the second.
    """
    return list(_contacts(samples, -HALF))


def adjoining(samples: Sequence[Sample]) -> list[Contact]:
    """As `overlapping`, with those too that share a border, if only of a few pixels; corners alone do not count."""
    return list(_contacts(samples, HALF))


@dataclass(frozen=True, slots=True)
class _Group:
    """Samples of one CRS: their places, their areas as polygons, and the sides of their pixels in the CRS's unit."""

    crs: str
    places: NDArray[np.intp]
    outlines: Outlines
    pixels: NDArray[np.float64]

    def of(self, some: NDArray[np.bool_]) -> "_Group":
        return _Group(self.crs, self.places[some], self.outlines[some], self.pixels[some])

    def moved(self, crs: str) -> "_Group":
        return _Group(crs, self.places, _moved(self.outlines, self.crs, crs), self.pixels)


def _contacts(samples: Sequence[Sample], reach: float) -> Iterator[Contact]:
    """Compare the samples of each CRS among themselves, and then with those of each later CRS."""
    import shapely

    groups = _groups(samples)
    for number, group in enumerate(groups):
        yield from _pairs(group, group, reach)
        for other in groups[number + 1 :]:
            here = other.moved(group.crs)
            yield from _pairs(group, here, reach)
            beyond = shapely.is_empty(here.outlines)  # as a map of the world, of which a UTM zone holds a part
            if beyond.any():
                yield from _pairs(other.of(beyond), group.moved(other.crs), reach)


def _groups(samples: Sequence[Sample]) -> list[_Group]:
    by_crs: dict[str, list[int]] = defaultdict(list)
    for place, sample in enumerate(samples):
        if sample.geobox.georeferenced and sample.areas:
            by_crs[str(sample.geobox.crs)].append(place)
    made = []
    for crs, places in by_crs.items():
        pixels = np.array([abs(samples[place].geobox.affine.determinant) ** 0.5 for place in places], float)
        outlines = _outlines(samples, places)
        if (known := _known(crs)) is not None and known.is_geographic:
            outlines = cut_at_antimeridian(outlines, full_circle(known))  # however each of them counts longitudes
        made.append(_Group(crs, np.array(places), outlines, pixels))
    return sorted(made, key=lambda group: _geographic(group.crs))  # degrees break at the antimeridian; metres do not


def _geographic(crs: str) -> bool:
    known = _known(crs)
    return known is None or bool(known.is_geographic)


def _known(crs: str) -> Any:
    """Return a CRS; None for one that pyproj does not know."""
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError:
        return None


def _outlines(samples: Sequence[Sample], places: list[int]) -> Outlines:
    """Return the areas of samples as polygons in their own CRS."""
    import shapely
    from shapely.affinity import affine_transform

    made = np.empty(len(places), object)
    for number, place in enumerate(places):
        boxes = [(area.left, area.top, area.right, area.bottom) for area in samples[place].areas]
        where = samples[place].geobox.affine
        both = shapely.union_all(shapely.box(*np.array(boxes, float).T))
        made[number] = affine_transform(both, (where.a, where.b, where.d, where.e, where.c, where.f))
    return made


def _moved(outlines: Outlines, source: str, target: str) -> Outlines:
    """Bring polygons to another CRS; one that reaches out of it becomes empty."""
    import shapely
    from pyproj import Transformer
    from pyproj.exceptions import ProjError

    made: Outlines = np.full(len(outlines), shapely.Polygon(), object)
    try:
        transformer = Transformer.from_crs(source, target, always_xy=True)
    except ProjError:  # one that is not tied to the Earth: nothing of it lies over anything
        return made
    bent = shapely.segmentize(outlines, shapely.length(outlines) / 4 / ALONG)
    points, which = shapely.get_coordinates(bent, return_index=True)
    x, y = transformer.transform(points[:, 0], points[:, 1])
    good = np.setdiff1d(which, which[~(np.isfinite(x) & np.isfinite(y))])
    if _geographic(source):  # the ends of the Earth have finite places in some projections, but not where they belong
        good = good[shapely.length(outlines[good]) < WIDE]
    inside = np.isin(which, good)
    made[good] = shapely.make_valid(shapely.set_coordinates(bent[good], np.column_stack([x, y])[inside]))
    return made


def _pairs(mine: _Group, theirs: _Group, reach: float) -> Iterator[Contact]:
    """Compare polygons, once those of the first group have grown, or shrunk, by a part of a pixel."""
    import shapely

    buffered: Any = shapely.buffer(mine.outlines, mine.pixels * reach, join_style="mitre")
    first, second = shapely.STRtree(theirs.outlines).query(buffered, predicate="intersects")
    if mine is theirs:
        first, second = first[first < second], second[first < second]
    shared = shapely.area(shapely.intersection(buffered[first], theirs.outlines[second]))
    smaller = np.minimum(shapely.area(mine.outlines[first]), shapely.area(theirs.outlines[second]))
    border = mine.pixels[first] ** 2 if reach > 0 else 0.0  # a corner gives a quarter of it, a border half its length
    enough = shared > 0.5 * np.minimum(border, smaller)
    pairs = zip(mine.places[first], theirs.places[second], shared / smaller, strict=True)
    for one, other, share in (pair for pair, wanted in zip(pairs, enough, strict=True) if wanted):
        yield Contact(int(min(one, other)), int(max(one, other)), min(1.0, float(share)))
