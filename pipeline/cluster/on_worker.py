"""What a worker looks at before a run gives it tasks: libraries, disks, the scene, the bundle. Runs on the worker."""

import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module

from models.bundle import bundle_at, keep_bundle
from models.errors import BundleError, SwatheError
from models.redact import redact_logs, redact_url
from models.system import cache_folder

from ..io.content_id import member_identity, remote_url, url_identity
from ..store.files import Files

TOKEN, BUNDLE = "token", "bundle.zip"  # in the folder beside the output
PIECES, PIECE = 3, 4096  # of a file of the scene: so many pieces of so many bytes are compared
ZARR = ("zarr.json", ".zattrs", ".zgroup")  # what tells one Zarr group from another
LEAST_FREE = 64 * 2**20  # bytes on the disks that Dask and the engines write to
LACKS_BUNDLE = "the bundle is not there"
redact_logs()  # of this worker, which tells its own log of tasks that fail
TRIES, PAUSE = 3, 0.5  # a network disk may show a new file a moment later; seconds


@dataclass(frozen=True)
class Requirements:
    """What a run asks of every worker, beside the versions of Swathe, Python and Dask.

    Parameters
    ----------
    reads
        Paths of what tasks read; some of them are looked at.
    bundle
        Path and digest of the network; None: no task has one.
    probe
        Called on each worker, to see whether it can do its part; it says why not, or its SwatheError does.
    memory
        Bytes that a worker takes at least.
    """

    reads: tuple[str, ...] = ()
    bundle: tuple[str, str] | None = None
    probe: Callable[[], object] | None = None
    memory: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a worker must have, as the run's own process found it."""

    gdal: str = ""
    folder: str = ""  # beside the output; "": there is no output
    token: bytes = b""
    files: tuple[tuple[str, str], ...] = ()  # of the scene, with what tells each apart
    bundle: tuple[str, str] | None = None
    probe: Callable[[], object] | None = None
    memory: int = 0


def look(wanted: Wanted, scratch: str, memory: int) -> str:
    """Say why this worker, with its folder and its limit of memory, 0 for none, is unfit; "" if it is not."""
    try:
        return (
            _other_gdal(wanted)
            or _too_small(wanted, memory)
            or _full_disk(scratch)
            or _other_output(wanted)
            or _other_files(wanted)
            or _fails(wanted)
            or _no_bundle(wanted)  # last, since that alone can be mended
        )
    except SwatheError as error:
        return str(error)


def gdal_version() -> str:
    """Return major and minor version of the GDAL that reads here."""
    return ".".join(import_module("rasterio").__gdal_version__.split(".")[:2])


def file_facts(path: str) -> str:
    """Return what tells a file from another one, from a few bytes of it and never its time; "": nothing is known."""
    if remote_url(path) is not None:
        return "reached" if len(url_identity(path)) > 1 else ""  # servers need not say the same of it each time
    try:
        if os.path.isdir(path):
            inside = (file_facts(os.path.join(path, name)) for name in ZARR)
            return " ".join(["folder", *inside])
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            pieces = sha256()
            for number in range(PIECES):
                file.seek(max(0, size - PIECE) * number // (PIECES - 1))
                pieces.update(file.read(PIECE))
            return f"{size} {pieces.hexdigest()}"
    except OSError:
        return repr(found) if (found := member_identity(path)) else ""


def _other_gdal(wanted: Wanted) -> str:
    return f"GDAL {here} there, {wanted.gdal} here" if (here := gdal_version()) != wanted.gdal else ""


def _too_small(wanted: Wanted, has: int) -> str:
    least = wanted.memory
    return f"{has / 1e9:.1f} GB of memory there, and this takes {least / 1e9:.1f} GB" if 0 < has < least else ""


def _full_disk(scratch: str) -> str:
    for folder in (scratch, tempfile.gettempdir(), str(cache_folder("bundles"))):
        if (free := shutil.disk_usage(folder).free) < LEAST_FREE:
            return f"{free / 1e6:.0f} MB are free in {folder} there; at least {LEAST_FREE / 1e6:.0f} MB are needed"
    return ""


def _other_output(wanted: Wanted) -> str:
    if not wanted.folder:
        return ""
    files, where = Files(wanted.folder), redact_url(os.path.dirname(wanted.folder))
    try:
        if _patiently(files, TOKEN) != wanted.token:
            return f"{where} is another folder there; give an output on a disk that all workers share, or a URL"
        own = uuid.uuid4().hex
        files.write(own, b"", make=False)
        files.remove(own)
    except FileNotFoundError:
        return f"{where} is not the same folder there; give an output on a disk that all workers share, or a URL"
    except Exception as error:  # object stores have errors of their own
        return f"{where} cannot be written to there: {getattr(error, 'strerror', None) or error}"
    return ""


def _patiently(files: Files, name: str) -> bytes:
    for _ in range(TRIES - 1):
        try:
            return files.read(name)
        except FileNotFoundError:
            time.sleep(PAUSE)
    return files.read(name)


def _other_files(wanted: Wanted) -> str:
    for path, facts in wanted.files:
        if (here := file_facts(path)) != facts:
            what = "is another file there" if here else "cannot be read there"
            return f"{redact_url(path)} {what}; workers read scenes by the same path"
    return ""


def _fails(wanted: Wanted) -> str:
    said = None if wanted.probe is None else wanted.probe()
    return said if isinstance(said, str) else ""


def _no_bundle(wanted: Wanted) -> str:
    """Look for the bundle at its path, then in the cache, then beside the output, where it is put if any lacks it."""
    if wanted.bundle is None:
        return ""
    try:
        bundle_at(*wanted.bundle)
    except BundleError:
        if not wanted.folder or not (files := Files(wanted.folder)).exists(BUNDLE):
            return LACKS_BUNDLE
        keep_bundle(files.read(BUNDLE), wanted.bundle[1])
        bundle_at(*wanted.bundle)
    return ""
