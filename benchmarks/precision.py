"""What `--precision auto` chooses on labelled scenes, and what that changes.

    python -m benchmarks.precision [--bundle buildings] [--only NAME] [--precisions auto,int8,bf16] [--tolerance 0.004]

Every labelled scene in ../shared/data that a shipped bundle fits is segmented whole in fp32 and as chosen. Printed for
each: the precision, pixels that keep their class, IoU in fp32 and as chosen, mean and 99.9th percentile of the changes
of probabilities, and the speed of the bare engine as it was measured in the choice.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from models.encoding import Encoding, classify
from pipeline.inference.plan import plan
from pipeline.inference.predict import predict

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLOUDS_OFFSET = 784  # of the values that `clouds` was trained on, above Sentinel-2's and the biome chips' reflectance


@dataclass(frozen=True, slots=True)
class Labelled:
    """A scene with labels `(y, x)`: 1 what the bundle looks for, 0 not, 255 unknown; and options that make it fit."""

    name: str
    bundle: str
    scene: Any
    labels: NDArray[Any]
    options: dict[str, Any]


def labelled(folder: Path) -> Iterator[Labelled]:
    """Yield every labelled scene that a shipped bundle fits."""
    for image in sorted((DATA / "oam_buildings" / "scenes").glob("*_image.tif")):
        labels = _read(Path(str(image).replace("_image", "_label")))[0]
        yield Labelled(image.stem.removesuffix("_image"), "buildings", image, labels, {"allow_mismatch": True})
    scenes = DATA / "landsat8_redcross" / "scenes"
    yield Labelled("scene C", "clouds", scenes / "C_rgb_u16.tif", _read(scenes / "C_label.tif")[0], {})
    for name, bands, labels, options in (*_tiles_a(), *_biome(), *_patches(), *_chips()):
        path = folder / f"{name}.tif"
        _write(path, bands)
        yield Labelled(name, "clouds", path, labels, {"allow_mismatch": True, **options})


def _tiles_a() -> Iterator[tuple[str, NDArray[Any], NDArray[Any], dict[str, Any]]]:
    """Scene A, put together of its tiles, and brought to the values of C by its quantiles: it is stretched to uint8."""
    folder = DATA / "landsat8_redcross" / "tiles" / "A"
    places = {path.name[:7]: path for path in folder.glob("*_image.png")}
    rows, columns = ({int(name[at : at + 2]) for name in places} for at in (1, 5))
    shape = (512 * (max(rows) - min(rows) + 1), 512 * (max(columns) - min(columns) + 1))
    values, labels = np.zeros((3, *shape), np.uint16), np.full(shape, 255, np.uint8)
    for name, path in places.items():
        top, left = 512 * (int(name[1:3]) - min(rows)), 512 * (int(name[5:7]) - min(columns))
        there = np.s_[top : top + 512, left : left + 512]
        mask = _read(path.with_name(path.name.replace("_image", "_label")))[0]
        values[:, *there] = 784 + _read(path)[:3].astype(np.uint16) * 12
        labels[there] = np.select([mask == 0, mask == 255], [0, 1], 255)
    yield "scene A", values, labels, {}


def _biome() -> Iterator[tuple[str, NDArray[Any], NDArray[Any], dict[str, Any]]]:
    for path in sorted((DATA / "l8_biome").glob("*_rgbn_u16.tif")):
        labels = _read(path.with_name(path.name.replace("_rgbn_u16", "_label")))[0]
        digital = _read(path)[:3].astype(np.float64)  # reflectance is DN * 2e-5 - 0.1
        yield path.name.removesuffix("_rgbn_u16.tif"), _from_reflectance(digital * 2e-5 - 0.1), labels, {}


def _patches() -> Iterator[tuple[str, NDArray[Any], NDArray[Any], dict[str, Any]]]:
    folder = DATA / "cloud38" / "38-Cloud_training"
    for path in sorted((folder / "train_red").glob("*.TIF")):
        rest = path.name.removeprefix("red_")
        bands = np.stack([_read(folder / f"train_{name}" / f"{name}_{rest}")[0] for name in ("red", "green", "blue")])
        labels = np.where(_read(folder / "train_gt" / f"gt_{rest}")[0] > 0, 1, 0)
        yield f"38 {rest[6:17]}{rest[-24:-20]}", _from_reflectance(bands * 2e-5 - 0.1), labels, {}


def _chips() -> Iterator[tuple[str, NDArray[Any], NDArray[Any], dict[str, Any]]]:
    for path in sorted((DATA / "s2_on_cloud_n").glob("*_image.tif")):
        labels = _read(path.with_name(path.name.replace("_image", "_label")))[0]
        yield f"s2 {path.stem[:6]}", _from_reflectance(_read(path)[:3] / 1e4), labels, {}


def _from_reflectance(reflectance: NDArray[Any]) -> NDArray[np.uint16]:
    """Bring top-of-atmosphere reflectance to values like those of scene C, whose radiometry is relative."""
    return np.clip(CLOUDS_OFFSET + reflectance * 5000, 1, 65535).astype(np.uint16)


def _read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as file:
        return file.read()  # type: ignore[no-any-return]


def _write(path: Path, bands: NDArray[Any]) -> None:
    with rasterio.open(path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                       dtype=bands.dtype, photometric="minisblack") as file:  # fmt: skip
        file.write(bands)


@dataclass(frozen=True, slots=True)
class Result:
    """What a precision changes on a whole scene, against fp32."""

    precision: str
    agreement: float
    iou: tuple[float, float]
    mean: float
    high: float
    note: str

    def line(self, asked: str) -> str:
        """Return it as a line of the table."""
        scores = f"{self.agreement:9.3%} {self.iou[0]:9.4f} {self.iou[1]:7.4f} {self.mean:7.4f} {self.high:7.4f}"
        return f"{asked:5} {self.precision:5} {scores}  {self.note}"


def compare(one: Labelled, precision: str = "auto", tolerance: float = 0.004) -> Result:
    """Segment a scene whole in fp32 and in another precision."""
    options = {"engine": "openvino", "device": "cpu", "tolerance": tolerance, **one.options}
    right = plan(one.scene, one.bundle, **options)
    other = plan(one.scene, one.bundle, precision=precision, **options)
    (before, valid), (after, _) = (probabilities(prepared) for prepared in (right, other))
    thresholds = right.inference.encoding.thresholds
    maps = [classify(values, thresholds)[valid] for values in (before, after)]
    change = np.abs(before - after)[:, valid].max(axis=0)
    truth = one.labels[valid]
    notes = " | ".join(note for note in other.notes if "precision" in note)
    return Result(
        other.inference.spec.precision,
        float((maps[0] == maps[1]).mean()),
        (iou(maps[0], truth), iou(maps[1], truth)),
        float(change.mean()),
        float(np.quantile(change, 0.999)),
        notes,
    )


def probabilities(prepared: Any) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return probabilities `(class, y, x)` of a whole scene, 0 where nothing was observed, and where something was."""
    classes = len(prepared.inference.metadata.classes)
    encoding = Encoding(None, "float32", tuple(range(classes)))
    inference = type(prepared.inference)(
        prepared.inference.bundle, prepared.inference.digest, prepared.inference.metadata, prepared.inference.spec,
        prepared.plan, encoding, prepared.inference.graph,
    )  # fmt: skip
    found = np.zeros((classes, *prepared.geobox.shape), np.float32)
    for block in prepared.plan.blocks():
        found[:, *block.window.slices] = predict(prepared.source, block.window, inference).probability
    valid = ~np.isnan(found[0])
    return np.nan_to_num(found), valid


def iou(class_map: NDArray[np.uint8], labels: NDArray[Any]) -> float:
    """Return the IoU of class 1 where labels are known; NaN where there is none of it."""
    known = labels != 255
    mine, theirs = class_map[known] == 1, labels[known] == 1
    either = np.count_nonzero(mine | theirs)
    return np.count_nonzero(mine & theirs) / either if either else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", choices=["buildings", "clouds"])
    parser.add_argument("--only", default="")
    parser.add_argument("--precisions", default="auto")
    parser.add_argument("--tolerance", type=float, default=0.004)
    given = parser.parse_args()
    print(
        f"{'scene':26} {'asked':5} {'is':5} {'agreement':>9} {'IoU fp32':>9} {'IoU':>7} {'mean':>7} {'99.9 %':>7}  note"
    )
    with tempfile.TemporaryDirectory() as name:
        for one in labelled(Path(name)):
            if (given.bundle and one.bundle != given.bundle) or given.only not in one.name:
                continue
            for precision in given.precisions.split(","):
                print(one.name[:26].ljust(26), compare(one, precision, given.tolerance).line(precision), flush=True)


if __name__ == "__main__":
    main()
