"""The main job on what comes with Swathe: a real scene and a real bundle to maps, pictures, objects and a report."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from models.bundle import load_bundle

from ..inference.run import run
from ..io.scene import open_scene
from ..objects.objects import write_objects
from ..postprocess.clean import write_clean
from ..store.cog import write_cog
from ..store.dataset import open_maps
from ..vector.vectorise import Outlines, write_vectors
from ..viz.panels import panels
from ..viz.report import write_report
from .describe import class_table

SCENE = Path(__file__).parent / "scenes" / "zanzibar_b.tif"
FOOTPRINTS = SCENE.with_suffix(".geojson")  # its buildings as they were drawn; for training, not for the demo
TITLE = "Buildings of Zanzibar, 15 cm. Image: OpenAerialMap contributors, CC-BY-4.0"
# Opening takes away the walls of ruins, which are thinner than any roof; the smallest house here has 20 m².
CLEANING: dict[str, Any] = {"opening": 4, "closing": 4, "min_object": "15 m2"}
SIMPLIFY = 2.0  # pixels, 30 cm: the steps of pixels go, corners of houses stay


def run_demo(output: str | os.PathLike[str]) -> Iterator[str]:
    """Segment the scene that comes with Swathe and find its buildings; yield one line for each result.

    Parameters
    ----------
    output
        Folder for `buildings.zarr`, `.tif` and `.png`, `clean.zarr`, `objects.zarr`, `buildings.gpkg` and
        `report.html`; those of an earlier demo are replaced. Scene and labels are put there too, if they are not.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    yield from _maps(folder)
    yield from _objects(folder)
    yield from _inputs(folder)


def _maps(folder: Path) -> Iterator[str]:
    bundle = load_bundle("buildings")
    store = folder / "buildings.zarr"
    result = run(SCENE, bundle, store, overwrite=True)
    yield f"wrote {store}  maps and probabilities; open with xarray: xr.open_zarr({str(store)!r})"
    yield class_table(result.pixels)
    yield f"wrote {write_cog(store, folder / 'buildings.tif', overwrite=True)}  Cloud-Optimized GeoTIFF; open with QGIS"
    picture = panels(open_scene(SCENE), open_maps(store), bundle.metadata.classes, folder / "buildings.png", TITLE)
    yield f"wrote {picture}  image, probability and map; look at this one"


def _objects(folder: Path) -> Iterator[str]:
    cleaned, objects = folder / "clean.zarr", folder / "objects.zarr"
    write_clean(folder / "buildings.zarr", cleaned, overwrite=True, **CLEANING)
    yield f"wrote {cleaned}  the map without specks and ruined walls; swathe export {cleaned} -o clean.tif"
    write_objects(cleaned, objects, overwrite=True)
    yield f"wrote {objects}  each building has a number and a row of measures; swathe stats {objects}"
    outlines = folder / "buildings.gpkg"
    drawn = write_vectors(objects, outlines, outlines=Outlines(simplify=SIMPLIFY), overwrite=True)
    yield f"wrote {outlines}  {drawn.features} buildings as polygons with their measures; open with QGIS or geopandas"
    page = write_report(cleaned, folder / "report.html", objects=objects, title=TITLE, overwrite=True)
    yield f"wrote {page}  all of it on one page; open with a browser"


def _inputs(folder: Path) -> Iterator[str]:
    for path, words in (
        (SCENE, "the scene; swathe plan {} -m buildings"),
        (FOOTPRINTS, "its buildings as people drew them"),
    ):
        copy = folder / path.name
        if not copy.exists():
            shutil.copyfile(path, copy)
        yield f"wrote {copy}  {words.format(copy)}"
