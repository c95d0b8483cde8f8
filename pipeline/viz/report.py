"""The report of a finished store: what it is made from is read small, and put into one self-contained HTML page."""

import os
import re
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from models.bundle import shipped_bundles
from models.errors import SceneError, StoreError, SwatheError

from ..cluster.connect import check_client
from ..cluster.processes import ClusterLike
from ..grid.geobox import GeoBox
from ..grid.pixel_area import pixel_areas
from ..io.scene import SceneLike, open_source
from ..io.source import Pixels
from ..stats.stats import SceneStats, compute_scene
from ..stats.table import format_area, format_number, format_share
from ..store.files import Files, full_path
from ..store.metadata import StoreMetadata, fingerprint
from ..store.placing import Target, check_target, write_bytes
from ..store.store import Store, open_store
from .colors import probability_colours
from .overlay import open_on_grid, refuse_other_grid
from .page import SHARED, render_page
from .preview import SmallMaps, View, make_view, read_image, read_maps
from .report_images import Layer, map_layers, objects_image, placed, probability_image, scene_image
from .report_sections import (
    block_section,
    class_rows,
    cleaning,
    format_place,
    format_title,
    network,
    object_sections,
    provenance,
)

HEAD = 2**12  # bytes at the beginning of a page in which its settings stand
LIBRARIES = ("swathe", "torch", "openvino", "dask", "xarray", "zarr", "rasterio", "scikit-image", "numpy")


@dataclass(frozen=True, slots=True)
class ReportData:
    """What a report is made from.

    Parameters
    ----------
    store, metadata
        Of the maps.
    view, maps, image
        What the preview shows of the maps and of their scene; no image where there is none.
    missing
        Why there is no image.
    stats
        Of the store.
    objects, object_stats
        Path or URL of the objects store, which may be `store` itself, and its statistics. None: there is none.
    """

    store: Store
    metadata: StoreMetadata
    view: View
    maps: SmallMaps
    image: Pixels | None
    missing: str
    stats: SceneStats
    objects: str | None
    object_stats: SceneStats | None

    @property
    def pixel(self) -> float | None:
        """The mean side of a pixel in metres, None where not known."""
        areas = pixel_areas(self.store.geobox)
        return None if areas is None else areas.mean() ** 0.5


def write_report(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scene: SceneLike | None = None,
    objects: str | os.PathLike[str] | None = None,
    title: str | None = None,
    client: ClusterLike | None = None,
    overwrite: bool = False,
) -> Target:
    """Write one self-contained HTML page about a store. Memory grows with neither scene nor object table.

    Parameters
    ----------
    store
        Path or URL of a finished store: of maps, cleaned maps, or objects.
    output
        Local path or URL of the page, a few MB: images are in it, and nothing is fetched when it is read.
    scene
        The image, see `open_scene`; on the store's grid. None: where the store says it was, if it is still there; the
        page is made without it otherwise, and says so.
    objects
        An objects store of the same maps, for the object statistics. None: `store` itself, if it is one.
    title
        The heading. None: from the scene's name if the store knows it, else from its own.
    client
        Where areas are added up, see `compute_statistics`: the page shows the same numbers.
    overwrite
        Replace an existing file. A page that was made of the same things with the same settings stays without it.

    Returns
    -------
    pathlib.Path or str
        The page; a URL as it was given.

    Raises
    ------
    StoreError
        A store is missing, not finished, or not Swathe's; scene or objects lie on another grid; the file exists or
        cannot be written.
    SceneError
        The scene that was given cannot be read.
    """
    check_client(client)
    path, objects = os.fspath(store), None if objects is None else os.fspath(objects)
    settings = _settings(path, scene, objects, title)
    already = not overwrite and _settings_of(output) == settings
    target = check_target(output, overwrite=overwrite or already)
    if not already:
        data = read_data(path, scene, objects, client)
        name = PurePosixPath((_scene_name(data.metadata) or data.store.path).rstrip("/")).stem or "map"
        page = render_page(SHARED, {**_context(data, title or format_title(name)), "settings": settings})
        write_bytes(target, page.encode())
    return target


