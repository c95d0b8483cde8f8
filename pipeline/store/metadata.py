"""The metadata of a store: of the run that made it, and of its groups and arrays. Nothing is read or written here.

CF flags for classes, CF scale and fill for probabilities, CF grid mapping as rioxarray reads it, and the GeoZarr
conventions `multiscales`, `spatial:` and `proj:` (https://github.com/zarr-conventions).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal, Self

import xarray as xr

from models.encoding import NODATA, SCALE, Encoding
from models.metadata import ClassInfo, usual_background

from ..grid.geobox import GeoBox
from ..grid.tile_grid import TileGrid
from ..grid.tiling import TilingPlan
from ..grid.xr import with_georeference

SOURCES = {
    "source": "another source, or one that has changed",
    "cleaned from": "another store was cleaned, or it has changed",
    "objects of": "objects of another store, or it has changed",
}
GRID = "tiles on a grid"  # of what a run's identity says of its cut: their side
HARDWARE = "hardware"  # of a run's identity; stores that do not say theirs are taken for this machine's
RENAMED = {"footprint": "element"}  # settings that stores of before 0.1.0 keep under another name

JSON = dict[str, Any]
BACKGROUND = "flag_background"  # of a class map's attributes: the value of the background, -1 for none
COMMAND = "swathe segment"  # which makes a store that names no other command
FORMAT = 1  # of the store; others are not read
SMALLEST_LEVEL = 512  # the last overview's longer side is at most this, in pixels
GITHUB = "https://github.com/zarr-conventions"
RAW = "https://raw.githubusercontent.com/zarr-conventions"
CONVENTIONS: list[JSON] = [
    {
        "uuid": "d35379db-88df-4056-af3a-620245f8e347",
        "schema_url": f"{RAW}/multiscales/refs/tags/v1/schema.json",
        "spec_url": f"{GITHUB}/multiscales/blob/v1/README.md",
        "name": "multiscales",
        "description": "Multiscale layout of zarr datasets",
    },
    {
        "uuid": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "schema_url": f"{RAW}/geo-proj/refs/tags/v1/schema.json",
        "spec_url": f"{GITHUB}/geo-proj/blob/v1/README.md",
        "name": "proj:",
        "description": "Coordinate reference system information for geospatial data",
    },
    {
        "uuid": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "schema_url": f"{RAW}/spatial/refs/tags/v1/schema.json",
        "spec_url": f"{GITHUB}/spatial/blob/v1/README.md",
        "name": "spatial:",
        "description": "Spatial coordinate information",
    },
]


@dataclass(frozen=True, slots=True)
class StoreMetadata:
    """What a store says of the run that made it: the attribute `swathe` of its root."""

    plan: TilingPlan  # in which blocks it is written
    encoding: Encoding
    classes: tuple[ClassInfo, ...]  # by value
    identity: Mapping[str, Any]  # what decides the pixels: see `BlockJob`
    background: int | None = 0  # value of the class that is no object; None: there is none
    levels: int = 0  # of overviews
    state: Literal["creating", "running", "partial", "complete"] = "creating"
    command: str = COMMAND
    bundle: Mapping[str, Any] = field(default_factory=dict)  # name, digest, architecture, and `about` it
    source: Mapping[str, Any] = field(default_factory=dict)  # the scene's bands and dtype, and its path if it has one
    segmented: Mapping[str, Any] | None = None  # identity of the run that segmented the maps, if it was another
    cleaned: Mapping[str, Any] | None = None  # how the maps were cleaned
    cleaned_from: str | None = None  # path or URL of the store that was cleaned
    made_from: str | None = None  # path or URL of the store that this one is derived from
    planned: str | None = None  # digest of the plan that says which blocks are written; None: all
    precision: Mapping[str, Any] = field(default_factory=dict)  # how it was chosen, where that was measured
    overlap: Mapping[str, Any] = field(default_factory=dict)  # of tiles on a grid: likewise, and what was measured
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # pixels, objects, seams
    manifest: bool | None = None  # whether it was finished with a manifest; None: not yet, or before there were any

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what `to_json` gives. Raises LookupError or TypeError where it is something else."""
        known = {key: value for key, value in values.items() if key in cls.__slots__}
        classes = tuple(ClassInfo(**info) for info in known.pop("classes"))
        plan = {"tile_aspect" if key == "tall" else key: value for key, value in known.pop("plan").items()}
        plan |= {"grid": TileGrid(**plan["grid"])} if "grid" in plan else {}
        encoding = Encoding.from_json(known.pop("encoding"), len(classes))
        background = known.pop("background") if "background" in known else _usual_background(classes, encoding)
        return cls(plan=TilingPlan(**plan), encoding=encoding, classes=classes, background=background, **known)

    def to_json(self) -> JSON:
        """Return it as JSON values, without what is not known."""
        plan = {"tall" if key == "tile_aspect" else key: value for key, value in asdict(self.plan).items()}
        if plan["grid"] is None:
            del plan["grid"]  # as stores of before have it
        kept = {key: value for key in self.__slots__ if (value := getattr(self, key)) not in (None, {}, COMMAND)}
        if self.cleaned is not None:
            kept["cleaned"] = self.cleaned  # though nothing may have been asked for
        described = {
            "plan": plan,
            "encoding": self.encoding.to_json(),
            "classes": [asdict(info) for info in self.classes],
            "background": self.background,
        }
        return {"format": FORMAT, **kept, **described}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by value."""
        return tuple(info.name for info in self.classes)

    @property
    def foreground(self) -> tuple[int, ...]:
        """Values of the classes that have objects: all but the background's."""
        return tuple(value for value in range(len(self.classes)) if value != self.background)

    @property
    def background_name(self) -> str | None:
        """Name of the background; None: there is none."""
        return None if self.background is None else self.class_names[self.background]

    @property
    def background_note(self) -> str:
        """What to say of a store without a background; empty where there is one."""
        names = ", ".join(self.class_names[:8]) + (", ..." if len(self.classes) > 8 else "")
        return f"the maps have no background: all classes have objects ({names})" if self.background is None else ""

    @property
    def background_identity(self) -> JSON:
        """What an identity of what is derived holds of the background: nothing of the first class.

        Stores that were derived before the background was said took that for it, and stay the same runs.
        """
        return {} if self.background == 0 else {"background": self.background_name or "none"}

    @property
    def segmentation(self) -> Mapping[str, Any]:
        """Identity of the run that segmented the maps: this one, or that of the store it is derived from."""
        return self.segmented or self.identity

    @property
    def pixels(self) -> Mapping[str, int]:
        """Pixels per class by name, and `nodata`."""
        return self.results["pixels"]

    @property
    def is_readable(self) -> bool:
        """Whether all is there; of a partial store, all but some blocks that failed and were set aside."""
        return self.state in ("partial", "complete")

    @property
    def skipped(self) -> list[JSON]:
        """Blocks that failed and were set aside: `level`, `row`, `column` and `reason`."""
        found: Any = self.results.get("skipped", [])
        return list(found) if self.state == "partial" else []

    @property
    def skipped_places(self) -> tuple[tuple[int, int, int], ...]:
        """Level, row and column of these blocks."""
        return tuple((one["level"], one["row"], one["column"]) for one in self.skipped)

    @property
    def content(self) -> Mapping[str, Any]:
        """What decides the pixels that are there: the identity, and which blocks are lacking."""
        places = [list(one) for one in self.skipped_places]
        return {**self.identity, "skipped": places} if places else self.identity

    @property
    def nonfinite(self) -> int:
        """Pixels that are nodata since the network's answer is no number."""
        found: Any = self.results.get("nonfinite", 0)
        return int(found)

    def derived(self, path: str, **changes: Any) -> Self:
        """Return what a store says that is made from this one, which lies at a path."""
        return replace(
            self, state="creating", results={}, precision={}, segmented=self.segmentation, made_from=path, **changes
        )


