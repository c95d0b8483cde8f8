"""Statistics of a finished store by whole scene, cell or zone: block by block over a Dask client, with flat memory.

One task is one block: read the class map, add its pixels up by group. The client adds blocks up in their order, so that
the same store gives the same numbers to the last bit, and counts the objects of the object table, if there is one.
"""

import hashlib
import os
import uuid
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from models.errors import StatisticsError
from models.metadata import ClassInfo
from models.system import usable_cpus

from ..cluster.connect import check_client, dask_client
from ..cluster.processes import ClusterLike
from ..grid.geobox import IN_PIXELS
from ..grid.pixel_area import PixelAreas, pixel_areas
from ..jobs.progress import no_progress, progress
from ..jobs.tasks import map_bounded
from ..store.files import Files, full_path
from ..store.manifest import TABLE
from ..store.metadata import StoreMetadata, fingerprint
from ..store.placing import finish_placing
from ..store.store import Store, open_store
from .cells import Cells, make_cells
from .object_stats import ObjectCounter, ObjectStats, read_objects
from .sums import BlockGroups, Groups, Sums, Totals, kinds_of
from .table import BOUNDS, area_columns, cells_frame, class_columns, joined, object_columns
from .zones import ZoneShapes, place_zones

MOST_TASKS = 4  # at a time in this process: reading waits for the disk, the rest is a matter of memory bandwidth


@dataclass(frozen=True, slots=True)
class Task:
    """What all tasks share."""

    store: Store
    areas: PixelAreas | None
    classes: int


@dataclass(frozen=True, slots=True)
class StatsRequest:
    """Which statistics of which store; see `validate`.

    Parameters
    ----------
    store, metadata, areas
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
    metadata: StoreMetadata
    areas: PixelAreas | None
    groups: Groups
    frame: Any
    whole: bool
    notes: tuple[str, ...]

    @property
    def classes(self) -> tuple[ClassInfo, ...]:
        """The classes, by value."""
        return self.metadata.classes

    @property
    def has_objects(self) -> bool:
        """Whether the store has an object table; one of objects that has lost it is damaged, as reading will show."""
        return self.store.encoding.objects or self.store.files.exists(TABLE)

    def no_totals(self) -> Totals:
        """Return sums of nothing."""
        return Totals(len(self.groups), len(self.classes) + 1, areas=self.areas is not None)

    def no_objects(self) -> ObjectCounter:
        """Return counts of no objects."""
        return ObjectCounter(self.groups, len(self.classes))

    def add_up(self, client: ClusterLike | None, show: bool) -> Totals:
        """Add all blocks up in their order, however they come in."""
        plan, totals = self.store.plan, self.no_totals()
        task = Task(self.store, self.areas, len(self.classes))
        parts = ((number, self.groups.part(block.window)) for number, block in enumerate(plan.blocks()))
        early: dict[int, Sums] = {}
        wanted = 0
        key = f"swathe-statistics-{uuid.uuid4().hex[:8]}"
        shown = progress("adding up", len(plan)) if show else nullcontext(no_progress)
        with dask_client(client, threads=min(MOST_TASKS, usable_cpus())) as connection, shown as advance:
            for number, sums, pixels in map_bounded(connection, add_block, task, parts, key=key, tell=advance.tell):
                early[number] = sums
                advance(1, pixels)
                while wanted in early:
                    totals.add(early.pop(wanted))
                    wanted += 1
        return totals

    def count_objects(self, *, metric: bool = True) -> ObjectCounter:
        """Count the objects of the table; `metric`: their sizes in m², else in pixels."""
        counter = self.no_objects()
        for objects in read_objects(f"{self.store.path.rstrip('/')}/{TABLE}", metric=metric):
            counter.add(objects)
        return counter

    def columns(self, totals: Totals, objects: ObjectStats | None) -> dict[str, Any]:
        """Return the statistics as columns by name."""
        names = class_columns(self.classes)
        columns = area_columns(totals, names, whole=self.whole)
        if objects is None:
            return columns
        return columns | object_columns(objects, columns["area_m2"], names, self.metadata.foreground)

    def table(self, totals: Totals, objects: ObjectStats | None) -> Any:
        """Put the statistics beside what is known of each group, as a GeoDataFrame."""
        frame, notes = joined(self.frame, self.columns(totals, objects)), list(self.notes)
        if objects is None:
            notes.append("no object table here, so no object statistics; `swathe objects` makes a store that has one")
        elif said := self.metadata.background_note:
            notes.append(said)
        columns = class_columns(self.classes)
        classes = [{"name": one.name, "column": name} for one, name in zip(self.classes, columns, strict=True)]
        frame.attrs = {"classes": classes, "scene": self.store.path, "notes": notes}
        return frame


def add_block(task: Task, part: tuple[int, BlockGroups]) -> tuple[int, Sums, int]:
    """Add one block up, wherever a worker runs it: its number, its sums, and its pixels."""
    number, here = part
    (class_map,) = task.store.read_array("class_map", here.window)
    sums = here.sums(kinds_of(class_map, task.classes), task.areas, task.classes + 1)
    return number, sums, class_map.size


def compute_statistics(
    store: str | os.PathLike[str],
    *,
    zones: Any = None,
    cell: str | float | None = None,
    layer: str | None = None,
    client: ClusterLike | None = None,
    show: bool = True,
) -> Any:
    """Compute areas and shares by class, and object statistics, of a finished store.

    Parameters
    ----------
    store
        Path or URL of a store that `run`, `clean` or `label_objects` has finished. Object statistics need the
        object table that `swathe objects` writes.
    zones
        One row per zone: path of a vector file, or a GeoDataFrame; see `place_zones`. Edge pixels count by the part of
        them that lies in the zone (exactextract). Zones that overlap count each on its own.
    cell
        One row per square cell, as `500 m` or `256 px`; see `make_cells`. Without zones and cells: one row in all.
    layer
        Of the zones' file, where it has several.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: a worker in this process.
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
    check_client(client)
    return _compute(validate(os.fspath(store), zones, cell, layer), client, show)


