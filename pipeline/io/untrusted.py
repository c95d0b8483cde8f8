"""Scenes and bundles that nobody trusts, decoded in a process of their own, which has no network and sees one folder.

That process is believed nothing: what it answers has the size that was asked for and the form of `Facts`, or is
refused; it is ended when it dies, hangs or answers anything else. Each process of a run has such ones of its own.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from typing_extensions import override

from models.bundle import SHIPPED, Bundle, check_pin, find_bundle, load_bundle
from models.errors import ArgumentError, BundleError, SceneError
from models.limits import check_extent, parse_json, total_memory
from models.metadata import Radiometry
from models.system import usable_cpus
from models.tables import from_table

from ..grid.geobox import GeoBox, Window
from .frames import ANSWER, FAILED, HEADER, MAGIC, PIXELS, REFUSED
from .gdal import absolute_name, is_remote, printable
from .places import allowed_places
from .source import BandNames, Pixels, describe_source

SECONDS = 120.0  # that one answer may take
MEMORY = min(2**32, total_memory() // 2)  # bytes of a decoding process
MOST_CHILDREN = 4  # at a time in a process, for one folder
MOST_DEATHS = 4  # of processes for one folder, after which it is given up
LONGEST_ANSWER, LONGEST_TEXT = 2**24, 2000  # bytes of facts; characters of an error
PIPE, SET_PIPE_SIZE = 2**20, 1031
MAIN = "import sys; sys.path[:] = {paths!r}; from pipeline.io.decoder import main; main()"
KEPT = ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")  # no secrets, no settings


class _Ended(Exception):
    """A decoding process that died, hung, or answered nonsense."""


class Child:
    """One decoding process.

    Parameters
    ----------
    folders
        What it sees.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *(path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix)))]
        settings = json.dumps({"folders": [*folders], "memory": MEMORY})
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GDAL_NUM_THREADS"), "1")
        command = [sys.executable, "-I", "-W", "ignore", "-c", MAIN.format(paths=paths), settings]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=kept | threads,
            bufsize=0, start_new_session=True, close_fds=True,
        )  # fmt: skip
        try:
            self._grow_pipe()
            self.left = printable(str(self.read_json(time.monotonic() + SECONDS)))[:LONGEST_TEXT]
        except BaseException:
            self.end()
            raise

    def _grow_pipe(self) -> None:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.fcntl(self.process.stdout, SET_PIPE_SIZE, PIPE)  # type: ignore[arg-type]

    def ask(self, verb: str, what: str, window: Window | None, out: Sequence[NDArray[Any]] = ()) -> Any:
        """Send a request; read pixels into `out`, or return what the answer says."""
        told = None if window is None else [window.top, window.bottom, window.left, window.right]
        until = time.monotonic() + SECONDS
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps({"verb": verb, "what": what, "window": told}).encode() + b"\n")
        except OSError as error:
            raise _Ended("it died") from error
        if not out:
            return self.read_json(until)
        self._head(PIXELS, sum(part.nbytes for part in out), until)
        for part in out:
            self._fill(part.data.cast("B"), until)
        return None

    def read_json(self, until: float) -> Any:
        """Return what an answer in JSON says."""
        answer = bytearray(self._head(ANSWER, None, until))
        self._fill(memoryview(answer), until)
        try:
            return parse_json(bytes(answer), LONGEST_ANSWER)
        except ValueError as error:
            raise _Ended("it answered nonsense") from error

    def _head(self, wanted: int, length: int | None, until: float) -> int:
        """Read the beginning of an answer; return its length."""
        self._fill(memoryview(head := bytearray(HEADER.size)), until)
        magic, kind, size = HEADER.unpack(head)
        if magic == MAGIC and kind in (REFUSED, FAILED) and size <= LONGEST_ANSWER:
            self._fill(memoryview(text := bytearray(size)), until)
            lines = [printable(line) for line in text.decode("utf-8", "replace")[:LONGEST_TEXT].splitlines()[:2]]
            raise SceneError("\n".join(lines) if kind == REFUSED else f"it cannot be decoded: {' '.join(lines)[:200]}")
        fits = size == length if length is not None else size <= LONGEST_ANSWER
        if magic != MAGIC or kind != wanted or not fits:
            raise _Ended("it answered nonsense")
        return int(size)

    def _fill(self, view: memoryview, until: float) -> None:
        assert self.process.stdout is not None
        handle, ready = self.process.stdout.fileno(), select.poll()
        ready.register(handle, select.POLLIN)
        while view:
            if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
                raise _Ended(f"it gave no answer in {SECONDS:g} s")
            count = os.readv(handle, [view])
            if not count:
                raise _Ended("it died")
            view = view[count:]

    def end(self) -> None:
        """End the process, and wait for that."""
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait()


