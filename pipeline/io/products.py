"""Sentinel-2 and Landsat as ESA and the USGS deliver them: which files are bands, and what their numbers mean.

Sentinel-2 L1C and L2A: the SAFE folder, its zip, its metadata file, or the band files alone. Landsat Collections 1 and
2, levels 1 and 2: a folder or tar of `..._B4.TIF` or `..._SR_B4.TIF`, or its MTL in any of its three forms. Formats:
Sentinel-2 Products Specification Document (ESA, S2-PDGS-TAS-DI-PSD); Landsat 8-9 Collection 2 Data Format Control Books
(USGS, LSDS-1822 and LSDS-1328).
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path, PurePosixPath

from models.errors import SceneError, SeveralScenesError
from models.limits import parse_json
from models.metadata import Radiometry

from .band_names import SENSORS
from .gdal import is_remote, natural_order, printable
from .listing import Listing, is_archive, list_files
from .raster import RasterSource
from .raster_files import join, open_rasters
from .source import find_bands
from .virtual import parse_xml

IMAGE = r"\.(?:jp2|tiff?)"
SENTINEL_FILE = re.compile(
    rf"(?P<scene>(?:.*_)?T\d\d[A-Z]{{3}}(?:_\d{{8}}T\d{{6}})?)_(?P<band>B\d[\dA]|SCL|AOT|WVP)(?:_(?P<metres>\d\d)m)?{IMAGE}",
    re.I,
)
SENTINEL_BARE = re.compile(r"(?P<band>B\d[\dA]|SCL|AOT|WVP)(?:_(?P<metres>\d\d)m)?\.jp2", re.I)  # as on AWS
SENTINEL_FOLDER = re.compile(r"R(?P<metres>\d\d)m", re.I)
SENTINEL_MASK = re.compile(rf"(?P<band>MSK_\w+?)(?:_(?P<metres>\d\d)m)?{IMAGE}", re.I)
SENTINEL_PICTURE = re.compile(rf"(?:.*_)?T\d\d[A-Z]{{3}}_.*(?:TCI|PVI)(?:_\d\dm)?{IMAGE}", re.I)
SENTINEL_METADATA = re.compile(r"(?:.*_)?MTD_(?:MSI|SAF)L(?:1C|2A)(?:_.*)?\.xml", re.I)
SENTINEL_ORDER = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")  # by `band_id`
LANDSAT_FILE = re.compile(
    r"(?P<scene>L(?P<sensor>[COTEM])(?:0(?P<mission>\d)_L[12]\w\w_\d{6}_\d{8}_\d{8}_\d\d_\w\d|(?P<old>\d)\d{13}\w{3}\d\d))"
    r"_(?P<band>\w+)\.tiff?",
    re.I,
)
LANDSAT_METADATA = re.compile(r"L[COTEM]\w+_MTL\.(?:txt|json|xml)", re.I)
LANDSAT_MEASURED = re.compile(r"(?:SR_|ST_)?B\d+(?:_VCID_\d)?")
MSS_1_TO_3 = {"4": "green", "5": "red", "6": "nir08", "7": "nir"}
MSS_4_AND_5 = {"1": "green", "2": "red", "3": "nir08", "4": "nir"}
WRONG = 1e9  # a scale, offset or quantification above this, or a scale that is 0, is a mistake


@dataclass(frozen=True, slots=True)
class BandFile:
    """A band of a product: its file, its names (its own first), what its numbers mean, if that is known.

    Parameters
    ----------
    missing
        The value of samples that were not observed; None: what the file says.
    measured
        Whether it holds what the sensor measured: the others, as classes and quality flags, are taken by name only.
    """

    path: str
    names: tuple[str, ...]
    radiometry: Radiometry | None = None
    missing: float | None = None
    measured: bool = True


@dataclass(frozen=True, slots=True)
class Product:
    """What a product holds."""

    path: str
    files: tuple[BandFile, ...]
    notes: tuple[str, ...] = ()

    def open(self, bands: Sequence[str] | None = None) -> RasterSource:
        """Open bands by name, or all that were measured.

        Raises
        ------
        SceneError
            No such band; files that cannot be read.
        """
        if bands is None:
            taken = [file for file in self.files if file.measured]
        else:
            places = find_bands([file.names for file in self.files], bands)
            taken = [
                replace(self.files[place], names=tuple(dict.fromkeys((name, *self.files[place].names))))
                for place, name in zip(places, bands, strict=True)
            ]
        joined = join([_open_band(file) for file in taken])
        return replace(joined, file_notes=(*joined.file_notes, *self.notes))


def _open_band(file: BandFile) -> RasterSource:
    source = open_rasters([file.path])
    if len(source.raster_bands) != 1:
        raise SceneError(f"{file.path} holds {len(source.raster_bands)} bands, not one; give it by itself")
    band = replace(source.raster_bands[0], names=file.names, codes=not file.measured)
    if file.radiometry is not None:
        meaning = file.radiometry
        band = replace(band, scale=meaning.scale, offset=meaning.offset, unit=meaning.unit)
    if band.nodata is None:
        band = replace(band, nodata=file.missing)
    return replace(source, raster_bands=(band,))


def is_metadata(path: str) -> bool:
    """Whether a path is, by its name, a product's metadata file."""
    return any(kind.fullmatch(PurePosixPath(path).name) for kind in (SENTINEL_METADATA, LANDSAT_METADATA))


