"""Makes scenes to measure with: structured, four bands, any size, the same pixels every time, flat memory.

    python -m benchmarks.scenes 4096 scene.tif

A tiled GeoTIFF as they come: uint16 blue, green, red and near infrared at 10 m in UTM, deflated with
predictor 2. Water, fields, forest and towns with relief, texture from 8 to 1,024 pixels and noise of every
pixel; one corner and some holes are nodata. A pixel is a function of its place (and of the scene's size, for
the corner), so that windows can be made in any order. The pixels are made up; they compress and occupy a
network like real ones, and mean nothing.
"""

import argparse
import os

import numpy as np
import rasterio
from numpy.typing import NDArray

from pipeline.grid.geobox import Window

BANDS = ("blue", "green", "red", "nir")
NODATA = 0
SIDE = 1024  # of the windows that are written
# water, fields, forest, town: reflectance times 10,000 in each band
COVERS = np.array(
    [[700, 600, 400, 250], [900, 1200, 1300, 3000], [350, 550, 400, 2600], [1500, 1700, 1900, 2300]], np.float32
)
COVER_EDGES = (0.36, 0.52, 0.66)
FIELD, ROOF = 40, 12  # sides in pixels


def write_scene(path: str | os.PathLike[str], size: int) -> None:
    """Write a scene of `size` by `size` pixels, window by window."""
    with rasterio.open(path, "w", **_profile(size)) as file:
        file.descriptions = BANDS
        for window in Window.of((size, size)).split(SIDE):
            file.write(make_pixels(window, size), window=window.to_rasterio())


def _profile(size: int) -> dict[str, object]:
    return {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": len(BANDS),
        "dtype": "uint16",
        "nodata": NODATA,
        "crs": "EPSG:32737",
        "transform": rasterio.Affine(10, 0, 500_000, 0, -10, 9_300_000),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
        "predictor": 2,
        "bigtiff": "if_safer",
        "num_threads": "all_cpus",
    }


def make_pixels(window: Window, size: int) -> NDArray[np.uint16]:
    """Make the pixels `(band, y, x)` uint16 of a window of the scene of that size."""
    cover = make_cover(window)
    light = 0.7 + 0.4 * smooth_noise(window, 1024, 3) + 0.2 * smooth_noise(window, 64, 4)
    detail = 0.8 + 0.4 * smooth_noise(window, 8, 5)
    detail = np.where(cover == 1, 0.6 + 0.8 * _cells(window, FIELD, 6), detail)
    detail = np.where(cover == 3, 0.4 + 1.2 * _cells(window, ROOF, 7), detail)
    values = np.moveaxis(COVERS[cover], -1, 0) * (light * detail) + _grain(window)
    pixels: NDArray[np.uint16] = np.clip(values, 1, 10_000).astype(np.uint16)
    pixels[:, _missing(window, size)] = NODATA
    return pixels


def make_cover(window: Window) -> NDArray[np.intp]:
    """Return what covers each pixel of a window `(y, x)`: 0 water, 1 fields, 2 forest, 3 town."""
    mixed = 0.6 * smooth_noise(window, 256, 1) + 0.4 * smooth_noise(window, 32, 2)
    return np.digitize(mixed, COVER_EDGES)


def _missing(window: Window, size: int) -> NDArray[np.bool_]:
    """Return what is nodata: the corner beside a swath, as in Landsat scenes, and some holes."""
    rows, columns = np.ogrid[slice(*_span(window, 0)), slice(*_span(window, 1))]
    corner = columns + 4 * rows < 0.3 * size
    return np.asarray(corner | (smooth_noise(window, 200, 8) > 0.97))


def _span(window: Window, axis: int) -> tuple[int, int]:
    return (window.top, window.bottom) if axis == 0 else (window.left, window.right)


def smooth_noise(window: Window, scale: int, seed: int) -> NDArray[np.float32]:
    """Return smooth noise from 0 to 1 `(y, x)` whose hills are `scale` pixels wide."""
    top, rows = _weights(*_span(window, 0), scale)
    left, columns = _weights(*_span(window, 1), scale)
    lattice = uniform(np.arange(top, top + rows.shape[1]), np.arange(left, left + columns.shape[1]), seed)
    return np.asarray(rows @ lattice @ columns.T, np.float32)


def _weights(start: int, stop: int, scale: int) -> tuple[int, NDArray[np.float32]]:
    """Return the first lattice point, and how much each pixel of `start..stop` takes from each `(pixel, point)`."""
    place = np.arange(start, stop) / scale
    cell = place.astype(np.intp)
    step = place - cell
    step = step * step * (3 - 2 * step)
    pixel, first = np.arange(stop - start), int(cell[0])
    weights = np.zeros((stop - start, int(cell[-1]) - first + 2), np.float32)
    weights[pixel, cell - first], weights[pixel, cell - first + 1] = 1 - step, step
    return first, weights


def _cells(window: Window, side: int, seed: int) -> NDArray[np.float32]:
    """Return squares of one value each, from 0 to 1 `(y, x)`."""
    rows, columns = (np.arange(*_span(window, axis)) // side for axis in (0, 1))
    lattice = uniform(np.arange(rows[0], rows[-1] + 1), np.arange(columns[0], columns[-1] + 1), seed)
    return lattice[rows - rows[0]][:, columns - columns[0]]


def _grain(window: Window) -> NDArray[np.float32]:
    """Return noise of every pixel `(band, y, x)`, from -32 to 31: 16 bits of one hash for each band."""
    bits = _hash(np.arange(*_span(window, 0)), np.arange(*_span(window, 1)), 9)
    return np.stack([(bits >> np.uint64(16 * n) & np.uint64(63)).astype(np.float32) - 32 for n in range(len(BANDS))])


def uniform(rows: NDArray[np.intp], columns: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
    """Return a random number from 0 to 1 for each place `(y, x)`."""
    return np.asarray((_hash(rows, columns, seed) >> np.uint64(40)) / 2.0**24, np.float32)


def _hash(rows: NDArray[np.intp], columns: NDArray[np.intp], seed: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each place `(y, x)`, by the mixing of SplitMix64."""
    bits = (rows.astype(np.uint64)[:, None] << np.uint64(32)) + columns.astype(np.uint64)
    bits = (bits + np.uint64(seed)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Make a scene to measure with.")
    parser.add_argument("size", type=int, help="rows and columns, in pixels")
    parser.add_argument("output", help="the GeoTIFF to write")
    chosen = parser.parse_args(arguments)
    write_scene(chosen.output, chosen.size)


if __name__ == "__main__":
    main()
