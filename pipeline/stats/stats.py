"""Figures of a finished store: by whole scene, by cell, by zone. Block by block over a Dask client, with flat memory.

One task is one block: read the class map, add its pixels up by group. The client adds blocks up in their order, so that
the same store gives the same figures to the last bit, and counts the objects of the object table, if there is one.
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from distributed import Client
from numpy.typing import NDArray

from models.errors import StatisticsError
from models.metadata import ClassInfo
from models.system import usable_cpus

from ..grid.geobox import Window
from ..grid.pixel_area import PixelAreas, pixel_areas
from ..jobs.dask import dask_client, map_bounded
from ..jobs.progress import no_progress, progress
from ..store.files import Files
from ..store.lifecycle import TABLE
from ..store.store import Store, open_store
from .cells import make_cells, whole_scene
from .object_stats import Division, Tallies, Tally, read_objects
from .sums import Sums, Totals, kinds_of
from .table import area_columns, cells_frame, class_columns, joined, object_columns, with_bounds
from .zones import ZoneShapes, place_zones

MOST_TASKS = 4  # at a time in this process: reading waits for the disk, the rest is a matter of memory bandwidth


class Part(Protocol):
    """What a block must know of the groups it lies in."""

    @property
    def window(self) -> Window:
        """The block."""
        ...

    def sums(self, kinds: NDArray[np.uint8], areas: PixelAreas | None, count: int) -> Sums:
        """Add its pixels up."""
        ...


class Groups(Division, Protocol):
    """What a scene is divided into."""

    def part(self, window: Window) -> Part:
        """Give what a block must know."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks share."""

    store: Store
    areas: PixelAreas | None
    classes: int


@dataclass(frozen=True, slots=True)
class StatsRequest:
    """What is asked of which store.

    Parameters
    ----------
    store, classes, areas
        Where pixels lie, what they mean, and how large they are; None: that cannot be known.
    groups
        What the scene is divided into.
    frame
        A GeoDataFrame with a row for each group.
    whole
        Whether groups are made of whole pixels.
    notes
        What was odd.
    """

    store: Store
    classes: tuple[ClassInfo, ...]
    areas: PixelAreas | None
    groups: Groups
    frame: Any
    whole: bool
    notes: tuple[str, ...]

    @property
    def has_objects(self) -> bool:
        """Whether the store has an object table; one of objects that has lost it is damaged, as reading will show."""
        return self.store.encoding.objects or Files(self.store.path).exists(TABLE)

    def no_totals(self) -> Totals:
        """Give sums of nothing."""
        return Totals(len(self.groups), len(self.classes) + 1, areas=self.areas is not None)

    def no_tallies(self) -> Tallies:
        """Give counts of no objects."""
        return Tallies(self.groups, len(self.classes))


def compute_statistics(
    store: str | os.PathLike[str],
    *,
    zones: Any = None,
    cell: str | float | None = None,
    layer: str | None = None,
    client: Client | str | None = None,
    show: bool = True,
) -> Any:
    """Give areas and shares by class, and figures of objects, of a finished store.

    Parameters
    ----------
    store
        Path or URL of a store that `run`, `clean` or `label_objects` has finished. Figures of objects need the object
        table that `swathe objects` writes.
    zones
        One row per zone: path of a vector file, or a GeoDataFrame; see `place_zones`. Edge pixels count by the part of
        them that lies in the zone (exactextract). Zones that overlap count each on its own.
    cell
        One row per square cell, as `500 m` or `256 px`; see `make_cells`. Without zones and cells: one row in all.
    layer
        Of the zones' file, where it has several.
    client
        A Dask client or a scheduler's address; None: a worker in this process.
    show
        Show progress.

    Returns
    -------
    geopandas.GeoDataFrame
        `area_m2` (observed) and `nodata_m2`, on the ellipsoid, null without a CRS; `nodata_pixels`; for each class C:
        `C_m2`, `C_share` (of the observed area), `C_pixels`. With an object table, for each class but the background:
        `C_count`, `C_per_km2` (of the observed area), `C_size_mean_m2`, `_median_`, `_p10_`, `_p90_`, `_min_`,
        `_max_`, and `C_width_mean_m`, which counts each object by its area. An object belongs where its centroid lies;
        one on a border, to what is below and to the right. Cells have `row` and `column`, zones all their attributes,
        in their own order and CRS; an attribute whose name is taken gets `_zone` added. `attrs` holds `classes`
        (columns by class), `scene` and `notes` (what was odd).

    Raises
    ------
    SwatheError
        The store is not finished or damaged; cells or zones do not fit it; see `make_cells` and `place_zones`.
    """
    question = _asked(os.fspath(store), zones, cell, layer)
    return _answered(question, client, show)


def write_statistics(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    zones: Any = None,
    cell: str | float | None = None,
    layer: str | None = None,
    client: Client | str | None = None,
    show: bool = True,
    overwrite: bool = False,
) -> Any:
    """As `compute_statistics`, into a file too, which appears whole or not at all.

    Parameters
    ----------
    output
        Path or URL. `.parquet` (GeoParquet), `.gpkg`, `.fgb`, `.geojson`: with the outlines of cells or zones; `.csv`:
        with their bounds `xmin`, `ymin`, `xmax`, `ymax` instead.
    overwrite
        Replace a file that is there.
    store, zones, cell, layer, client, show
        See `compute_statistics`.

    Returns
    -------
    geopandas.GeoDataFrame
        What was written.

    Raises
    ------
    SwatheError
        As `compute_statistics`; or the file exists, or cannot be written. This is found before any block is read.
    """
    from ..vector.write import check_target

    question, target = _asked(os.fspath(store), zones, cell, layer), os.fspath(output)
    _check_output(question, zones, target)
    empty = _framed(question, question.no_totals(), question.no_tallies().tally() if question.has_objects else None)
    check_target(target, _table(empty, target).schema, overwrite=overwrite)
    frame = _answered(question, client, show)
    _write(frame, target, overwrite=overwrite)
    return frame


