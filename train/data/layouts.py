"""Layouts of datasets on disk: where the images and labels of a set lie, by name. Opens no raster.

Layouts of published sets: 38-Cloud and 95-Cloud (Mohajerani and Saeedi, arXiv:1901.10077 and 2001.08768), Massachusetts
Buildings and Roads (Mnih, Machine Learning for Aerial Image Labeling, Toronto 2013), as their authors and Kaggle give
them.
"""

import csv
import glob
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import TrainingError
from pipeline.io.stac_items import split_id

from ..config import DataSet
from .vector_labels import ENDINGS

IMAGES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".jp2")
IMAGE_FOLDERS, LABEL_FOLDERS = ("images", "image", "img"), ("masks", "labels", "mask", "label", "gt")
CLOUD_BANDS = ("red", "green", "blue", "nir")
PUBLISHED = (
    ("train", "train", "train_labels"),
    ("validate", "val", "val_labels"),
    ("test", "test", "test_labels"),
    ("train", "train/sat", "train/map"),
    ("validate", "valid/sat", "valid/map"),
    ("test", "test/sat", "test/map"),
    ("", "images", "masks"),
)  # of Massachusetts: part, and folders of images and labels
SCENE_FOLDERS = ("/", ".safe", ".zarr")  # as patterns of folders that are one scene each end
LISTED = 5  # files or names in a message


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of one sample.

    Parameters
    ----------
    name
        No other of the set has it.
    images
        One file, or one per band.
    label
        A raster or vector file.
    part
        `train`, `validate` or `test` if the set is published in parts, else nothing.
    lacks
        What is not there, for a message; nothing if all is.
    """

    name: str
    images: tuple[str, ...]
    label: str
    part: str = ""
    lacks: str = ""


def find_pairs(data: DataSet, root: Path) -> list[Pair]:
    """Find the files of a set, in the order of their names.

    Parameters
    ----------
    data
        Its layout and patterns.
    root
        The folder, as it is.

    Raises
    ------
    TrainingError
        No such folder; nothing in it is as the layout has it; two files for one.
    """
    if not root.is_dir():
        raise TrainingError(f"no such folder: {root} (root of a [[data]] set)")
    ways = {"scenes": _scenes, "38-cloud": _clouds, "massachusetts": _massachusetts, "folders": _folders}
    pairs = ways[data.layout](data, root)
    twice = sorted(name for name, count in Counter(pair.name for pair in pairs).items() if count > 1)
    if twice:
        raise TrainingError(f"{root} has two samples of one name: {', '.join(twice[:LISTED])}; give two sets")
    return sorted(pairs, key=lambda pair: pair.name)


def _scenes(data: DataSet, root: Path) -> list[Pair]:
    patterns = (data.image,) if isinstance(data.image, str) else data.image
    if not patterns:
        raise TrainingError("image names no file; give a pattern, as '{name}_image.tif'")
    images = [_matches(root, pattern) for pattern in patterns]
    fixed = "{name}" not in data.label
    labels = {} if fixed else _matches(root, data.label)
    _drop_each_other(images[0], labels)
    names = sorted({*images[0], *labels})
    if not names:
        raise TrainingError(f"nothing in {root} matches {patterns[0]!r}; there are {_some_of(root)}")
    pairs = []
    for name in names:
        label = str(root / data.label) if fixed else labels.get(name, "")
        absent = [pattern for pattern, found in zip(patterns, images, strict=True) if name not in found]
        lacks = f"no image: {root / absent[0].replace('{name}', name)}" if absent else ""
        if not lacks and not (label and Path(label).is_file()):
            lacks = f"no label: {root / data.label.replace('{name}', name)}"
        pairs.append(Pair(name, tuple(found[name] for found in images if name in found), label, lacks=lacks))
    return pairs


def _matches(root: Path, pattern: str) -> dict[str, str]:
    """Return the files, or folders of one scene, that a pattern matches by name: `{name}` and `*` are all but `/`.

    Behind `.json#` stands the id of an Item of a saved search, as it is.
    """
    pattern, item = split_id(pattern)
    parts = re.split(r"(\{name\}|\*)", pattern)
    globbed = "".join("*" if part in ("{name}", "*") else glob.escape(part) for part in parts)
    regex = ""
    for part in parts:
        group = "(?P=name)" if "?P<name>" in regex else "(?P<name>[^/]+)"
        regex += group if part == "{name}" else "[^/]*" if part == "*" else re.escape(part)
    found: dict[str, str] = {}
    for path in sorted(glob.glob(globbed, root_dir=root)):
        match = re.fullmatch(regex, path)
        if match and ((root / path).is_file() or path.lower().endswith(SCENE_FOLDERS)):
            name = match.groupdict().get("name") or item or Path(path).stem
            if name in found:
                raise TrainingError(f"{name}: {pattern!r} matches both {Path(found[name]).name} and {Path(path).name}")
            found[name] = str(root / path) + (f"#{item}" if item else "")
    return found


def _drop_each_other(images: dict[str, str], labels: dict[str, str]) -> None:
    """Drop labels that were taken for images and images for labels: `{name}.tif` matches `a_label.tif` too."""
    whole = {path for name in images.keys() & labels.keys() for path in (images[name], labels[name])}
    for mine, other in ((images, labels), (labels, images)):
        for name in [name for name, path in mine.items() if name not in other and path in whole]:
            del mine[name]


def _clouds(data: DataSet, root: Path) -> list[Pair]:
    folders = [folder for folder in (root, *sorted(root.iterdir())) if folder.is_dir() and _cloud_folder(folder, "gt")]
    if not folders:
        raise TrainingError(f"{root} has no folders train_red, ..., train_gt, nor one with these; is it 38-Cloud's?")
    return [pair for folder in folders for pair in _cloud_patches(folder, root)]


def _cloud_folder(folder: Path, what: str) -> Path | None:
    """Return the folder of a band or of the ground truth; 95-Cloud's own have longer names."""
    wanted = (folder / f"train_{what}", folder / f"train_{what}_additional_to38cloud")
    return next((path for path in wanted if path.is_dir()), None)


