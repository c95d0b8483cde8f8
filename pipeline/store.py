"""The Zarr store that a run fills: made, opened, written by blocks, marked, finished. No network, no dask.

A store is in one of three states, kept in its root attributes: `creating`, `running`, `complete`. While it runs, a block
counts as done when its mark is there; marks are written after the block's shards, each of which appears whole.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from models.errors import StoreError
from models.facts import ClassInfo, Facts

from .files import Files
from .geobox import GeoBox, Window
from .layout import (
    class_map_attributes,
    geozarr_attributes,
    group_path,
    level_count,
    level_geobox,
    probability_attributes,
    spatial_ref_attributes,
)
from .plans import Plan
from .predict import NODATA, Answer, Encoding
from .scene import coordinates

FORMAT = 1
KEY = "swathe"  # of our own facts among the root attributes
MARKS = ".swathe/done"
SMALLEST_LEVEL = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides the pixels of a run, and nothing else: two runs of one identity may share a store."""

    source: Mapping[str, Any]
    bundle: str
    engine: str
    precision: str
    halo: int
    encoding: Encoding
    shape: tuple[int, int]

    def facts(self) -> dict[str, Any]:
        """Give it as JSON values, for the store and for messages."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished block says of itself: its place, its pixels per class (nodata last), and how long it took."""

    level: int
    row: int
    column: int
    pixels: tuple[int, ...]
    seconds: float

    @property
    def name(self) -> str:
        """The name of the block's mark."""
        return mark_name(self.level, self.row, self.column)


def mark_name(level: int, row: int, column: int) -> str:
    """Give the name of a block's mark."""
    return f"{level}.{row}.{column}.json"


@dataclass(frozen=True, slots=True)
class Store:
    """A store's place, and how it is cut. Small enough to send to every worker."""

    path: str
    plan: Plan
    geobox: GeoBox
    encoding: Encoding
    levels: int

    @property
    def files(self) -> Files:
        """The files that lie beside the arrays."""
        return Files(self.path)

    def arrays(self, level: int) -> dict[str, "zarr.Array[Any]"]:
        """Open a level's arrays by name, for reading and writing."""
        with store_errors(self.path):
            group = _group(self.path)
            names = ["class_map", *(["probability"] if self.encoding.probability else [])]
            prefix = f"{group_path(level)}/" if level else ""
            return {name: group[prefix + name] for name in names}  # type: ignore[misc]

    def write(self, level: int, window: Window, answer: Answer) -> None:
        """Write whole shards of a level; only the task that owns the block may."""
        rows, columns = window.slices
        arrays = self.arrays(level)
        with store_errors(self.path):
            if answer.probability is not None:
                arrays["probability"][:, rows, columns] = answer.probability
            arrays["class_map"][rows, columns] = answer.class_map

    def read(self, level: int, window: Window) -> Answer:
        """Read a window of a level as it is kept."""
        rows, columns = window.slices
        arrays = self.arrays(level)
        with store_errors(self.path):
            class_map: NDArray[np.uint8] = np.asarray(arrays["class_map"][rows, columns])
            if "probability" not in arrays:
                return Answer(class_map, None)
            return Answer(class_map, np.asarray(arrays["probability"][:, rows, columns]))

    def read_layer(self, name: str, window: Window) -> NDArray[Any]:
        """Read a window of one array at full resolution, always as `(band, y, x)`."""
        rows, columns = window.slices
        array = self.arrays(0)[name]
        with store_errors(self.path):
            pixels = np.asarray(array[..., rows, columns])
        return pixels if pixels.ndim == 3 else pixels[None]

    def mark(self, summary: Summary) -> None:
        """Mark a block as done. Its shards must be written."""
        with store_errors(self.path):
            self.files.write(f"{MARKS}/{summary.name}", json.dumps(asdict(summary)).encode())

    def done(self) -> set[str]:
        """Give the names of the marks that are there."""
        with store_errors(self.path):
            return set(self.files.names(MARKS))

    def summary(self, name: str) -> Summary:
        """Read a mark."""
        with store_errors(self.path):
            values = json.loads(self.files.read(f"{MARKS}/{name}"))
        return Summary(**{**values, "pixels": tuple(values["pixels"])})


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn what disks, object stores and Zarr raise into one line that names the store."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            warnings.filterwarnings("ignore", message="Object at .* is not recognized as a component of a Zarr")
            yield
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, zarr.errors.BaseZarrError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"{path}: {reason}") from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise StoreError(f"{path}: {' '.join(str(error).split())[:200]}") from error
        raise


@lru_cache(maxsize=16)
def _group(path: str) -> "zarr.Group":
    return zarr.open_group(path, mode="r+", use_consolidated=False)


def create_store(
    path: str,
    plan: Plan,
    geobox: GeoBox,
    encoding: Encoding,
    facts: Facts,
    about: Mapping[str, Any],
    *,
    pyramid: bool,
) -> Store:
    """Make an empty store: metadata and coordinates only.

    Parameters
    ----------
    path
        Local path or URL; what was there is removed.
    plan, geobox, encoding
        How the scene is cut, where it lies, what is kept.
    facts
        Of the bundle: the classes.
    about
        Our own facts: identity, settings, provenance. Kept under the attribute `swathe`.
    pyramid
        Whether the store has overviews.
    """
    store = Store(path, plan, geobox, encoding, level_count(geobox, SMALLEST_LEVEL) if pyramid else 0)
    with store_errors(path):
        store.files.remove()
        _group.cache_clear()
        own = {"format": FORMAT, "state": "creating", **about, **_described(store, facts)}
        root = zarr.create_group(path, attributes={KEY: own, **geozarr_attributes(geobox, store.levels)})
        for level in range(store.levels + 1):
            _create_level(root, store, level, facts.classes)
        _set_state(root, "running")
    return store


