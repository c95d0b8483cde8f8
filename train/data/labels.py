"""Labels of a scene, by window: values or colours of rasters, on the scene's grid or warped onto it, or vectors.

Nothing is held open and nothing is read before a window is, so that scenes may be of any size. Rasters on another grid
are warped by GDAL, nearest neighbours, in blocks whose places depend on the scene alone, so that a pixel is the same in
any window. What codes mean is up to the class table.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.vrt import WarpedVRT
from typing_extensions import override

from models.errors import TrainingError
from pipeline.grid.geobox import GeoBox, Window
from pipeline.io.gdal import absolute_name, file_stamp, open_raster, run_with_env
from pipeline.io.raster import RasterSource
from pipeline.io.raster_files import open_rasters
from pipeline.io.source import Pixels, observed

from ..config.schema import IGNORE
from .classes import GREY, ClassTable, Decoded, Remark, pack, total
from .palettes import as_table, grey_palette, read_by_color, read_palette
from .samples import LabelSource
from .vector_labels import is_vector, open_shapes

if TYPE_CHECKING:
    from rasterio import DatasetReader

SIDE = 2048  # of the windows in which a whole label raster is counted
TOLERANCE = 1e-6  # pixels; rasterio's own 0.125 moves borders, and of 0 it makes no warped raster (1.4.4)
OPEN_WARPS = 16  # kept per thread

Unlabelled = Literal["background", "ignore"]

_local = threading.local()


def open_labels(
    path: str,
    geobox: GeoBox,
    table: ClassTable,
    *,
    unlabelled: Unlabelled | None = None,
    attribute: str = "",
    burn: str = "",
    background: int | None = 0,
    layer: str = "",
    width: float | str | None = None,
) -> LabelSource:
    """Open labels of a scene. Pixels are read, and polygons placed, only when windows are.

    Parameters
    ----------
    path
        A raster of any grid and CRS that GDAL reads, warped nearest onto the scene's; one without CRS must have the
        scene's shape. Or a vector file: GeoJSON, GeoPackage, shapefile, FlatGeobuf, (Geo)Parquet.
    geobox
        The scene's.
    table
        What codes mean.
    unlabelled
        What pixels are outside the labels' coverage, that is under a raster's nodata or mask, beyond its edge, or under
        no polygon. None: `background` for vectors if there is one, else `ignore`.
    attribute, burn
        Of vectors: the column that names classes, or the class of all; see `vector_labels.open_shapes`.
    background
        Value of the background. None: there is none.
    layer, width
        Of vectors: which layer of several; how wide lines and points are drawn, metres, or pixels as `3 px`.

    Raises
    ------
    TrainingError
        They are not aligned with the scene or lie elsewhere; they are JPEG; they have bands, colours, columns or
        attributes that the table does not know.
    SceneError
        A raster that cannot be read.
    """
    if background is None and unlabelled == "background":
        raise TrainingError(f"{path}: unlabelled pixels cannot be background, since no class is; give 'ignore'")
    outside = IGNORE if background is None else background
    path = absolute_name(path)  # workers may run in other folders
    if is_vector(path):
        outside = IGNORE if unlabelled == "ignore" else outside
        vectors: dict[str, Any] = {"attribute": attribute, "burn": burn, "layer": layer, "width": width}
        return open_shapes(path, geobox, table, outside=outside, background=background, **vectors)
    if attribute or burn or layer or width:
        raise TrainingError(f"{path} is a raster; attribute, burn, layer and width are for vector labels")
    source = open_rasters([path], alpha=True)  # labels have no bands but colours
    _refuse_lossy(path)
    _refuse_bands(path, source, table)
    table, palette, notes = _meaning(path, source, table)
    warped, notes = _is_warped(path, source.geobox, geobox), [*notes, *_scaled(source)]
    kept = _nodata_code(source, palette, coded=table.coded)
    if kept is not None and table.value_of(kept) == IGNORE:
        kept = None
    if kept is not None:  # what the file calls nodata is a class
        source = replace(source, raster_bands=tuple(replace(band, nodata=None) for band in source.raster_bands))
    outside = outside if unlabelled == "background" else IGNORE
    said = unlabelled is not None
    return RasterLabels(path, source, geobox, table, outside, palette, warped, kept, tuple(filter(None, notes)), said)


@dataclass(frozen=True, slots=True)
class RasterLabels(LabelSource):
    """Labels from a raster.

    Parameters
    ----------
    path
        As the user gave it.
    source
        The raster, on its own grid.
    geobox
        The scene's.
    table
        What codes mean.
    outside
        Label of pixels that the raster does not cover.
    palette
        Colour code of each index, where the raster is coded by a palette. Else empty.
    warped
        Whether the raster lies on another grid.
    kept
        The code that the file calls nodata although it is a class's; it counts. None: there is none.
    notes
        What is to be said of the file, whatever its pixels.
    said
        Whether the user has said what `outside` is.
    """

    path: str
    source: RasterSource
    geobox: GeoBox
    table: ClassTable
    outside: int
    palette: tuple[int, ...] = ()
    warped: bool = False
    kept: int | None = None
    notes: tuple[str, ...] = ()
    said: bool = False

    @override
    def read(self, window: Window) -> NDArray[np.uint8]:
        """Read class values `(y, x)` of a window.

        Raises
        ------
        TrainingError
            It holds codes that mean nothing; those of the whole raster are listed, with counts.
        SceneError
            It cannot be read.
        """
        decoded = self.decode(window)
        if decoded.unknown:
            raise self.table.refusal(self.path, self.unknown())
        return decoded.labels

    def unknown(self) -> dict[str, int]:
        """Count the codes of the whole scene that mean nothing, as text; reads it in windows, all of it."""
        return total(self.decode(window).unknown for window in self.geobox.whole.split(SIDE))

    def decode(self, window: Window) -> Decoded:
        """Read a window as `read` does, and return what is unknown in it rather than raise."""
        indexes = [band.index for band in self.source.raster_bands]
        path = self.source.raster_bands[0].path
        if self.warped:
            pixels = read_warped(path, indexes, self.geobox, window, nodata=self.kept is None)
        else:
            pixels = self.source.read(window)
        codes = self._codes(pixels.data)
        decoded = self.table.decode(codes, pixels.valid)
        decoded.labels[~pixels.valid] = self.outside
        return replace(decoded, remarks={what: here for what, here in self._remarks(pixels, codes) if here.any()})

    def _remarks(self, pixels: Pixels, codes: NDArray[Any]) -> Iterator[tuple[Remark, NDArray[np.bool_]]]:
        """Yield what is to be said of pixels that the file does not observe, and of those of its nodata that count."""
        if self.kept is not None:
            name, shown = self.table.names[self.table.value_of(self.kept)], self.table.hex(self.kept)
            text = f"are {shown}, which is nodata by the file's tag; it is the class {name!r}, and counts"
            yield Remark(text, expected=True), pixels.valid & (codes == self.kept)
        if pixels.valid.all():
            return
        nodata = self.source.nodata[0]
        shown = "" if nodata is None else f"{nodata:g}"
        then = f"count as {self.table.names[self.outside]!r}" if self.outside != IGNORE else "do not count"
        if self.warped:
            has_mask = bool(self.source.masks)
            ways = [f"are nodata ({shown})"] * bool(shown) + ["lie under the file's mask"] * has_mask
            yield Remark(" or ".join([*ways, "lie beyond its edge"]) + f", and {then}", expected=True), ~pixels.valid
            return
        found = observed(pixels.data, self.source.nodata)
        empty = ~np.isfinite(pixels.data[0]) if pixels.data.dtype.kind == "f" else np.zeros(found.shape, bool)
        ignored = _nodata_code(self.source, self.palette, coded=self.table.coded) in self.table.ignored
        yield Remark(f"are NaN, and {then}", self.said), ~found & empty
        yield (
            Remark(f"are {shown}, which is nodata by the file's tag, and {then}", self.said or ignored),
            ~found & ~empty,
        )
        kind = "transparent" if any(mask.alpha for mask in self.source.masks) else "under the file's mask"
        yield Remark(f"are {kind}, and {then}", self.said), found & ~pixels.valid

    def _codes(self, data: NDArray[Any]) -> NDArray[Any]:
        """Return codes `(y, x)` of raw values `(band, y, x)`."""
        if self.palette:
            return np.array(self.palette, np.uint32)[data[0]]  # type: ignore[no-any-return]
        if self.table.coded:
            grey: NDArray[Any] = data[0] * np.uint32(GREY)
            return pack(data) if len(data) >= 3 else grey
        if (data[1:] != data[:1]).any():
            raise TrainingError(
                f"{self.path} has {len(data)} bands that differ: so they are colours. Say colors = true if they are "
                "the classes' own, or colors = a table of name,r,g,b"
            )
        return data[0]  # type: ignore[no-any-return]


def _refuse_lossy(path: str) -> None:
    """Refuse formats that smear colours and values: no two of a JPEG's pixels need be what was drawn."""

    def metadata(dataset: "DatasetReader") -> tuple[str, str]:
        tags = dataset.tags(ns="IMAGE_STRUCTURE")
        return f"{dataset.driver} {tags.get('COMPRESSION', '')}".upper(), tags.get("COMPRESSION_REVERSIBILITY", "")

    kind, reversible = run_with_env(path, lambda: metadata(open_raster(path)))
    if "JPEG" in kind.replace("JP2OPENJPEG", "").replace("JPEG2000", "") or reversible.upper().startswith("LOSSY"):
        raise TrainingError(
            f"{path} is compressed with loss, which smears labels into values that nobody drew; give labels as PNG or "
            "TIFF, made from the originals rather than from this file"
        )


