"""Labels of a scene, by window: values or colours of rasters, on the scene's grid or warped onto it, or vectors.

Nothing is held open and nothing is read before a window is, so that scenes may be of any size. Rasters on another grid
are warped by GDAL, nearest neighbours, in blocks whose places depend on the scene alone, so that a pixel is the same in
any window. What codes mean is up to the class table.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
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
from pipeline.io.raster import RasterSource, open_rasters
from pipeline.io.source import Pixels

from ..config.schema import IGNORE
from .classes import GREY, ClassTable, Decoded, pack, total
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
        no polygon. None: `ignore` for rasters, `background` for vectors.
    attribute, burn
        Of vectors: the column that names classes, or the class of all; see `shapes.open_shapes`.

    Raises
    ------
    TrainingError
        They are not aligned with the scene or lie elsewhere; they are JPEG; they have bands, colours, columns or
        attributes that the table does not know.
    SceneError
        A raster that cannot be read.
    """
    path = absolute_name(path)  # workers may run in other folders
    if is_vector(path):
        outside = IGNORE if unlabelled == "ignore" else 0
        return open_shapes(path, geobox, table, outside=outside, attribute=attribute, burn=burn)
    if attribute or burn:
        raise TrainingError(f"{path} is a raster; attribute and burn are for vector labels")
    source = open_rasters([path])
    _refuse_lossy(path)
    palette = _palette(path) if table.coded and len(source.raster_bands) == 1 else ()
    _refuse_bands(path, source, table)
    warped = _is_warped(path, source.geobox, geobox)
    if _means_class(source, table, palette):
        source = open_rasters([f"vrt://{path}?a_nodata=none"])
    return RasterLabels(path, source, geobox, table, 0 if unlabelled == "background" else IGNORE, palette, warped)


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
    """

    path: str
    source: RasterSource
    geobox: GeoBox
    table: ClassTable
    outside: int
    palette: tuple[int, ...] = ()
    warped: bool = False

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
        pixels = read_warped(path, indexes, self.geobox, window) if self.warped else self.source.read(window)
        decoded = self.table.decode(self._codes(pixels.data), pixels.valid)
        decoded.labels[~pixels.valid] = self.outside
        return decoded

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


def _palette(path: str) -> tuple[int, ...]:
    """Return the colour code of each index of a palette, or of each grey of few bits; else empty."""

    def colors(dataset: "DatasetReader") -> dict[int, tuple[int, ...]]:
        try:
            return dict(dataset.colormap(1))
        except ValueError:  # it has none
            bits = int(dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
            return {} if bits >= 8 else {grey: (255 * grey // (2**bits - 1),) * 3 for grey in range(2**bits)}

    found = run_with_env(path, lambda: colors(open_raster(path)))
    if not found:
        return ()
    rgb = np.zeros((3, max(256, *found)), np.uint8)
    for index, color in found.items():
        rgb[:, index] = color[:3]
    return tuple(int(code) for code in pack(rgb))


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


def _means_class(source: RasterSource, table: ClassTable, palette: tuple[int, ...]) -> bool:
    """Whether what the file calls nodata has been named as a class, as where masks call 0 nodata."""
    nodata = source.nodata[0]
    if nodata is None or not float(nodata).is_integer():
        return False
    code = int(nodata)
    if table.coded:
        code = palette[code] if 0 <= code < len(palette) else code * GREY
    return code in table.explicit


def read_warped(path: str, indexes: Sequence[int], geobox: GeoBox, window: Window) -> Pixels:
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
        warped = _open_warped(path, geobox)
        values = warped.read([*indexes, warped.count], window=window.to_rasterio())
        return Pixels(values[:-1], values[-1] != 0)

    return run_with_env(path, read)


def _open_warped(path: str, geobox: GeoBox) -> WarpedVRT:
    """Return this thread's warped raster, whose last band is alpha: as with other handles, threads share none."""
    kept: dict[Any, WarpedVRT] = _local.__dict__.setdefault("warped", {})
    key = os.getpid(), path, repr(file_stamp(path)), geobox
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
