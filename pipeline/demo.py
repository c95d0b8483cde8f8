"""The main job on what comes with Swathe: a real scene, a real bundle, a store, a COG and a picture."""

import os
from collections.abc import Iterator
from pathlib import Path

from models.bundle import load_bundle

from .about import class_table
from .cog import write_cog
from .job import run
from .maps import open_maps
from .pictures import panels
from .scene import open_scene

SCENE = Path(__file__).parent / "scenes" / "zanzibar_b.tif"
TITLE = "Buildings of Zanzibar, 15 cm. Image: OpenAerialMap contributors, CC-BY-4.0"


def run_demo(output: str | os.PathLike[str]) -> Iterator[str]:
    """Segment the scene that comes with Swathe; give one line for each result.

    Parameters
    ----------
    output
        Folder for `buildings.zarr`, `buildings.tif` and `buildings.png`; those of an earlier demo are replaced.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    bundle = load_bundle("buildings")
    threshold = bundle.facts.metrics.get("threshold")
    store = folder / "buildings.zarr"
    report = run(SCENE, bundle, store, overwrite=True, threshold=threshold)
    yield f"wrote {store}  maps and probabilities; open with xarray: xr.open_zarr({str(store)!r})"
    yield f"wrote {write_cog(store, folder / 'buildings.tif', overwrite=True)}  Cloud-Optimized GeoTIFF; open with QGIS"
    picture = panels(open_scene(SCENE), open_maps(store), bundle.facts.classes, folder / "buildings.png", TITLE)
    yield f"wrote {picture}  look at this one"
    yield class_table(report.pixels, None)
