"""What an index of scenes holds, in lines for people."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import shapely

from ..catalog.build import IndexResult
from ..catalog.footprint import bbox_of
from ..catalog.index import SceneIndex
from ..grid.geobox import describe_crs

SHOWN = 4


def describe_result(result: IndexResult) -> str:
    """Describe what became of an index, and what it holds."""
    counts = {"added": result.added, "read again": result.changed, "as they were": result.unchanged,
              "dropped": result.dropped, "left out": len(result.skipped)}  # fmt: skip
    parts = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    written = result.added or result.changed or result.dropped
    what = "wrote" if written else "nothing is new in"
    return f"{what} {result.index.path}: {parts}\n{describe_index(result.index)}"


def describe_index(index: SceneIndex) -> str:
    """Describe an index: how many scenes, when, where, and of which grids and bands."""
    columns = index.columns
    moments = np.sort(index.datetimes[~np.isnat(index.datetimes)])
    dates = f"{_day(moments[0])} to {_day(moments[-1])}" if moments.size else "none known"
    unknown = len(index) - moments.size
    west, south, east, north = bbox_of(shapely.union_all(shapely.envelope(index.footprints)))
    crs = (describe_crs(columns.crs[number] or None) for number in columns.crs_numbers)
    sizes = (f"{across:g} x {down:g}" if across != down else f"{across:g}" for across, down in index.resolutions)
    covers = index.cloud_covers[~np.isnan(index.cloud_covers)]
    lines = [
        f"scenes      {len(index):,}",
        f"dates       {dates}{f'; of {unknown:,} not known' if moments.size and unknown else ''}",
        f"CRS         {_counted(crs)}",
        f"resolution  {_counted(sizes)} (units of the CRS)",
        f"bands       {_counted(text.replace('|', ',') for text in columns.bands.to_pylist())}",
        f"bounds      {west:.4f}, {south:.4f} to {east:.4f}, {north:.4f} (degrees)",
    ]
    if covers.size:
        lines.append(f"clouds      {covers.min():.3g} to {covers.max():.3g} %")
    if index.priorities.any():
        lines.append(f"priority    {_counted(map(str, index.priorities))}")
    return "\n".join(lines)


def _day(moment: Any) -> str:
    return str(np.datetime_as_string(moment, "D"))


def _counted(values: Iterable[str]) -> str:
    """Return the most frequent of some texts, with how often they occur where they differ."""
    counts = Counter(values).most_common()
    if len(counts) == 1:
        return counts[0][0]
    more = f", and {len(counts) - SHOWN} others" if len(counts) > SHOWN else ""
    return "; ".join(f"{text} ({count:,})" for text, count in counts[:SHOWN]) + more