def listing_of(path: str) -> Listing | None:
    """List the folder or archive that a path is, or that its product's metadata file lies in; None for other files.

    Raises
    ------
    SceneError
        It is not there, or cannot be listed.
    """
    name = PurePosixPath(path).name
    if is_metadata(path):
        if not is_remote(path) and not os.path.isfile(path):
            raise SceneError(f"no such file: {printable(path)}")
        listing = list_files(path.rpartition("/")[0] or ".")
        scene = name.rpartition("_MTL.")[0]  # beside a Landsat's MTL may lie other scenes
        return replace(listing, names=tuple(n for n in listing.names if PurePosixPath(n).name.startswith(scene)))
    if is_archive(path) and is_remote(path):
        raise SceneError(f"{printable(path)} is an archive on a server: download it and give that")
    if is_folder(path) or (is_archive(path) and os.path.isfile(path)):
        return list_files(path)
    return None


def product_of_files(paths: Sequence[str]) -> Product | None:
    """Return the product whose band files are given, in their order; None where they are no product's, or several's."""
    if len(paths) < 2 or any(is_remote(path) or not os.path.isfile(path) for path in paths):
        return None
    full = [os.path.abspath(path) for path in paths if not SENTINEL_PICTURE.fullmatch(os.path.basename(path))]
    if not full:
        return None
    folder = os.path.commonpath([os.path.dirname(path) for path in full])
    names = tuple(os.path.relpath(path, folder).replace(os.sep, "/") for path in full)
    for pattern in (SENTINEL_FILE, LANDSAT_FILE):
        matches = [(name, pattern.fullmatch(PurePosixPath(name).name)) for name in names]
        if len({match and _scene_of(name, match) for name, match in matches}) == 1 and matches[0][1]:
            beside = tuple(name for name in os.listdir(folder) if is_metadata(name))
            product = product_of(Listing(folder, (*names, *beside), folder))
            if product is None or len(product.files) != len(names):
                return None  # as one band in two resolutions
            files = sorted(product.files, key=lambda file: full.index(os.path.abspath(file.path)))
            pictures = ("the pictures among the files, as TCI, are left out",) if len(full) < len(paths) else ()
            return replace(product, files=tuple(files), notes=(*product.notes, *pictures))
    return None


def is_folder(path: str) -> bool:
    """Whether a path is a folder's: one that is there, or a remote one that ends in `/` or `.SAFE`."""
    if is_remote(path):
        return path.endswith("/") or path.upper().endswith(".SAFE")
    return os.path.isdir(path)


