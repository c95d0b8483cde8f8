"""Threads that share the handles of a file read what rasterio reads, and decode each block once."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers import pixels, write_raster
from hypothesis import given
from hypothesis import strategies as st

import pipeline.inference.run as running
from pipeline import run
from pipeline.grid.geobox import Window
from pipeline.inference.predict import predict
from pipeline.io.gdal import close_files, read_pixels
from pipeline.io.handles import HANDLES, region_shape, regions

SIZE, HALO = 2048, 64
LAYOUTS = {
    "tiles": {"tiled": True, "blockxsize": 256, "blockysize": 512},
    "strips": {"blockysize": 16},
    "one strip": {"blockysize": 700},
    "bands apart": {"tiled": True, "blockxsize": 128, "blockysize": 128, "interleave": "band"},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, values = tmp_path_factory.mktemp("layouts"), pixels((3, 700, 2300))
    values[:, 100:300, 1000:1100] = 0
    return {
        name: write_raster(folder / f"{name}.tif", values, nodata=0, compress="deflate", **layout)
        for name, layout in LAYOUTS.items()
    }


@given(st.data(), st.sampled_from(sorted(LAYOUTS)), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_windows_are_as_rasterio_reads_them(files, data, name, indexes):
    top, left = data.draw(st.integers(0, 699)), data.draw(st.integers(0, 2299))
    window = Window(top, data.draw(st.integers(top + 1, 700)), left, data.draw(st.integers(left + 1, 2300)))
    dtype = data.draw(st.sampled_from([None, np.dtype("uint16"), np.dtype("float64")]))
    with rasterio.open(files[name]) as file:
        values = file.read(indexes, window=window.to_rasterio(), out_dtype=dtype)
        masks = file.read_masks(indexes, window=window.to_rasterio())
    read = read_pixels(str(files[name]), indexes, window, dtype)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)
    np.testing.assert_array_equal(read_pixels(str(files[name]), indexes, window, masks=True), masks)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 30_000), st.data())
def test_regions_are_whole_blocks_and_cover_a_window_once(block_height, block_width, width, data):
    rows, columns = region_shape((block_height, min(block_width, width)), width)
    assert rows % block_height == 0
    assert columns == width or columns % block_width == 0
    top, left = data.draw(st.integers(0, 9000)), data.draw(st.integers(0, width - 1))
    window = Window(
        top, top + data.draw(st.integers(1, 3000)), left, min(width, left + data.draw(st.integers(1, 3000)))
    )
    parts = list(regions(window, rows, columns))
    assert sum(part.size for _, part in parts) == window.size
    assert all(part.clip(window) == part for _, part in parts)
    assert all(part.top // rows == (part.bottom - 1) // rows for _, part in parts)
    assert all(part.left // columns == (part.right - 1) // columns for _, part in parts)
    assert all(0 <= number < HANDLES for number, _ in parts)


@pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="the bytes that a process reads are counted by Linux")
def test_threads_decode_each_block_once(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (1, SIZE, SIZE), np.uint8)
    path = write_raster(tmp_path / "scene.tif", values, compress="deflate", tiled=True, blockxsize=256, blockysize=256)
    windows = [w.buffer(HALO).clip((SIZE, SIZE)) for w in Window.of((SIZE, SIZE)).split(SIZE // 4)]
    before = bytes_read()
    with ThreadPoolExecutor(4) as pool:
        for window, read in zip(windows, pool.map(lambda w: read_pixels(str(path), [1], w), windows), strict=True):
            np.testing.assert_array_equal(read[0], values[0][window.slices])
    assert bytes_read() - before < 1.1 * path.stat().st_size
    before = bytes_read()
    close_files()
    np.testing.assert_array_equal(read_pixels(str(path), [1], windows[0]), values[:, *windows[0].slices])
    assert bytes_read() - before > 0.05 * path.stat().st_size  # nothing was kept


def test_a_file_that_was_written_again_is_read_again(tmp_path):
    for seed in (0, 1):
        values = pixels((1, 40 + seed, 50), seed=seed)
        path = write_raster(tmp_path / "scene.tif", values)
        np.testing.assert_array_equal(read_pixels(str(path), [1], Window(0, 40, 0, 50)), values[:, :40])


def test_blocks_are_done_in_strips_that_stay_decoded(bundle_of, tmp_path, monkeypatch):
    path, order = write_raster(tmp_path / "scene.tif", pixels((3, 128, 320))), []

    def recorded(source, window, inference):
        order.append((window.left // 64, window.top // 64))
        return predict(source, window, inference)

    monkeypatch.setattr(running, "predict_block", recorded)
    for kept, across in ((running.CACHE, 5), (2 * 64 * (64 + 2 * running.FILE_BLOCK) * 6, 2), (0, 1)):
        monkeypatch.setattr(running, "CACHE", kept)
        run(path, bundle_of(), tmp_path / f"{across}.zarr", show=False, block=64, threads=1, engine="openvino")
        assert order == sorted(order, key=lambda place: (place[0] // across, place[1], place[0]))
        assert sorted(order) == [(column, row) for column in range(5) for row in range(2)]
        order.clear()


def bytes_read() -> int:
    """Return the bytes that this process has read so far, from the page cache too."""
    return int(Path("/proc/self/io").read_text().split()[1])
