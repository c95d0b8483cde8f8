"""The static STAC of a publication: an Item for each cell, a Collection of them; STAC 1.1.

Extensions: projection 2.0, raster 2.0, classification 2.0, processing 1.1, file 2.1. A bundle that comes with Swathe
lies beside them, as the STAC Item of the Machine Learning Model extension that it is, and Items are `derived_from` it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

import pystac
import shapely
from pystac.utils import str_to_datetime

from models.encoding import NODATA, SCALE
from models.errors import ArgumentError
from models.mlm import describe_classes

from ..catalog.footprint import bbox_of
from ..grid.geobox import GeoBox
from ..store.cog_tiles import ArrayFormat
from ..store.metadata import StoreMetadata
from ..store.store import Store
from .cells import Cell, CellGrid
from .state import COLLECTION, PUBLICATION, CellFile, Run

SCHEMAS = {
    "projection": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "classification": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.1.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
}
MULTIHASH = "1220"  # SHA-256 of 32 bytes, as multihash has it
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
TITLES = {"class_map": "Classes", "probability": "Probabilities"}

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Published:
    """What a catalogue is written of: a store, its cells, the files of those that hold data, by name, and the run."""

    store: Store
    metadata: StoreMetadata
    grid: CellGrid
    arrays: tuple[ArrayFormat, ...]
    files: Mapping[str, CellFile]
    run: Run
    opaque: bool

    @property
    def transparent(self) -> int | None:
        """Value of the class that is not shown, if any."""
        return None if self.opaque else self.metadata.background

    def cells(self) -> dict[Cell, dict[str, CellFile]]:
        """Return the cells with their files by array."""
        found: dict[Cell, dict[str, CellFile]] = {}
        for file in self.files.values():
            found.setdefault(self.grid.cell(file.row, file.column), {})[file.array] = file
        return dict(sorted(found.items(), key=lambda pair: (-pair[0].row, pair[0].column)))

    @property
    def period(self) -> tuple[datetime, datetime]:
        """The first and the last moment that the maps show."""
        said = self.run.identity["dates"] or [self.run.began]
        return str_to_datetime(said[0]), str_to_datetime(said[-1])


def to_dict(what: pystac.Item | pystac.Collection) -> JSON:
    """Return it as JSON values, with hrefs as they were given."""
    return dict(what.to_dict(include_self_link=False, transform_hrefs=False))


def parse_dates(text: str) -> list[str]:
    """Read a moment, or two with `/` between, as RFC 3339. Raises ArgumentError."""
    parts = text.split("/")
    try:
        moments = [str_to_datetime(part) for part in parts]
        sound = len(parts) <= 2 and all(moment.tzinfo for moment in moments) and moments == sorted(moments)
    except (ValueError, OverflowError, TypeError):
        sound = False
    if not sound:
        raise ArgumentError(
            f"dates are one as 2024-06-01T00:00:00Z, or two with / between, the earlier first; received {text!r}"
        )
    return parts


def make_item(
    what: Published, cell: Cell, files: Mapping[str, CellFile], *, collection: str, model: bool
) -> pystac.Item:
    """Describe a cell.

    Parameters
    ----------
    what
        The publication.
    cell, files
        The cell, and its files by array.
    collection
        Id of the collection.
    model
        Whether the bundle lies beside it.
    """
    outline = shapely.from_wkb(next(iter(files.values())).outline)
    start, end = what.period
    counts = files["class_map"].pixels if "class_map" in files else {}
    item = pystac.Item(
        cell.name,
        shapely.geometry.mapping(outline),
        list(bbox_of(outline)),
        start if start == end else None,
        {
            **projection(what.grid.geobox.cut(cell.window)),
            **processing(what.metadata),
            **({"swathe:pixels": dict(counts)} if counts else {}),
        },
        start_datetime=None if start == end else start,
        end_datetime=None if start == end else end,
        stac_extensions=list(SCHEMAS.values()),
        collection=collection,
    )
    for array in what.arrays:
        if array.name in files:
            file = files[array.name]
            extra = {**array_fields(array, what), "file:size": file.size}
            extra |= {"file:checksum": MULTIHASH + file.sha256} if file.sha256 else {}
            href = f"../{cell.file(array.name)}"
            asset = pystac.Asset(href, TITLES[array.name], media_type=COG, roles=["data"], extra_fields=extra)
            item.add_asset(array.name, asset)
    links = {"root": COLLECTION, "parent": COLLECTION, "collection": COLLECTION}
    for rel, href in {**links, **({"derived_from": "model/bundle.json"} if model else {})}.items():
        media = "application/geo+json" if rel == "derived_from" else "application/json"
        item.add_link(pystac.Link(rel, f"../{href}", media))
    return item


def projection(geobox: GeoBox) -> JSON:
    """Describe a grid by the projection extension."""
    from pyproj import CRS

    crs = CRS.from_wkt(str(geobox.crs))
    authority = crs.to_authority(min_confidence=100)
    return {
        "proj:code": ":".join(authority) if authority else None,
        **({} if authority else {"proj:wkt2": crs.to_wkt()}),
        "proj:shape": list(geobox.shape),
        "proj:transform": list(geobox.affine)[:6],
        "proj:bbox": list(bounds_of(geobox)),
    }


def bounds_of(geobox: GeoBox) -> tuple[float, float, float, float]:
    """Return west, south, east and north in the CRS of a grid that has one."""
    bounds = geobox.bounds()
    assert bounds is not None
    return bounds


def processing(metadata: StoreMetadata) -> JSON:
    """Say how the pixels were made, by the processing extension and fields of our own."""
    bundle, how = metadata.bundle, metadata.segmentation
    name = f"{bundle.get('name', 'a network')} {str(bundle.get('digest', ''))[:12]}".strip()
    engine = ", ".join(str(how[key]) for key in ("engine", "precision") if key in how)
    steps = [f"segmented by {name}" + (f" ({engine})" if engine else "")]
    steps += [] if metadata.cleaned is None else ["cleaned"]
    found = {"processing:software": {"Swathe": version("swathe")}, "processing:lineage": "; ".join(steps)}
    known = {key: bundle[key] for key in ("name", "digest", "architecture") if key in bundle}
    return {**found, **({"swathe:bundle": known} if known else {})}


def array_fields(array: ArrayFormat, what: Published) -> JSON:
    """Describe the samples of an array: type, nodata, resolution in metres, and classes or bands."""
    nodata, resolution, metadata = array.nodata, what.grid.geobox.resolution(), what.metadata
    fields: JSON = {
        "data_type": array.dtype,
        "nodata": nodata if nodata == nodata else "nan",
        "raster:sampling": "area",
    }
    fields |= {} if resolution is None else {"raster:spatial_resolution": round(resolution, 6)}
    if array.name == "class_map":
        unseen = {"value": NODATA, "name": "nodata", "title": "nodata", "description": "not observed", "nodata": True}
        classes = [*describe_classes(metadata.classes), unseen]
        return {**fields, "bands": [{"name": "class"}], "classification:classes": classes}
    scale = {"raster:scale": SCALE, "raster:offset": 0} if array.dtype == "uint8" else {}
    return {**fields, **scale, "unit": "1", "bands": [{"name": name} for name in array.bands]}


def make_collection(what: Published, items: Mapping[str, pystac.Item], *, name: str, model: bool) -> JSON:
    """Describe the publication, whose Items have these names of files."""
    outlines = shapely.union_all([shapely.geometry.shape(item.geometry) for item in items.values()])
    start, end = what.period
    extent = pystac.Extent(pystac.SpatialExtent([list(bbox_of(outlines))]), pystac.TemporalExtent([[start, end]]))
    classes = ", ".join(what.metadata.class_names)
    collection = pystac.Collection(
        name,
        f"Maps of {classes}, as {len(what.files):,} Cloud-Optimized GeoTIFFs on a grid of {what.grid.side} pixels.",
        extent,
        license="other",
        stac_extensions=[SCHEMAS[kind] for kind in ("projection", "raster", "classification")],
        summaries=pystac.Summaries({"proj:code": [projection(what.grid.geobox)["proj:code"]]}),
        extra_fields={
            "item_assets": {
                array.name: {"type": COG, "roles": ["data"], **array_fields(array, what)} for array in what.arrays
            },
            PUBLICATION: {"run": what.run.identity, "files": {key: file.size for key, file in what.files.items()}},
        },
    )
    for number, array in enumerate(what.arrays):
        _add_mosaic(collection, array.name, f"_{array.name}" if number else "")
    parquet = pystac.Asset(
        "items.parquet", "Items", media_type="application/vnd.apache.parquet", roles=["collection-mirror"]
    )
    collection.add_asset("items", parquet)
    collection.add_link(pystac.Link("root", f"./{COLLECTION}", "application/json"))
    if model:
        collection.add_link(pystac.Link("derived_from", "./model/bundle.json", "application/geo+json"))
    for key in items:
        collection.add_link(pystac.Link("item", f"./items/{key}.json", "application/geo+json"))
    return to_dict(collection)


def _add_mosaic(collection: pystac.Collection, array: str, ending: str) -> None:
    """Add the files that show all cells of an array as one."""
    files = {
        "vrt": ("application/xml", "Mosaic as a GDAL virtual raster"),
        "gti.gpkg": ("application/geopackage+sqlite3", "Mosaic as an index of GDAL's driver GTI"),
        **({"qml": ("application/xml", "Style for QGIS")} if array == "class_map" else {}),
    }
    for kind, (media, title) in files.items():
        asset = pystac.Asset(f"mosaic{ending}.{kind}", title, media_type=media, roles=["metadata"])
        collection.add_asset(f"{array}_{kind.partition('.')[0]}", asset)