def _usual_background(classes: Sequence[ClassInfo], encoding: Encoding) -> int | None:
    """Return the background of a store that was written before it was said; objects then had the first class for it."""
    return 0 if encoding.objects or usual_background([info.name for info in classes]) is not None else None


def level_count(geobox: GeoBox, smallest: int = SMALLEST_LEVEL) -> int:
    """Return how many overviews lie above the full resolution: until both sides are at most `smallest`."""
    levels = 0
    while max(geobox.level(levels).shape) > smallest:
        levels += 1
    return levels


def group_path(level: int) -> str:
    """Return the path of a level's group within the store; the full resolution is the root."""
    return f"overviews/{level}" if level else ""


def class_map_attributes(classes: tuple[ClassInfo, ...], background: int | None) -> JSON:
    """Describe the class map: CF flags, colours, the value of the background (-1: there is none), nodata."""
    return {
        "long_name": "class",
        "flag_values": list(range(len(classes))),
        "flag_meanings": " ".join(info.name.replace(" ", "_") for info in classes),
        "flag_colors": " ".join(f"#{info.color.upper()}" for info in classes),
        BACKGROUND: background_flag(background),
        "_FillValue": NODATA,
        **_on_grid(),
    }


def background_flag(background: int | None) -> int:
    """Return the value of the background as attributes have it: -1 where there is none."""
    return -1 if background is None else background


