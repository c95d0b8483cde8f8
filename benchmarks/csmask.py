"""Clouds and shadows by PyPI's ukis-csmask itself and by Swathe from the same ONNX file: the same classes, and IoU.

    python -m benchmarks.csmask [--overlap 64] [--blend feather] [--taper cosine] [--picture docs/csmask.jpg]

It needs `pip install 'ukis-csmask[cpu]==1.0.0'` and the chips in ../shared/data. Every labelled chip of Landsat 8 and
Sentinel-2 is segmented by both. Printed for each set: IoU of cloud against the labels, pixels to which both give the
same class, and the share of these where both see the same tile of 256 pixels and no other: CSmask is given a window of
the scene that is cut so that one of its tiles is one of Swathe's.
"""

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from models import Bundle
from models.importing import import_settings
from models.imports.recognise import recognise
from models.imports.settings import read_settings
from pipeline import segment
from pipeline.viz.colors import paint, stretch

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SIDE, STRIDE = 256, 32  # of the tiles of both; Swathe's lie on multiples of the stride
BEFORE, STEP, SHARED = 51, 204, 52  # CSmask's tiles begin so far before the image, and lie and overlap by so much
CLOUD, UNKNOWN = 1, 255
DRAWN = "chip_3"  # by --picture

Classes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Chip:
    """A labelled image: DN `(4, y, x)` of red, green, blue and nir; labels 0 clear, 1 cloud, 255 unknown.

    DN * scale + offset is reflectance.
    """

    name: str
    values: NDArray[np.uint16]
    labels: Classes
    scale: float
    offset: float

    @property
    def reflectance(self) -> NDArray[np.float32]:
        """Reflectance `(4, y, x)`."""
        return (self.values * self.scale + self.offset).astype(np.float32)


def graph_file(name: str) -> Path | None:
    """Return the ONNX file of ukis-csmask, as `4b_l1c`; None where it is not installed."""
    found = find_spec("ukis_csmask")
    return Path(found.submodule_search_locations[0]) / f"model_{name}.onnx" if found else None  # type: ignore[index]


def landsat_chips() -> Iterator[Chip]:
    """Yield the chips of USGS' L8 Biome, 256 x 256 pixels of 30 m."""
    for path in sorted((DATA / "l8_biome").glob("*_rgbn_u16.tif")):
        labels = Path(str(path).replace("_rgbn_u16", "_label"))
        yield Chip(path.stem.removesuffix("_rgbn_u16"), _read(path), _read(labels)[0], 2e-5, -0.1)


def sentinel_chips() -> Iterator[Chip]:
    """Yield the chips of On Cloud N, 512 x 512 pixels of 10 m."""
    for path in sorted((DATA / "s2_on_cloud_n").glob("*_image.tif")):
        labels = Path(str(path).replace("_image", "_label"))
        yield Chip(path.stem.removesuffix("_image"), _read(path), _read(labels)[0], 1e-4, 0.0)


