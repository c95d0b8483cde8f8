"""What a report is made from, read before it is put into words: the store, its image, areas. No HTML.

Everything is read small, or in passing; neither scene nor table is ever held whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from models.errors import SceneError, StoreError
from models.metadata import ClassInfo

from ..grid.encoding import NODATA
from ..grid.geobox import GeoBox
from ..grid.pixel_area import pixel_areas
from ..io.scene import SceneLike, open_source
from ..io.source import Pixels
from ..store.metadata import StoreMetadata
from ..store.run_id import fingerprint
from ..store.store import Store, open_store
from .map_preview import SmallMaps, read_maps
from .overlay import refuse_other_grid
from .preview import View, make_view, pick, read_image


@dataclass(frozen=True, slots=True)
class ReportData:
    """What is read for a report, before it is put into words.

    `pixel` is the side of a pixel in metres, and `areas` are m² by class and `nodata`; None where not known. `missing`
    says why there is no image.
    """

    store: Store
    metadata: StoreMetadata
    classes: tuple[ClassInfo, ...]
    view: View
    maps: SmallMaps
    pixel: float | None
    areas: dict[str, float] | None
    image: Pixels | None
    missing: str
    objects: str | None

    @property
    def land(self) -> float | None:
        """The observed area in m², None where not known."""
        if self.areas is None:
            return None
        return sum(area for name, area in self.areas.items() if name != "nodata")


def gather(path: str, scene: SceneLike | None, objects: str | None) -> ReportData:
    """Read what a report of a store shows; see `write_report`."""
    store, metadata = open_store(path)
    objects = objects or (path if store.encoding.objects else None)
    _check_objects(objects, store.geobox)
    classes, view = metadata.classes, make_view(store.geobox)
    image, missing = _image(store.geobox, metadata, view, scene)
    maps = read_maps(_richest(path, metadata), view)
    pixel, areas = _areas(store.geobox, metadata.pixels, classes, view, maps)
    return ReportData(store, metadata, classes, view, maps, pixel, areas, image, missing, objects)


def _check_objects(path: str | None, geobox: GeoBox) -> None:
    if path is None:
        return
    objects, _ = open_store(path)
    refuse_other_grid(objects.geobox, geobox)
    if not objects.encoding.objects:
        raise StoreError(f"{path} holds no objects; `swathe objects {path} -o objects.zarr` finds them")


def _richest(path: str, metadata: StoreMetadata) -> str:
    """Give the store that an objects store was made from, if it is still there: it has probabilities and overviews."""
    origin = metadata.made_from
    if not origin or not metadata.encoding.objects:
        return path
    try:
        _, theirs = open_store(origin)
    except StoreError:
        return path
    return origin if fingerprint(theirs.identity)[:16] == metadata.identity.get("objects of") else path


def _image(geobox: GeoBox, metadata: StoreMetadata, view: View, scene: SceneLike | None) -> tuple[Pixels | None, str]:
    """Read the image, or say why it is not there. Only a scene that the user gave is worth an error."""
    if scene is not None:
        return _read_scene(geobox, scene, view), ""
    recorded = metadata.source.get("path")
    hint = "give it with --scene"
    if not recorded:
        return None, f"The store does not say where its scene lies; {hint}."
    try:
        return _read_scene(geobox, recorded, view), ""
    except SceneError:
        return None, f"The scene is no longer where the store was made from; {hint}."
    except StoreError:
        return None, f"Where the scene was, another one lies now; {hint}."


def _read_scene(geobox: GeoBox, scene: SceneLike, view: View) -> Pixels:
    source = open_source(scene)
    refuse_other_grid(source.geobox, geobox)
    return read_image(source, view)


def _areas(
    geobox: GeoBox, pixels: Mapping[str, int], classes: tuple[ClassInfo, ...], view: View, maps: SmallMaps
) -> tuple[float | None, dict[str, float] | None]:
    """Give a pixel's side, and areas: exact pixel counts times the mean area of a class's pixels in the preview."""
    areas = pixel_areas(geobox)
    if areas is None:
        return None, None
    sampled = pick(lambda window: np.broadcast_to(areas.of(window), window.shape), view.rows, view.columns)
    values = {info.name: value for value, info in enumerate(classes)}
    found = {}
    for name, count in pixels.items():
        here = sampled[maps.class_map == values.get(name, NODATA)]
        found[name] = count * float(here.mean() if here.size else sampled.mean())
    return float(sampled.mean()) ** 0.5, found