def _described(store: Store, facts: Facts) -> dict[str, Any]:
    return {
        "plan": asdict(store.plan),
        "levels": store.levels,
        "encoding": asdict(store.encoding),
        "classes": [asdict(info) for info in facts.classes],
    }


def _set_state(root: "zarr.Group", state: str, **more: Any) -> None:
    own = {**root.attrs[KEY], "state": state, **more}  # type: ignore[dict-item]
    root.update_attributes({KEY: own})
    zarr.consolidate_metadata(root.store)


def _create_level(root: "zarr.Group", store: Store, level: int, classes: tuple[ClassInfo, ...]) -> None:
    geobox, encoding = level_geobox(store.geobox, level), store.encoding
    group = root.require_group(group_path(level)) if level else root
    _create_coordinates(group, geobox)
    _create_pixels(group, store.plan, "class_map", geobox.shape, "uint8", NODATA, class_map_attributes(classes))
    if encoding.probability:
        fill = NODATA if encoding.probability == "uint8" else np.nan
        shape = (len(encoding.kept), *geobox.shape)
        attributes = probability_attributes(encoding)
        _create_pixels(group, store.plan, "probability", shape, encoding.probability, fill, attributes)
        names = np.array([classes[value].name for value in encoding.kept], dtype=object)
        group.create_array("class", shape=names.shape, dtype=str, dimension_names=("class",))[:] = names


def _create_coordinates(group: "zarr.Group", geobox: GeoBox) -> None:
    for name, (dimension, values) in coordinates(geobox).items():
        array = group.create_array(name, shape=values.shape, dtype="float64", dimension_names=(dimension,))
        array[:] = values
    attributes = spatial_ref_attributes(geobox)
    group.create_array("spatial_ref", shape=(), dtype="int64", attributes=attributes, dimension_names=())[()] = 0


def _create_pixels(
    group: "zarr.Group",
    plan: Plan,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    fill: float,
    attributes: dict[str, Any],
) -> None:
    layers = shape[:-2]
    group.create_array(
        name,
        shape=shape,
        chunks=(*(1 for _ in layers), plan.chunk, plan.chunk),
        shards=(*layers, plan.block, plan.block),
        dtype=dtype,
        fill_value=fill,
        compressors=ZstdCodec(level=1, checksum=True),  # the checksum catches flipped bits; default settings miss them
        attributes=attributes,
        dimension_names=("class", "y", "x")[-len(shape) :],
        config={"write_empty_chunks": True},  # so that a shard that is missing is a loss, never an empty place
    )


def read_own(path: str) -> dict[str, Any] | None:
    """Give our own facts of a store, or None where there is nothing at all.

    Raises
    ------
    StoreError
        Something else lies there.
    """
    files = Files(path)
    with store_errors(path):
        if not files.exists() or (files.local and not files.names("")):
            return None
        try:
            attributes = json.loads(files.read("zarr.json")).get("attributes", {})
        except (FileNotFoundError, ValueError, NotADirectoryError) as error:
            raise StoreError(f"{path} exists and is not a Zarr store; choose another output") from error
    own = attributes.get(KEY)
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise StoreError(f"{path} is a Zarr store that Swathe did not write; choose another output")
    return own


def reopen_store(path: str, own: Mapping[str, Any], geobox: GeoBox) -> Store:
    """Open a store that a run has made, by its own facts."""
    encoding = own["encoding"]
    return Store(
        path,
        Plan(**own["plan"]),
        geobox,
        Encoding(**{**encoding, "kept": tuple(encoding["kept"])}),
        own["levels"],
    )


def open_store(path: str) -> tuple[Store, dict[str, Any]]:
    """Open a finished store for reading, with our own facts of it.

    Raises
    ------
    StoreError
        It is missing, is not Swathe's, or its run is not finished.
    """
    own = read_own(path)
    if own is None:
        raise StoreError(f"no such store: {path}")
    if own["state"] != "complete":
        raise StoreError(f"{path} is not finished; run the same `swathe segment` command again to continue it")
    return reopen_store(path, own, _geobox(path, own)), own


def _geobox(path: str, own: Mapping[str, Any]) -> GeoBox:
    from affine import Affine

    with store_errors(path):
        attributes = _group(path).attrs
        wkt = _group(path)["spatial_ref"].attrs.get("crs_wkt")
    transform = attributes.get("spatial:transform")
    plan = own["plan"]
    where = Affine(*transform) if transform else None  # type: ignore[misc]
    return GeoBox(plan["height"], plan["width"], where, str(wkt) if wkt else None)


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name the settings in which two identities differ, with both values."""
    found = []
    for key in mine:
        here, there = mine[key], theirs.get(key)
        if here == there:
            continue
        if key == "source":
            found.append("another source, or one that has changed")
        elif isinstance(here, dict) and isinstance(there, dict):
            found += differences(here, there)
        else:
            found.append(f"{key} {_short(here)}, there {_short(there)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12]


def finish_store(store: Store, results: Mapping[str, Any]) -> None:
    """Mark a store as complete, with the totals of the run; its marks are folded into it and removed."""
    with store_errors(store.path):
        store.files.remove_partial()
        _set_state(_group(store.path), "complete", **results)
        store.files.remove(".swathe")
