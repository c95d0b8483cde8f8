"""An index of scenes built, or added to: scenes are found, opened in Dask tasks for their facts, and written down."""

import hashlib
import os
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from models.errors import SceneError
from models.files import check_output

from ..cluster.connect import dask_client
from ..cluster.processes import ClusterLike, workers_of
from ..io.names import is_remote
from ..io.places import allowed_places, reach
from ..jobs.progress import no_progress, progress
from ..jobs.tasks import map_bounded
from .documents import found_item, without_contradictions
from .facts import Facts, Reading, describe_kinds, read_batch
from .find import find_scenes
from .found import FoundScene
from .index import SceneIndex, read_index
from .search import StacSearch
from .stac_table import Row, read_rows, write_rows
from .stamps import Stamps

BATCH = 16  # scenes of a task
SHOWN = 3
MOST_NOTES = 8


@dataclass(frozen=True, slots=True)
class IndexResult:
    """What became of an index.

    Parameters
    ----------
    index
        As it is now.
    added, changed, unchanged, dropped
        Scenes that are new; that were read again; that are as they were; that are gone.
    skipped
        Why each scene that was left out was.
    notes
        What the user should know.
    """

    index: SceneIndex
    added: int
    changed: int
    unchanged: int
    dropped: int = 0
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Old:
    """The rows of the index that is there, by what their scenes were found as."""

    rows: dict[str, list[Row]] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Iterable[Row]) -> "_Old":
        old = cls()
        for row in rows:
            old.rows.setdefault(row.key, []).append(row)
        return old

    def stamps(self, key: str) -> tuple[str, ...]:
        return tuple(row.stamps for row in self.rows.get(key, ()))


def build_index(
    scenes: Any,
    output: str | os.PathLike[str],
    *,
    search: StacSearch | None = None,
    priority: int = 0,
    alpha: bool | None = None,
    skip_broken: bool = False,
    drop_missing: bool = False,
    client: ClusterLike | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    show: bool = True,
) -> IndexResult:
    """Write an index of scenes, or add scenes to one that is there. No pixels are read.

    Scenes that are in it already are not read again where their files have the sizes and times that they had; those
    that have changed are replaced. The file appears whole or not at all: killed, the same command begins anew.

    Parameters
    ----------
    scenes
        A path, URL or object, or a list of such: rasters; patterns, with `**` for folders in folders; folders, with all
        rasters and products in them and below; Sentinel-2 and Landsat as delivered; VRT and tile indexes, whose files
        are a scene each; STAC Items, ItemCollections and saved searches, as files, URLs or of pystac and pystac-client;
        stac-geoparquet; other indexes. Files that differ in the name of a band alone are one scene. Empty: the scenes
        of the index that is there are looked at again.
    output
        The file, `.parquet`.
    search
        What to ask a STAC API for, beside `scenes`.
    priority
        Of the scenes that are given now: in a mosaic, those of higher priority are taken first.
    alpha
        See `open_scene`.
    skip_broken
        Leave out scenes that cannot be read, and name them. Default: nothing is written then.
    drop_missing
        Take scenes out of which files are gone. Default: nothing is written then.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`. Default: threads of this process.
    workers
        Processes to start on this machine.
    overwrite
        Begin anew where an index is there.
    show
        Show progress.

    Returns
    -------
    IndexResult
        The index, and what became of it.

    Raises
    ------
    SceneError
        No scenes; some cannot be read, have no CRS, or contradict each other; the output is something else.
    """
    path = _checked_output(output, overwrite)
    old = _Old() if overwrite or not path.exists() else _Old.of(read_rows(read_index(path).path))
    given = _listed(scenes)
    if not given and search is None and not old.rows:
        raise SceneError("no scenes given: files, folders, patterns or STAC Items; or --stac URL to search for some")
    found = find_scenes(given)
    wanted = {scene.key: scene for scene in found.scenes}
    if search is not None:
        items = (found_item(one, search.url, "the STAC API") for one in search.items())
        wanted |= {scene.key: scene for scene in without_contradictions(items)}
    missing = _look_again(old, wanted, path, drop_missing)
    facts = _read(list(wanted.values()), old, alpha, workers_of(client, workers), show)
    facts = [_with_hint(one, found.redacted) for one in facts]
    return _write(path, old, facts, found.rows, priority, skip_broken, missing)


def _checked_output(output: str | os.PathLike[str], overwrite: bool) -> Path:
    if not os.fspath(output).lower().endswith(".parquet"):
        raise SceneError(f"{os.fspath(output)} must end in .parquet")
    path = check_output(output, overwrite=True, error=SceneError)
    if path.exists() and not overwrite:
        try:
            read_index(path)
        except SceneError as error:
            raise SceneError(
                f"{path} exists and is not an index of scenes; choose another, or pass --overwrite"
            ) from error
    return path


def _with_hint(facts: Facts, redacted: Collection[str]) -> Facts:
    """Say of a scene that cannot be read that its URL was opened without what may be secret in it."""
    hint = "(asked for without the URL's query, which an index must not hold)"
    told = (f"{why} {hint}" if any(url in why for url in redacted) else why for why in facts.refused)
    return replace(facts, refused=tuple(told))