class _Children:
    """The decoding processes of this process that see the same folders; the one asked last is asked next."""

    def __init__(self, folders: tuple[str, ...]) -> None:
        self.folders, self.deaths, self.left = folders, 0, ""
        self.room = threading.Semaphore(min(MOST_CHILDREN, usable_cpus()))
        self.idle = list[Child]()

    def ask(self, verb: str, what: str, window: Window | None = None, out: Sequence[NDArray[Any]] = ()) -> Any:
        """Ask a process, which is started where none is idle. Raises SceneError, as it does or where it ends."""
        if self.deaths >= MOST_DEATHS:
            raise SceneError(f"the processes that decode what lies in {self.folders[0]} ended {self.deaths} times")
        with self.room:
            child = None
            try:
                child = self.idle.pop() if self.idle else _starter.submit(Child, self.folders).result()
                self.left = child.left
                answer = child.ask(verb, what, window, out)
            except SceneError:
                self.idle += [child] if child else []
                raise
            except BaseException as error:
                if child is not None:
                    child.end()
                if not isinstance(error, _Ended | OSError):
                    raise
                self.deaths += 1
                reason = str(error)
            else:
                self.idle.append(child)
                return answer
        raise SceneError(f"the process that decodes it was ended: {reason}")


# the kernel ends a process when the *thread* ends that has started it: this one lasts
_starter = ThreadPoolExecutor(1, "swathe-decoders")
_lock = threading.Lock()
_known: dict[tuple[int, tuple[str, ...]], _Children] = {}


def _children(folders: tuple[str, ...]) -> _Children:
    with _lock:
        return _known.setdefault((os.getpid(), folders), _Children(folders))


@atexit.register
def end_children() -> None:
    """End the decoding processes that are idle; the next read starts one anew."""
    with _lock:
        idle = [child for (owner, _), of in _known.items() if owner == os.getpid() for child in of.idle]
        _known.clear()
    for child in idle:
        child.end()


@dataclass(frozen=True, slots=True)
class Facts:
    """What a decoding process says of a scene, in the types that JSON has."""

    height: int
    width: int
    transform: tuple[float, ...] | None
    crs: str | None
    bands: tuple[str, ...]
    dtype: str
    nodata: tuple[float | None, ...]
    radiometry: tuple[tuple[float, float, str] | None, ...]
    file_notes: tuple[str, ...]
    paths: tuple[str, ...]
    all_names: tuple[tuple[str, ...], ...]
    numbers: tuple[int, ...]
    hints: tuple[str, ...]
    expensive_reads: bool
    masks: bool

    def check(self) -> None:
        """Refuse what no scene is. Raises ValueError."""
        count = len(self.bands)
        check_extent("the scene", count, (self.height, self.width), SceneError)
        alike = {len(each) for each in (self.nodata, self.radiometry, self.all_names, self.numbers)} == {count}
        if not alike or min(count, self.height, self.width) < 1 or not all(self.all_names):
            raise ValueError("it has no bands, or not as many facts as bands")
        if np.dtype(self.dtype).kind not in "uif" or (self.transform is not None and len(self.transform) != 6):
            raise ValueError("its type or its transform is none")