def product_of(listing: Listing) -> Product | None:
    """Return the product that a folder or archive holds, None if there is none. Raises SceneError as `find_product`."""
    for pattern, reader in ((SENTINEL_FILE, _sentinel), (LANDSAT_FILE, _landsat), (SENTINEL_BARE, _sentinel)):
        found = [(name, match) for name in listing.names if (match := pattern.fullmatch(PurePosixPath(name).name))]
        if found:
            scenes = sorted({_scene_of(name, match) for name, match in found})
            if len(scenes) > 1:
                shown = ", ".join(scenes[:4]) + (", ..." if len(scenes) > 4 else "")
                raise SeveralScenesError(
                    f"{listing.path} holds {len(scenes)} scenes: {shown}; give the folder or files of one"
                )
            if (product := reader(listing, found)) is not None:
                return product
    for name in listing.names:
        if SENTINEL_METADATA.fullmatch(PurePosixPath(name).name):
            raise SceneError(
                f"{listing.path} is a Sentinel-2 product without its images (GRANULE/*/IMG_DATA/*.jp2): get it whole"
            )
        if LANDSAT_METADATA.fullmatch(PurePosixPath(name).name):
            raise SceneError(f"{listing.path} is a Landsat product without its images (*_B4.TIF): get it whole")
    return None


def _scene_of(name: str, match: re.Match[str]) -> str:
    """Return what tells a file's scene from others: its SAFE folder, if it lies in one, and its name but the band.

    Of a name that says no more than the band, the folder.
    """
    folders = PurePosixPath(name).parts[:-1]
    if not (scene := match.groupdict().get("scene")):
        return "/".join(part for part in folders if not SENTINEL_FOLDER.fullmatch(part))
    return "/".join([*(part for part in folders if part.upper().endswith(".SAFE")), scene.upper()])


# --- Sentinel-2 -------------------------------------------------------------------------------------------------------


def _sentinel(listing: Listing, found: Sequence[tuple[str, re.Match[str]]]) -> Product | None:
    """Take the finest file of each band; None where nothing was measured, as of masks alone."""
    masks = [(n, m) for n in listing.names if (m := SENTINEL_MASK.fullmatch(PurePosixPath(n).name)) and "QI_DATA" in n]
    finest: dict[str, tuple[int, str]] = {}
    for name, match in (*found, *masks):
        folder = SENTINEL_FOLDER.fullmatch(PurePosixPath(name).parent.name)
        band, metres = match["band"].upper(), int(match["metres"] or (folder and folder["metres"]) or 0)
        if band not in finest or metres < finest[band][0]:
            finest[band] = (metres, listing.place(name))
    common = {_two_digits(code): names.split() for code, names in SENSORS["Sentinel-2"].items()}
    if not (measured := [band for band in common if band in finest]):
        return None
    metadata = _sentinel_metadata(listing)
    meanings = {} if metadata is None else _sentinel_meanings(*metadata)
    files = [BandFile(finest[band][1], (band, *common[band]), meanings.get(band), missing=0.0) for band in measured]
    for band in sorted(finest.keys() - set(measured), key=natural_order):
        missing = None if band.startswith("MSK_") else 0.0
        files.append(BandFile(finest[band][1], (band,), meanings.get(band), missing, measured=False))
    unknown = "no MTD_MSIL1C.xml or MTD_MSIL2A.xml lies with the bands: scale and offset of their numbers are unknown"
    return Product(listing.path, tuple(files), () if meanings else (unknown,))


def _two_digits(code: str) -> str:
    """Write a band's code as names of files do: 8A as B8A, 2 as B02."""
    return f"B{int(code):02}" if code.isdecimal() else f"B{code}"


