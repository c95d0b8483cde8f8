"""What it costs that a scene comes in pieces: segmented as a mosaic, and read on another grid.

    python -m benchmarks.mosaics --size 4096

One scene of `benchmarks.scenes` is cut into 12 pieces that overlap, on its own grid. First it is segmented with
SimpleUNet as it is, its pieces merged and then segmented, and its pieces segmented and then merged, as `Mpx/s` of the
scene without the start of a run (see `benchmarks.workers`) and as a ratio to the first. Then the pieces are read on a
grid of the neighbouring UTM zone, by windows of 1024 pixels in one thread: by a mosaic, by GDAL's warper piece by piece
(rasterio's WarpedVRT, with and without the approximation that it makes by default), and by `odc.stac.load`.
Each measurement is a fresh process; rounds are interleaved, the least CPU seconds are given.
"""

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.vrt import WarpedVRT

from pipeline.catalog.footprint import footprint_of
from pipeline.catalog.index import IndexedScene, read_index, write_index
from pipeline.grid.geobox import Window
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.source import MosaicSource
from pipeline.mosaic.target import aligned_geobox

from .child import cpu_seconds, measure, report, table, workplace
from .networks import make_bundle
from .scenes import write_scene

WAYS = ("whole", "merged", "each")
READERS = ("mosaic", "warp-exact", "warp", "odc")
ROWS, COLUMNS, OVERLAP = 3, 4, 64
WARM = 512  # side of the scene that shows the start
WINDOW = 1024
ZONE = "EPSG:32736"  # beside the scene's