def _meaning(path: str, source: RasterSource, table: ClassTable) -> tuple[ClassTable, tuple[int, ...], list[str]]:
    """Return what a raster's values mean, the colour of each index where colours say it, and what is to be said."""
    if len(source.raster_bands) != 1:
        return table, (), []
    palette = read_palette(path)
    if table.coded:
        palette = palette or grey_palette(path)
        return table, as_table(palette) if palette else (), []
    if not palette:
        return table, (), []
    table, note = read_by_color(path, palette, table)
    return table, (), [note]


def _scaled(source: RasterSource) -> list[str]:
    band = source.raster_bands[0]
    if (band.scale, band.offset) == (1.0, 0.0):
        return []
    facts = f"a scale of {band.scale:g} and an offset of {band.offset:g}"
    return [f"its tags have {facts}, which are not used: classes are its values as they are stored"]


def _refuse_bands(path: str, source: RasterSource, table: ClassTable) -> None:
    count = len(source.raster_bands)
    if count not in (1, 3):
        raise TrainingError(f"{path} has {count} bands; labels have one, or three for colours")
    if table.coded and source.dtype != np.uint8:
        raise TrainingError(
            f"{path} holds {source.dtype} values; masks that are coded with colours are uint8. Leave out colors, and "
            "name the values in values"
        )


