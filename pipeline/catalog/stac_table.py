"""Rows of an index written as stac-geoparquet: STAC Items of which each property is a column, and our own beside them.

The specification is at https://github.com/radiantearth/stac-geoparquet-spec; STAC is of version 1.1, with the
extensions projection 2.0, electro-optical 2.0 and raster 2.0.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isfinite, isnan
from pathlib import Path
from typing import Any

from models.errors import SceneError
from models.files import whole_file
from models.redact import redact_url

from ..io.band_names import common_names
from ..io.raster import RasterBand, RasterSource
from .columns import BANDS, CRS, DIGEST, KEY, PRIORITY, RESOLUTION, SOURCE, STAMPS
from .records import decode_source

ROWS = 10_000  # that are written at once
EARLIEST = "1800-01-01T00:00:00Z"  # of a scene of which no date is known: STAC wants a start and an end
MOST_KEYS = 64  # of assets, each of which is a column; scenes of more call theirs by number
EXTENSION = "https://stac-extensions.github.io/{}/v2.0.0/schema.json"
MEDIA = {
    ".tif": "image/tiff; application=geotiff",
    ".tiff": "image/tiff; application=geotiff",
    ".jp2": "image/jp2",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}
STORED = {
    "id": "id", "geometry": "wkb", "bbox": "bbox", "datetime": "datetime", "start_datetime": "start",
    "end_datetime": "end", "eo:cloud_cover": "cloud_cover", SOURCE: "source", CRS: "crs", RESOLUTION: "resolution",
    BANDS: "bands", DIGEST: "digest", STAMPS: "stamps", KEY: "key", PRIORITY: "priority", "platform": "platform",
    "collection": "collection",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A scene as it is written down; see `IndexedScene`.

    Parameters
    ----------
    wkb
        The footprint.
    bbox
        West, south, east, north in degrees; west is greater than east across the antimeridian.
    datetime, start, end
        ISO 8601; of scenes without a date, the end is when their files were written.
    source
        As JSON, without the WKT of its CRS, which `crs` is.
    resolution
        Width and height of a pixel in units of the CRS.
    bands
        Names of bands, with commas between.
    """

    id: str
    wkb: bytes
    bbox: tuple[float, float, float, float]
    datetime: str
    end: str
    cloud_cover: float
    source: str
    crs: str
    resolution: tuple[float, float]
    bands: str
    digest: str
    stamps: str
    key: str
    priority: int = 0
    platform: str = ""
    collection: str = ""
    start: str = EARLIEST


def write_rows(rows: Sequence[Row], path: str | os.PathLike[str]) -> None:
    """Write an index file, whole or not at all.

    Raises
    ------
    SceneError
        There are no rows, or the disk refuses.
    """
    import pyarrow as pa
    from stac_geoparquet.arrow import to_parquet

    if not rows:
        raise SceneError("an index of no scenes is of no use; give some")
    schema = _schema(_asset_keys(rows))
    around = any(row.bbox[0] > row.bbox[2] for row in rows)  # where boxes cover the wrong side, readers may not filter
    with whole_file(Path(path), error=SceneError, digest=True) as part:
        reader = pa.RecordBatchReader.from_batches(schema, _batches(rows, schema))
        to_parquet(reader, part, schema_version="1.0.0" if around else "1.1.0", compression="zstd")


