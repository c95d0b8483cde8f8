"""ArcGIS's deep learning packages (`.dlpk`, a zip) and the model definitions (`.emd`, JSON) in them.

The Python functions that a package brings are never run: of it are taken the definition and the weights. Sources:
github.com/Esri/raster-deep-learning, docs/writing_model_definition.md; what arcgis.learn 2.4 writes and reads of a
definition, and how it scales pixels (`NormalizationStats`; else ImageNet's mean and deviation of values by 255).
"""

import atexit
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BundleError
from ..limits import MOST_BANDS, MOST_MEMBERS, MOST_SHRUNK
from ..metadata import MOST_CLASSES
from ..redact import printable
from .found import Found, Kept
from .own_export import settings_of_export
from .parts import (
    KINDS,
    LARGEST_TEXT,
    UNUSABLE,
    bundle_name,
    class_tables,
    description_of,
    file_in,
    metres,
    names_of,
    number,
    numbers,
    parse_table,
    read_table,
    relative,
    whole,
    z_score_of,
)

CLASSIFIES = "ImageClassification"  # of pixels, in ArcGIS's words
LARGEST_WEIGHTS = 2**34  # bytes
LARGEST_SIDE = 65_536
READ = (".onnx", ".pt2", ".pth", ".pt", ".ckpt", ".safetensors", ".bin")
IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])  # of values from 0 to 255
STATISTICS = ("band_min_values", "band_max_values", "scaled_mean_values", "scaled_std_values")


def read_arcgis(path: Path) -> Found | None:
    """Read what a package or a model definition of ArcGIS tells; None: it is none.

    Raises
    ------
    BundleError
        It is hostile, or describes no classes of pixels; or its weights are missing, or of a kind that is not read.
    """
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        return _read_package(path)
    definition = read_table(path)
    if definition is None or not {"ModelType", "ModelFile"} & definition.keys() or "properties" in definition:
        return None
    kind = "a model definition of ArcGIS (.emd)"
    return _checked(kind, path, definition, lambda name: file_in(path.parent, name, str(path)))


def _read_package(path: Path) -> Found | None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            definitions = [member for member in members if member.filename.lower().endswith(".emd")]
            if not definitions:
                return None
            _check(path, members)
            if len(definitions) > 1:
                names = ", ".join(printable(member.filename) for member in definitions[:3])
                raise BundleError(
                    f"{path} holds {len(definitions)} models ({names}): unpack it, and give one of its .emd"
                )
            with archive.open(definitions[0]) as file:
                content = file.read(LARGEST_TEXT + 1)
            folder = definitions[0].filename.rpartition("/")[0]
            definition = parse_table(content, f"{path}: {printable(definitions[0].filename)}")
            whose, kind = f"{path}: {printable(definitions[0].filename)}", "a deep learning package of ArcGIS (.dlpk)"
            return _checked(kind, path, definition, lambda name: _unpack(archive, folder, name, whose))
    except BundleError:
        raise
    except Exception as error:  # a damaged zip raises errors of zipfile, zlib, lzma, struct and several builtin ones
        raise BundleError(f"{path} is a damaged zip: {error}") from error


