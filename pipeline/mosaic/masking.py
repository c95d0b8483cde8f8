"""Pixels of scenes that a mosaic does not take: by values of a band, as of clouds, or by classes of a map."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import SceneError, SwatheError

from ..catalog.index import IndexedScene
from ..grid.geobox import GeoBox, Window
from ..io.source import find_bands
from ..store.files import full_path
from ..store.metadata import fingerprint
from ..store.store import Store, open_store
from .positions import positions
from .sampling import Kernel, is_inside, nearest
from .warp import read_scene

ID = "{id}"
MAPS = (".zarr", ".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class BandMask:
    """Masked where a band of the scene has one of these values; it is never interpolated.

    Parameters
    ----------
    band
        Name or number, of each scene.
    values
        Of the band.
    """

    band: str
    values: tuple[float, ...]

    def check(self, scene: IndexedScene) -> None:
        """Raise SceneError where a scene has no such band."""
        try:
            find_bands(scene.source.all_names, [self.band], scene.source.numbers, scene.source.hints)
        except SceneError as error:
            raise SceneError(f"mask {self.band}: {scene.id}: {error}") from error

    def masked(self, scene: IndexedScene, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window are not taken: bool `(y, x)`."""
        pixels = read_scene(scene.source.select([self.band]), geobox, window, "nearest")
        if pixels is None:
            return np.zeros(window.shape, bool)
        return np.isin(pixels.data[0], np.array(self.values)) & pixels.valid

    def identity(self, _: Sequence[str]) -> Any:
        """Return what decides the pixels."""
        return [self.band, list(self.values)]


@dataclass(frozen=True, slots=True)
class MapMask:
    """Masked where a class map that Swathe made has one of these classes.

    Parameters
    ----------
    path
        Of the store or GeoTIFF; `{id}` stands for the scene's name: each has its own. Else one map is for all scenes.
    classes
        By name.
    """

    path: str
    classes: tuple[str, ...]

    def check(self, scene: IndexedScene) -> None:
        """Raise SceneError where a scene has no map, or that has no such class."""
        self._open(scene.id)

    def masked(self, scene: IndexedScene, geobox: GeoBox, window: Window) -> NDArray[np.bool_]:
        """Return which pixels of a window are not taken: bool `(y, x)`."""
        store, values, _ = self._open(scene.id)
        at = positions(geobox, window, store.geobox)
        needed = Kernel("nearest").needs(at, store.geobox.shape)
        if needed is None:
            return np.zeros(window.shape, bool)
        found = np.isin(store.read_array("class_map", needed)[0], values)
        return nearest(found, needed, at, store.geobox.shape) & is_inside(at, store.geobox.shape)

    def identity(self, ids: Sequence[str]) -> Any:
        """Return what decides the pixels."""
        whose = ids if ID in self.path else ids[:1]
        return [[self._open(name)[2] for name in whose], list(self.classes)]

    def _open(self, scene: str) -> tuple[Store, tuple[int, ...], str]:
        if ID in self.path and (os.sep in scene or scene in ("", ".", "..")):
            raise SceneError(f"mask: the scene {scene!r} cannot be a part of a file's name, as {self.path} has it")
        return _open_map(self.path.replace(ID, scene), self.classes)


SceneMask = BandMask | MapMask


@lru_cache(maxsize=256)
def _open_map(path: str, classes: tuple[str, ...]) -> tuple[Store, tuple[int, ...], str]:
    """Return a map, the values of classes in it, and what identifies it."""
    try:
        store, metadata = open_store(path)
    except SwatheError as error:
        raise SceneError(f"mask: {error}") from error
    missing = [name for name in classes if name not in metadata.class_names]
    if missing:
        raise SceneError(f"mask: {path} has no class {missing[0]!r}; it has {', '.join(metadata.class_names)}")
    if not store.geobox.georeferenced:
        raise SceneError(f"mask: {path} has no position, so nobody knows which pixels it is of")
    values = tuple(metadata.class_names.index(name) for name in classes)
    return store, values, fingerprint(metadata.content)


def parse_masks(mask: Mapping[str, Any] | Sequence[str] | None) -> tuple[SceneMask, ...]:
    """Return masks as `open_mosaic` and `--mask` take them: `{"SCL": [3, 8]}`, or texts as `SCL=3,8`.

    A name that ends in .zarr or .tif is a map's, and what follows are its classes.

    Raises
    ------
    SceneError
        A text that is neither, or values that are no numbers.
    """
    texts = [mask] if isinstance(mask, str) else mask or ()
    pairs = list(mask.items()) if isinstance(mask, Mapping) else [_pair(text) for text in texts]
    return tuple(_mask(str(name), values) for name, values in pairs)


def _pair(text: str) -> tuple[str, str]:
    name, equals, values = text.rpartition("=")
    if not (equals and name and values):
        raise SceneError(f"mask is a band and its values, as SCL=3,8,9,10, or a map and its classes; received {text!r}")
    return name, values


def _mask(name: str, values: Any) -> SceneMask:
    if isinstance(values, str):
        values = values.split(",")
    listed = [values] if isinstance(values, int | float) else list(values)
    if name.lower().endswith(MAPS):
        return MapMask(full_path(name), tuple(str(value).strip() for value in listed))
    try:
        return BandMask(name, tuple(float(value) for value in listed))
    except ValueError:
        raise SceneError(f"mask {name}: values are numbers; received {', '.join(map(str, listed))}") from None