def _check_output(question: StatsRequest, zones: Any, target: str) -> None:
    """Refuse other formats, and to write over what is read: an object table, or zones, whose file may have more."""
    from ..vector.gdal_formats import ending_of
    from ..vector.write import LAYERS

    if ending_of(target) not in (".csv", *LAYERS):
        raise StatisticsError(f"{target}: choose an ending that says what is written: .csv, {', '.join(LAYERS)}")
    if question.store.files.holds(target):
        raise StatisticsError(f"{target} would lie in the store that is read; choose another output")
    if isinstance(zones, str | os.PathLike) and Files(os.fspath(zones)).same_as(Files(target)):
        raise StatisticsError(f"{target} is the file of zones, which stays as it is; choose another output")


def _asked(path: str, zones: Any, cell: str | float | None, layer: str | None) -> StatsRequest:
    """Check all that can be wrong before any block is read."""
    if zones is not None and cell is not None:
        raise StatisticsError("figures are by zone or by cell; give zones or a cell, not both")
    if layer is not None and zones is None:
        raise StatisticsError(f"layer {layer!r} is of a file of zones, and no zones are given")
    store, metadata = open_store(path)
    classes = metadata.classes
    geobox = store.geobox
    areas = pixel_areas(geobox)
    if zones is not None:
        placed = place_zones(zones, geobox, layer)
        return StatsRequest(store, classes, areas, ZoneShapes(placed.shapes), placed.frame, False, placed.notes)
    cells = whole_scene(geobox) if cell is None else make_cells(geobox, cell, len(classes) + 1)
    frame = cells_frame(cells, geobox)
    return StatsRequest(store, classes, areas, cells, frame[["geometry"]] if cell is None else frame, True, ())


def _answered(question: StatsRequest, client: Client | str | None, show: bool) -> Any:
    task = Task(question.store, question.areas, len(question.classes))
    totals = question.no_totals()
    for sums in _sums(task, question.groups, client, show):
        totals.add(sums)
    return _framed(question, totals, _tally(question) if question.has_objects else None)


def _sums(task: Task, groups: Groups, client: Client | str | None, show: bool) -> Iterator[Sums]:
    """Give the sums of all blocks in their order, however they come in."""
    plan = task.store.plan
    parts = ((number, groups.part(block.window)) for number, block in enumerate(plan.blocks()))
    early: dict[int, Sums] = {}
    wanted = 0
    key = f"swathe-statistics-{uuid.uuid4().hex[:8]}"
    shown = progress("adding up", len(plan)) if show else nullcontext(no_progress)
    with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection, shown as advance:
        for number, sums, pixels in map_bounded(connection, add_block, task, parts, key=key):
            early[number] = sums
            advance(1, pixels)
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1


def add_block(task: Task, part: tuple[int, Part]) -> tuple[int, Sums, int]:
    """Add one block up, wherever a worker runs it: its number, its sums, and its pixels."""
    number, here = part
    (class_map,) = task.store.read_layer("class_map", here.window)
    sums = here.sums(kinds_of(class_map, task.classes), task.areas, task.classes + 1)
    return number, sums, class_map.size


def _tally(question: StatsRequest) -> Tally:
    tallies = question.no_tallies()
    for objects in read_objects(f"{question.store.path.rstrip('/')}/{TABLE}"):
        tallies.add(objects)
    return tallies.tally()


def _framed(question: StatsRequest, totals: Totals, tally: Tally | None) -> Any:
    """Put the figures beside what is known of each group."""
    names = class_columns(question.classes)
    columns = area_columns(totals, names, whole=question.whole)
    if tally is not None:
        columns |= object_columns(tally, columns["area_m2"], names)
    frame = joined(question.frame, columns)
    notes = list(question.notes)
    if tally is None:
        notes.append("no object table here, so no figures of objects; `swathe objects` makes a store that has one")
    classes = [{"name": one.name, "column": name} for one, name in zip(question.classes, names, strict=True)]
    frame.attrs = {"classes": classes, "scene": question.store.path, "notes": notes}
    return frame


def _table(frame: Any, target: str) -> Any:
    """Give what is written as a pyarrow Table: geometry as WKB, or bounds in its place for CSV."""
    import pyarrow as pa

    if target.lower().endswith(".csv"):
        return _arrow(with_bounds(frame))
    table = _arrow(frame.drop(columns="geometry"))
    return table.append_column("geometry", pa.array(frame.geometry.to_wkb(), pa.binary()))


def _arrow(frame: Any) -> Any:
    """Give a frame as a pyarrow Table; a column in which nothing is known becomes one of text."""
    import pandas
    import pyarrow as pa

    try:
        table = pa.Table.from_pandas(pandas.DataFrame(frame), preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StatisticsError(f"the zones have an attribute that cannot be written: {str(error)[:200]}") from error
    known = [pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    return table.cast(pa.schema(known))


def _write(frame: Any, target: str, *, overwrite: bool) -> None:
    from ..vector.write import write_features

    table = _table(frame, target)
    crs = frame.crs.to_wkt() if frame.crs else None
    written = write_features([table], target, schema=table.schema, crs=crs, overwrite=overwrite)
    frame.attrs["notes"] += written.notes
