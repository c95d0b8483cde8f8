"""A process that opens and reads mutated inputs, one after the other, and says of each what came of it, in JSON lines.

    python -m benchmarks.faults.mutated_child INPUTS FOLDER SEED [untrusted]

Reads lines of a number and a kind.
"""

import json
import os
import re
import resource
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from models import load_bundle
from models.errors import SwatheError
from models.imports.settings import read_settings as read_import
from pipeline import open_mosaic
from pipeline.grid.geobox import Window
from pipeline.inference.prices import read_prices
from pipeline.io.gdal import close_files
from pipeline.io.raster import RasterSource
from pipeline.io.scene import open_source
from pipeline.mosaic.area import place_area, read_area
from train.config.settings import read_settings

from .mutated_inputs import RASTERS, write_mutated

MEMORY = 2**31
LARGEST = 4096  # side of the window that is read of what declares more


def main() -> None:
    """Read until there are no more lines."""
    inputs, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    untrusted = "untrusted" in sys.argv
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # torch and its like have half a gigabyte before anything is read
    held = int(re.search(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024  # type: ignore[index]
    resource.setrlimit(resource.RLIMIT_DATA, (held + MEMORY, held + MEMORY))
    warnings.simplefilter("ignore")
    print("ready", file=answers)
    for count, line in enumerate(sys.stdin):
        number, kind = line.split()
        path, done = write_mutated(inputs, kind, int(number), seed, folder)
        came, detail = _tried(lambda path=path, kind=kind: READ.get(kind, _scene)(str(path), untrusted))  # type: ignore[misc]
        print(json.dumps([came, done, detail]), file=answers)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        if count % 50 == 0:
            close_files()


def _tried(read: Callable[[], str]) -> tuple[str, str]:
    try:
        return ("wrong", wrong) if (wrong := read()) else ("read", "")
    except SwatheError as error:
        text = str(error)
        lines = text.split("\n")
        clear = len(lines) <= 3 and all(line.isprintable() for line in lines) and 0 < len(text) < 2000
        return "refused" if clear else "wrong", text[:300]
    except BaseException as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(one.filename).name}:{one.lineno}" for one in where if "site-packages" not in one.filename]
        return "wrong", f"{type(error).__name__}: {str(error)[:200]} at {' '.join(own[-3:])}"


def _scene(path: str, untrusted: bool) -> str:
    source = open_source(path, untrusted=untrusted)
    height, width = source.geobox.shape
    window = Window(0, min(height, LARGEST), 0, min(width, LARGEST))
    pixels = source.read(window)
    if pixels.data.shape != (len(source.bands), *window.shape) or pixels.data.dtype != source.dtype:
        return f"{pixels.data.dtype} {pixels.data.shape} for {source!r}"
    source.identity()
    if isinstance(source, RasterSource) and path.endswith(RASTERS) and not source.palette:
        return _other_pixels(path, source, window, pixels.data)
    return ""


def _other_pixels(path: str, source: RasterSource, window: Window, data: Any) -> str:
    """Say where pixels are not those that rasterio itself reads of the file."""
    with rasterio.Env(GDAL_NUM_THREADS="1"), rasterio.open(path) as file:
        told = file.read([band.index for band in source.raster_bands], window=window.to_rasterio())
    return "" if np.array_equal(told.astype(data.dtype), data, equal_nan=data.dtype.kind == "f") else "other pixels"


def _bundle(path: str, untrusted: bool) -> str:
    if untrusted:
        from pipeline.io.untrusted import checked_bundle

        checked_bundle(path)
        return ""
    bundle = load_bundle(path)
    _ = bundle.int8, bundle.parameters, repr(bundle)
    bundle.network()
    return ""


def _area(path: str, untrusted: bool) -> str:
    place_area(read_area(path), open_source(_beside(path, "tiles.tif")).geobox)
    return ""


def _beside(path: str, name: str) -> str:
    return str(Path(sys.argv[1]) / name)


def _index(path: str, untrusted: bool) -> str:
    mosaic = open_mosaic(path)
    mosaic.read(Window(0, min(mosaic.geobox.height, 90), 0, min(mosaic.geobox.width, 130)))
    return ""


def _text(read: Callable[[str], object]) -> Callable[[str, bool], str]:
    return lambda path, untrusted: "" if read(path) is not None else "nothing was read"


READ: dict[str, Callable[[str, bool], str]] = {
    "bundle": _bundle,
    "bundle.zip": _bundle,
    "area.gpkg": _area,
    "area.geojson": _area,
    "area.parquet": _area,
    "scenes.parquet": _index,
    "train.toml": _text(read_settings),
    "prices.toml": _text(read_prices),
    "import.json": _text(read_import),
}

if __name__ == "__main__":
    main()
