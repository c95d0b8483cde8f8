"""What may be opened, and where files that name others may lead: the one place that decides.

Rasters are told by their first bytes, and opened by the drivers of that format alone. Formats that name other files are
opened where they are named by their ending; what they lead to must lie below their own folder, on their own host, or
where the user said: `--allow`, `allowing`. Users name whatever they like; files, and servers, do not.
"""

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec

from models.errors import SceneError

from .names import is_remote, printable, redact_url, remote_url
from .places import (
    HEAD,
    SUBDATASET,
    allowed_places,
    first_bytes_of_url,
    folders_of,
    fsspec_options,
    is_below,
    joined,
    reach,
)
from .virtual import files_of_product, files_of_vrt

LARGEST = 2**28  # bytes of a text that names files
DEPTH = 4  # files that name files that name files
MOST_OBJECTS = 100_000  # in an HDF5 file
SIDECARS = (".ovr", ".OVR", ".msk", ".MSK")  # beside a raster, opened by GDAL as rasters of their own
XML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>|<!--.*?-->|\s)*<(?:\w+:)?(\w+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Format:
    """A format that is read.

    Parameters
    ----------
    name
        In messages.
    drivers
        GDAL's.
    begins
        What its files begin with, one of these; of XML, the first element.
    endings
        Of its files' names; empty: any, for it names no other files.
    """

    name: str
    drivers: tuple[str, ...]
    begins: tuple[bytes, ...]
    endings: tuple[str, ...] = ()


FORMATS = (
    Format("GeoTIFF", ("GTiff",), (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    Format("JP2", ("JP2OpenJPEG", "JP2ECW", "JP2KAK", "JP2MrSID"), (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")),
    Format("PNG", ("PNG",), (b"\x89PNG\r\n\x1a\n",)),
    Format("JPEG", ("JPEG",), (b"\xff\xd8\xff",)),
    Format("WebP", ("WEBP",), (b"RIFF",)),
    Format("GIF", ("GIF",), (b"GIF87a", b"GIF89a")),
    Format("netCDF", ("netCDF",), (b"CDF\x01", b"CDF\x02", b"CDF\x05")),
    Format("HDF5", ("netCDF", "HDF5", "HDF5Image", "BAG"), (b"\x89HDF\r\n\x1a\n",)),
    Format("virtual raster", ("VRT",), (b"VRTDataset",), (".vrt",)),
    Format("DIMAP", ("DIMAP",), (b"Dimap_Document",), (".xml", ".dim")),
    Format("SAFE", ("SAFE",), (b"XFDU",), (".safe",)),
    Format("Imagine", ("HFA",), (b"EHFA_HEADER_TAG",), (".img",)),
)
CLOSED = tuple(dict.fromkeys(driver for one in FORMATS[:4] for driver in one.drivers))  # of servers and archives
READ = "GeoTIFF, JP2, PNG, JPEG, WebP, GIF, netCDF, HDF5, or by their endings .vrt, .xml of DIMAP, .img"

# --- formats ----------------------------------------------------------------------------------------------------------


def drivers_of(path: str) -> list[str]:
    """Return the drivers by which GDAL may open a raster that the user named.

    Raises
    ------
    SceneError
        It is of no format that is read, of one under another ending, or what lies beside it is.
    """
    if found := SUBDATASET.fullmatch(path):
        return ["netCDF"] if found[1] == "NETCDF" else ["HDF5", "HDF5Image", "BAG"]
    if path.startswith("vrt://"):
        return ["VRT"]
    if not os.path.exists(path) or os.path.isdir(path):
        return ["VRT"] if path.partition("?")[0].lower().endswith(".vrt") else list(CLOSED)
    format = format_of(path, _first_bytes(path))
    _check_beside(path)
    return list(format.drivers)


def format_of(path: str, head: bytes) -> Format:
    """Tell a format by first bytes. Raises SceneError where it is not read, or not under this ending."""
    root = found[1] if (found := XML.match(head)) else b""
    for format in FORMATS:
        if root in format.begins if root else head.startswith(format.begins):
            if format.endings and not path.partition("?")[0].lower().endswith(format.endings):
                raise SceneError(
                    f"{printable(redact_url(path))} is of the format {format.name}, which may name other files: it is "
                    f"opened where its name ends in {' or '.join(format.endings)}"
                )
            return format
    raise SceneError(
        f"{printable(redact_url(path))} cannot be read: not recognized as being in a supported file format ({READ})"
    )


def _first_bytes(path: str) -> bytes:
    if not os.path.isfile(path):
        raise SceneError(f"{path} is no file, but a device or pipe")
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise SceneError(f"{path} cannot be read: {error.strerror}") from error


def _check_beside(path: str, depth: int = 2) -> None:
    """Refuse files beside a raster that GDAL would take for its overviews or mask, where they are not what they say."""
    for beside in (path + ending for ending in SIDECARS):
        if not os.path.lexists(beside):
            continue
        if not is_below(beside, *folders_of(path)):
            raise SceneError(f"{beside} is a link to elsewhere: remove it, or put the file there itself")
        if format_of(beside, _first_bytes(beside)) is not FORMATS[0]:
            raise SceneError(f"{beside} is no GeoTIFF, as overviews and masks beside a raster are: remove it")
        _check_tags(beside)
        if depth:
            _check_beside(beside, depth - 1)
    metadata = path + ".aux.xml"
    if os.path.lexists(metadata) and not is_below(metadata, *folders_of(path)):
        raise SceneError(f"{metadata} is a link to elsewhere: remove it, or put the file there itself")


def _check_tags(path: str) -> None:
    from rasterio.io import DatasetReader

    check_opened(path, DatasetReader(path, driver=["GTiff"]))


def check_opened(path: str, dataset: Any) -> None:
    """Refuse a raster that has just been opened whose metadata lead to other files, before GDAL follows them.

    Raises
    ------
    SceneError
        It has such metadata, itself or in its `.aux.xml`; or files beside its own folder.
    """
    if dataset.driver in ("netCDF", "HDF5", "HDF5Image", "BAG"):  # which say so of their own variables
        return
    for domain, names in (("OVERVIEWS", ("OVERVIEW_FILE",)), ("GEOLOCATION", ("X_DATASET", "Y_DATASET"))):
        if found := [name for name in dataset.tags(ns=domain) if name.upper() in names]:
            raise SceneError(
                f"{printable(redact_url(path))}, or the .aux.xml beside it, names another file ({found[0]}), which is "
                "not followed: remove that entry"
            )
    if dataset.driver == "HFA":
        for name in dataset.files:
            reach(name, path)


# --- names that are given inside of files -----------------------------------------------------------------------------


def check(path: str, depth: int = DEPTH) -> None:
    """Check what a raster that the user named leads to, before GDAL opens it.

    Raises
    ------
    SceneError
        It leads elsewhere than below its folder, to its host, or where `allowing` says.
    """
    if found := SUBDATASET.fullmatch(path):
        path = found[2]
    if path.startswith("vrt://"):
        path = path.removeprefix("vrt://").partition("?")[0]
        if not is_remote(path) and os.path.isfile(path):
            format_of(path, _first_bytes(path))
            _check_beside(path)
    if url := remote_url(path):
        first_bytes_of_url(url, allowed_places())
    ending = os.path.splitext(path.partition("?")[0].lower())[1]
    if ending == ".vrt":
        _check_all(path, depth, [(name, relative) for name, relative in files_of_vrt(path, _content(path))])
    elif os.path.isfile(path) and (format := format_of(path, _first_bytes(path))).name in ("DIMAP", "SAFE"):
        _check_all(path, depth, [(name, True) for name in files_of_product(path, _content(path))], format.name)
    elif os.path.isfile(path) and format.name == "HDF5":
        check_hdf5(path)


def _check_all(path: str, depth: int, names: Sequence[tuple[str, bool]], of: str = "") -> None:
    if depth == 0:
        raise SceneError(f"{path} names files that name files that name files, too deep to follow")
    full = list(dict.fromkeys(joined(path, name) if relative else name for name, relative in names))
    for name in full:
        reach(name, path)
    remote = [url for name in full if (url := remote_url(name))]
    with ThreadPoolExecutor(16) as threads:
        heads = dict(
            zip(remote, threads.map(partial(first_bytes_of_url, places=allowed_places()), remote), strict=True)
        )
    for name in full:
        _check_part(name, heads.get(remote_url(name) or "", b""), depth, of)


def _check_part(name: str, head: bytes, depth: int, of: str) -> None:
    """Check a file that another one names: GDAL opens it by any driver."""
    name = found[2] if (found := SUBDATASET.fullmatch(name)) else name
    if os.path.isfile(name):
        head = _first_bytes(name)
        _check_beside(name)
    elif not head and not name.lower().endswith(".vrt"):
        return  # it is not there, or in an archive
    try:
        format_of(name, head)
    except SceneError:
        if not of or b"<VRTDataset" in head:
            raise
        return  # a report, say, which is not opened
    check(name, depth - 1)


def _content(path: str) -> bytes:
    """Return a text that names files, wherever it lies."""
    inside = re.match(r"/vsi(zip|tar)/(.+?\.(?:zip|tar))/(.+)", path, re.I)
    try:
        if inside:
            with fsspec.open(f"{inside[1]}://{inside[3]}::{inside[2]}", "rb") as file:
                content = file.read(LARGEST + 1)
        elif url := remote_url(path):
            with fsspec.open(url, "rb", **fsspec_options(url)) as file:
                content = file.read(LARGEST + 1)
        else:
            with open(path, "rb") as file:
                content = file.read(LARGEST + 1)
    except FileNotFoundError as error:
        raise SceneError(f"no such file: {printable(redact_url(path))}") from error
    except Exception as error:  # of each kind of server and archive
        raise SceneError(f"{printable(redact_url(path))} cannot be read: {printable(str(error))[:200]}") from error
    if len(content) > LARGEST:
        raise SceneError(f"{printable(redact_url(path))} is larger than virtual rasters are")
    return bytes(content)


# --- what formats hold ------------------------------------------------------------------------------------------------


def check_hdf5(path: str) -> None:
    """Refuse an HDF5 file, as NetCDF 4 is, whose links or data lie in other files. Raises SceneError."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            groups, seen = [file["/"]], set[Any]()
            while groups:
                group = groups.pop()
                for name in group:
                    if isinstance(group.get(name, getlink=True), h5py.SoftLink):
                        continue
                    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                        raise SceneError(f"{path} has a link to another file, {printable(name)[:60]}: not opened")
                    one = group[name]
                    if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual):
                        raise SceneError(
                            f"{path} has {printable(name)[:60]}, whose data lie in other files: not opened"
                        )
                    address = h5py.h5o.get_info(one.id).addr
                    if isinstance(one, h5py.Group) and address not in seen:
                        groups.append(one)
                    seen.add(address)
                    if len(seen) > MOST_OBJECTS:
                        raise SceneError(f"{path} holds more than {MOST_OBJECTS:,} variables: not opened")
    except SceneError:
        raise
    except Exception as error:  # whatever h5py makes of a damaged file
        raise SceneError(f"{path} cannot be read: {printable(str(error))[:200]}") from error


def check_zarr(path: str) -> None:
    """Refuse a local Zarr group that is a list of references, or of which links lead elsewhere. Raises SceneError."""
    if is_remote(path):
        return
    if os.path.isfile(path):
        raise SceneError(f"{path} is a file, and no folder of Zarr: references and archives of it are not followed")
    folders = [path] if os.path.isdir(path) else []  # what is not there is said by whoever opens it
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_symlink():
                    reach(entry.path, path)
                elif entry.is_dir():
                    folders.append(entry.path)
