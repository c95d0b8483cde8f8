"""What a rectangle knows of connected components that may continue outside of it, as facts and as bytes.

Numbers only: no store, no dask. `labels` finds the components of a block, `joining` joins rectangles.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid.geobox import Window

NONE = -1  # no component
LENGTH = 8  # bytes before what is packed, which tell how long it was
Sides = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]  # top, bottom, left, right


@dataclass(frozen=True, slots=True)
class Totals:
    """What is added up over the pixels of each of `n` components.

    Parameters
    ----------
    value
        uint8 (n): the class that its pixels have.
    pixels
        int64 (n).
    area
        float64 (n), in m²; 0 where pixel areas are not known.
    first
        int64 (n): row * width + column of its first pixel in the scene, row by row.
    strong
        bool (n): whether any of its pixels is marked, as hysteresis needs.
    borders
        int64 (n, classes): pairs of its pixels and 4-neighbours of another class.
    """

    value: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    area: NDArray[np.float64]
    first: NDArray[np.int64]
    above_high: NDArray[np.bool_]
    borders: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.value)

    def take(self, which: NDArray[Any]) -> "Totals":
        """Give those of some components, by number or by mask."""
        return Totals(*(getattr(self, field.name)[which] for field in fields(self)))

    def put(self, which: NDArray[np.int64], others: "Totals") -> "Totals":
        """Give these with those of some components replaced."""
        made = [getattr(self, field.name).copy() for field in fields(self)]
        for mine, field in zip(made, fields(self), strict=True):
            mine[which] = getattr(others, field.name)
        return Totals(*made)

    def grouped(self, groups: NDArray[np.int64], count: int) -> "Totals":
        """Add up the components of each group; every group has one."""
        value = np.zeros(count, np.uint8)
        value[groups] = self.value
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, groups, self.first)
        above_high = np.bincount(groups[self.above_high], minlength=count) > 0
        borders = np.zeros((count, self.borders.shape[1]), np.int64)
        np.add.at(borders, groups, self.borders)
        pixels = np.zeros(count, np.int64)
        np.add.at(pixels, groups, self.pixels)
        return Totals(
            value, pixels, np.bincount(groups, self.area, count).astype(np.float64), first, above_high, borders
        )


def joined_totals(parts: Sequence[Totals]) -> Totals:
    """Put totals one after the other."""
    return Totals(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Totals)))


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the scene, and its open components: those with a pixel on a side that is not the scene's edge.

    Parameters
    ----------
    window
        The rectangle.
    faces
        int32: the number of the open component at each pixel of a side, or NONE; empty where the side is closed.
    values
        uint8: what each pixel of a side is, whether or not it belongs to a component.
    totals
        Of the open components, by number.
    """

    window: Window
    faces: Sides
    values: Sides
    totals: Totals


@dataclass(frozen=True, slots=True)
class MergedRegion:
    """How the open components of rectangles side by side became those of the rectangle they make up together.

    Parameters
    ----------
    region
        The larger rectangle.
    groups
        int64: for the open components of all parts, one part after the other, the group each belongs to.
    counts
        How many of them each part has.
    totals
        Of the groups, as far as they are known here.
    open
        int64: the groups that are open in the larger rectangle, by their number there.
    """

    region: Region
    groups: NDArray[np.int64]
    counts: tuple[int, ...]
    totals: Totals
    open: NDArray[np.int64]

    def handed_down(self, above: Totals) -> list[Totals]:
        """Give whole totals of the open components of each part, from those of the larger rectangle's."""
        whole = self.totals.put(self.open, above)
        return [whole.take(part) for part in np.split(self.groups, np.cumsum(self.counts)[:-1])]


def totals_bytes(totals: Totals) -> bytes:
    """Give totals as bytes, for a file."""
    return pack(_named(totals))


def totals_from(content: bytes) -> Totals:
    """Give the totals that `totals_bytes` made bytes of."""
    return _totals(unpack(content))


def region_bytes(told: Region) -> bytes:
    """Give a region as bytes, for a file."""
    window = told.window
    arrays = {"window": np.array([window.top, window.bottom, window.left, window.right])}
    arrays |= {f"face{n}": face for n, face in enumerate(told.faces)}
    arrays |= {f"values{n}": values for n, values in enumerate(told.values)}
    return pack(arrays | _named(told.totals))


def region_from(content: bytes) -> Region:
    """Give the region that `region_bytes` made bytes of."""
    arrays = unpack(content)
    faces, values = (tuple(arrays[f"{kind}{n}"] for n in range(4)) for kind in ("face", "values"))
    return Region(Window(*arrays["window"].tolist()), faces, values, _totals(arrays))  # type: ignore[arg-type]


def joint_bytes(joint: MergedRegion) -> bytes:
    """Give what goes back down of a joint as bytes: all but its region."""
    arrays = {"groups": joint.groups, "counts": np.array(joint.counts), "open": joint.open}
    return pack(arrays | _named(joint.totals))


def joint_from(content: bytes, told: Region) -> MergedRegion:
    """Give the joint that `joint_bytes` made bytes of, with its region."""
    arrays = unpack(content)
    return MergedRegion(told, arrays["groups"], tuple(arrays["counts"].tolist()), _totals(arrays), arrays["open"])


def _named(totals: Totals) -> dict[str, NDArray[Any]]:
    return {field.name: getattr(totals, field.name) for field in fields(Totals)}


def _totals(arrays: dict[str, NDArray[Any]]) -> Totals:
    return Totals(**{field.name: arrays[field.name] for field in fields(Totals)})


def pack(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Put named arrays into bytes, compressed: their length, then zstd."""
    import pyarrow as pa

    made = BytesIO()
    np.savez(made, **arrays)  # type: ignore[arg-type]
    packed: bytes = pa.compress(made.getbuffer(), codec="zstd", asbytes=True)
    return made.tell().to_bytes(LENGTH, "little") + packed


def unpack(content: bytes) -> dict[str, NDArray[Any]]:
    """Give the named arrays of `pack`; no object is ever unpickled."""
    import pyarrow as pa

    length = int.from_bytes(content[:LENGTH], "little")
    whole = pa.decompress(memoryview(content)[LENGTH:], length, codec="zstd")
    with np.load(BytesIO(whole), allow_pickle=False) as arrays:
        return dict(arrays)