def write_statistics(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    zones: Any = None,
    cell: str | float | None = None,
    layer: str | None = None,
    client: ClusterLike | None = None,
    show: bool = True,
    overwrite: bool = False,
) -> Any:
    """As `compute_statistics`, into a file too, which appears whole or not at all.

    Parameters
    ----------
    output
        Path or URL. `.parquet` (GeoParquet), `.gpkg`, `.fgb`, `.geojson`: with the outlines of cells or zones; `.csv`:
        with their bounds `xmin`, `ymin`, `xmax`, `ymax` instead. For more cells than memory holds: `write_cells`.
    overwrite
        Replace a file that is there. One that was written with the very same settings stays without it.
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
    from ..vector.formats import ending_of
    from ..vector.write import LAYERS, check_target, write_features, written_before

    check_client(client)
    request, target = validate(os.fspath(store), zones, cell, layer), full_path(output)
    if ending_of(target) not in (".csv", *LAYERS):
        raise StatisticsError(f"{target}: choose an ending that says what is written: .csv, {', '.join(LAYERS)}")
    if request.store.files.holds(target):
        raise StatisticsError(f"{target} would lie in the store that is read; choose another output")
    if isinstance(zones, str | os.PathLike) and Files(full_path(zones)).same_as(Files(target)):  # it may hold more
        raise StatisticsError(f"{target} is the file of zones, which stays as it is; choose another output")
    empty = request.table(request.no_totals(), request.no_objects().stats() if request.has_objects else None)
    made = fingerprint({"statistics of": request.metadata.identity, "groups": _digest(writable(empty, "x.parquet"))})
    already = not overwrite and written_before(target, made)
    check_target(target, writable(empty, target).schema, overwrite=overwrite or already)
    frame = _compute(request, client, show)
    if already:
        finish_placing(target)
        return frame
    rows, crs = writable(frame, target), frame.crs.to_wkt() if frame.crs else None
    written = write_features([rows], target, schema=rows.schema, crs=crs, made=made, overwrite=overwrite)
    frame.attrs["notes"] += written.notes
    return frame


def _digest(table: Any) -> str:
    """Return the digest of a pyarrow Table: of zones, their outlines and attributes."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(sink.getvalue()).hexdigest()


def _compute(request: StatsRequest, client: ClusterLike | None, show: bool) -> Any:
    totals = request.add_up(client, show)
    return request.table(totals, request.count_objects().stats() if request.has_objects else None)


@dataclass(frozen=True, slots=True)
class SceneStats:
    """Statistics of a whole scene, for the report.

    Parameters
    ----------
    columns
        The one row of `compute_statistics`, by column.
    names
        What the columns of each class begin with.
    objects
        By class value: in m² and m, or in pixels where areas are not known. None: there is no table.
    foreground
        Values of the classes that have objects.
    """

    columns: dict[str, float]
    names: list[str]
    objects: ObjectStats | None
    foreground: tuple[int, ...]


def compute_scene(store: str, client: ClusterLike | None = None) -> SceneStats:
    """Compute the statistics of a whole scene; see `compute_statistics`."""
    request = validate(store)
    objects = request.count_objects(metric=request.areas is not None).stats() if request.has_objects else None
    columns = request.columns(request.add_up(client, show=False), objects)
    scene = {name: values[0] for name, values in columns.items()}
    return SceneStats(scene, class_columns(request.classes), objects, request.metadata.foreground)


def validate(path: str, zones: Any = None, cell: str | float | None = None, layer: str | None = None) -> StatsRequest:
    """Check all that can be wrong with a request before any block is read; see `compute_statistics`."""
    if zones is not None and cell is not None:
        raise StatisticsError("statistics are by zone or by cell; give zones or a cell, not both")
    if layer is not None and zones is None:
        raise StatisticsError(f"layer {layer!r} is of a file of zones, and no zones are given")
    store, metadata = open_store(path)
    geobox = store.geobox
    areas = pixel_areas(geobox)
    if zones is not None:
        placed = place_zones(zones, geobox, layer)
        return StatsRequest(store, metadata, areas, ZoneShapes(placed.shapes), placed.frame, False, placed.notes)
    shape = geobox.shape
    cells = Cells(*shape, *shape) if cell is None else make_cells(geobox, cell, len(metadata.classes) + 1)
    frame, notes = cells_frame(cells, geobox), () if geobox.transform else (IN_PIXELS,)
    return StatsRequest(store, metadata, areas, cells, frame[["geometry"]] if cell is None else frame, True, notes)


def writable(frame: Any, target: str) -> Any:
    """Return a GeoDataFrame as a pyarrow Table: geometry as WKB, or for CSV its bounds instead.

    A column in which nothing is known becomes one of text.
    """
    import pandas
    import pyarrow as pa

    plain = target.lower().endswith(".csv")
    kept = pandas.DataFrame(frame.drop(columns="geometry"))
    if plain:
        kept = pandas.concat([kept, frame.geometry.bounds.set_axis(list(BOUNDS), axis=1)], axis=1)
    try:
        table = pa.Table.from_pandas(kept, preserve_index=False).replace_schema_metadata(None)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StatisticsError(f"the zones have an attribute that cannot be written: {str(error)[:200]}") from error
    known = [pa.field(field.name, pa.string()) if pa.types.is_null(field.type) else field for field in table.schema]
    table = table.cast(pa.schema(known))
    return table if plain else table.append_column("geometry", pa.array(frame.geometry.to_wkb(), pa.binary()))
