"""The sections of a report as its template takes them: classes, objects, blocks, provenance. No files, no HTML."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding, describe_decision
from models.metadata import ClassInfo

from ..mosaic.seams import describe_seams
from ..stats.stats import SceneStats
from ..stats.table import NARROW, format_area, format_number, format_share
from ..store.metadata import StoreMetadata, describe_nonfinite, describe_skipped

BARS = 24  # of a histogram
LEAST_DECADES = 1.0  # that its axis spans, so that it has marks where all sizes are alike
MOST_CELLS = 40  # of the map of blocks, along a side
MOST_NAMES = 12  # in one line
WEAKEST = 0.08  # strength of the colour of the quickest block; 1 is the slowest's


def class_rows(classes: Sequence[ClassInfo], stats: SceneStats) -> list[dict[str, Any]]:
    """Return the rows of the class table, the commonest on top; then the background and nodata, if any."""
    columns, metric = stats.columns, np.isfinite(stats.columns["area_m2"])
    pairs = list(zip(classes, stats.names, strict=True))
    ranked = sorted(stats.foreground, key=lambda value: -columns[f"{stats.names[value]}_pixels"])
    rest = [value for value in range(len(classes)) if value not in ranked]
    lines = [
        (info.name, f"#{info.color}", name, format_share(np.nan_to_num(columns[f"{name}_share"])))
        for info, name in (pairs[value] for value in (*ranked, *rest))
    ]
    if columns["nodata_pixels"]:
        lines.append(("nodata", "", "nodata", ""))
    return [
        {"name": name, "colour": colour, "share": share, "pixels": int(columns[f"{column}_pixels"]),
         "area": format_area(columns[f"{column}_m2"]) if metric else ""}
        for name, colour, column, share in lines
    ]  # fmt: skip


def object_sections(classes: Sequence[ClassInfo], stats: SceneStats, objects: SceneStats) -> list[dict[str, Any]]:
    """Describe the objects of each class that has any.

    Parameters
    ----------
    classes, stats
        Of the store.
    objects
        Of the store with the object table, which may be another one.

    Returns
    -------
    list of dict
        Of each class its `name` and `colour`; `stats` as `(name, value)`; the histogram's `bars`, which have place and
        height in per cent (`left`, `width`, `height`) and what they count (`count`, `span`); what the tallest bar
        counts, `most`; its `ticks` as `(per cent, text)`.
    """
    metric, one = np.isfinite(stats.columns["area_m2"]), objects.objects
    form, found = format_area if metric else lambda size, digits=3: f"{format_number(size, digits)} pixels", []
    counts = () if one is None else one.count[0]
    for place, (info, name, count) in enumerate(zip(classes, stats.names, counts, strict=False)):
        if one is None or not count or place not in objects.foreground:
            continue
        lines = [
            ("objects", f"{int(count):,}"),
            ("mean size", form(one.mean[0, place])),
            ("median size", form(one.quantiles[1, 0, place])),
            ("of the land", format_share(np.nan_to_num(stats.columns[f"{name}_share"]))),
        ]
        if np.isfinite(density := objects.columns[f"{objects.names[place]}_per_km2"]):
            lines.append(("per km²", format_number(density)))
        if np.isfinite(width := one.width[0, place]):
            lines.append(("mean width", f"{format_number(width)} {'m' if metric else 'pixels'}"))
        low, high = np.log10([one.smallest[0, place], one.largest[0, place]])
        middle, half = (low + high) / 2, max(0.52 * (high - low), LEAST_DECADES / 2)
        edges = np.linspace(middle - half, middle + half, BARS + 1)
        # bars of equal width on a logarithmic axis, which holds a shed and a hangar alike
        heights = one.sizes.histogram(place, 10**edges)
        most = int(heights.max())
        bars = [
            {"left": n * 100 / BARS, "width": 100 / BARS, "height": 100 * int(held) / max(1, most),
             "count": int(held), "span": f"{form(10 ** edges[n])} to {form(10 ** edges[n + 1])}"}
            for n, held in enumerate(heights)
        ]  # fmt: skip
        found.append({
            "name": info.name, "colour": f"#{info.color}", "stats": lines, "bars": bars, "most": most,
            "ticks": _ticks(edges[0], edges[-1], form),
        })  # fmt: skip
    return found


def _ticks(low: float, high: float, form: Any) -> list[tuple[float, str]]:
    """Mark round sizes: powers of ten if two or more of them are in sight, else their doubles and halves too."""
    margin = 0.04 * (high - low)  # so that no mark is cut off
    powers = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        places = [np.log10(step) + power for power in powers for step in steps]
        inside = [place for place in places if low + margin <= place <= high - margin]
        if len(inside) >= 3:
            break
    return [
        (100 * (place - low) / (high - low), form(10**place, 1)) for place in inside[:: max(1, -(-len(inside) // 6))]
    ]


def block_section(
    seconds: NDArray[np.floating[Any]], side: int, shape: tuple[int, int], command: str
) -> dict[str, Any]:
    """Draw how long each block took; neighbours are put together where there are too many to see.

    Parameters
    ----------
    seconds
        `(row, column)` of blocks; NaN where a block was not planned, and so not made.
    side, shape
        Of a block and of the scene, in pixels.
    command
        What took the time.

    Returns
    -------
    dict
        `cells`, each with its place in pixels of the scene (`left`, `top`, `width`, `height`), how strong its colour is
        (`strength`), and `words`; `width` and `height` of the map; `lowest` and `highest` for its legend; `words`.
    """
    joined = -(-max(seconds.shape) // MOST_CELLS)
    ends = [(0, -count % joined) for count in seconds.shape]  # fewer are put together at the right and lower edge
    padded = np.pad(seconds.astype(np.float64), ends, constant_values=np.nan)
    down, across = (count // joined for count in padded.shape)
    grouped = padded.reshape(down, joined, across, joined)
    made = np.isfinite(grouped).sum(axis=(1, 3))
    means = np.nansum(grouped, axis=(1, 3)) / np.maximum(made, 1)
    low, high = float(means[made > 0].min(initial=np.inf)), float(means.max(initial=0))
    cells = []
    for row, column in np.argwhere(made).tolist():
        mean = means[row, column]
        top, left = row * side * joined, column * side * joined
        share = (float(mean) - low) / (high - low) if high > low else 0.5
        cells.append({
            "left": left, "top": top, "width": min(side * joined, shape[1] - left),
            "height": min(side * joined, shape[0] - top), "strength": round(WEAKEST + (1 - WEAKEST) * share, 3),
            "words": f"row {row}, column {column}: {format_seconds(float(mean))}",
        })  # fmt: skip
    rows, columns = seconds.shape
    blocks = "1 block" if seconds.size == 1 else f"{seconds.size:,} blocks, {rows:,} down and {columns:,} across"
    if made.sum() < seconds.size:
        blocks += f", of which {made.sum():,} were planned"
    together = f"; each cell stands for up to {joined} × {joined} of them" if joined > 1 else ""
    total = format_seconds(float(np.nansum(seconds)))
    words = f"{blocks}{together}. In {command} they took {total} together; several may have run at the same time."
    lowest, highest = format_seconds(min(low, high)), format_seconds(high)
    return {"cells": cells, "height": shape[0], "width": shape[1], "lowest": lowest, "highest": highest, "words": words}


def provenance(metadata: StoreMetadata, source: str) -> list[tuple[str, str]]:
    """Say where a store comes from, from its metadata: scene, bundle, engine, settings of the segmentation."""
    bundle, seen, made = metadata.bundle, metadata.source, metadata.segmentation
    kept = made.get("encoding")
    encoding = Encoding.from_json(kept, len(metadata.classes)) if kept else metadata.encoding
    lines = [
        ("scene", source),
        ("bands", f"{', '.join(seen['bands'])} ({seen['dtype']})" if seen else ""),
        ("bundle", " ".join(filter(None, (bundle.get("name", ""), bundle.get("architecture", ""))))),
        ("bundle digest", bundle.get("digest", "")),
        ("engine", made.get("engine", "")),
        ("precision", made.get("precision", "")),
        ("halo", f"{made['halo']} pixels" if "halo" in made else ""),
        ("decision", describe_decision(encoding.thresholds, metadata.class_names) if kept else ""),
        ("probability", f"kept as {encoding.probability}" if encoding.probability else "not kept"),
        ("blocks", f"up to {metadata.plan.block:,} × {metadata.plan.block:,} pixels"),
        ("seams", describe_seams(metadata.results.get("seams", {}))),
        ("lacking", describe_skipped(len(metadata.skipped), metadata.command) if metadata.skipped else ""),
        ("warning", describe_nonfinite(lacking) if (lacking := metadata.nonfinite) else ""),
    ]
    return [(name, value) for name, value in lines if value]


def network(metadata: StoreMetadata) -> list[tuple[str, str]]:
    """Say what the network is, how well it does, and whose data it is made of, as the bundle said it."""
    bundle = metadata.bundle
    lines = [("what it is", str(bundle.get("description", "")))]
    for name, value in bundle.get("metrics", {}).items():
        scores = isinstance(value, Mapping)
        lines.append((f"scores, {name}" if scores else str(name), format_setting(value)))
    lines += [(str(name), format_setting(value)) for name, value in bundle.get("provenance", {}).items()]
    return [(name, value) for name, value in lines if value]


def cleaning(metadata: StoreMetadata) -> list[tuple[str, str]]:
    """Say how a cleaned store was cleaned; nothing of others."""
    settings = metadata.cleaned or {}
    return [(str(name).replace("_", " "), format_setting(value)) for name, value in settings.items()]


def format_seconds(seconds: float) -> str:
    """Format a duration: 3.2 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{format_number(seconds, 2 if seconds < 10 else 3)}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    return f"{minutes // 60:,}{NARROW}h {minutes % 60}{NARROW}min"


def format_place(longitude: float, latitude: float) -> str:
    """Format a place on the Earth to 0.0001 degrees, however longitudes were counted."""
    longitude = (longitude + 180) % 360 - 180 if abs(longitude) > 180 else longitude
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}°{NARROW}{north}, {abs(longitude):.4f}°{NARROW}{east}"


def format_setting(value: Any) -> str:
    """Format a setting of any JSON kind in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_setting(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        more = f" and {len(value) - MOST_NAMES:,} more" if len(value) > MOST_NAMES else ""
        return ", ".join(format_setting(part) for part in value[:MOST_NAMES]) + more
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def format_title(stem: str) -> str:
    """Format a file's stem as a title: blanks for underscores, a capital at the front."""
    words = stem.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