def _batches(rows: Sequence[Row], schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    keys = tuple(field.name for field in schema.field("assets").type)
    for start in range(0, len(rows), ROWS):
        items = [_item(row, keys) for row in rows[start : start + ROWS]]
        yield pa.RecordBatch.from_pylist(items, schema)


def _schema(keys: Sequence[str]) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    band = pa.struct({
        "name": text, "eo:common_name": text, "data_type": text, "nodata": number, "unit": text,
        "raster:scale": number, "raster:offset": number,
    })  # fmt: skip
    asset = pa.struct({"href": text, "type": text, "roles": pa.list_(text), "bands": pa.list_(band)})
    link = pa.struct({"rel": text, "href": text, "type": text})
    moment = pa.timestamp("us", "UTC")
    return pa.schema({
        "type": text, "stac_version": text, "stac_extensions": pa.list_(text), "id": text, "collection": text,
        "geometry": pa.binary(), "bbox": pa.struct(dict.fromkeys(("xmin", "ymin", "xmax", "ymax"), number)),
        "links": pa.list_(link), "assets": pa.struct(dict.fromkeys(keys, asset)),
        "datetime": moment, "start_datetime": moment, "end_datetime": moment, "platform": text,
        "eo:cloud_cover": number, "proj:code": text, "proj:wkt2": text, "proj:shape": pa.list_(pa.int64()),
        "proj:transform": pa.list_(number),
        SOURCE: text, DIGEST: text, PRIORITY: pa.int64(), CRS: text, RESOLUTION: pa.list_(number), STAMPS: text,
        KEY: text, BANDS: text,
    })  # fmt: skip


def _asset_keys(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the keys of the assets of all rows: names of bands, or numbers where these are too many for columns."""
    named, most = dict[str, None](), 1
    for row in rows:
        names, files = _files(row.bands)
        most = max(most, files)
        named |= dict.fromkeys(names)
    return tuple(named) if len(named) <= MOST_KEYS else tuple(f"data_{n + 1}" for n in range(most))


def _files(bands: str) -> tuple[tuple[str, ...], int]:
    """Return the key of each file of a scene, of the names of bands by file, and how many files there are."""
    files = bands.split("|")
    return ("data",) if len(files) == 1 else tuple(names.partition(",")[0] for names in files), len(files)


def names_by_file(source: RasterSource) -> str:
    """Return the names of a source's bands with commas between, those of several files with bars between."""
    names = [(band.path, band.names[0].replace("|", "/").replace(",", ";")) for band in source.raster_bands]
    return "|".join(",".join(name for path, name in names if path == one) for one in source.paths)


def _item(row: Row, keys: Sequence[str]) -> dict[str, Any]:
    source = decode_source(row.source, row.crs)
    own = [key if key in keys else f"data_{n + 1}" for n, key in enumerate(_files(row.bands)[0])]
    names = _common(tuple(band.names for band in source.raster_bands), f"{row.platform} {source.platform}")
    common = dict(zip(source.raster_bands, names, strict=True))
    used = {
        "projection": True,
        "eo": not isnan(row.cloud_cover) or any(names),
        "raster": any(source.radiometry),
    }
    extensions = [EXTENSION.format(name) for name, there in used.items() if there]
    code, wkt = _projection(row.crs)
    grid = source.geobox
    return {
        "type": "Feature", "stac_version": "1.1.0", "stac_extensions": extensions, "id": row.id,
        "collection": row.collection or None, "geometry": row.wkb,
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), row.bbox, strict=True)), "links": [],
        "assets": {key: _asset(source, path, common) for key, path in zip(own, source.paths, strict=True)},
        "datetime": _moment(row.datetime), "start_datetime": _moment(row.datetime or row.start),
        "end_datetime": _moment(row.datetime or row.end), "platform": row.platform or None,
        "eo:cloud_cover": None if isnan(row.cloud_cover) else row.cloud_cover, "proj:code": code, "proj:wkt2": wkt,
        "proj:shape": list(grid.shape), "proj:transform": list(grid.affine)[:6],
        SOURCE: row.source, DIGEST: row.digest, PRIORITY: row.priority, CRS: row.crs, RESOLUTION: list(row.resolution),
        STAMPS: row.stamps, KEY: row.key, BANDS: row.bands,
    }  # fmt: skip


def _asset(source: RasterSource, path: str, common: dict[RasterBand, str | None]) -> dict[str, Any]:
    bands = [_band(band, common[band]) for band in source.raster_bands if band.path == path]
    ending = os.path.splitext(path.lower())[1]
    return {"href": redact_url(path), "type": MEDIA.get(ending), "roles": ["data"], "bands": bands}


def _band(band: RasterBand, common: str | None) -> dict[str, Any]:
    nodata = band.nodata if band.nodata is not None and isfinite(band.nodata) else None
    said = band.radiometry
    return {
        "name": band.names[0], "eo:common_name": common, "data_type": band.dtype, "nodata": nodata,
        "unit": band.unit or None, "raster:scale": said and said.scale, "raster:offset": said and said.offset,
    }  # fmt: skip


@lru_cache(maxsize=256)
def _common(bands: tuple[tuple[str, ...], ...], platform: str) -> list[str | None]:
    return [min(names, default=None) for names in common_names(bands, [platform])]


@lru_cache(maxsize=64)
def _projection(crs: str) -> tuple[str | None, str | None]:
    """Return the code of a CRS by its authority; else its WKT2."""
    from pyproj import CRS as ProjCRS

    if not crs:
        return None, None
    parsed = ProjCRS.from_wkt(crs)
    authority = parsed.to_authority()
    return (":".join(authority), None) if authority else (None, parsed.to_wkt())


def _moment(text: str) -> Any:
    import numpy as np

    return np.datetime64(text.removesuffix("Z"), "us").item() if text else None


def read_rows(path: str) -> list[Row]:
    """Return the rows of an index as they can be written again."""
    import pyarrow.parquet as pq

    rows = list[Row]()
    for batch in pq.ParquetFile(path).iter_batches(ROWS, columns=[*STORED]):
        columns = {name: batch.column(source).to_pylist() for source, name in STORED.items()}
        rows += [_stored(dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]
    return rows


def _stored(values: dict[str, Any]) -> Row:
    cover, box = values["cloud_cover"], values["bbox"]
    start, moment, end = (_iso(values[name]) for name in ("start", "datetime", "end"))
    changed: dict[str, Any] = {
        "bbox": (box["xmin"], box["ymin"], box["xmax"], box["ymax"]),
        "resolution": tuple(values["resolution"]),
        "cloud_cover": float("nan") if cover is None else cover,
        "datetime": moment,
        "start": start or EARLIEST,
        "end": end or moment,
        "platform": values["platform"] or "",
        "collection": values["collection"] or "",
    }
    return Row(**{**values, **changed})


def _iso(moment: Any) -> str:
    return "" if moment is None else moment.isoformat().replace("+00:00", "Z")
