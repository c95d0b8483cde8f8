"""Create, resume, finish and remove a store. Each of these still works after a kill between any two writes."""

import json
import os
import re
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec
from zarr.core.buffer import Buffer, default_buffer_prototype
from zarr.storage import MemoryStore

from models.encoding import NODATA
from models.errors import StoreError
from models.files import sync

from ..grid.geobox import GeoBox
from ..grid.tiling import TilingPlan
from ..grid.xr import coordinates
from .files import Files, full_path
from .manifest import TABLE, ShardSums, write_manifest
from .metadata import (
    StoreMetadata,
    class_map_attributes,
    geozarr_attributes,
    group_path,
    objects_attributes,
    probability_attributes,
    spatial_ref_attributes,
)
from .planned import PLANNED, BlockMask, digest_of
from .sealed import pack_files
from .store import (
    BEGUN,
    COPY,
    KEY,
    MANIFEST,
    MARKERS,
    NAMES_OF_BEGUN,
    ROOT,
    RUN,
    SECONDS,
    UNSYNCED,
    Store,
    close_groups,
    files_of_begun,
    read_metadata,
    reopen_store,
    repairing,
    store_errors,
)

OURS = NAMES_OF_BEGUN | {MANIFEST, COPY, TABLE}
SYNCS = 16  # folders that are synced at a time
RUN_NAME = re.compile(r"[0-9a-f]{32}")


def create_store(
    path: str,
    geobox: GeoBox,
    metadata: StoreMetadata,
    kept: Mapping[str, bytes] = MappingProxyType({}),
    planned: BlockMask | None = None,
    *,
    sync: bool = True,
) -> Store:
    """Make an empty store: metadata and coordinates only.

    Parameters
    ----------
    path
        Local path or URL; what was there is removed.
    geobox
        CRS, transform and shape.
    metadata
        Blocks, encoding, classes, number of overviews, and where the pixels come from.
    kept
        Files that the run needs to continue, by their names in the folder of done markers, with which they go.
    planned
        Which blocks may hold anything; the others are not to be written. None: all may.
    sync
        What is written has reached the disk before it counts as there; see `Store`.

    Raises
    ------
    StoreError
        It cannot be written; or the plan has other rows and columns than the store.
    """
    if planned is not None and planned.shape != (metadata.plan.rows, metadata.plan.columns):
        raise StoreError(
            f"{path} has {metadata.plan.rows} x {metadata.plan.columns} blocks; received a plan of {planned.shape}"
        )
    metadata = replace(metadata, planned=None if planned is None or planned.all() else digest_of(planned))
    store = replace(reopen_store(path, metadata, geobox), run=uuid.uuid4().hex, sync=sync)
    files = store.files
    with store_errors(path):
        _clear(files)
        made = _new_files(store, metadata, planned)
        files.write(ROOT, made[ROOT])
        whole = {**made, **kept, ROOT: _consolidated(made)}
        files.write_all({name: content for name, content in whole.items() if name != ROOT})
        files.write_all({RUN: store.run.encode()} | ({BEGUN: pack_files(whole)} if files.local else {}))
        _note_sync(files)
        files.write(ROOT, whole[ROOT])
    return store


def _clear(files: Files) -> None:
    """Remove all that Swathe has written, the root's metadata last: a kill leaves what is still known as ours."""
    close_groups()
    names = set(files.names(""))
    foreign = sorted(names - OURS)
    if foreign and ROOT in names:
        raise StoreError(f"{files.root} also holds {', '.join(foreign[:5])}, which Swathe did not write; move it away")
    if not foreign and names:
        with suppress(ValueError, LookupError, TypeError, FileNotFoundError):  # after a power cut
            files.write(ROOT, _in_state(files, "creating"))
        for name in names - {ROOT}:
            files.remove(name)
        files.remove(ROOT)
    files.remove_partial()


def remove_store(path: str) -> None:
    """Remove a store of ours, if there is one; killed meanwhile, it can be called again.

    Raises
    ------
    StoreError
        What lies there is not Swathe's.
    """
    read_metadata(path)
    with store_errors(path):
        _clear(Files(path))
        Files(path).remove_empty()


