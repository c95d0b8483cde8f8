"""When a scene was acquired and how cloudy it was, from what comes with its files: metadata, tags, names."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..io.gdal import open_raster, run_with_env
from ..io.listing import Listing
from ..io.products import is_metadata, listing_of
from .found import stem

DAY = r"(?P<year>19\d\d|20\d\d)[-_]?(?P<month>0[1-9]|1[0-2])[-_]?(?P<day>0[1-9]|[12]\d|3[01])"
TIME = r"(?:[T_]?(?P<hour>[01]\d|2[0-3])[-_:]?(?P<minute>[0-5]\d)[-_:]?(?P<second>[0-5]\d))?"
NAMED = re.compile(rf"(?<!\d){DAY}{TIME}(?!\d)")
PRODUCT = re.compile(r"S2[A-D]_|L[COTEM]0\d_|T\d\d[A-Z]{3}_", re.IGNORECASE)  # of which the first date is meant
TAGS = (
    "ACQUISITIONDATETIME", "ACQUISITION_DATETIME", "ACQUISITION_DATE", "DATE_ACQUIRED", "SENSING_TIME",
    "PRODUCT_START_TIME", "DATATAKE_1_DATATAKE_SENSING_START", "DATETIME",
)  # fmt: skip
CLOUDS = ("CLOUD_COVER", "CLOUDCOVER", "CLOUDY_PIXEL_PERCENTAGE", "CLOUD_COVERAGE_ASSESSMENT")
_BETWEEN = r'"?\s*(?:=|:|>)\s*"?'
METADATA_CLOUDS = re.compile(rf"\b(?:CLOUD_COVER|Cloud_Coverage_Assessment){_BETWEEN}(-?[\d.]+)")
METADATA_DAY = re.compile(rf"\bDATE_ACQUIRED{_BETWEEN}(\d{{4}}-\d\d-\d\d)")
METADATA_TIME = re.compile(rf"\bSCENE_CENTER_TIME{_BETWEEN}(\d\d:\d\d:\d\d)")
METADATA_START = re.compile(rf"\b(?:DATATAKE_SENSING_START|PRODUCT_START_TIME){_BETWEEN}([\d\-]+T[\d:.]+)")


@dataclass(frozen=True, slots=True)
class Acquired:
    """When, as ISO 8601 in UTC, and cloud cover in per cent; "" and NaN: not known."""

    datetime: str = ""
    cloud_cover: float = float("nan")
    platform: str = ""
    collection: str = ""


def of_properties(properties: dict[str, Any], collection: str = "") -> Acquired:
    """Return what the properties of a STAC Item say; of a period, its middle."""
    moments = [_parsed(properties.get(key)) for key in ("datetime", "start_datetime", "end_datetime")]
    when = moments[0]
    if when is None and moments[1] and moments[2]:
        when = moments[1] + (moments[2] - moments[1]) / 2
    platform = properties.get("platform")
    cover = _number(properties.get("eo:cloud_cover"))
    return Acquired(_iso(when), cover, platform if isinstance(platform, str) else "", collection)


def of_files(path: str, name: str) -> Acquired:
    """Return what the tags of a raster say, else its name."""
    tags = run_with_env(path, lambda: {**open_raster(path).tags(), **open_raster(path).tags(ns="IMAGERY")})
    told = {key.upper(): value for key, value in tags.items()}
    when = next((moment for key in TAGS if (moment := _parsed(told.get(key)))), None) or date_in(name)
    cover = next((value for key in CLOUDS if (value := _number(told.get(key))) == value), float("nan"))
    return Acquired(_iso(when), cover)


def of_product(path: str, name: str, listing: Listing | None = None) -> Acquired:
    """Return what the metadata of a product says, else its name."""
    listing = listing_of(path) if listing is None else listing
    names = [] if listing is None else [one for one in listing.names if is_metadata(one)]
    text = "\n".join(listing.read(one).decode("utf-8", "replace") for one in names if listing is not None)
    start, day, time = (pattern.search(text) for pattern in (METADATA_START, METADATA_DAY, METADATA_TIME))
    written = start[1] if start else f"{day[1]}T{time[1] if time else '00:00:00'}" if day else ""
    clouds = METADATA_CLOUDS.search(text)
    return Acquired(_iso(_parsed(written) or date_in(name)), _number(clouds[1] if clouds else None))


def date_in(name: str) -> datetime | None:
    """Return the date that a file's name has; of Sentinel-2 and Landsat the first; None for several or none."""
    found = list(NAMED.finditer(stem(name)))
    if not found or (len({match["year"] + match["month"] + match["day"] for match in found}) > 1
                     and not PRODUCT.match(stem(name))):  # fmt: skip
        return None
    year, month, day, hour, minute, second = [int(part or 0) for part in found[0].groups()]
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:  # as of 31 February
        return None


def _parsed(text: Any) -> datetime | None:
    if not isinstance(text, str) or len(text) < 8:
        return None
    plain = re.sub(r"^(\d{4}):(\d\d):(\d\d) ", r"\1-\2-\3T", text.strip())  # as EXIF has it
    plain = re.sub(r"(\.\d{6})\d+", r"\1", plain)
    try:
        moment = datetime.fromisoformat(plain)
    except ValueError:
        return None
    if not 1800 <= moment.year <= 2200:
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _iso(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat().replace("+00:00", "Z")


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return float("nan")
    return number if 0 <= number <= 100 else float("nan")
