"""Texts for the terminal: descriptions of scenes, stores, bundles and runs, and the table of classes."""

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from models.bundle import is_bundle
from models.encoding import Encoding, describe_decision
from models.limits import parse_json

from ..catalog.index import is_index, read_index
from ..grid.geobox import IN_PIXELS, GeoBox
from ..io.radiometry import describe_bands
from ..io.raster import RasterSource
from ..io.scene import SceneLike, advising_index, open_source
from ..jobs.job import RunResult
from ..mosaic.seams import describe_seams
from ..store.files import Files, full_path
from ..store.metadata import GRID, StoreMetadata, describe_nonfinite, describe_skipped
from ..store.store import KEY, open_store, read_metadata
from .describe_bundle import describe_bundle
from .describe_index import describe_index


def describe(scene: SceneLike, *, alpha: bool | None = None, untrusted: bool = False) -> str:
    """Describe a scene, an index of scenes, a store or a bundle; see `open_scene` for alpha and untrusted."""
    if isinstance(scene, str | os.PathLike) and _is_store(os.fspath(scene)):
        return _describe_store(os.fspath(scene))
    if isinstance(scene, str | os.PathLike) and is_bundle(os.fspath(scene)):
        return describe_bundle(os.fspath(scene))
    if isinstance(scene, str | os.PathLike) and is_index(scene):
        return describe_index(read_index(scene))
    with advising_index(scene):
        source = open_source(scene, alpha=alpha, untrusted=untrusted)
    nodata = ", ".join(sorted({str(value) for value in source.nodata if value is not None}))
    lines = [
        _where(source.geobox),
        f"bands       {len(source.bands)}: {', '.join(source.bands[:20])}",
        f"type        {source.dtype}",
        f"nodata      {nodata or 'none'}",
    ]
    if isinstance(source, RasterSource):
        lines.append(f"mask        {'of its own' if source.masks else 'none'}")
    if any(source.radiometry):
        said = describe_bands(source.bands, source.radiometry)
        lines.append(f"values      {said}; brought to the bundle's where it says what its values mean")
    lines += [f"note        {text}" for text in source.notes]
    return "\n".join(lines)


def _is_store(path: str) -> bool:
    if not path.rstrip("/").endswith(".zarr"):
        return False
    try:
        return KEY in parse_json(Files(path).read("zarr.json")).get("attributes", {})
    except (OSError, ValueError):
        return False


def _where(geobox: GeoBox) -> str:
    resolution = geobox.resolution()
    size = f"{resolution:.4g} m" if resolution else "unknown"
    return f"grid        {geobox.describe()}\nresolution  {size}"


def _describe_store(path: str) -> str:
    metadata = read_metadata(path)
    if metadata is None or not metadata.is_readable:
        command = metadata.command if metadata else "swathe segment"
        return f"store       {path}\nstate       not finished: the same `{command}` command continues it"
    store, metadata = open_store(path)
    segmented = metadata.segmentation
    names = ", ".join(metadata.class_names[value] for value in store.encoding.kept)
    kept = f"probability ({store.encoding.probability}) of {names}"
    lines = [
        f"store       {path}, {'finished' if metadata.state == 'complete' else 'finished but for some blocks'}",
        _where(store.geobox),
        f"arrays      {', '.join(kept if name == 'probability' else name for name in store.array_names)}",
        f"overviews   {store.levels}",
        f"bundle      {metadata.bundle['name']} {metadata.bundle['digest'][:12]}",
        *_decision(metadata),
        f"engine      {segmented['engine']}, {segmented['precision']}, {_tiles(segmented)}",
    ]
    if metadata.cleaned is not None:
        keywords = ", ".join(f"{name} {value}" for name, value in metadata.cleaned.items())
        lines.append(f"cleaned     {keywords or 'nothing asked for'}")
    if metadata.skipped:
        lines.append(f"warning     {describe_skipped(len(metadata.skipped), metadata.command)}")
        lines += [f"            {one['reason']}" for one in metadata.skipped[:10]]
    if lacking := metadata.nonfinite:
        lines.append(f"warning     {describe_nonfinite(lacking)}")
    lines += [f"objects     {count:,} of {name}" for name, count in metadata.results.get("objects", {}).items()]
    if seams := describe_seams(metadata.results.get("seams", {})):
        lines.append(f"seams       {seams}")
    return "\n".join([*lines, class_table(metadata.pixels)])


def _tiles(segmented: Mapping[str, Any]) -> str:
    """Say with how much context pixels were computed, by the identity of the run."""
    cut = segmented.get("cut", {})
    if GRID not in cut:
        return f"halo {segmented['halo']}"
    taper = f", {cut['taper']}" if "taper" in cut else ""
    return f"not exact: tiles of {cut[GRID]}, overlap {cut['overlap']}, {cut['blend']}{taper}"


def _decision(metadata: StoreMetadata) -> list[str]:
    """Say how classes were decided, of stores that keep it by class, and which is the background."""
    names, encoding = metadata.class_names, metadata.segmentation.get("encoding")
    thresholds = Encoding.from_json(encoding, len(names)).thresholds if encoding else None
    background = "no background" if metadata.background is None else f"background is {names[metadata.background]}"
    return [f"classes     {', '.join(names)}; {background}", f"decision    {describe_decision(thresholds, names)}"]


def describe_run(result: RunResult, output: str) -> str:
    """Describe a finished run: seconds, blocks, speed, and the table of classes."""
    rate = sum(result.pixels.values()) / max(result.seconds, 1e-6) / 1e6
    resumed = f", {result.resumed} of them done before" if result.resumed else f", {rate:.2f} Mpx/s"
    head = f"wrote {output} in {result.seconds:.1f} s: {counted(result.blocks, 'block')}{resumed}"
    seams = describe_seams(result.found.get("seams", {}))
    lacking = result.found.get("nonfinite")
    said = [f"  seams: {seams}"] if seams else []
    said += [f"warning: {describe_nonfinite(lacking)}"] if lacking else []
    return "\n".join([head, class_table(result.pixels), *said])


def stamp(output: str | None) -> str | None:
    """Return what tells an output that is there from what may take its place; None: there is none, or no telling."""
    with suppress(Exception):  # whatever is wrong with it, the verb itself will say
        return None if output is None else Files(full_path(output)).stamp()
    return None


def outcome(output: str, before: str | None, more: str = "") -> str:
    """Say that an output was written; or that it is complete already, where it is still what it was `before`."""
    already = before is not None and stamp(output) == before
    return f"{output} is already complete" if already else f"wrote {output}{more}"


def counted(count: int, noun: str) -> str:
    """Format a count and its noun, as "1 block" or "2,000 blocks"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def with_place(text: str, store: str) -> str:
    """Return a text, and a line more where the map of a store has no position."""
    return text if open_store(store)[0].geobox.transform else f"{text}\nnote: {IN_PIXELS}"


def class_table(pixels: Mapping[str, int]) -> str:
    """Format a table of pixels and shares per class; the shares are of the observed pixels."""
    observed = max(1, sum(count for name, count in pixels.items() if name != "nodata"))
    width = max(len(name) for name in pixels)
    lines = [f"  {'class':{width}}  {'pixels':>15}  share"]
    for name, count in pixels.items():
        share = "" if name == "nodata" else f"{100 * count / observed:6.2f} %"
        lines.append(f"  {name:{width}}  {count:>15,}  {share}".rstrip())
    return "\n".join(lines)
