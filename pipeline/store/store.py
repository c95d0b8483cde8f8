"""The Zarr store that a run fills: opened, read, written block by block with done markers. No network, no dask.

A store is in one of three states, kept in its root attributes: `creating`, `running`, `complete`. While it is running,
a block counts as done when its marker is there, and its shards too; markers are written after the shards, each of
which appears whole. Once it is complete, every shard must be there: one that is missing is an error, never nodata.

A store may have a plan of its blocks (`blocks/planned`). Those that are not planned are never computed nor written, and
every reader finds nodata there.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Self

import google_crc32c
import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from typing_extensions import override
from zarr.abc.store import ByteRequest
from zarr.abc.store import Store as ZarrStore
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

from models.encoding import Encoding
from models.errors import StoreError
from models.limits import parse_json
from models.metadata import ReceptiveField
from models.timing import NOTHING, Spent, count_bytes, spending

from ..grid.block_result import BlockResult
from ..grid.geobox import GeoBox, Window
from ..grid.tiling import TilingPlan, make_plan
from .files import Files, full_path
from .map_file import is_map_file, read_class_map, read_map_facts
from .metadata import FORMAT, StoreMetadata, differences, group_path
from .planned import PLANNED, BlockMask, by_level, digest_of, places
from .sealed import unpack_files
from .shards import encode_shard

SHARD = re.compile(r"(^|/)c(/\d+)+$")  # Zarr's name of a shard's file
PIXELS = re.compile(r"(?:overviews/(\d+)/)?(?:class_map|probability|objects)/c/(?:\d+/)?(\d+)/(\d+)")  # one of maps
KEY = "swathe"  # of StoreMetadata among the root attributes
ROOT = "zarr.json"
MANIFEST, COPY = "manifest.npz", "manifest.copy.npz"  # see `manifest`
MARKERS = ".swathe"  # where the done markers of a run lie, and the file that names the run
RUN = f"{MARKERS}/run"
UNSYNCED = f"{MARKERS}/unsynced"  # is there if some of the store is written without sync
BEGUN = f"{MARKERS}/begun.npz"  # all files of a store on a disk as they were when it was begun
NAMES_OF_BEGUN = {ROOT, MARKERS, "class_map", "probability", "objects", "class", "spatial_ref", "x", "y", "overviews",
                  "blocks"}  # fmt: skip
READABLE = "give one that `swathe segment`, `clean` or `objects` has written"
BlockIndex = tuple[int, int, int]  # level, row, column
StoreState = Literal["missing", "creating", "mine", "other"]
SECONDS = "blocks/seconds"  # the array of what each block took
OF_BEFORE = ("level", "row", "column", "pixels", "seconds")  # all that done markers held at first


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished block says of itself: its place, its pixels per class (nodata last), and how long it took.

    `shards` are what `Store.write` has returned; empty in markers of before. On what it has spent its time, and the
    address of the worker that did it, are not kept in its done marker.
    """

    level: int
    row: int
    column: int
    pixels: tuple[int, ...]
    seconds: float
    spent: Spent = NOTHING
    worker: str = ""
    shards: tuple[tuple[int, int], ...] = ()
    nonfinite: int = 0  # pixels that are nodata since the network's answer is no number

    @property
    def name(self) -> str:
        """The name of the block's done marker."""
        return marker_name(self.level, self.row, self.column)

    def marker(self) -> bytes:
        """Return what the block's done marker holds: JSON, and the CRC-32C of what it says."""
        said = {name: getattr(self, name) for name in (*OF_BEFORE, "shards")}
        said |= {"nonfinite": self.nonfinite} if self.nonfinite else {}
        return json.dumps({**said, "crc32c": _checksum_of(said)}).encode()

    @classmethod
    def from_marker(cls, place: BlockIndex, content: bytes) -> Self | None:
        """Read the marker of a block; None where it is damaged. Those of before have no checksum, and no shards."""
        try:
            said = json.loads(content)
            right = set(said) == set(OF_BEFORE) or said.pop("crc32c") == _checksum_of(said)
            made = cls(**{**said, "pixels": tuple(said["pixels"]), "shards": tuple(map(tuple, said.get("shards", ())))})
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return made if right and (made.level, made.row, made.column) == place else None


def _checksum_of(said: Mapping[str, Any]) -> str:
    return f"{google_crc32c.value(json.dumps(said).encode()):08x}"


def marker_name(level: int, row: int, column: int) -> str:
    """Return the name of a block's done marker."""
    return f"{level}.{row}.{column}.json"


