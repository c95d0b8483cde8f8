"""Files that show all cells of a publication as one raster: GDAL's VRT, an index for its driver GTI, QGIS's style."""

from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import shapely

from models.encoding import SCALE

from ..grid.geobox import Window
from ..store.cog_tiles import BLOCK, ArrayFormat
from ..store.metadata import level_count
from ..store.pam import class_elements
from .cells import Cell
from .items import Published, bounds_of

TYPES = {"uint8": "Byte", "float32": "Float32"}  # GDAL's names


def vrt(what: Published, array: ArrayFormat, files: Mapping[str, Cell]) -> bytes:
    """Return a virtual raster of the store's own extent, whose sources are cells by the names of their files.

    What each source is, is said in it, so that none is opened before its pixels are asked for. Where there is none, it
    is nodata. Its overviews are those of the files.
    """
    geobox = what.grid.geobox
    root = ET.Element("VRTDataset", rasterXSize=str(geobox.width), rasterYSize=str(geobox.height))
    _add(root, "SRS", str(geobox.crs))
    _add(root, "GeoTransform", ", ".join(repr(float(value)) for value in geobox.affine.to_gdal()))
    if levels := min(level_count(geobox), level_count(geobox.cut(Window.of((what.grid.side,) * 2)))):
        _add(root, "OverviewList", " ".join(str(2 ** (level + 1)) for level in range(levels)))
    for number, name in enumerate(array.bands, start=1):
        band = ET.SubElement(root, "VRTRasterBand", dataType=TYPES[array.dtype], band=str(number))
        _add(band, "Description", name)
        _add(band, "NoDataValue", "nan" if isnan(array.nodata) else str(int(array.nodata)))
        if array.name == "class_map":
            band.extend(class_elements(what.metadata.classes, what.transparent))
        elif array.dtype == "uint8":
            _add(band, "Scale", repr(SCALE))
        for file, cell in files.items():
            band.append(_source(what, array, file, cell, number))
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8"))


def _source(what: Published, array: ArrayFormat, file: str, cell: Cell, band: int) -> ET.Element:
    source, side = ET.Element("SimpleSource"), str(what.grid.side)
    ET.SubElement(source, "SourceFilename", relativeToVRT="1").text = file
    _add(source, "SourceBand", str(band))
    size = {"RasterXSize": side, "RasterYSize": side, "BlockXSize": str(BLOCK), "BlockYSize": str(BLOCK)}
    ET.SubElement(source, "SourceProperties", {**size, "DataType": TYPES[array.dtype]})
    there = cell.window.clip(what.grid.geobox.shape)
    for tag, window in (("SrcRect", there.within(cell.window)), ("DstRect", there)):
        (height, width), (top, left) = window.shape, (window.top, window.left)
        ET.SubElement(source, tag, xOff=str(left), yOff=str(top), xSize=str(width), ySize=str(height))
    return source


def write_gti(path: Path, what: Published, array: ArrayFormat, files: Mapping[str, Cell]) -> None:
    """Write a GeoPackage of the outlines of cells in the map's CRS, with their files' names as `location`.

    Its metadata say what the files are, so that GDAL opens none to know:
    https://gdal.org/en/stable/drivers/raster/gti.html
    """
    import geopandas as gpd

    geobox = what.grid.geobox
    boxes = [_inside(bounds_of(geobox.cut(cell.window)), geobox.affine.a, -geobox.affine.e) for cell in files.values()]
    frame = gpd.GeoDataFrame({"location": list(files)}, geometry=boxes, crs=geobox.crs)
    west, south, east, north = bounds_of(geobox)
    count, nodata = len(array.bands), "nan" if isnan(array.nodata) else str(int(array.nodata))
    about = {
        "RESX": repr(geobox.affine.a),
        "RESY": repr(-geobox.affine.e),
        "MINX": repr(west),
        "MINY": repr(south),
        "MAXX": repr(east),
        "MAXY": repr(north),
        "BAND_COUNT": str(count),
        "DATA_TYPE": ",".join([TYPES[array.dtype]] * count),
        "NODATA": ",".join([nodata] * count),
    }
    frame.to_file(path, layer="mosaic", driver="GPKG", engine="pyogrio", layer_metadata=about)


def _inside(bounds: tuple[float, float, float, float], across: float, down: float) -> Any:
    """Return a box a quarter of a pixel smaller on each side.

    GDAL looks for the files of a window by these boxes alone. Where a window ends at the edge of a cell, its driver of
    3.10 takes the neighbour, which has no pixel in it, and gives nodata.
    """
    west, south, east, north = bounds
    return shapely.box(west + across / 4, south + down / 4, east - across / 4, north - down / 4)


def style(what: Published) -> bytes:
    """Return QGIS's style of a class map: its colours and the names of its classes."""
    root = ET.Element("qgis", version="3.28.0", styleCategories="Symbology")
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, info in enumerate(what.metadata.classes):
        alpha = "0" if value == what.transparent else "255"
        entry = {"value": str(value), "color": f"#{info.color.lower()}", "alpha": alpha, "label": info.name}
        ET.SubElement(palette, "paletteEntry", entry)
    ET.indent(root)
    head = b"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + bytes(ET.tostring(root, encoding="utf-8"))


def _add(parent: ET.Element, tag: str, text: str) -> None:
    ET.SubElement(parent, tag).text = text
