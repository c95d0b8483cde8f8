"""What people read: descriptions of scenes, stores and bundles, and the table of classes. Text only."""

import os
from collections.abc import Mapping
from typing import Any

from models.bundle import load_bundle, shipped_bundles
from models.metadata import BundleMetadata

from ..grid.geobox import GeoBox
from ..io.raster import RasterSource
from ..io.scene import SceneLike, open_source
from ..store.files import Files
from ..store.metadata import StoreMetadata
from ..store.store import KEY, Store, open_store, read_metadata


def describe(scene: SceneLike) -> str:
    """Describe a scene or a store of ours."""
    if isinstance(scene, str | os.PathLike) and _is_store(os.fspath(scene)):
        return _describe_store(os.fspath(scene))
    source = open_source(scene)
    lines = [
        _where(source.geobox),
        f"bands       {len(source.bands)}: {', '.join(source.bands[:20])}",
        f"type        {source.dtype}",
    ]
    nodata = sorted({str(value) for value in source.nodata if value is not None})
    lines.append(f"nodata      {', '.join(nodata) or 'none'}")
    if isinstance(source, RasterSource):
        lines.append(f"mask        {'of its own' if source.masks else 'none'}")
        scaled = [b for b in source.raster_bands if (b.scale, b.offset) != (1.0, 0.0)]
        if scaled:
            lines.append(f"scale       {scaled[0].scale:g}, offset {scaled[0].offset:g} (kept, not applied)")
    lines += [f"note        {note}" for note in source.notes]
    return "\n".join(lines)


def _is_store(path: str) -> bool:
    import json

    if not path.rstrip("/").endswith(".zarr"):
        return False
    try:
        return KEY in json.loads(Files(path).read("zarr.json")).get("attributes", {})
    except (OSError, ValueError):
        return False


def _where(geobox: GeoBox) -> str:
    resolution = geobox.resolution()
    size = f"{resolution:.4g} m" if resolution else "unknown"
    return f"grid        {geobox.describe()}\nresolution  {size}"


def _describe_store(path: str) -> str:
    metadata = read_metadata(path)
    if metadata is None or metadata.state != "complete":
        command = metadata.command if metadata else "swathe segment"
        return f"store       {path}\nstate       not finished: the same `{command}` command continues it"
    store, metadata = open_store(path)
    segmented = metadata.segmentation
    lines = [
        f"store       {path}, finished",
        _where(store.geobox),
        f"layers      {', '.join(_layers(store, metadata))}",
        f"overviews   {store.levels}",
        f"bundle      {metadata.bundle['name']} {metadata.bundle['digest'][:12]}",
        f"engine      {segmented['engine']}, {segmented['precision']}, halo {segmented['halo']}",
    ]
    if metadata.cleaned is not None:
        keywords = ", ".join(f"{name} {value}" for name, value in metadata.cleaned.items())
        lines.append(f"cleaned     {keywords or 'nothing asked for'}")
    counts = metadata.results.get("objects", {})
    lines += [f"objects     {count:,} of {name}" for name, count in counts.items()]
    return "\n".join([*lines, class_table(metadata.pixels)])


def _layers(store: Store, metadata: StoreMetadata) -> list[str]:
    names = [metadata.class_names[value] for value in store.encoding.kept]
    kept = f"probability ({store.encoding.probability}) of {', '.join(names)}"
    return [kept if name == "probability" else name for name in store.layers]


def class_table(pixels: Mapping[str, int]) -> str:
    """Give a table of pixels and shares per class; the shares are of the observed pixels."""
    observed = max(1, sum(count for name, count in pixels.items() if name != "nodata"))
    width = max(len(name) for name in pixels)
    lines = [f"  {'class':{width}}  {'pixels':>15}  share"]
    for name, count in pixels.items():
        share = "" if name == "nodata" else f"{100 * count / observed:6.2f} %"
        lines.append(f"  {name:{width}}  {count:>15,}  {share}".rstrip())
    return "\n".join(lines)


def list_bundles() -> str:
    """List the bundles that come with Swathe, one line each."""
    found = shipped_bundles()
    if not found:
        return "no bundles come with this installation"
    lines = []
    for bundle in found:
        metadata = bundle.metadata
        parts = [
            ", ".join(metadata.class_names),
            f"bands {', '.join(metadata.band_names)} ({metadata.dtype})",
            _scale(metadata),
            f"{bundle.parameters:,} parameters",
        ]
        lines.append(f"{metadata.name:12} {'; '.join(parts)}")
        if metadata.description:
            lines.append(f"{'':12} {metadata.description}")
    return "\n".join(lines)


def describe_bundle(name: str) -> str:
    """Describe all that a bundle knows."""
    bundle = load_bundle(name)
    metadata, field = bundle.metadata, bundle.metadata.receptive_field
    halo = "none: every output sees the whole input" if field.halo is None else f"{field.halo} pixels"
    lines = [
        f"bundle      {metadata.name}  {bundle.path}",
        f"digest      {bundle.digest}",
        f"network     {metadata.architecture} {dict(metadata.options) or ''}  {bundle.parameters:,} parameters",
        f"bands       {', '.join(metadata.band_names)}; {metadata.dtype}; scaled by {metadata.scaling.kind}",
        f"classes     {', '.join(f'{value} {info.name} #{info.color}' for value, info in enumerate(metadata.classes))}",
        f"resolution  {_scale(metadata)}",
        f"receptive   stride {field.stride}, radius {field.radius}; exact halo {halo}",
    ]
    for title, values in (("metrics", metadata.metrics), ("provenance", metadata.provenance)):
        lines += [f"{title:11} {line}" for line in _flat(values)]
    return "\n".join(lines)


def _scale(metadata: BundleMetadata) -> str:
    if metadata.resolution is None:
        return "resolution unknown"
    finest, coarsest = metadata.resolution
    return f"{finest:g} m" if finest == coarsest else f"{finest:g} to {coarsest:g} m"


def _flat(values: Any, prefix: str = "") -> list[str]:
    """Give nested facts as lines of dotted names."""
    if isinstance(values, dict):
        return [
            line for key, value in values.items() for line in _flat(value, f"{prefix}.{key}" if prefix else str(key))
        ]
    text = ", ".join(map(str, values)) if isinstance(values, list) else str(values)
    return [f"{prefix}: {text}"]