def objects_attributes() -> JSON:
    """Describe the ids of objects."""
    return {"long_name": "id of the object: 1 + row * width + column of its first pixel; 0 = none"} | _on_grid()


def probability_attributes(encoding: Encoding) -> JSON:
    """Describe the probabilities: CF scale factor for uint8, nodata."""
    attributes: JSON = {"long_name": "probability", "units": "1", **_on_grid()}
    if encoding.probability == "uint8":
        attributes |= {"scale_factor": SCALE, "add_offset": 0.0, "_FillValue": NODATA}
    return attributes


def _on_grid() -> JSON:
    return {"grid_mapping": "spatial_ref", "coordinates": "spatial_ref"}


def spatial_ref_attributes(geobox: GeoBox) -> JSON:
    """Describe CRS and transform as a CF grid mapping, with the GeoTransform that GDAL and rioxarray read."""
    dressed = with_georeference(xr.Dataset(coords={"spatial_ref": 0}), geobox)
    return dict(dressed.coords["spatial_ref"].attrs)


def geozarr_attributes(geobox: GeoBox, levels: int) -> JSON:
    """Describe all levels by the GeoZarr conventions."""
    from pyproj import CRS

    attributes: JSON = {
        "zarr_conventions": CONVENTIONS,
        "multiscales": {"layout": [_level(geobox, level) for level in range(levels + 1)]},
        "spatial:dimensions": ["y", "x"],
        "spatial:shape": list(geobox.shape),
    }
    if geobox.transform is not None:
        attributes["spatial:transform"] = list(geobox.transform)[:6]
    if geobox.crs is not None:
        crs = CRS.from_wkt(geobox.crs)
        authority = crs.to_authority()
        attributes |= {"proj:code": ":".join(authority)} if authority else {"proj:wkt2": crs.to_wkt()}
    return attributes


def _level(geobox: GeoBox, level: int) -> JSON:
    here = geobox.level(level)
    entry: JSON = {
        "asset": group_path(level) or ".",
        "transform": {"scale": [2.0 if level else 1.0] * 2, "translation": [0.0, 0.0]},
        "spatial:shape": list(here.shape),
    }
    if level:
        entry |= {"derived_from": group_path(level - 1) or ".", "resampling_method": "mode"}
    if here.transform is not None:
        entry["spatial:transform"] = list(here.transform)[:6]
    return entry


def describe_nonfinite(pixels: int) -> str:
    """Say of how many pixels the network's answer is no number."""
    return f"{pixels:,} pixel{'s are' if pixels != 1 else ' is'} nodata: the network's answer is NaN or infinite there"


def describe_skipped(count: int, command: str) -> str:
    """Say how many blocks failed and were set aside, and what to do."""
    which = f"{count:,} block{'s' if count != 1 else ''} failed and {'are' if count != 1 else 'is'} nodata"
    return f"{which}; the same `{command}` command tries just {'those' if count != 1 else 'that'} again"


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Return the digest of an identity, for files that cannot hold it all."""
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name the settings in which two identities differ, with both values."""
    found, theirs = [], {RENAMED.get(key, key): value for key, value in theirs.items()}
    for key in {**mine, **theirs}:  # of some settings only what is not as by default is kept
        here, there = mine.get(key), theirs.get(key)
        if here == there or (key == HARDWARE and there is None):
            continue
        if key in SOURCES:
            found.append(SOURCES[key])
        elif isinstance(here, dict) and isinstance(there, dict):
            found += differences(here, there)
        else:
            found.append(f"{key} {_short(here)}, there {_short(there)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12]