def _in_state(files: Files, state: str, **more: Any) -> bytes:
    """Return the root's metadata with others of the store's own, and those alone; what Zarr has consolidated stays."""
    content = json.loads(files.read(ROOT))
    content["attributes"][KEY] |= {"state": state, **more}
    return json.dumps(content).encode()


def _new_files(store: Store, metadata: StoreMetadata, planned: BlockMask | None) -> dict[str, bytes]:
    """Return the files of an empty store that is being created, by path: made in memory, since Zarr writes in turn."""
    made: dict[str, Buffer] = {}
    own = replace(metadata, state="creating").to_json()
    root = zarr.create_group(MemoryStore(made), attributes={KEY: own, **geozarr_attributes(store.geobox, store.levels)})
    for level in range(store.levels + 1):
        _create_level(root, store, level, metadata)
    shape, group = (store.plan.rows, store.plan.columns), root.require_group(SECONDS.rsplit("/", 1)[0])
    about: dict[str, Any] = {"long_name": "seconds that each block took", "units": "s"}
    group.create_array("seconds", shape=shape, chunks=shape, dtype="float32", fill_value=np.nan, attributes=about,
                       dimension_names=("row", "column"))  # fmt: skip
    if planned is not None and metadata.planned is not None:
        about = {"long_name": "blocks that may hold anything; the others are not written, and are nodata"}
        group.create_array(PLANNED.rsplit("/", 1)[1], shape=shape, chunks=shape, dtype="bool", attributes=about,
                           dimension_names=("row", "column"))[:] = planned  # fmt: skip
    return {name: content.to_bytes() for name, content in made.items()}


def _consolidated(made: Mapping[str, bytes]) -> bytes:
    """Return the root's metadata, with those of all members, as running. Zarr's own way warns, in all threads."""
    members = sorted((path for path in made if path.endswith(f"/{ROOT}")), key=lambda path: (path.count("/"), path))
    metadata = {path.removesuffix(f"/{ROOT}"): json.loads(made[path]) for path in members}
    for member in metadata.values():
        if member["node_type"] == "group":
            member["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": {}}
    content = json.loads(made[ROOT])
    content["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": metadata}
    content["attributes"][KEY]["state"] = "running"
    return json.dumps(content).encode()


def _create_level(root: "zarr.Group", store: Store, level: int, metadata: StoreMetadata) -> None:
    geobox, encoding = store.geobox.level(level), store.encoding
    group = root.require_group(group_path(level)) if level else root
    for name, (dimension, values) in coordinates(geobox).items():
        group.create_array(name, shape=values.shape, dtype="float64", dimension_names=(dimension,))[:] = values
    about = spatial_ref_attributes(geobox)
    group.create_array("spatial_ref", shape=(), dtype="int64", attributes=about, dimension_names=())[()] = 0
    flags = class_map_attributes(metadata.classes, metadata.background)
    _create_pixels(group, store.plan, "class_map", geobox.shape, "uint8", NODATA, flags)
    if encoding.objects:
        _create_pixels(group, store.plan, "objects", geobox.shape, "int64", 0, objects_attributes())
    if encoding.probability:
        fill = NODATA if encoding.probability == "uint8" else np.nan
        shape = (len(encoding.kept), *geobox.shape)
        attributes = probability_attributes(encoding)
        _create_pixels(group, store.plan, "probability", shape, encoding.probability, fill, attributes)
        names = np.array([metadata.classes[value].name for value in encoding.kept], dtype=object)
        group.create_array("class", shape=names.shape, dtype=str, dimension_names=("class",))[:] = names


def _create_pixels(
    group: "zarr.Group",
    plan: TilingPlan,
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    fill: float,
    attributes: dict[str, Any],
) -> None:
    leading = shape[:-2]
    group.create_array(
        name,
        shape=shape,
        chunks=(*(1 for _ in leading), plan.chunk, plan.chunk),
        shards=(*leading, plan.block, plan.block),
        dtype=dtype,
        fill_value=fill,
        compressors=ZstdCodec(level=1, checksum=True),  # the checksum catches flipped bits; default settings miss them
        attributes=attributes,
        dimension_names=("class", "y", "x")[-len(shape) :],
        config={"write_empty_chunks": True},  # so that a shard that is missing is a loss, never an empty place
    )