def _settings(path: str, scene: SceneLike | None, objects: str | None, title: str | None) -> str:
    """Return the digest of all that decides a page, but for versions and the time that it tells."""
    metadata = open_store(path)[1]
    shown = scene if scene is not None else metadata.source.get("path")
    image: Any = None
    with suppress(SwatheError) if scene is None else nullcontext():
        image = shown and open_source(shown).identity()
    stores = (path, _richest(path, metadata), objects or path)
    identities = [open_store(one)[1].identity for one in stores]
    return fingerprint({"report of": identities, "scene": image, "name": _scene_name(metadata), "title": title})


def _settings_of(output: str | os.PathLike[str]) -> str | None:
    """Return what a page that is there says of the settings it was made with; None: there is none, or not of ours."""
    with suppress(OSError, SwatheError), Files(full_path(output)).open("") as file:
        found = re.search(rb'<meta name="swathe-settings" content="(\w+)">', file.read(HEAD))
        return found[1].decode() if found else None
    return None


def read_data(
    path: str, scene: SceneLike | None = None, objects: str | None = None, client: ClusterLike | None = None
) -> ReportData:
    """Read what a report of a store shows; see `write_report`."""
    store, metadata = open_store(path)
    if objects is not None:
        other = open_store(objects)[0]
        refuse_other_grid(other.geobox, store.geobox)
        if not other.encoding.objects:
            raise StoreError(f"{objects} holds no objects; `swathe objects {objects} -o objects.zarr` finds them")
    elif store.encoding.objects:
        objects = path
    view = make_view(store.geobox)
    image, missing = _image(store.geobox, metadata, view, scene)
    maps, stats = read_maps(_richest(path, metadata), view), compute_scene(path, client)
    object_stats = None if objects is None else stats if objects == path else compute_scene(objects, client)
    return ReportData(store, metadata, view, maps, image, missing, stats, objects, object_stats)


def _richest(path: str, metadata: StoreMetadata) -> str:
    """Return the store that an objects store was made from, if it is still there: it has probabilities, overviews."""
    origin = metadata.made_from
    if not origin or not metadata.encoding.objects:
        return path
    try:
        _, theirs = open_store(origin)
    except StoreError:
        return path
    return origin if fingerprint(theirs.content)[:16] == metadata.identity.get("objects of") else path


def _image(geobox: GeoBox, metadata: StoreMetadata, view: View, scene: SceneLike | None) -> tuple[Pixels | None, str]:
    """Read the image, or say why it is not there. Only a scene that the user gave is worth an error."""
    how: dict[str, Any] = {name: metadata.source[name] for name in ("alpha", "untrusted") if name in metadata.source}
    if scene is not None:
        return read_image(open_on_grid(scene, geobox, **how), view), ""
    recorded = metadata.source.get("path")
    hint = "give it with --scene"
    if not recorded:
        return None, f"The store does not say where its scene lies; {hint}."
    try:
        return read_image(open_on_grid(recorded, geobox, **how), view), ""
    except SceneError:
        return None, f"The scene is no longer where the store was made from; {hint}."
    except StoreError:
        return None, f"Where the scene was, another one lies now; {hint}."


def _context(data: ReportData, title: str) -> dict[str, Any]:
    """Return what the template takes."""
    metadata, store = data.metadata, data.store
    now, classes = datetime.now(UTC), metadata.classes
    objects = None if data.object_stats is None else object_sections(classes, data.stats, data.object_stats)
    return {
        "title": title,
        "summary": _summary(data, objects or []),
        "viewer": _viewer(data),
        "background": metadata.background_name,
        "areas_known": np.isfinite(data.stats.columns["area_m2"]),
        "classes": class_rows(classes, data.stats),
        "objects": objects,
        "blocks": None
        if store.is_file
        else block_section(store.block_seconds(), store.plan.block, store.geobox.shape, metadata.command),
        "provenance": provenance(metadata, _scene_name(metadata)),
        "network": network(_with_what_is_known(metadata)),
        "cleaning": cleaning(metadata),
        "grid": _grid(data),
        "versions": [(name, version(name)) for name in LIBRARIES],
        "made": f"{now.day} {now:%B %Y, %H:%M} UTC",
    }