@dataclass(frozen=True, slots=True)
class Store:
    """A store's place, and how it is cut. Small enough to send to every worker.

    `run` is the name of the run that fills it, which only that run's tasks may do; empty in a finished store.
    `plan_digest` names the plan that says which blocks are written; empty: all are. `sync`: what is written has reached
    the disk before it is marked as done.
    """

    path: str
    plan: TilingPlan
    geobox: GeoBox
    encoding: Encoding
    levels: int
    run: str = ""
    plan_digest: str = ""
    skipped: tuple[BlockIndex, ...] = ()  # planned blocks that failed and were set aside: they read as nodata
    sync: bool = True

    def cut_as(self, other: "Store") -> Self:
        """Return these maps in the blocks of another store: made anew meanwhile, the same maps may have others.

        They are for reading windows: `planned` speaks of the blocks that these maps really have.
        """
        return replace(self, plan=other.plan)

    @property
    def is_file(self) -> bool:
        """Whether it is a class map in a GeoTIFF, which is only read, and not a Zarr store."""
        return is_map_file(self.path)

    @property
    def files(self) -> Files:
        """The files that lie beside the arrays."""
        return Files(self.path, self.sync)

    @property
    def array_names(self) -> list[str]:
        """The names of the arrays of pixels."""
        kept = {"probability": bool(self.encoding.probability), "objects": self.encoding.objects}
        return ["class_map", *(name for name, there in kept.items() if there)]

    def arrays(self, level: int) -> dict[str, "zarr.Array[Any]"]:
        """Open a level's arrays by name. A shard that is missing reads as an error."""
        with store_errors(self.path):
            group = _strict_group(self.path, self.plan_digest, self.skipped)
            return {name: group[_array_path(level, name)] for name in self.array_names}  # type: ignore[misc]

    def write(self, level: int, window: Window, result: BlockResult) -> tuple[tuple[int, int], ...]:
        """Write a block's shards; only the task that owns the block may.

        Returns
        -------
        tuple of tuple of int
            Size and CRC-32C of the shard of each array, in the order of `array_names`.
        """
        with spending("write"):
            return self._write(level, window, result)

    def _write(self, level: int, window: Window, result: BlockResult) -> tuple[tuple[int, int], ...]:
        self.check_run()
        place, shards = (window.top // self.plan.block, window.left // self.plan.block), {}
        with store_errors(self.path):
            for name in self.array_names:
                array = _array(self.path, self.run, _array_path(level, name))
                shards[self.shard_name(level, name, *place)] = encode_shard(array, getattr(result, name))
            self.files.write_all(shards)
        count_bytes(written=sum(map(len, shards.values())))
        return tuple((len(shard), google_crc32c.value(shard)) for shard in shards.values())

    def shard_name(self, level: int, array: str, row: int, column: int) -> str:
        """Return the path of a shard within the store."""
        return f"{self._shard_folder(level, array)}/{row}/{column}"

    def _shard_folder(self, level: int, array: str) -> str:
        return f"{_array_path(level, array)}/c{'/0' if array == 'probability' else ''}"

    def check_run(self) -> None:
        """Stop tasks of a run that has ended or was replaced; a cluster may do them late, or twice."""
        with store_errors(self.path):
            try:
                current = self.files.read(RUN).decode()
            except FileNotFoundError:
                current = None
        if current != self.run:
            raise StoreError(f"{self.path} is no longer this run's: it was finished or replaced meanwhile")

    def read(self, level: int, window: Window) -> BlockResult:
        """Read a window of a level as it is kept."""
        (rows, columns), probability = window.slices, None
        with self._damage_is_mended(), spending("read"):
            arrays = self.arrays(level)
            class_map: NDArray[np.uint8] = np.asarray(arrays["class_map"][rows, columns])
            if "probability" in arrays:
                probability = np.asarray(arrays["probability"][:, rows, columns])
        count_bytes(read=class_map.nbytes + (0 if probability is None else probability.nbytes))
        return BlockResult(class_map, probability)

    def is_readable(self, level: int, place: tuple[int, int]) -> bool:
        """Whether all arrays of a block can be read; damage is noticed by checksums."""
        window = self.window(level, *place)
        try:
            for name in self.array_names:
                self._read_array(name, window, level)
        except StoreError:
            return False
        return True

    def read_array(self, name: str, window: Window, level: int = 0) -> NDArray[Any]:
        """Read a window of one array, always as `(band, y, x)`."""
        with spending("read"):
            pixels = read_class_map(self.path, window) if self.is_file else self._read_array(name, window, level)
        count_bytes(read=pixels.nbytes)
        return pixels if pixels.ndim == 3 else pixels[None]

    def _read_array(self, name: str, window: Window, level: int) -> NDArray[Any]:
        rows, columns = window.slices
        with self._damage_is_mended():
            return np.asarray(self.arrays(level)[name][..., rows, columns])

    @contextmanager
    def _damage_is_mended(self) -> Iterator[None]:
        """As `store_errors`; of a finished store that is damaged it is said how to mend it."""
        try:
            with store_errors(self.path):
                yield
        except StoreError as error:
            if self.run or isinstance(error.__cause__, OSError) or not self.files.exists(MANIFEST):
                raise
            raise StoreError(f"{error}; {repairing(self.path)}") from error

    def mark_done(self, summary: Summary) -> None:
        """Mark a block as done; see `ledger`. Its shards must be written."""
        with store_errors(self.path):
            self.files.unsynced.write(f"{MARKERS}/{summary.name}", summary.marker(), make=False)

    def planned(self, level: int) -> BlockMask:
        """Return which blocks of a level are planned; of an overview, those above any that is. It is not to be changed.

        Those that failed and were set aside are left out.

        Raises
        ------
        StoreError
            The plan cannot be read, or the store was made anew with another one.
        """
        if not self.plan_digest:
            found: BlockMask = np.broadcast_to(np.bool_(True), self.grid(level))
        else:
            with store_errors(self.path):
                found = _at_level(_planned(self.path, self.plan_digest), level)
        lacking = [place for at, *place in self.skipped if at == level]
        if lacking:
            found = found.copy()
            found[tuple(np.transpose(lacking))] = False
        return found

    def places(self, level: int) -> Iterator[tuple[int, int]]:
        """Yield the rows and columns of a level's planned blocks."""
        return places(self.planned(level))

    def grid(self, level: int) -> tuple[int, int]:
        """Return how many rows and columns of blocks a level has."""
        height, width = self.geobox.level(level).shape
        return -(-height // self.plan.block), -(-width // self.plan.block)

    def window(self, level: int, row: int, column: int) -> Window:
        """Return the pixels of a block, cut to the level."""
        side = self.plan.block
        return Window.square(row * side, column * side, side).clip(self.geobox.level(level).shape)

    def shard_sizes(self, level: int) -> NDArray[np.int64]:
        """Return the bytes of the shards of the planned blocks, `(row, column, array)`; 0 where there is none."""
        planned = self.planned(level)
        sizes, rows = np.zeros((*planned.shape, len(self.array_names)), np.int64), np.flatnonzero(planned.any(axis=1))
        with store_errors(self.path):
            for number, name in enumerate(self.array_names):
                folders = [f"{self._shard_folder(level, name)}/{row}" for row in rows.tolist()]
                for row, found in zip(rows.tolist(), self.files.listed(folders), strict=True):
                    here = {int(column): size for column, size in found.items() if column.isdecimal()}
                    sizes[row, list(here), number] = list(here.values())
        sizes[~planned] = 0
        return sizes

    def present(self, level: int) -> BlockMask:
        """Return the planned blocks whose shards are there, in every array, and are not empty."""
        return np.asarray((self.shard_sizes(level) > 0).all(axis=-1))

    def missing(self) -> list[BlockIndex]:
        """Return level, row and column of every planned block that lacks a shard."""
        lacking = (places(self.planned(level) ^ self.present(level)) for level in range(self.levels + 1))
        return [(level, *place) for level, found in enumerate(lacking) for place in found]

    def block_seconds(self) -> NDArray[np.float32]:
        """Return the seconds that each block of the full resolution took, `(row, column)`; NaN: it is not planned."""
        with store_errors(self.path):
            return np.asarray(_strict_group(self.path, self.plan_digest, self.skipped)[SECONDS])


def _at_level(planned: tuple[BlockMask, ...], level: int) -> BlockMask:
    """Return the mask of a level; above the one that is a single block, all are that."""
    return planned[min(level, len(planned) - 1)]


def _array_path(level: int, name: str) -> str:
    return f"{group_path(level)}/{name}" if level else name


def repairing(path: str) -> str:
    """Return how a finished store that is damaged is mended, in words."""
    return f"`swathe verify {path} --repair` makes again what is damaged"


@contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn what disks, object stores and Zarr raise into one line that names the store."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, zarr.errors.BaseZarrError) as error:
        raise StoreError(f"{path}: {_reason(error)}") from error
    except Exception as error:
        if type(error).__module__.startswith(("botocore", "aiobotocore", "aiohttp")):
            raise StoreError(f"{path}: {' '.join(str(error).split())[:200]}") from error
        raise


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def sole_writer(path: str) -> Iterator[None]:
    """Let no other run write to a store meanwhile, where the disk knows locks; object stores do not.

    Raises
    ------
    StoreError
        Another run is writing to it.
    """
    with store_errors(path):
        try:
            release = Files(path).lock()
        except BlockingIOError as error:
            raise StoreError(f"{path}: another run is writing to it now; wait for it, or end it") from error
    try:
        yield
    finally:
        release()


class StrictStore(WrapperStore[ZarrStore]):
    """A Zarr store that raises RuntimeError where a shard is missing or empty; Zarr itself gives nodata there.

    Later versions of Zarr have a setting for this.

    Parameters
    ----------
    store
        Which is read.
    planned
        Planned blocks by level: there alone shards must be. None: everywhere.
    skipped
        Blocks that are nodata whatever lies there.
    """

    def __init__(
        self,
        store: ZarrStore,
        planned: tuple[BlockMask, ...] | None = None,
        skipped: frozenset[BlockIndex] = frozenset(),
    ) -> None:
        super().__init__(store)
        self._plan, self._skipped = planned, skipped

    @override
    def _with_store(self, store: ZarrStore) -> Self:
        return type(self)(store, self._plan, self._skipped)

    def _is_skipped(self, key: str) -> bool:
        found = PIXELS.fullmatch(key) if self._skipped else None
        return found is not None and tuple(int(number or 0) for number in found.groups()) in self._skipped

    def _is_planned(self, key: str) -> bool:
        found = PIXELS.fullmatch(key)
        if self._plan is None or found is None:
            return True
        level, row, column = (int(number or 0) for number in found.groups())
        return bool(_at_level(self._plan, level)[row, column])

    @override
    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if self._is_skipped(key):
            return None
        found = await self._store.get(key, prototype, byte_range)
        if (found is None or len(found) == 0) and SHARD.search(key) and self._is_planned(key):
            # not a KeyError nor a FileNotFoundError: Zarr takes those for an empty place
            raise RuntimeError(f"the store is damaged: {key} is {'missing' if found is None else 'empty'}")
        return found


@lru_cache(maxsize=16)
def _group(path: str) -> "zarr.Group":
    return zarr.open_group(path, mode="r+", use_consolidated=False)


@lru_cache(maxsize=16)
def _strict_group(path: str, plan_digest: str, skipped: tuple[BlockIndex, ...] = ()) -> "zarr.Group":
    planned = _planned(path, plan_digest) if plan_digest else None
    strict = StrictStore(_group(path).store, planned, frozenset(skipped))
    return zarr.open_group(strict, mode="r", use_consolidated=False)


@lru_cache(maxsize=16)
def _planned(path: str, plan_digest: str) -> tuple[BlockMask, ...]:
    """Read the plan of a store, by level up to a single block. Raises StoreError where it is another one."""
    planned = np.asarray(_group(path)[PLANNED]) != 0
    if digest_of(planned) != plan_digest:
        raise StoreError(
            f"{path} is damaged or was made anew meanwhile: {PLANNED} is not the plan that it was opened by"
        )
    return by_level(planned, max(planned.shape).bit_length())


@lru_cache(maxsize=64)
def _array(path: str, run: str, name: str) -> "zarr.Array[Any]":
    """Open an array of the store that a run fills, once: under the same path another run may make another one."""
    return zarr.open_array(path, path=name, mode="r+")


def close_groups() -> None:
    """Drop the Zarr groups that this process has kept open; for when a store is made anew."""
    _array.cache_clear()
    _group.cache_clear()
    _strict_group.cache_clear()
    _planned.cache_clear()


def read_metadata(path: str, advice: str = "choose another output") -> StoreMetadata | None:
    """Read the metadata of a store; None where there is nothing at all. `advice` is for what is not ours.

    Raises
    ------
    StoreError
        Something else lies there.
    """
    attributes = _root_attributes(path, advice)
    return None if attributes is None else _metadata(path, attributes, advice)


def find_store(path: str, identity: Mapping[str, Any]) -> tuple[StoreState, StoreMetadata | None]:
    """Read what lies where a run is to write: nothing, an empty store, this run's store, or another's.

    Parameters
    ----------
    path
        Path or URL of the output.
    identity
        Of the run.

    Returns
    -------
    str, StoreMetadata
        `missing` (without metadata), `creating`, `mine` or `other`.

    Raises
    ------
    StoreError
        Something else lies there.
    """
    metadata = read_metadata(path)
    if metadata is None:
        return "missing", None
    if metadata.state == "creating":
        return "creating", metadata
    return "other" if differences(identity, metadata.identity) else "mine", metadata


def _metadata(path: str, attributes: Mapping[str, Any], advice: str) -> StoreMetadata:
    own = attributes.get(KEY)
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise StoreError(f"{path} is a Zarr store that Swathe did not write; {advice}")
    try:
        return StoreMetadata.from_json(own)
    except (LookupError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is a store whose metadata another version of Swathe has written; {advice}") from error


def _root_attributes(path: str, advice: str) -> dict[str, Any] | None:
    files = Files(path)
    with store_errors(path):
        if not files.exists() or (files.local and os.path.isdir(path) and not files.names("")):
            return None
        try:
            attributes = parse_json(files.read(ROOT))["attributes"]
        except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError) as error:
            if (begun := files_of_begun(files)) is not None:  # what a power cut has left; to continue restores it
                attributes = json.loads(begun[ROOT])["attributes"]
            elif _was_just_begun(files):
                return None
            elif files.exists(MANIFEST):
                raise StoreError(f"{path} is damaged: {ROOT} cannot be read; {repairing(path)}") from error
            else:
                raise StoreError(f"{path} exists and is not a Zarr store of Swathe's; {advice}") from error
    return attributes if isinstance(attributes, dict) else {}


def files_of_begun(files: Files) -> dict[str, bytes] | None:
    """Return all that a running store on a disk held when it was begun, by path; None where that is not known."""
    try:
        return unpack_files(files.read(BEGUN))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _was_just_begun(files: Files) -> bool:
    """Whether the power was cut while a store of ours was created: its root is cut short, and nothing was computed."""
    names = set(files.names(""))
    if ROOT not in names or not names <= NAMES_OF_BEGUN:
        return False
    shards = any(files.exists(f"{name}/c") for name in ("class_map", "probability", "objects"))
    marked = {name for name in files.names(MARKERS) if name.endswith(".json") or name == "records"}
    return not shards and not marked and (MARKERS in names or not files.read(ROOT).strip(b"\0"))


def reopen_store(path: str, metadata: StoreMetadata, geobox: GeoBox) -> Store:
    """Return a store by its metadata."""
    planned, skipped = metadata.planned or "", metadata.skipped_places
    return Store(path, metadata.plan, geobox, metadata.encoding, metadata.levels, plan_digest=planned, skipped=skipped)


def open_store(path: str) -> tuple[Store, StoreMetadata]:
    """Open a finished store for reading, or a class map that Swathe wrote as a GeoTIFF; with its metadata.

    Raises
    ------
    StoreError
        It is missing, is not Swathe's, or its run is not finished.
    """
    full = full_path(path)
    if is_map_file(full):
        facts = read_map_facts(full)
        metadata = StoreMetadata(
            make_plan(facts.geobox.shape, ReceptiveField(1, 0)),
            Encoding(),
            facts.classes,
            {"map file": facts.content},
            facts.background,
            state="complete",
            bundle=facts.bundle,
            results={"pixels": facts.pixels},
        )
        return reopen_store(full, metadata, facts.geobox), metadata
    attributes = _root_attributes(full, READABLE)
    if attributes is None:
        raise StoreError(f"no such store: {path}")
    metadata = _metadata(full, attributes, READABLE)
    if not metadata.is_readable:
        raise StoreError(f"{path} is not finished; run the same `{metadata.command}` command again to continue it")
    with store_errors(full):
        reference = Files(full).read(f"spatial_ref/{ROOT}")
    return store_from(full, attributes, reference)


def store_from(path: str, attributes: Mapping[str, Any], reference: bytes) -> tuple[Store, StoreMetadata]:
    """Return a store and its metadata by the attributes of its root, and the metadata of its `spatial_ref`."""
    metadata = _metadata(path, attributes, READABLE)
    with store_errors(path):
        wkt = parse_json(reference)["attributes"].get("crs_wkt")
    transform, plan = attributes.get("spatial:transform"), metadata.plan
    geobox = GeoBox(plan.height, plan.width, Affine(*transform) if transform else None, str(wkt) if wkt else None)
    return reopen_store(path, metadata, geobox), metadata
