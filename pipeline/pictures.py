"""Pictures of a result: the image, the probability and the class map side by side. Files only, for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from models.facts import ClassInfo

from .predict import NODATA

INK, PAPER = "#1c2733", "#ffffff"


def stretch(image: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Stretch raw values `(3, y, x)` to 0..1, `(y, x, 3)`, by the 2nd and 98th percentile of what is observed."""
    shown = np.ones((*valid.shape, 3), np.float32)
    for place, band in enumerate(image):
        seen = band[valid]
        low, high = np.percentile(seen, (2, 98)) if seen.size else (0, 1)
        shown[..., place] = np.clip((band.astype(np.float32) - low) / max(float(high - low), 1e-6), 0, 1)
    shown[~valid] = 1
    return shown


def overlay(
    shown: NDArray[np.float32], class_map: NDArray[np.uint8], classes: Sequence[ClassInfo]
) -> NDArray[np.float32]:
    """Lay the class colours over an image `(y, x, 3)` of 0..1, outlines strong; the first class stays clear."""
    painted = shown.copy()
    for value, info in enumerate(classes[1:], start=1):
        inside = class_map == value
        colour = np.array(info.rgb, np.float32) / 255
        painted[inside] = 0.4 * painted[inside] + 0.6 * colour
        painted[inside & _edge(inside)] = colour
    return painted


def _edge(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from skimage.morphology import disk, erosion

    core: NDArray[np.bool_] = erosion(inside, disk(2))
    return inside & ~core


def panels(scene: xr.DataArray, maps: xr.Dataset, classes: Sequence[ClassInfo], path: Path, title: str) -> Path:
    """Write one picture of three panels: image, probability of the last class kept, map over the image.

    Parameters
    ----------
    scene
        Dims (band, y, x), with its coordinate `valid`; the first three bands are shown as red, green, blue.
    maps
        As `open_maps` gives it, on the same grid.
    classes
        Names and colours.
    path, title
        The PNG to write, and what stands over it.
    """
    valid, class_map = scene["valid"].values, maps["class_map"].values
    shown = stretch(scene.values[[0, 1, 2] if scene.sizes["band"] > 2 else [0, 0, 0]], valid)
    probability = maps["probability"][-1]
    figure, (left, middle, right) = _figure(shown.shape[0] / shown.shape[1])
    left.imshow(shown)
    drawn = middle.imshow(probability.values, vmin=0, vmax=1, cmap="magma")
    right.imshow(overlay(shown, class_map, classes))
    name = str(probability["class"].values)
    for axes, text in ((left, "image"), (middle, f"probability of {name}"), (right, "map")):
        axes.set_title(text, loc="left", color=INK, fontsize=12)
        axes.set_axis_off()
    bar = figure.colorbar(drawn, ax=[left, middle, right], orientation="horizontal", fraction=0.04, aspect=60, pad=0.02)
    bar.set_label(f"probability of {name}", color=INK)
    right.legend(handles=_legend(class_map, classes), loc="lower left", framealpha=0.9, fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", color=INK, fontsize=14)
    figure.savefig(path, dpi=110, metadata={"Software": "Swathe"})
    return path


def _figure(aspect: float) -> tuple[Any, Any]:
    """Give a figure and three panels: side by side, or one above the other where scenes are wide."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    wide = aspect < 0.5
    size = (12, min(30, 3 * (12 * aspect + 0.4) + 1.3)) if wide else (16, min(20, 5.2 * aspect + 1.6))
    figure = Figure(figsize=size, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(3, 1) if wide else figure.subplots(1, 3)


def _legend(class_map: NDArray[np.uint8], classes: Sequence[ClassInfo]) -> list[Any]:
    from matplotlib.patches import Patch

    observed = max(1, int((class_map != NODATA).sum()))
    return [
        Patch(color=f"#{info.color}", label=f"{info.name}  {100 * int((class_map == value).sum()) / observed:.1f} %")
        for value, info in enumerate(classes)
        if value
    ]
