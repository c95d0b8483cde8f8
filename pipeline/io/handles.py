"""Windows of local files read through several GDAL handles each, of which every one decodes its own regions.

A handle serves one thread at a time, and GDAL keeps decoded blocks by handle. With a handle for each thread, threads
that read windows side by side all decode the blocks that lie below more than one halo: of windows of 2048 pixels in a
file with blocks of 512 more than twice as many as there are. Here a region of a file always goes through the same
handle, whichever thread asks for it.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from ..grid.geobox import Window

DRIVERS = {"GTiff", "JP2OpenJPEG", "JP2ECW", "JP2KAK"}  # those that decode any block by itself
SIDE = 1024  # of a region in pixels; one of wider blocks, as of strips, has as many pixels
HANDLES = 16  # of one file: with few, threads ask for the same one; a thread that finds one in use goes on with another
OPEN_FILES = 13 * HANDLES  # handles kept, of all files: a scene of Sentinel-2 has 13


@dataclass(slots=True)
class Handle:
    """A file that is open for one thread at a time, once it was asked for."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stamp: object = None
    dataset: DatasetReader | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is read: the type of its bands, rows and columns of its regions; None: it is read otherwise."""

    dtypes: tuple[str, ...]
    regions: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Request:
    """What is read of a file: its bands by their numbers, or their masks, and where it goes, `(band, y, x)`."""

    path: str
    stamp: object
    indexes: Sequence[int]
    window: Window
    masks: bool
    out: NDArray[Any]


class HandlePool:
    """The handles of this process.

    Parameters
    ----------
    open_file
        Opens a raster by its path.
    """

    def __init__(self, open_file: Callable[[str], DatasetReader]) -> None:
        self._open_file = open_file
        self._inherited: list[object] = []
        self._lock, self._handles = threading.Lock(), dict[tuple[str, int], Handle]()
        self._layouts: dict[str, tuple[object, Layout]] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        """In a forked process, use no handle of its parent, whose file positions it shares, and close none."""
        self._inherited.append(self._handles)
        self._lock = threading.Lock()  # the parent's may have been held
        self.forget()

    def forget(self) -> None:
        """Close all handles, and give back what GDAL keeps for them; those in use are closed after it."""
        with self._lock:
            self._handles, self._layouts = {}, {}

    def read(
        self,
        path: str,
        stamp: object,
        indexes: Sequence[int],
        window: Window,
        dtype: np.dtype[Any] | None,
        *,
        masks: bool,
    ) -> NDArray[Any] | None:
        """Read a window of bands, or of their masks, as `(band, y, x)`.

        Parameters
        ----------
        path, stamp
            A file, and what changes when it is written: it is opened anew then.
        indexes
            Numbers of the bands, from 1.
        window
            Inside the file.
        dtype
            Of the result; None: the file's, and of masks uint8.

        Returns
        -------
        ndarray
            None where a handle for each thread serves the file as well.
        """
        layout = self._layout(path, stamp)
        if layout.regions is None:
            return None
        kind = np.uint8 if masks else dtype or layout.dtypes[indexes[0] - 1]
        request = Request(path, stamp, indexes, window, masks, np.empty((len(indexes), *window.shape), kind))
        parts = list(regions(window, *layout.regions))
        while parts:
            left = [part for part in parts if not self._read_part(request, *part, wait=False)]
            if len(left) == len(parts):  # others have all the handles that it takes
                self._read_part(request, *left.pop(0), wait=True)
            parts = left
        return request.out

    def _layout(self, path: str, stamp: object) -> Layout:
        """Return a file's layout; only the first to ask for it waits for a handle."""
        known = self._layouts.get(path)
        if known is None or known[0] != stamp:
            handle = self._handle(path, 0)
            with handle.lock:
                dataset = self._opened(handle, path, stamp)
                shape = region_shape(dataset.block_shapes[0], dataset.width) if dataset.driver in DRIVERS else None
                known = stamp, Layout(dataset.dtypes, shape)
            with self._lock:
                if shape is None:
                    self._handles.pop((path, 0), None)
                if len(self._layouts) >= OPEN_FILES:
                    self._layouts = {}
                self._layouts[path] = known
        return known[1]

    def _handle(self, path: str, number: int) -> Handle:
        with self._lock:
            handle = self._handles.pop((path, number), None) or Handle()
            while len(self._handles) >= OPEN_FILES:
                self._handles.pop(next(iter(self._handles)))
            self._handles[path, number] = handle  # last, as the most recently used
            return handle

    def _opened(self, handle: Handle, path: str, stamp: object) -> DatasetReader:
        """Return the dataset of a handle whose lock is held."""
        if handle.dataset is None or handle.stamp != stamp:
            handle.dataset, handle.stamp = self._open_file(path), stamp
        return handle.dataset

    def _read_part(self, request: Request, number: int, part: Window, *, wait: bool) -> bool:
        """Read a part of what is asked for through its handle; False where it is in use and `wait` is not."""
        handle = self._handle(request.path, number)
        if not handle.lock.acquire(blocking=wait):
            return False
        try:
            dataset = self._opened(handle, request.path, request.stamp)
            rows, columns = part.within(request.window).slices
            which = {
                "indexes": list(request.indexes),
                "window": part.to_rasterio(),
                "out": request.out[:, rows, columns],
            }
            dataset.read_masks(**which) if request.masks else dataset.read(**which)
        finally:
            handle.lock.release()
        return True


def region_shape(block: tuple[int, int], width: int) -> tuple[int, int]:
    """Return rows and columns of the regions of a file of that width: whole blocks, about `SIDE` squared pixels."""
    block_height, block_width = block
    columns = min(width, -(-SIDE // block_width) * block_width)
    rows = max(1, SIDE * SIDE // columns)
    return -(-rows // block_height) * block_height, columns


def regions(window: Window, rows: int, columns: int) -> Iterator[tuple[int, Window]]:
    """Cut a window at the regions of its file; yield each part with the number of its handle."""
    for row in range(window.top // rows, -(-window.bottom // rows)):
        for column in range(window.left // columns, -(-window.right // columns)):
            part = Window(row * rows, (row + 1) * rows, column * columns, (column + 1) * columns).clip(window)
            yield (5 * row + column) % HANDLES, part