def _sentinel_metadata(listing: Listing) -> tuple[str, bytes] | None:
    """Return path and content of a product's metadata: in the listing, or on top of the product around it."""
    for name in listing.names:
        if SENTINEL_METADATA.fullmatch(PurePosixPath(name).name):
            return listing.place(name), listing.read(name)
    around = [Path(listing.path), *Path(listing.path).parents]
    tops = [folder for folder in around if folder.suffix.upper() == ".SAFE" or folder / "GRANULE" in around]
    for top in tops[:1]:
        for name in sorted(os.listdir(top)) if top.is_dir() else ():
            if SENTINEL_METADATA.fullmatch(name):
                return str(top / name), Listing(str(top), (name,), str(top)).read(name)
    return None


def _sentinel_meanings(path: str, content: bytes) -> dict[str, Radiometry]:
    """Read what the numbers of each band mean: reflectance is (number + offset) / quantification."""
    root = parse_xml(path, content)
    texts: dict[str, list[tuple[Mapping[str, str], str]]] = {}
    for element in root.iter():
        texts.setdefault(_local(element.tag), []).append((element.attrib, (element.text or "").strip()))
    quantification = next(
        (
            texts[tag][0][1]
            for tag in ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE", "QUANTIFICATION_VALUE")
            if tag in texts
        ),
        None,
    )
    if quantification is None:
        raise SceneError(f"{path} has no QUANTIFICATION_VALUE: it is damaged, or no metadata of Sentinel-2 L1C or L2A")
    names = {a.get("bandId", ""): a.get("physicalBand", "") for a, _ in texts.get("Spectral_Information", [])}
    names = names or {str(number): name for number, name in enumerate(SENTINEL_ORDER)}
    scale = 1 / _number(path, "QUANTIFICATION_VALUE", quantification, zero=False)
    offsets = {
        names.get(attributes.get("band_id", "")): _number(path, tag, text)
        for tag in ("BOA_ADD_OFFSET", "RADIO_ADD_OFFSET")
        for attributes, text in texts.get(tag, [])
    }
    meanings = {
        _two_digits(name[1:]): Radiometry(scale, offsets.get(name, 0.0) * scale, "reflectance")
        for name in SENTINEL_ORDER
    }
    for band, tag in (("AOT", "AOT_QUANTIFICATION_VALUE"), ("WVP", "WVP_QUANTIFICATION_VALUE")):
        if tag in texts:
            meanings[band] = Radiometry(1 / _number(path, tag, texts[tag][0][1], zero=False))
    return meanings


# --- Landsat ----------------------------------------------------------------------------------------------------------


def _landsat(listing: Listing, found: Sequence[tuple[str, re.Match[str]]]) -> Product | None:
    """Take each band; None where nothing was measured, as of quality flags alone."""
    first = found[0][1]
    common = _landsat_names(first["sensor"].upper(), int(first["mission"] or first["old"]))
    metadata, notes = _landsat_metadata(listing, first["scene"]), []
    if metadata is None:
        notes.append("no *_MTL.txt, .json or .xml lies with the bands: scale and offset of their numbers are unknown")
    path, groups = metadata or ("", {})
    files = []
    for name, match in found:
        band = match["band"].upper()
        if not LANDSAT_MEASURED.fullmatch(band):
            files.append(BandFile(listing.place(name), (band,), measured=False))
            continue
        short = band.removeprefix("SR_").removeprefix("ST_")
        meaning = _landsat_meaning(path, groups, band)
        names = tuple(dict.fromkeys((band, short, *common.get(short[1:].partition("_VCID_")[0], "").split())))
        files.append(BandFile(listing.place(name), names, meaning, missing=0.0))
    if not any(file.measured for file in files):
        return None
    unknown = [file.names[0] for file in files if file.measured and file.radiometry is None]
    if metadata and unknown:
        notes.append(f"{path} tells no scale of {', '.join(unknown)}")
    return Product(listing.path, tuple(files), tuple(notes))


