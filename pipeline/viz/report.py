"""A report of a finished store: one HTML page that needs nothing beside it. Says what `metadata` has read."""

import base64
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from ..grid.geobox import GeoBox
from ..io.scene import SceneLike
from ..store.local_files import check_output, whole_file
from ..store.metadata import StoreMetadata
from .format import say_area, say_number, say_place, say_share, say_title
from .map_preview import read_maps
from .report_data import ReportData, gather
from .report_images import Layer, css_ramp, map_layers, objects_image, placed, probability_image, scene_image
from .report_objects import read_figures
from .report_sections import ObjectPart, block_part, class_rows, cleaning, object_part, provenance

PAGE = Path(__file__).parent / "report_page"
LIBRARIES = ("swathe", "torch", "openvino", "dask", "xarray", "zarr", "rasterio", "scikit-image", "numpy")


def write_report(
    store: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scene: SceneLike | None = None,
    objects: str | os.PathLike[str] | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write one self-contained HTML page about a store. Memory grows with neither scene nor object table.

    Parameters
    ----------
    store
        Path or URL of a finished store: of maps, cleaned maps, or objects.
    output
        Local path of the page, a few MB: images are in it, and nothing is fetched when it is read.
    scene
        The image, see `open_scene`; on the store's grid. None: where the store says it was, if it is still there; the
        page is made without it otherwise, and says so.
    objects
        An objects store of the same maps, for the figures of objects. None: `store` itself, if it is one.
    title
        The heading. None: from the scene's name if the store knows it, else from its own.
    overwrite
        Replace an existing file.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    StoreError
        A store is missing, not finished, or not Swathe's; scene or objects lie on another grid; the file exists or
        cannot be written.
    SceneError
        The scene that was given cannot be read.
    """
    target = check_output(output, overwrite=overwrite)
    gathered = gather(os.fspath(store), scene, None if objects is None else os.fspath(objects))
    page = _render(_context(gathered, title or say_title(_stem(_scene_name(gathered.metadata) or gathered.store.path))))
    with whole_file(target) as part:
        part.write_text(page, encoding="utf-8")
    return target


def _context(gathered: ReportData, title: str) -> dict[str, Any]:
    """Give what the template takes."""
    metadata, store = gathered.metadata, gathered.store
    pixels, now = metadata.pixels, datetime.now(UTC)
    seconds = store.block_seconds()
    parts = _object_parts(gathered)
    return {
        "title": title,
        "summary": _summary(gathered, parts),
        "viewer": _viewer(gathered),
        "first_class": gathered.classes[0].name,
        "areas_known": gathered.areas is not None,
        "classes": class_rows(gathered.classes, pixels, gathered.areas),
        "objects": parts,
        "blocks": block_part(seconds, store.plan.block, store.geobox.shape, metadata.command),
        "provenance": provenance(metadata, _scene_name(metadata)),
        "cleaning": cleaning(metadata),
        "grid": _grid(gathered),
        "versions": [(name, version(name)) for name in LIBRARIES],
        "made": f"{now.day} {now:%B %Y, %H:%M} UTC",
    }


def _viewer(gathered: ReportData) -> dict[str, Any]:
    """Choose what lies below the slider and what over it, by what there is."""
    small, objects = gathered.maps, gathered.objects
    probability = probability_image(small)
    drawn = objects_image(read_maps(objects, gathered.view)) if objects else None
    below = None if gathered.image is None else scene_image(gathered.image, "The scene")
    layers = map_layers(small, gathered.classes, over_image=below is not None)
    layers += [Layer("objects", "Objects", (drawn,))] if drawn else []
    if probability and below:
        layers.append(Layer("probability", "Probability", (probability,)))
    return {
        "below": below or probability,
        "under": "Image" if below else "Probability",
        "layers": layers,
        "images": placed(layers),
        "probability_of": small.probability_of,
        "ramp": css_ramp(),
        "missing": gathered.missing,
        **_scale(gathered),
    }


def _scale(gathered: ReportData) -> dict[str, Any]:
    """Say how large the preview is, and a pixel of it on the ground; 0 where that is not known."""
    height, width = gathered.view.shape
    factor = gathered.view.factor
    return {"width": width, "height": height, "metres": (gathered.pixel or 0.0) * factor, "factor": factor}


def _object_parts(gathered: ReportData) -> list[ObjectPart] | None:
    """Describe the objects of each class that has any; None where there is no table."""
    if gathered.objects is None:
        return None
    land, figures = gathered.land, read_figures(gathered.objects, metric=gathered.areas is not None)
    pixels = gathered.metadata.pixels
    seen = max(1, sum(count for name, count in pixels.items() if name != "nodata"))
    found = []
    for one in figures:
        info = gathered.classes[one.value]
        covered = gathered.areas[info.name] if gathered.areas else None
        found.append(object_part(one, info, land, covered, pixels[info.name] / seen))
    return found


def _summary(gathered: ReportData, parts: list[ObjectPart] | None) -> str:
    """Give the page's first line."""
    pixels, land = gathered.metadata.pixels, gathered.land
    seen = sum(count for name, count in pixels.items() if name != "nodata")
    if not seen:
        return "Nothing of this scene was observed."
    ground = say_area(land) if land else f"{seen:,} pixels"
    counts = {part.name: dict(part.figures)["objects"] for part in parts or []}
    found = sorted(gathered.classes[1:], key=lambda info: -pixels[info.name])[:3]
    told = [f"{ground} observed."]
    for info in found:
        count = counts.get(info.name, "")
        objects = f", {count} object{'' if count == '1' else 's'}" if count else ""
        told.append(f"{say_title(info.name)}: {say_share(pixels[info.name] / seen)}{objects}.")
    return " ".join(told)


def _grid(gathered: ReportData) -> list[tuple[str, str]]:
    geobox = gathered.store.geobox
    told = [("size", f"{geobox.height:,} × {geobox.width:,} pixels, down and across")]
    if gathered.pixel:
        told.append(("pixel", f"{say_number(gathered.pixel)} m on the ground"))
    told.append(("projection", geobox.describe().split(", ")[1]))
    place = _place(geobox)
    return [*told, ("centre", place)] if place else told


def _place(geobox: GeoBox) -> str | None:
    """Say where on the Earth the middle of the scene is, or None where that cannot be known."""
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    if geobox.crs is None or geobox.transform is None:
        return None
    try:
        transformer = Transformer.from_crs(CRS.from_wkt(geobox.crs), 4326, always_xy=True)
        return say_place(*transformer.transform(*(geobox.to_map(geobox.width / 2, geobox.height / 2))))
    except ProjError:
        return None


def _scene_name(metadata: StoreMetadata) -> str:
    """Give the scene's own name: where it lay is nobody's business but its owner's."""
    recorded = metadata.source.get("path") or ""
    paths = [recorded] if isinstance(recorded, str) else list(recorded)
    return ", ".join(PurePosixPath(path).name for path in paths)


def _stem(path: str) -> str:
    return PurePosixPath(path.rstrip("/")).stem or "map"


def _render(context: Mapping[str, Any]) -> str:
    """Fill the template; what comes from data is escaped, style and script are ours."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (Markup((PAGE / name).read_text(encoding="utf-8")) for name in ("style.css", "script.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    template = environment.get_template("template.html.j2")
    return template.render(style=style, script=script, script_hash=f"sha256-{digest}", **context)