@dataclass(frozen=True)
class UntrustedSource:
    """A source whose file is decoded by another process; here are its facts, checked.

    Parameters
    ----------
    recipe
        How it is opened there, as JSON.
    folders
        What that process sees.
    facts
        What it said.
    more_notes
        Notes of this side.
    """

    recipe: str
    folders: tuple[str, ...]
    facts: Facts
    more_notes: tuple[str, ...] = ()

    scatter_once = True

    @override
    def __repr__(self) -> str:
        return describe_source(self)

    @cached_property
    def geobox(self) -> GeoBox:
        """Where the pixels lie."""
        transform = self.facts.transform
        return GeoBox(self.facts.height, self.facts.width, transform and Affine(*transform), self.facts.crs)

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(map(printable, self.facts.bands))

    @property
    def all_names(self) -> tuple[tuple[str, ...], ...]:
        """All names of each band, its own first."""
        return tuple(tuple(map(printable, names)) for names in self.facts.all_names)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Number of each band, from 1."""
        return self.facts.numbers

    @property
    def hints(self) -> tuple[str, ...]:
        """What may tell the sensor."""
        return self.facts.hints

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the raw values."""
        return np.dtype(self.facts.dtype)

    @property
    def nodata(self) -> tuple[float | None, ...]:
        """Per band, the value that stands for a missing pixel."""
        return self.facts.nodata

    @cached_property
    def radiometry(self) -> tuple[Radiometry | None, ...]:
        """Per band, what its raw values mean."""
        return tuple(one and Radiometry(*one) for one in self.facts.radiometry)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the scene, one line each."""
        return (*map(printable, self.facts.file_notes), *self.more_notes)

    @property
    def paths(self) -> tuple[str, ...]:
        """The files that it reads, of those that the other process sees."""
        return tuple(path for path in self.facts.paths if _lies_in(path, self.folders))

    @property
    def expensive_reads(self) -> bool:
        """Whether reading pixels a second time costs as much again."""
        return self.facts.expensive_reads

    @property
    def masks(self) -> bool:
        """Whether anything narrows what is observed beside nodata."""
        return self.facts.masks

    def read(self, window: Window) -> Pixels:
        """Read a window that lies inside the scene. Raises SceneError if it cannot."""
        data, valid = np.empty((len(self.bands), *window.shape), self.dtype), np.empty(window.shape, np.uint8)
        self._ask("read", window, (data, valid))
        return Pixels(data, valid != 0, fresh=True)

    def read_masks(self, window: Window) -> NDArray[np.bool_]:
        """Return where masks let pixels be observed: bool `(y, x)`."""
        valid = np.empty(window.shape, np.uint8)
        self._ask("masks", window, (valid,))
        return valid.astype(bool)

    def select(self, bands: BandNames) -> "UntrustedSource":
        """Take bands by name or number (from 1), in the order given, on the finest grid of their own."""
        told = json.loads(self.recipe)
        told["taken"].append([bands] if isinstance(bands, str | int) else list(bands))
        return replace(_open(json.dumps(told), self.folders), more_notes=self.more_notes)

    def with_note(self, note: str) -> Self:
        """Return the same with one more note."""
        return replace(self, more_notes=(*self.more_notes, note))

    def identity(self) -> dict[str, Any]:
        """Return what tells this scene's pixels from another's: the same as of the scene decoded here."""
        found = self._ask("identity")
        if not isinstance(found, dict):
            raise SceneError("the process that decodes it answered nonsense")
        return found

    def _ask(self, verb: str, window: Window | None = None, out: Sequence[NDArray[Any]] = ()) -> Any:
        try:
            return _children(self.folders).ask(verb, self.recipe, window, out)
        except SceneError as error:
            name = json.loads(self.recipe)["scene"][0]
            raise (error if name in str(error) else SceneError(f"{name}: {error}")) from None


def open_untrusted(scene: Any, bands: BandNames | None, resampling: str, alpha: bool | None) -> UntrustedSource:
    """Open a scene in a process of its own; see `open_source`.

    Raises
    ------
    SceneError
        It is not on this machine's disks; or as `open_source`; or that process was ended.
    """
    paths = [absolute_name(os.fspath(path)) for path in ([scene] if isinstance(scene, str | os.PathLike) else scene)]
    if remote := [path for path in paths if is_remote(path)]:
        raise SceneError(f"{remote[0]} is not on this machine, and what is not trusted is read without network: "
                         "download it, and give the file")  # fmt: skip
    names = None if bands is None else [bands] if isinstance(bands, str | int) else list(bands)
    recipe = {"scene": paths, "bands": names, "resampling": resampling, "alpha": alpha, "taken": []}
    allowed = (place for place in allowed_places() if os.path.isabs(place) and os.path.exists(place))
    return _open(json.dumps(recipe), tuple(dict.fromkeys(map(_folder_of, (*paths, *allowed)))))


def _open(recipe: str, folders: tuple[str, ...]) -> UntrustedSource:
    children, name = _children(folders), json.loads(recipe)["scene"][0]
    try:
        facts: Facts = from_table(Facts, children.ask("facts", recipe), "")
        facts.check()
        source = UntrustedSource(recipe, folders, facts)
        _ = source.radiometry, source.geobox
    except (ArgumentError, BundleError, ValueError, TypeError) as error:
        raise SceneError(f"{name}: the process that decodes it answered nonsense") from error
    except SceneError as error:
        raise (error if name in str(error) else SceneError(f"{name}: {error}")) from None
    return source.with_note(f"decoded apart, but not shut off from {children.left}") if children.left else source


def _folder_of(path: str) -> str:
    """Return what must be seen to read a path: a folder, or that of a file."""
    place = os.path.abspath(path)
    while not os.path.isdir(place):  # of a pattern
        place = os.path.dirname(place)
    return place


def _lies_in(path: str, folders: Sequence[str]) -> bool:
    whole = os.path.realpath(path)
    return any(os.path.commonpath([os.path.realpath(folder), whole]) == os.path.realpath(folder) for folder in folders)


def checked_bundle(name: str | os.PathLike[str]) -> Bundle:
    """Load a bundle whose weights, graph and metadata another process has read first, without network.

    Raises
    ------
    BundleError
        As `load_bundle`; or that process was ended, or read another bundle.
    """
    path = find_bundle(os.fspath(name), decode=False).absolute()
    if _lies_in(str(path), [str(SHIPPED)]):
        return check_pin(load_bundle(path), os.fspath(name))
    try:
        digest = _children((_folder_of(str(path)),)).ask("bundle", str(path))
    except SceneError as error:
        text = str(error)
        raise BundleError(text if str(path) in text else f"{path}: {text}") from None
    bundle = load_bundle(path)
    if digest != bundle.digest:
        raise BundleError(f"{path} is another bundle than the one that was checked; try again")
    return check_pin(bundle, os.fspath(name))