def pieces(size: int) -> Iterator[Window]:
    """Cut a scene into 12 windows that overlap."""
    down, across = -(-size // ROWS), -(-size // COLUMNS)
    for window in Window.of((size, size)).split(down, across):
        yield window.buffer(OVERLAP).clip((size, size))


def write_pieces(scene: Path, folder: Path) -> Path:
    """Write the pieces of a scene and an index of them; return the index."""
    folder.mkdir(exist_ok=True)
    scenes = []
    with rasterio.open(scene) as file:
        for number, window in enumerate(pieces(file.width)):
            part, place = folder / f"{number}.tif", window.to_rasterio()
            size = {"height": window.shape[0], "width": window.shape[1], "transform": file.window_transform(place)}
            with rasterio.open(part, "w", **{**file.profile, **size}) as made:
                made.descriptions = file.descriptions
                made.write(file.read(window=place))
            source = open_rasters([str(part)])
            scenes.append(IndexedScene(f"piece-{number}", source, footprint_of(source.geobox), digest=str(number)))
    return Path(write_index(scenes, folder / "scenes.parquet").path)


def mosaic_of(index: Path, geobox: Any) -> MosaicSource:
    """Return all scenes of an index on a grid."""
    scenes = read_index(index)
    return MosaicSource(scenes, geobox, tuple(range(len(scenes))))


def run_way(way: str, folder: Path) -> None:
    """Measure a run of one way in this process, and report it."""
    from pipeline import run

    taken = []
    for name in ("warm", "warm", "scene"):
        store, source = folder / "out.zarr", open_rasters([str(folder / f"{name}.tif")])
        shutil.rmtree(store, ignore_errors=True)
        before, started = cpu_seconds(), time.perf_counter()
        scene: Any = folder / f"{name}.tif"
        if way != "whole":
            scene = mosaic_of(folder / name / "scenes.parquet", source.geobox)
        more: dict[str, Any] = {"each": "inner"} if way == "each" else {}
        done = run(scene, folder / "simple-unet", store, show=False, **more)
        taken.append((time.perf_counter() - started, cpu_seconds() - before, sum(done.pixels.values())))
    _, (start, first, few), (seconds, cpu, pixels) = taken
    report(rate=(pixels - few) / (seconds - start) / 1e6, cpu=cpu - first)


def run_reader(reader: str, resampling: str, folder: Path) -> None:
    """Measure one way to read the pieces on another grid, and report it."""
    index = read_index(folder / "scene" / "scenes.parquet")
    bounds = open_rasters([str(folder / "scene.tif")]).geobox.bounds(ZONE)
    assert bounds is not None
    geobox = aligned_geobox(rasterio.CRS.from_string(ZONE).to_wkt(), (10, 10), bounds)
    read = {"mosaic": _by_mosaic, "odc": _by_odc}.get(reader)
    if read is None:
        read = _by_warp(1e-9 if reader == "warp-exact" else 0.125)  # rasterio takes no 0
    read(index, geobox.level(0), Window(0, 64, 0, 64), resampling)
    before, pixels = cpu_seconds(), 0
    for window in geobox.whole.split(WINDOW):
        pixels += int((read(index, geobox, window, resampling) != 0).any(axis=0).sum())
    report(cpu=cpu_seconds() - before, pixels=pixels)


Reader = Callable[[Any, Any, Window, str], Any]


def _by_mosaic(index: Any, geobox: Any, window: Window, resampling: str) -> Any:
    mosaic = MosaicSource(index, geobox, tuple(range(len(index))), resampling=resampling)  # type: ignore[arg-type]
    return mosaic.read(window).data


def _by_warp(tolerance: float) -> Reader:
    def read(index: Any, geobox: Any, window: Window, resampling: str) -> Any:
        data = None
        for number in range(len(index)):
            path = index.scene(number).source.paths[0]
            method = rasterio.enums.Resampling[resampling]
            grid = {"crs": geobox.crs, "transform": geobox.transform, "width": geobox.width, "height": geobox.height}
            with rasterio.open(path) as file, WarpedVRT(file, resampling=method, tolerance=tolerance, **grid) as warped:
                found = warped.read(window=window.to_rasterio())
            data = found if data is None else np.where(data == 0, found, data)
        return data

    return read


def _by_odc(index: Any, geobox: Any, window: Window, resampling: str) -> Any:
    import odc.stac
    from odc.geo.geobox import GeoBox as OdcGeoBox

    transform = geobox.transform * rasterio.Affine.translation(window.left, window.top)
    loaded = odc.stac.load(_items(index), geobox=OdcGeoBox(window.shape, transform, geobox.crs),
                           resampling=resampling, groupby="time", nodata=0, dtype="uint16")  # fmt: skip
    return np.stack([loaded[name].values[0] for name in loaded.data_vars])


@lru_cache(maxsize=1)
def _items(index: Any) -> list[Any]:
    """Return the scenes of an index as STAC Items."""
    import pystac

    items = []
    for number in range(len(index)):
        scene = index.scene(number)
        own, outline = scene.source.geobox, scene.footprint
        about = {"proj:code": "EPSG:32737", "proj:shape": list(own.shape), "proj:transform": list(own.transform)[:6]}
        item = pystac.Item(scene.id, outline.__geo_interface__, list(outline.bounds),
                           datetime(2024, 1, 1, tzinfo=UTC), about)  # fmt: skip
        item.add_asset("image", pystac.Asset(scene.source.paths[0], media_type="image/tiff; application=geotiff"))
        bands = [{"name": name, "nodata": 0, "data_type": "uint16"} for name in scene.source.bands]
        item.assets["image"].extra_fields |= {"raster:bands": bands, "eo:bands": bands, "roles": ["data"]}
        item.stac_extensions += [f"https://stac-extensions.github.io/{name}/schema.json"
                                 for name in ("projection/v2.0.0", "raster/v1.1.0", "eo/v1.1.0")]  # fmt: skip
        items.append(item)
    return items


def compare(size: int, repeats: int, ways: list[str], readers: list[str], folder: Path) -> None:
    """Measure in turns and print both tables."""
    make_bundle(folder)
    for name, side in (("warm", WARM), ("scene", size)):
        write_scene(folder / f"{name}.tif", side)
        write_pieces(folder / f"{name}.tif", folder / name)
    cases = [("--way", way) for way in ways]
    cases += [("--reader", f"{reader},{method}") for method in ("nearest", "bilinear") for reader in readers]
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(repeats):
        for case in cases:
            found.setdefault(case, []).append(measure("benchmarks.mosaics", *case, "--folder", folder))
            print(*case, found[case][-1], flush=True)
    rates = {way: max(one["rate"] for one in found["--way", way]) for way in ways}
    costs = {way: min(one["cpu"] for one in found["--way", way]) for way in ways}
    print(f"\n{size} x {size} pixels in {ROWS * COLUMNS} pieces, {repeats} rounds\n")
    rows = [[way, f"{rates[way]:.2f}", f"{rates[way] / rates[ways[0]]:.2f}", f"{costs[way]:.2f}"] for way in ways]
    print(table(["", "Mpx/s", "ratio", "cpu s"], rows))
    read = {case[1]: min(one["cpu"] for one in runs) for case, runs in found.items() if case[0] == "--reader"}
    rows = [[*case.split(","), f"{cpu:.2f}", f"{cpu / read[readers[0] + ',' + case.split(',')[1]]:.2f}"]
            for case, cpu in read.items()]  # fmt: skip
    print(f"\n{table(['read by', 'resampling', 'cpu s', 'ratio'], rows)}")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A scene in pieces against the same in one.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--reader", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    chosen = parse(arguments)
    if chosen.way:
        run_way(chosen.way, chosen.folder)
    elif chosen.reader:
        run_reader(*chosen.reader.split(","), chosen.folder)
    else:
        with workplace(chosen.folder) as folder:
            compare(chosen.size, chosen.repeats, chosen.ways, chosen.readers, folder)


if __name__ == "__main__":
    main()