def _with_what_is_known(metadata: StoreMetadata) -> StoreMetadata:
    """Add what the bundle says of itself to a store of before, which did not keep it, where it comes with Swathe."""
    bundle = metadata.bundle
    known = [] if bundle.keys() & {"metrics", "provenance"} else shipped_bundles()
    about = next((one.metadata.about for one in known if one.digest == bundle.get("digest")), {})
    return replace(metadata, bundle={**bundle, **about})


def _viewer(data: ReportData) -> dict[str, Any]:
    """Choose what lies below the slider and what over it, by what there is."""
    small, objects = data.maps, data.objects
    probability = probability_image(small)
    drawn = objects_image(read_maps(objects, data.view)) if objects else None
    below = None if data.image is None else scene_image(data.image, "The scene")
    layers = map_layers(small, data.metadata.classes, data.metadata.foreground, over_image=below is not None)
    layers += [Layer("objects", "Objects", (drawn,))] if drawn else []
    if probability and below:
        layers.append(Layer("probability", "Probability", (probability,)))
    return {
        "below": below or probability,
        "under": "Image" if below else "Probability",
        "layers": layers,
        "images": placed(layers),
        "probability_of": small.probability_of,
        "ramp": ", ".join(f"rgb({r} {g} {b})" for r, g, b in probability_colours()[::51].tolist()),  # in CSS
        "missing": data.missing,
        "width": data.view.shape[1],
        "height": data.view.shape[0],
        "metres": (data.pixel or 0.0) * data.view.factor,  # of a pixel of the preview; 0: not known
        "factor": data.view.factor,
    }


def _summary(data: ReportData, objects: list[dict[str, Any]]) -> str:
    """Return the page's first line."""
    stats, classes = data.stats, data.metadata.classes
    seen = int(sum(stats.columns[f"{name}_pixels"] for name in stats.names))
    if not seen:
        return "Nothing of this scene was observed."
    area = stats.columns["area_m2"]
    sentences = [f"{format_area(area) if np.isfinite(area) else f'{seen:,} pixels'} observed."]
    counts = {section["name"]: dict(section["stats"])["objects"] for section in objects}
    pairs = [(classes[value], stats.names[value]) for value in stats.foreground]
    for info, name in sorted(pairs, key=lambda pair: -stats.columns[f"{pair[1]}_pixels"])[:3]:
        count = counts.get(info.name, "")
        some = f", {count} object{'' if count == '1' else 's'}" if count else ""
        sentences.append(f"{format_title(info.name)}: {format_share(stats.columns[f'{name}_share'])}{some}.")
    return " ".join(sentences)


def _grid(data: ReportData) -> list[tuple[str, str]]:
    """Say where on the Earth the scene lies, and how large its pixels are, as far as that is known."""
    geobox = data.store.geobox
    lines = [("size", f"{geobox.height:,} × {geobox.width:,} pixels, down and across")]
    if data.pixel:
        lines.append(("pixel", f"{format_number(data.pixel)} m on the ground"))
    lines.append(("projection", geobox.describe().split(", ")[1]))
    if not geobox.georeferenced:
        return lines
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    with suppress(ProjError):
        transformer = Transformer.from_crs(CRS.from_wkt(str(geobox.crs)), 4326, always_xy=True)
        centre = transformer.transform(*geobox.to_map(geobox.width / 2, geobox.height / 2))
        lines.append(("centre", format_place(*centre)))
    return lines


def _scene_name(metadata: StoreMetadata) -> str:
    """Return the scene's own name: where it lay is nobody's business but its owner's."""
    recorded = metadata.source.get("path") or ""
    paths = [recorded] if isinstance(recorded, str) else list(recorded)
    return ", ".join(PurePosixPath(path).name for path in paths)