def _is_warped(path: str, here: GeoBox, scene: GeoBox) -> bool:
    """Return whether labels must be warped onto the scene's grid; refuse them where nobody can know how."""
    if here.same_grid(scene):
        return False
    if here.georeferenced and scene.georeferenced:
        if not _overlap(scene, here):
            raise TrainingError(f"{path} lies elsewhere than its image: {here.describe()};\nimage: {scene.describe()}")
        return True
    if here.shape != scene.shape:
        raise TrainingError(
            f"{path} is not aligned with its image: labels {here.height} x {here.width} pixels, image {scene.height} x "
            f"{scene.width}, and not both have a CRS by which to warp them; give labels of the image's size"
        )
    return False


def _nodata_code(source: RasterSource, palette: Sequence[int], *, coded: bool) -> int | None:
    """Return the code of what a file calls nodata; None where it has none, or it is no code."""
    values = [value for value in source.nodata if value is not None and float(value).is_integer()]
    if len(values) < len(source.nodata):
        return None
    numbers = [int(value) for value in values]
    if not coded:
        return numbers[0] if len(set(numbers)) == 1 else None
    if any(not 0 <= number <= 255 for number in numbers):
        return None
    if palette:
        return palette[numbers[0]]
    return int(pack(np.array(numbers, np.uint8))) if len(numbers) >= 3 else numbers[0] * GREY


def read_warped(path: str, indexes: Sequence[int], geobox: GeoBox, window: Window, *, nodata: bool = True) -> Pixels:
    """Read a window of a scene from a raster that lies on another grid, in another CRS too.

    Parameters
    ----------
    path
        A raster with a CRS.
    indexes
        Which of its bands, from 1.
    geobox
        The scene's, with a CRS.
    window
        Of the scene.
    nodata
        Whether what the raster calls nodata is not observed.

    Returns
    -------
    Pixels
        Values of the raster's own type, of the pixel in which each centre lies; valid where the raster reaches and has
        neither nodata nor a mask.

    Raises
    ------
    SceneError
        It cannot be read.
    """

    def read() -> Pixels:
        warped = _open_warped(path, geobox, nodata=nodata)
        values = warped.read([*indexes, warped.count], window=window.to_rasterio())
        return Pixels(values[:-1], values[-1] != 0)

    return run_with_env(path, read)


def _open_warped(path: str, geobox: GeoBox, *, nodata: bool) -> WarpedVRT:
    """Return this thread's warped raster, whose last band is alpha: as with other handles, threads share none."""
    kept: dict[Any, WarpedVRT] = _local.__dict__.setdefault("warped", {})
    key = os.getpid(), path, repr(file_stamp(path)), geobox, nodata
    warped = kept.pop(key, None)
    if warped is None:
        dataset = open_raster(path)
        warped = WarpedVRT(
            dataset,
            crs=CRS.from_wkt(str(geobox.crs)),
            transform=geobox.affine,
            height=geobox.height,
            width=geobox.width,
            resampling=Resampling.nearest,
            tolerance=TOLERANCE,
            **({} if nodata else {"src_nodata": None, "nodata": None}),
            add_alpha=dataset.colorinterp[-1] != ColorInterp.alpha,
        )
    while len(kept) >= OPEN_WARPS:
        kept.pop(next(iter(kept)))
    kept[key] = warped
    return warped


def _overlap(one: GeoBox, other: GeoBox) -> bool:
    """Whether the bounds of two scenes, with their CRS, meet: False only where it is sure that they do not."""
    there, here = one.bounds(other.crs), other.bounds()
    if there is None or here is None:  # the other's CRS does not reach there
        return False
    (west, south, east, north), (left, bottom, right, top) = there, here
    across = west > east or (west < right and left < east)  # across the antimeridian west is greater
    return bool(across and south < top and bottom < north)