def _cloud_patches(folder: Path, root: Path) -> list[Pair]:
    there = {what: _cloud_folder(folder, what) for what in (*CLOUD_BANDS, "gt")}
    files = {what: _named(path, f"{what}_") for what, path in there.items() if path is not None}
    bands = [band for band in CLOUD_BANDS if band in files]
    if not bands:
        raise TrainingError(
            f"{folder} has labels, but none of the folders train_red, train_green, train_blue, train_nir"
        )
    names = {name for of_one in files.values() for name in of_one}
    pairs = []
    for name in sorted(_nonempty(names, folder, root)):
        absent = [what for what in (*bands, "gt") if name not in files[what]]
        lacks = f"no {'label' if absent[0] == 'gt' else 'image'}: {absent[0]}_{name} in {folder}" if absent else ""
        images = tuple(files[band].get(name, "") for band in bands)
        pairs.append(Pair(name, images, files["gt"].get(name, ""), lacks=lacks))
    return pairs


def _named(folder: Path, prefix: str) -> dict[str, str]:
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGES)
    return {path.stem.removeprefix(prefix): str(path) for path in files if path.name.startswith(prefix)}


def _nonempty(names: set[str], folder: Path, root: Path) -> set[str]:
    """Keep the patches that the set's csv names, that without empty patches first; all where there is none."""
    found = [path for place in dict.fromkeys((folder, root)) for path in sorted(place.glob("training_patches*.csv"))]
    found += [path for path in sorted(root.glob("*/training_patches*.csv")) if path not in found]
    for path in sorted(found, key=lambda path: "nonempty" not in path.name.lower()):
        kept = names & _csv_names(path)
        if kept:
            return kept
    return names


def _csv_names(path: Path) -> set[str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {row[0].strip() for row in csv.reader(file) if row}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path} cannot be read as a list of patches: {error}") from error


def _massachusetts(data: DataSet, root: Path) -> list[Pair]:
    for base in (root / "tiff", root / "png", root):
        there = [(part, base / image, base / label) for part, image, label in PUBLISHED if (base / image).is_dir()]
        there = [(part, image, label) for part, image, label in there if label.is_dir()]
        if there:
            return [pair for part, image, label in there for pair in _by_stem(image, label, part=part)]
    raise TrainingError(
        f"{root} has no folders train and train_labels (nor in tiff or png), train/sat and train/map, nor images and "
        f"masks; there are {_some_of(root)}"
    )


def _folders(data: DataSet, root: Path) -> list[Pair]:
    unset = DataSet(root="")
    image = _known_folder(root, IMAGE_FOLDERS) if data.image == unset.image else data.image
    label = _known_folder(root, LABEL_FOLDERS) if data.label == unset.label else data.label
    if not isinstance(image, str):
        raise TrainingError("image names several folders; with layout = 'folders' it is one, or a pattern with *")
    places = list(_folder_pairs(root, image, label))
    if not places:
        raise TrainingError(f"{root} has no folder {image!r}; there are {_some_of(root)}")
    return [pair for prefix, images, labels in places for pair in _by_stem(images, labels, prefix)]


def _known_folder(root: Path, names: Sequence[str]) -> str:
    return next((name for name in names if (root / name).is_dir()), names[0])


def _folder_pairs(root: Path, image: str, label: str) -> Iterator[tuple[str, Path, Path]]:
    """Yield what `*` stands for, the folder of images, and that of labels, where `*` stands for the same."""
    regex = re.escape(image.rstrip("/")).replace(r"\*", "([^/]*)")
    for path in sorted(glob.glob(glob.escape(image.rstrip("/")).replace("[*]", "*"), root_dir=root)):
        match = re.fullmatch(regex, path)
        if match is None or not (root / path).is_dir():
            continue
        stars = iter(match.groups())
        labels = root / re.sub(r"\*", lambda star: next(stars, star.group()), label)  # noqa: B023 -- used at once
        if not labels.is_dir():
            raise TrainingError(f"{root / path} has images, but there is no folder of labels {labels}")
        yield "/".join(match.groups()), root / path, labels


def _by_stem(images: Path, labels: Path, prefix: str = "", *, part: str = "") -> list[Pair]:
    """Match files of two folders by their names without endings."""
    found, drawn = _stems(images, IMAGES), _stems(labels, (*IMAGES, *ENDINGS))
    pairs = []
    for stem in sorted({*found, *drawn}):
        lacks = "" if stem in found else f"no image: {images / stem}.*"
        lacks = lacks or ("" if stem in drawn else f"no label: {labels / stem}.*")
        name = f"{prefix}/{stem}" if prefix else stem
        pairs.append(Pair(name, (found.get(stem, ""),), drawn.get(stem, ""), part, lacks))
    return pairs


def _stems(folder: Path, endings: Sequence[str]) -> dict[str, str]:
    stems: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in endings and path.is_file():
            if path.stem in stems:
                raise TrainingError(
                    f"{folder} has both {Path(stems[path.stem]).name} and {path.name}; keep one of them"
                )
            stems[path.stem] = str(path)
    return stems


def _some_of(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir())
    return ", ".join(names[:LISTED]) + (", ..." if len(names) > LISTED else "") if names else "no files"