def side_by_side(chips: Sequence[Chip], columns: int = 5) -> Chip:
    """Return one scene of many chips of one size."""

    def put(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        rows = [np.concatenate(parts[n : n + columns], axis=-1) for n in range(0, len(parts), columns)]
        return np.concatenate(rows, axis=-2)

    first = chips[0]
    return Chip("scene", put([one.values for one in chips]), put([one.labels for one in chips]), first.scale,
                first.offset)  # fmt: skip


def write_scene(chip: Chip, path: Path) -> Path:
    """Write a chip as a GeoTIFF whose tags say scale and offset."""
    count, height, width = chip.values.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", width=width, height=height, count=count, dtype="uint16") as file:
            file.write(chip.values)
            file.descriptions = ("red", "green", "blue", "nir")
            file.scales, file.offsets = [chip.scale] * count, [chip.offset] * count
    return path


def import_graph(name: str, folder: Path) -> Bundle:
    """Import one of the ONNX files with its settings in examples/."""
    path = graph_file(name)
    assert path is not None, "pip install 'ukis-csmask[cpu]==1.0.0'"
    settings = read_settings(EXAMPLES / f"csmask_{name}.toml")
    return import_settings(recognise(path), settings, folder / f"csmask_{name}")


def their_classes(reflectance: NDArray[np.float32], threads: int = 0) -> Classes:
    """Return the class map `(y, x)` of CSmask for red, green, blue and nir `(4, y, x)`."""
    from ukis_csmask.mask import CSmask

    made = CSmask(
        np.ascontiguousarray(np.moveaxis(reflectance, 0, -1)),
        ["red", "green", "blue", "nir"],
        product_level="l1c",
        intra_op_num_threads=threads,
        providers=["CPUExecutionProvider"],
    )
    classes: Classes = made.csm[..., 0]
    return classes


def our_classes(scene: Path, bundle: Bundle, **options: Any) -> Classes:
    """Return the class map `(y, x)` of Swathe for a scene that says its scale and offset."""
    made: Classes = segment(scene, bundle, **options).class_map.values
    return made


def their_tile(reflectance: NDArray[np.float32], row: int, column: int) -> Classes:
    """Let CSmask see the tile `(256, 256)` that begins at a pixel of a scene, among its neighbours.

    Returns the classes of its middle, from `SHARED` to `STEP`, which are of this tile alone.
    """
    top, left = row - STEP + BEFORE, column - STEP + BEFORE  # of the window whose second tile of each axis it is
    inner = slice(STEP - BEFORE + SHARED, STEP - BEFORE + STEP)
    return their_classes(reflectance[:, top : row + SIDE, left : column + SIDE])[inner, inner]


def common_pixels(size: int, overlap: int) -> dict[int, tuple[int, int]]:
    """Return the tiles of Swathe's grid along an axis that CSmask can see too, with a neighbour on each side.

    By where they begin; with the pixels that both take from this tile alone.
    """
    before, step = overlap // 2 // STRIDE * STRIDE, SIDE - overlap
    last = -(-(size + 2 * before - SIDE) // STRIDE) * STRIDE - before
    starts, found = [*range(-before, last, step), last], {}
    for former, start, after in zip(starts, starts[1:], [*starts[2:], last + SIDE], strict=False):
        first = max(start + SHARED, (former + SIDE + start) // 2)
        stop = min(start + STEP, (start + SIDE + after) // 2)
        if STEP - BEFORE <= start <= size - SIDE and first < stop:
            found[start] = first, stop
    return found


def agreement_in_tiles(chip: Chip, ours: Classes, overlap: int, tiles: int | None = None) -> tuple[int, int]:
    """Count pixels of equal class, and all, where both see one tile alone. `tiles`: no more than these, spread."""
    rows, columns = (common_pixels(size, overlap) for size in ours.shape)
    starts = [(row, column) for row in rows for column in columns]
    equal = count = 0
    for row, column in starts[:: -(-len(starts) // tiles) if tiles else 1]:
        theirs = their_tile(chip.reflectance, row, column)
        (top, bottom), (left, right) = rows[row], columns[column]
        seen = theirs[top - row - SHARED : bottom - row - SHARED, left - column - SHARED : right - column - SHARED]
        equal += int((ours[top:bottom, left:right] == seen).sum())
        count += seen.size
    return equal, count


def intersection_and_union(classes: Classes, labels: Classes) -> tuple[int, int]:
    """Count the pixels of cloud in both, and in either, where labels are known."""
    known = labels != UNKNOWN
    found, right = (classes == CLOUD) & known, (labels == CLOUD) & known
    return int((found & right).sum()), int((found | right).sum())


def compare(name: str, chips: Sequence[Chip], bundle: Bundle, folder: Path, **options: Any) -> tuple[float, float]:
    """Print a line of a set of chips; return IoU of cloud by CSmask and by Swathe."""
    theirs, ours, equal, count = [0, 0], [0, 0], 0, 0
    for chip in chips:
        seen = their_classes(chip.reflectance)
        found = our_classes(write_scene(chip, folder / "chip.tif"), bundle, **options)
        for counts, classes in ((theirs, seen), (ours, found)):
            counts[:] = np.add(counts, intersection_and_union(classes, chip.labels)).tolist()
        equal, count = equal + int((seen == found).sum()), count + seen.size
    scores = theirs[0] / theirs[1], ours[0] / ours[1]
    print(f"{name:<28} {scores[0]:8.4f} {scores[1]:8.4f} {equal / count:10.4f}", flush=True)
    return scores


def compare_tiles(name: str, chips: Sequence[Chip], bundle: Bundle, folder: Path, overlap: int, **options: Any) -> None:
    """Print the share of equal classes where both see the same tile."""
    counts = np.zeros(2, int)
    for chip in chips:
        ours = our_classes(write_scene(chip, folder / "scene.tif"), bundle, overlap=overlap, **options)
        counts += agreement_in_tiles(chip, ours, overlap)
    print(f"{name:<28} the same tile: {counts[0] / counts[1]:.6f} of {counts[1]:,} pixels", flush=True)


def draw(chip: Chip, maps: dict[str, Classes], bundle: Bundle, path: Path) -> None:
    """Draw an image, and maps over it, side by side."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    classes = bundle.metadata.classes[1:]
    shown = stretch(chip.values[:3], np.ones(chip.labels.shape, bool), (1, 88))
    colours = {value: info.rgb for value, info in enumerate(classes, 1)}
    figure = Figure(figsize=(15, 5.2), layout="constrained")
    panels = {"image": shown} | {title: paint(shown, one, colours) for title, one in maps.items()}
    first, *_ = every = figure.subplots(1, len(panels))
    for axes, (title, pixels) in zip(every, panels.items(), strict=True):
        axes.imshow(pixels, interpolation="none")
        axes.set_title(title, loc="left")
        axes.axis("off")
    first.legend(handles=[Patch(color=f"#{info.color}", label=info.name) for info in classes], loc="lower right")
    figure.savefig(path, dpi=100, pil_kwargs={"quality": 82})


def _read(path: Path) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            values: NDArray[Any] = file.read()
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description="ukis-csmask against Swathe with the same network.")
    parser.add_argument("--blend", choices=("crop", "feather"), default="crop")
    parser.add_argument("--taper", choices=("linear", "cosine", "gaussian"), default="linear")
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--picture", type=Path, help="draw a chip of Sentinel-2 with both maps, and do nothing else")
    given = parser.parse_args()
    options = {"blend": given.blend, "taper": given.taper}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        bundle = import_graph("4b_l1c", folder)
        landsat, sentinel = list(landsat_chips()), list(sentinel_chips())
        if given.picture:
            chip = next(one for one in sentinel if one.name == DRAWN)
            ours = our_classes(write_scene(chip, folder / "chip.tif"), bundle, overlap=given.overlap, **options)
            maps = {"Swathe": ours, "ukis-csmask": their_classes(chip.reflectance)}
            draw(chip, maps, bundle, given.picture)
            return
        print(f"{'':<28} {'CSmask':>8} {'Swathe':>8} {'equal':>10}")
        scene = [side_by_side(landsat)]
        sets = {"Sentinel-2, 3 chips": sentinel, "Landsat 8, 25 chips": landsat, "these as one scene": scene}
        for name, chips in sets.items():
            compare(name, chips, bundle, folder, overlap=given.overlap, **options)
        if given.blend == "crop":
            for name in ("Sentinel-2, 3 chips", "these as one scene"):
                compare_tiles(name, sets[name], bundle, folder, given.overlap)


if __name__ == "__main__":
    main()