def _landsat_names(sensor: str, mission: int) -> Mapping[str, str]:
    """Return the common names by number: of sensor C (OLI and TIRS), O (OLI), T (TM, or TIRS), E (ETM+), M (MSS)."""
    if sensor == "M":
        return MSS_1_TO_3 if mission <= 3 else MSS_4_AND_5
    return SENSORS["Landsat 8 or 9" if mission >= 8 else "Landsat 4 to 7"]


def _landsat_metadata(listing: Listing, scene: str) -> tuple[str, dict[str, dict[str, str]]] | None:
    """Return path and groups of a scene's MTL."""
    readers = {"json": _json_groups, "xml": _xml_groups, "txt": _text_groups}
    for name in listing.names:
        own = PurePosixPath(name).name
        if LANDSAT_METADATA.fullmatch(own) and own.upper().startswith(scene.upper()):
            path = listing.place(name)
            groups = readers[own.rpartition(".")[2].lower()](path, listing.read(name))
            if not any("RESCALING" in group or "PARAMETERS" in group for group in groups):
                raise SceneError(f"{path} has none of the groups of an MTL: it is damaged")
            return path, groups
    return None


def _text_groups(path: str, content: bytes) -> dict[str, dict[str, str]]:
    """Read `GROUP = NAME`, `KEY = VALUE`, `END_GROUP = NAME`: groups by their own names, whatever holds them."""
    groups: dict[str, dict[str, str]] = {}
    opened: list[str] = []
    for line in content.decode("utf-8", "replace").splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key == "GROUP":
            opened.append(value)
        elif key == "END_GROUP" and opened:
            opened.pop()
        elif value and opened:
            groups.setdefault(opened[-1], {})[key] = value.strip('"')
    return groups


def _json_groups(path: str, content: bytes) -> dict[str, dict[str, str]]:
    try:
        whole = next(iter(parse_json(content).values()))
        return {group: {k: str(v) for k, v in values.items()} for group, values in whole.items()}
    except (ValueError, RecursionError, AttributeError, TypeError, StopIteration) as error:
        raise SceneError(f"{path} is no MTL in JSON: {printable(str(error))[:100]}") from error


def _xml_groups(path: str, content: bytes) -> dict[str, dict[str, str]]:
    root = parse_xml(path, content)
    return {_local(group.tag): {_local(e.tag): (e.text or "").strip() for e in group} for group in root}


def _landsat_meaning(path: str, groups: Mapping[str, Mapping[str, str]], band: str) -> Radiometry | None:
    """Return what a band's numbers mean: surface reflectance or temperature, else reflectance or radiance at sensor."""
    number = band.removeprefix("SR_").removeprefix("B")
    if band.startswith("SR_"):
        ways = [("SURFACE_REFLECTANCE_PARAMETERS", "REFLECTANCE", number, "reflectance")]
    elif band.startswith("ST_"):
        ways = [("SURFACE_TEMPERATURE_PARAMETERS", "TEMPERATURE", band, "K")]
    else:
        ways = [("RADIOMETRIC_RESCALING", kind.upper(), number, kind) for kind in ("reflectance", "radiance")]
    for group, kind, suffix, unit in ways:
        for values in (values for name, values in groups.items() if name.endswith(group)):
            scale, offset = (values.get(f"{kind}_{what}_BAND_{suffix}") for what in ("MULT", "ADD"))
            if scale is not None and offset is not None:
                return Radiometry(
                    _number(path, f"{kind}_MULT_BAND_{suffix}", scale, zero=False),
                    _number(path, f"{kind}_ADD_BAND_{suffix}", offset),
                    unit,
                )
    return None


# --- metadata files ---------------------------------------------------------------------------------------------------


def _local(tag: str) -> str:
    return tag.rpartition(":")[2]


def _number(path: str, name: str, text: str, *, zero: bool = True) -> float:
    """Read a number. Raises SceneError if it is none, or none that can be meant."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not isfinite(value) or abs(value) > WRONG or (value == 0 and not zero):
        raise SceneError(f"{path} says {name} = {printable(text)[:40] or 'nothing'}: it is damaged")
    return value