def _listed(scenes: Any) -> list[Any]:
    single = isinstance(scenes, str | os.PathLike) or not isinstance(scenes, list | tuple)
    return [scenes] if single else list(scenes)


def _look_again(old: _Old, wanted: dict[str, FoundScene], index: Path, drop_missing: bool) -> set[str]:
    """Add the scenes of the index whose files have changed to those that are read; return those that are gone."""
    missing, lost = set[str](), list[str]()
    for key, rows in old.rows.items():
        if key in wanted:
            continue
        stamps = Stamps.read(rows[0].stamps)
        changed = [name for row in rows for name in Stamps.read(row.stamps).changed()]
        gone = [name for name in changed if not os.path.exists(name)]
        if gone:
            missing.add(key)
            lost += gone[:1]
        elif changed and stamps.described is not None:
            wanted[key] = FoundScene.again(stamps.described)
            for path in wanted[key].paths:
                if is_remote(path) or not os.path.exists(os.path.join(wanted[key].folder, path)):
                    reach(path, str(index))  # an index may come from anybody
        elif changed:
            raise SceneError(f"{changed[0]} has changed since it was indexed: give its STAC Item {key} again")
    if lost and not drop_missing:
        raise SceneError(
            f"{_named(lost)} in the index, but gone; put them back, or pass --drop-missing to take the scenes out"
        )
    return missing


def _read(scenes: Sequence[FoundScene], old: _Old, alpha: bool | None, client: Any, show: bool) -> list[Facts]:
    """Open scenes for their facts, in tasks; results in the order of the scenes."""
    if not scenes:
        return []
    shown = progress("index", len(scenes), unit="scenes") if show else nullcontext(no_progress)
    by_key: dict[str, Facts] = {}
    with dask_client(client, os.cpu_count() or 1) as connected, shown as advance:
        batches = (
            [(scene, old.stamps(scene.key)) for scene in scenes[start : start + BATCH]]
            for start in range(0, len(scenes), BATCH)
        )
        for batch in map_bounded(connected, read_batch, Reading(alpha, allowed_places()), batches, key="swathe-index"):
            by_key |= {facts.key: facts for facts in batch}
            advance(len(batch), 0)
    return [by_key[scene.key] for scene in scenes]


def _write(
    path: Path, old: _Old, facts: Sequence[Facts], others: Sequence[Row], priority: int, skip: bool, missing: set[str]
) -> IndexResult:
    refused = [why for one in facts for why in one.refused]
    if refused and not skip:
        raise SceneError(
            f"{_named(refused, '; ')}.\nNothing was written: mend them, or pass --skip-broken to leave them out"
        )
    read = {one.key: one for one in facts if one.rows}
    replaced = {*read, *missing, *(one.key for one in facts if one.refused)}
    fresh = [replace(row, priority=priority) for one in read.values() for row in one.rows]
    fresh += [replace(row, priority=priority or row.priority) for row in others]
    files = {first for row in fresh if (first := _first_file(row))}
    again = {(row.key, row.source) for row in fresh}
    kept = [
        row
        for key, rows in old.rows.items()
        if key not in replaced
        for row in rows
        if (row.key, row.source) not in again and not (row.key not in read and _first_file(row) in files)
    ]
    rows = [*kept, *_with_own_ids(fresh, kept, old)]
    if not rows:
        raise SceneError("no scene is left that can be indexed: " + _named(refused, "; ") if refused else "no scenes")
    if fresh or len(kept) != sum(map(len, old.rows.values())):
        write_rows(rows, path)
    notes = list(dict.fromkeys(note for one in facts for note in one.notes))
    more = [f"and {len(notes) - MOST_NOTES} more scenes like this"] if len(notes) > MOST_NOTES else []
    changed = sum(len(one.rows) for key, one in read.items() if key in old.rows)
    return IndexResult(
        read_index(path),
        added=len(fresh) - changed,
        changed=changed,
        unchanged=len(kept),
        dropped=sum(len(old.rows[key]) for key in missing),
        skipped=tuple(refused),
        notes=(*notes[:MOST_NOTES], *more, *describe_kinds(rows)),
    )


def _first_file(row: Row) -> str:
    files = Stamps.read(row.stamps).files
    return f"{files[0][0]}|{row.source}" if files else ""


def _with_own_ids(fresh: Sequence[Row], kept: Sequence[Row], old: _Old) -> list[Row]:
    """Return rows with an id each: of two scenes of one name, the later has a digest of its address behind it."""
    taken, named = {row.id for row in kept}, list[Row]()
    before = {(row.key, row.source): row.id for rows in old.rows.values() for row in rows}
    for row in fresh:
        name = before.get((row.key, row.source), row.id)
        if name in taken:
            name = f"{row.id}-{hashlib.sha256(f'{row.key} {row.source}'.encode()).hexdigest()[:8]}"
        taken.add(name)
        named.append(replace(row, id=name))
    return named


def _named(found: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return between.join(found[:SHOWN]) + more