def resume_store(path: str, metadata: StoreMetadata, geobox: GeoBox, *, sync: bool = True) -> Store:
    """Open a store to fill it further, under the name of the run that began it.

    On a disk, what is not as it was when the store was begun is written again, as after a power cut.
    """
    files = Files(path, sync)
    with store_errors(path):
        if metadata.state == "partial":
            files.remove_all([COPY, MANIFEST])
            files.write(ROOT, _in_state(files, "running", results={}, manifest=None))
        for name, content in (files_of_begun(files) or {}).items() if files.local else ():
            if not files.exists(name) or files.read(name) != content:
                files.write(name, content)
        run = files.read(RUN).decode(errors="replace") if files.exists(RUN) else ""
        if not RUN_NAME.fullmatch(run):
            run = uuid.uuid4().hex
            files.write(RUN, run.encode())
        _note_sync(files)
        return replace(reopen_store(path, metadata, geobox), run=run, sync=sync, skipped=())


def _note_sync(files: Files) -> None:
    """Note in a store that some of it is written without sync."""
    if files.local and not files.sync:
        files.write(UNSYNCED, b"")


def finish_store(
    store: Store,
    results: Mapping[str, Any],
    seconds: NDArray[np.float32],
    shards: tuple[ShardSums, ...] | None = None,
) -> None:
    """Mark a store as complete, with the totals of the run and the seconds of its blocks; its done markers are removed.

    `shards` are what is known of its shards, by level; the others are read for the manifest. A store of which blocks
    were set aside is partial, and keeps its markers: the same run tries those again.

    Raises
    ------
    StoreError
        A shard is missing.
    """
    check_whole(store)
    files = store.files
    with store_errors(store.path):
        files.remove_partial()
        for name, content in _seconds_files(files, seconds).items():
            files.write(name, content)
        files.remove_all([store.shard_name(level, name, *place) for level, *place in store.skipped
                          for name in store.array_names])  # fmt: skip
        root = _in_state(files, "partial" if store.skipped else "complete", results=dict(results), manifest=True)
        levels = range(store.levels + 1)
        write_manifest(store, shards or tuple(ShardSums.none(store, level) for level in levels), root)
        if store.sync and files.local:
            if files.exists(UNSYNCED):  # it was begun so: now all must be on the disk
                os.sync()
            _sync_folders(store)
        files.write(ROOT, root)
    if not store.skipped:
        remove_markers(store)


def _seconds_files(files: Files, seconds: NDArray[np.float32]) -> dict[str, bytes]:
    """Return the file that holds the seconds of blocks; none where no block is planned. Zarr would not sync it."""
    about = f"{SECONDS}/{ROOT}"
    made: dict[str, Buffer] = {about: default_buffer_prototype().buffer.from_bytes(files.read(about))}
    array = zarr.open_array(MemoryStore(made), path=SECONDS, config={"write_empty_chunks": True})
    array[:] = seconds
    return {name: content.to_bytes() for name, content in made.items() if name != about}


def _sync_folders(store: Store) -> None:
    """Sync the folders of a store's shards: a task that was killed may have made one, and not its name lasting."""
    base = full_path(store.path)
    folders = {
        os.path.dirname(f"{base}/{store.shard_name(level, name, row, 0)}")
        for level in range(store.levels + 1)
        for row in np.flatnonzero(store.planned(level).any(axis=1)).tolist()
        for name in store.array_names
    }
    above = {str(parent) for folder in folders for parent in Path(folder).parents if parent.is_relative_to(base)}
    with ThreadPoolExecutor(SYNCS) as pool:
        list(pool.map(sync, [*folders, *above]))


def remove_markers(store: Store) -> None:
    """Remove the done markers of a complete store; the run that completed it may have been killed just before."""
    with store_errors(store.path):
        store.files.remove(MARKERS)


def check_whole(store: Store) -> None:
    """Raise StoreError if any shard is missing, or the table of objects."""
    missing, advice = store.missing(), f"run it again with --overwrite, or {repairing(store.path)}"
    if missing:
        level, row, column = missing[0]
        where = f"block {row}, {column}" + (f" of overview {level}" if level else "")
        more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
        raise StoreError(f"{store.path} is damaged: {where}{more} missing; {advice}")
    with store_errors(store.path):
        if store.encoding.objects and not store.files.exists(TABLE):
            raise StoreError(f"{store.path} is damaged: {TABLE} is missing; {advice}")
