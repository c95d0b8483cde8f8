"""Damaged parts of a finished store made again: from its manifest, from what it was made of, from the level below.

Only what has the bytes of before is written: a store is never changed into another one.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import google_crc32c

from models.errors import StoreError, SwatheError

from ..cluster.check import checked_workers
from ..cluster.connect import dask_client
from ..cluster.launch import local_part
from ..cluster.processes import Workers
from ..grid.pixel_area import pixel_areas
from ..inference.again import segmentation_again
from ..inference.plan import BundleLike
from ..io.scene import SceneLike
from ..jobs.job import THREADS, BlockFunction, BlockJob, DerivedJob, make_progress, run_job
from ..jobs.tasks import map_bounded, share_once
from ..mosaic.open import MosaicLike
from ..objects.objects import LabelJob
from ..store.check import Problem, opened_by, shard_places
from ..store.files import Files
from ..store.halves import make_overview
from ..store.lifecycle import create_store, remove_store
from ..store.manifest import NO_MANIFEST, TABLE, Manifest, file_digest, find_manifest
from ..store.metadata import StoreMetadata, differences
from ..store.shards import encode_shard
from ..store.store import COPY, MANIFEST, BlockIndex, Store, close_groups, open_store, sole_writer, store_errors
from .block import CleanBlock
from .clean import CleanJob
from .options import CleanOptions

Sums = tuple[tuple[int, int], ...]  # size and digest of the shard of each array


@dataclass(frozen=True, slots=True)
class Redo:
    """What all tasks share: the store that is mended, what computes its blocks, and for which store that does."""

    store: Store
    function: BlockFunction | None
    blocks: Store


@dataclass(frozen=True, slots=True)
class Repair:
    """A store that is to be mended, and where to find what it was made of, if that is elsewhere."""

    path: str
    scene: SceneLike | MosaicLike | None
    bundle: BundleLike | None
    where: Workers
    show: bool

    def mend(self, problems: Sequence[Problem]) -> list[str]:
        """Mend what can be; return why other parts could not be."""
        files = Files(self.path)
        manifest, lost = find_manifest(files)
        if manifest is None:
            return [NO_MANIFEST]
        with sole_writer(self.path), store_errors(self.path):
            if len(lost) == 1:
                (whole,) = {MANIFEST, COPY} - set(lost)
                files.write(lost[0], files.read(whole))
            names = {problem.name for problem in problems}
            for name in sorted(names & manifest.kept.keys()):
                files.write(name, manifest.kept[name])
            for problem in problems:
                if problem.what == "foreign":
                    files.remove(problem.name)
            close_groups()
            return self._mend_made(manifest, names)

    def _mend_made(self, manifest: Manifest, names: set[str]) -> list[str]:
        """Mend shards and the table of objects."""
        store, metadata = opened_by(self.path, manifest)
        places = sorted({found[0] for name in names if (found := shard_places(name)) and name not in manifest.files})
        tables = sorted(name for name in names if name in manifest.files and name.split("/")[0] == TABLE)
        notes: list[str] = []
        if tables or any(place[0] == 0 for place in places):
            try:
                job = self._job(metadata)
                if tables:
                    notes += self._from_scratch(job, manifest, tables)
                notes += self._redo_lowest(job, store, metadata, manifest, [one for one in places if one[0] == 0])
            except SwatheError as error:
                notes.append(str(error))
        if not any(place[0] for place in places):
            return notes
        with dask_client(self.where, threads=THREADS) as client:
            for level in range(1, store.levels + 1):
                above = [place for place in places if place[0] == level]
                notes += self._redo(client, Redo(store, None, store), manifest, above)
        return notes

    def _job(self, metadata: StoreMetadata) -> BlockJob:
        """Return the job that the store is of. Raises SwatheError where it cannot be done again."""
        if metadata.cleaned is not None and not metadata.encoding.objects:
            job: BlockJob = _cleaning(*self._made_of(metadata), metadata)
        elif metadata.encoding.objects:
            maps, theirs = self._made_of(metadata)
            job = LabelJob(maps, theirs, metadata.identity["connectivity"], metadata.identity["widths"])
        else:
            job = segmentation_again(metadata, self.scene, self.bundle, elsewhere=self.where is not None)
        return job

    def _made_of(self, metadata: StoreMetadata) -> tuple[Store, StoreMetadata]:
        return open_store(str(metadata.made_from if self.scene is None else self.scene))

    @contextmanager
    def _bound(self, job: BlockJob, metadata: StoreMetadata) -> "Iterator[tuple[BlockJob, Any]]":
        """Yield the job as it is done here or there, and a client; it must be that of the store."""
        with ExitStack() as stack:
            if (processes := local_part(self.where)) is not None:
                job = job.share_among(processes)
            client = stack.enter_context(dask_client(self.where, threads=job.threads))
            if processes is None and self.where is not None:
                stack.enter_context(checked_workers(client, job.requirements(), self.path))
                job = job.bind_to_cluster(client)
            if other := differences(job.identity(), metadata.identity):
                raise StoreError(f"blocks cannot be done again: what they are made of has changed ({'; '.join(other)})")
            yield job, client

    def _redo_lowest(
        self, job: BlockJob, store: Store, metadata: StoreMetadata, manifest: Manifest, places: list[BlockIndex]
    ) -> list[str]:
        if not places:
            return []
        with self._bound(job, metadata) as (bound, client):
            if not isinstance(bound, DerivedJob):
                return self._redo(client, Redo(store, bound.block_function(store), store), manifest, places)
            with _scratch(store, metadata) as scratch:
                bound.prepare(client, scratch, make_progress(self.show))
                return self._redo(client, Redo(store, bound.block_function(scratch), scratch), manifest, places)

    def _redo(self, client: Any, shared: Redo, manifest: Manifest, places: Sequence[BlockIndex]) -> list[str]:
        if not places:
            return []
        items = [(place, _sums(manifest, place)) for place in places]
        given = share_once(client, shared) if shared.function and shared.function.scatter_once else shared
        notes = []
        with make_progress(self.show)("repairing", len(places), 0) as advance:
            for (level, row, column), reason in map_bounded(client, redo_block, given, items, key="swathe-repair"):
                advance(1, 0)
                if reason:
                    notes.append(f"block {row}, {column}{f' of overview {level}' if level else ''}: {reason}")
        return notes

    def _from_scratch(self, job: BlockJob, manifest: Manifest, names: Sequence[str]) -> list[str]:
        """Do the whole job once more, beside the store, and take files from there."""
        path, files = _scratch_path(self.path), Files(self.path)
        made = Files(path)
        run_job(job, path, "all", client=self.where, show=self.show)
        try:
            other = [name for name in names if file_digest(made, name) != manifest.files[name]]
            for name in sorted(set(names) - set(other)):
                with files.stream(name) as target:
                    target.writelines(made.pieces(name))
            return [f"{name} does not come out as it was" for name in other]
        finally:
            remove_store(path)


def _cleaning(maps: Store, theirs: StoreMetadata, metadata: StoreMetadata) -> CleanJob:
    options = CleanOptions(**(metadata.cleaned or {}))
    areas = pixel_areas(maps.geobox) if options.needs_areas else None
    kept = maps.encoding.kept if maps.encoding.probability else None
    resolved = options.resolve(theirs.class_names, kept, background=theirs.background, has_areas=areas is not None)
    return CleanJob(maps, theirs, CleanBlock(maps, resolved, areas))


def _scratch_path(path: str) -> str:
    return f"{path.rstrip('/')}.repair.zarr"


@contextmanager
def _scratch(store: Store, metadata: StoreMetadata) -> Iterator[Store]:
    """Yield an empty store of the same blocks, for what a job keeps in the store that it fills."""
    path = _scratch_path(store.path)
    planned = store.planned(0) if store.plan_digest else None
    made = create_store(path, store.geobox, replace(metadata, state="creating", results={}), planned=planned)
    try:
        yield made
    finally:
        remove_store(path)


def _sums(manifest: Manifest, place: BlockIndex) -> Sums:
    sums = manifest.shards[place[0]]
    return tuple(zip(sums.sizes[place[1:]].tolist(), sums.digests[place[1:]].tolist(), strict=True))


def redo_block(shared: Redo, item: tuple[BlockIndex, Sums]) -> tuple[BlockIndex, str]:
    """Compute a block again and write the shards that come out as they were; return why any could not be."""
    try:
        same = _redo_block(shared, *item)
    except SwatheError as error:
        return item[0], str(error)
    return item[0], "" if same else "it does not come out as it was"


def _redo_block(shared: Redo, place: BlockIndex, sums: Sums) -> bool:
    (level, row, column), store, same = place, shared.store, True
    if shared.function is None:
        result = make_overview(store, place)
    else:
        result = shared.function.compute_block(shared.blocks, row, column)
    arrays = store.arrays(level)
    with store_errors(store.path):
        for name, wanted in zip(store.array_names, sums, strict=True):
            shard = encode_shard(arrays[name], getattr(result, name))
            if (len(shard), google_crc32c.value(shard)) == wanted:
                store.files.write(store.shard_name(level, name, row, column), shard)
            else:
                same = False
    return same