def _check(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MOST_MEMBERS:
        raise BundleError(f"{path} holds {len(members):,} files; at most {MOST_MEMBERS:,} are read")
    for member in members:
        name = printable(member.filename)[:100]
        if member.file_size > MOST_SHRUNK * max(1, member.compress_size) or member.file_size > LARGEST_WEIGHTS:
            raise BundleError(f"{path}: {name} is packed like a zip bomb, {member.file_size:,} bytes unpacked")
        if member.flag_bits & 1:
            raise BundleError(f"{path}: {name} is encrypted: give the package without a password")


def _unpack(archive: zipfile.ZipFile, folder: str, name: object, whose: str) -> Path:
    """Write a package's weights to a folder that goes when this process ends; only this file, under a name of ours."""
    plain = relative(name, whose)
    member = f"{folder}/{plain}" if folder else plain
    if member not in archive.namelist():
        raise BundleError(f"{whose} names {plain}, which is not in the package")
    place = tempfile.mkdtemp(prefix="swathe-package-")
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    target = Path(place) / f"weights{Path(plain).suffix.lower()}"
    left = LARGEST_WEIGHTS
    with archive.open(member) as packed, open(target, "wb") as file:
        while block := packed.read(min(2**20, left + 1)):
            left -= len(block)
            if left < 0:
                raise BundleError(f"{whose} names {plain}, which has more than {LARGEST_WEIGHTS:,} bytes")
            file.write(block)
    return target


def _checked(kind: str, path: Path, definition: Mapping[str, Any], take: Any) -> Found:
    try:
        return _found(kind, path, definition, take)
    except UNUSABLE as error:
        raise BundleError(f"{path} is {kind} with a value that cannot be used: {error}") from error


def _found(kind: str, path: Path, definition: Mapping[str, Any], take: Any) -> Found:
    said = definition.get("ModelType")
    if said is not None and said != CLASSIFIES:
        raise BundleError(f"{path} is a model of ArcGIS for {printable(str(said))[:60]}; Swathe runs those of "
                          f"{CLASSIFIES}, which give a class to each pixel")  # fmt: skip
    notes: list[str] = []
    kept, weights = _weights(path, definition, take, notes)
    facts: dict[str, Any] = {"name": bundle_name(definition.get("ModelName") or path.stem)}
    facts |= _bands(definition, notes) | _classes(definition, notes)
    if side := _side(definition):
        facts["patch"] = side
    if resolution := _resolution(definition):
        facts["resolution"] = resolution
    if description := description_of(definition.get("Description")):
        facts["description"] = description
    facts["activation"] = "softmax"
    origin = {"framework": definition.get("Framework"), "configuration": definition.get("ModelConfiguration"),
              "version": definition.get("Version"), "arcgis.learn": definition.get("ArcGISLearnVersion")}  # fmt: skip
    facts["provenance"] = {key: printable(value)[:100] for key, value in origin.items() if isinstance(value, str)}
    facts |= settings_of_export(definition.get("Swathe"), path)
    count = definition.get("ExtractBands")
    return Found(kind, kept, weights or path, facts, dict.fromkeys(facts, "the model definition"), tuple(notes),
                 len(count) if isinstance(count, list) else None, len(facts.get("classes", [])) or None)  # fmt: skip


def _weights(path: Path, definition: Mapping[str, Any], take: Any, notes: list[str]) -> tuple[Kept, Path | None]:
    """Return how the network is kept, and its file."""
    graph = definition.get("ONNX")
    name = graph.get("INFER") if isinstance(graph, Mapping) else definition.get("ModelFile")
    if not isinstance(name, str):
        return "item", None
    suffix = Path(name.replace("\\", "/")).suffix.lower()
    if suffix not in READ:
        framework = printable(str(definition.get("Framework")))[:40]
        raise BundleError(f"{path} names {printable(name)[:100]}, of {framework}, as its weights; read are "
                          f"{', '.join(READ)}: convert its network to ONNX, and let ModelFile name that")  # fmt: skip
    kept = KINDS.get(suffix, "state")
    if kept == "state":
        parameters = definition.get("ModelParameters")
        backbone = parameters.get("backbone") if isinstance(parameters, Mapping) else None
        made = f"{printable(str(definition.get('ModelConfiguration')))[:40]}, backbone {printable(str(backbone))[:40]}"
        notes.append(f"its network ({made}) is built by ArcGIS's own code: give its `architecture`, its class by "
                     '--factory, or save it there with framework="onnx"')  # fmt: skip
    return kept, take(name)


def _bands(definition: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return names and scaling of the bands that are taken."""
    places, names = definition.get("ExtractBands") or [], definition.get("Bands") or []
    if (
        not isinstance(places, list)
        or not isinstance(names, list)
        or len(places) > MOST_BANDS
        or len(names) > MOST_BANDS
    ):
        raise ValueError("Bands and ExtractBands are lists of names and of numbers")
    facts: dict[str, Any] = {}
    if places and all(isinstance(place, str) for place in places):
        facts["bands"] = names_of(places)
        places = [names.index(place) for place in places if place in names]
    else:
        places = [_place(place) for place in places]
        if names:
            facts["bands"] = names_of([names[place] for place in places])
        elif places:
            shown = ", ".join(str(place + 1) for place in places[:8])
            notes.append(
                f"it takes bands {shown} of its images, without their names: give them as `bands`, in that order"
            )
    statistics = definition.get("NormalizationStats")
    if isinstance(statistics, Mapping):
        facts["scaling"] = _scaling(statistics, places)
    elif str(definition.get("Framework", "")).startswith("arcgis.learn") and len(places) == 3:
        facts |= {"scaling": z_score_of(*IMAGENET), "dtype": "uint8"}
    elif definition.get("DataRange") is not None:
        low, high = numbers(definition["DataRange"], 2)
        notes.append(
            f"ArcGIS stretches each image to values from {low:g} to {high:g}: give `scaling` for values as they are"
        )
    return facts


def _place(value: object) -> int:
    found = int(number(value))
    if not 0 <= found < MOST_BANDS:
        raise ValueError(f"band {found:,} in ExtractBands")
    return found


def _scaling(statistics: Mapping[str, Any], places: Sequence[int]) -> dict[str, list[float]]:
    """Return as one step what ArcGIS does in two: to 0..1 by the range of values, then by mean and deviation."""
    low, high, mean, deviation = ([numbers(statistics[key])[place] for place in places] for key in STATISTICS)
    ranges = [top - bottom for bottom, top in zip(low, high, strict=True)]
    means = [bottom + middle * span for bottom, middle, span in zip(low, mean, ranges, strict=True)]
    return z_score_of(means, [width * span for width, span in zip(deviation, ranges, strict=True)])


def _classes(definition: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return classes in the order of channels; where value 0 is not listed, channel 0 is ArcGIS's background."""
    entries = definition.get("Classes") or []
    if not isinstance(entries, list) or len(entries) >= MOST_CLASSES:
        raise ValueError(f"at most {MOST_CLASSES - 1} Classes")
    ordered = sorted(((int(number(entry.get("Value", entry.get("ClassValue")))), entry) for entry in entries),
                     key=lambda pair: pair[0])  # fmt: skip
    names = [entry.get("Name", entry.get("ClassName")) for _, entry in ordered]
    colors, values = [_color(entry.get("Color")) for _, entry in ordered], [value for value, _ in ordered]
    if not names:
        return {}
    if 0 not in values:
        names, colors, values = ["background", *names], [None, *colors], [0, *values]
    if values != list(range(len(values))):
        notes.append(
            f"its classes have the values {', '.join(map(str, values[:8]))}; here they count up from 0, in that order"
        )
    background = {"background": "background"} if names[0] == "background" else {}
    return {"classes": class_tables(names, colors), **background}


def _color(value: object) -> str | None:
    is_rgb = (
        isinstance(value, list)
        and len(value) >= 3
        and all(type(part) is int and 0 <= part <= 255 for part in value[:3])
    )
    return "".join(f"{part:02X}" for part in value[:3]) if is_rgb and isinstance(value, list) else None


def _side(definition: Mapping[str, Any]) -> int | None:
    sides = {whole(definition[key], LARGEST_SIDE) for key in ("ImageHeight", "ImageWidth") if definition.get(key)}
    return sides.pop() if len(sides) == 1 else None


def _resolution(definition: Mapping[str, Any]) -> list[float] | None:
    """Return metres per pixel, where cells are given in metres."""
    found = []
    for key in ("MinCellSize", "MaxCellSize"):
        cell = definition.get(key)
        if isinstance(cell, Mapping) and isinstance(cell.get("spatialReference"), Mapping):
            reference = cell["spatialReference"]
            found.append(metres(number(cell.get("x")), reference.get("latestWkid", reference.get("wkid"))))
    return sorted(size for size in found if size) if len(found) == 2 and all(found) else None
