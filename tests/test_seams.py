"""How visible the borders between scenes are in a map."""

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box
from stores import write_store
from test_mosaic import write_piece

from models.encoding import decode
from pipeline import run, write_report
from pipeline.catalog.index import IndexedScene, content_digest, write_index
from pipeline.cli.describe import describe
from pipeline.cluster.connect import dask_client
from pipeline.grid.geobox import GeoBox
from pipeline.io.raster_files import open_rasters
from pipeline.mosaic.seams import describe_seams, measure
from pipeline.mosaic.source import MosaicSource
from pipeline.store.store import open_store

SHAPE = 150, 130


@pytest.fixture
def mosaic(tmp_path):
    """Three scenes: the first lies over the left, the second over the right, with a hole, the third over the hole."""
    scenes, rng = [], np.random.default_rng(0)
    for number, (top, left, height, width) in enumerate([(0, 0, 140, 80), (5, 60, 145, 70), (40, 70, 60, 50)]):
        values = rng.integers(1, 99, (1, height, width)).astype("uint8")
        if number == 1:
            values[:, 45:60, 30:50] = 0
        source = open_rasters([str(write_piece(tmp_path / f"{number}.tif", values, left, top))])
        scenes.append(IndexedScene(f"s{number}", source, box(0, 0, 1, 1), digest=content_digest(source)))
    index = write_index(scenes, tmp_path / "scenes.parquet")
    first = index.scene(0).source.geobox
    return MosaicSource(index, GeoBox(*SHAPE, first.transform, first.crs), (0, 1, 2))


def by_hand(probability, chosen):
    """Return pairs and mean steps of the whole map: across borders, inside."""
    pairs, steps = [0, 0], [0.0, 0.0]
    for row, column in np.ndindex(probability.shape):
        for other in ((row + 1, column), (row, column + 1)):
            if other[0] >= SHAPE[0] or other[1] >= SHAPE[1] or min(chosen[row, column], chosen[other]) < 0:
                continue
            step = abs(float(probability[row, column]) - float(probability[other]))
            if step == step:
                same = int(chosen[row, column] == chosen[other])
                pairs[same] += 1
                steps[same] += step
    return pairs, [total / count for total, count in zip(steps, pairs, strict=True)]


def test_steps_are_those_of_the_whole_map_whatever_the_blocks(mosaic, tmp_path):
    chosen = mosaic.chosen(mosaic.geobox.whole)
    assert set(np.unique(chosen)) == {-1, 0, 1, 2}
    kept = np.random.default_rng(1).integers(0, 100, SHAPE).astype(np.uint8) + 50 * (chosen == 1).astype(np.uint8)
    kept[:20, :20] = 255
    pairs, steps = by_hand(decode(kept), chosen)
    for block in (64, 32, 256):
        path = write_store(tmp_path / f"{block}.zarr", np.zeros(SHAPE, np.uint8), probability=kept, block=block)
        with dask_client(None, threads=2) as client:
            found = measure(client, open_store(str(path))[0], mosaic)
        assert found.border == pairs[0]
        assert found.border_step == pytest.approx(steps[0], rel=1e-6)
        # of blocks that one scene touches, the insides are not looked at
        assert found.interior == pairs[1] if block == 256 else found.interior <= pairs[1]
        assert found.interior_step == pytest.approx(steps[1], rel=1e-6 if block == 256 else 0.05)
        assert found.ratio > 1.1
    assert f"{found.ratio:.2f} times" in describe_seams(found.to_json())


def test_maps_without_borders_or_probabilities_have_no_seams(mosaic, tmp_path):
    plain = open_store(str(write_store(tmp_path / "plain.zarr", np.zeros(SHAPE, np.uint8))))[0]
    kept = np.full(SHAPE, 20, np.uint8)
    store = open_store(str(write_store(tmp_path / "kept.zarr", np.zeros(SHAPE, np.uint8), probability=kept)))[0]
    with dask_client(None, threads=1) as client:
        assert measure(client, plain, mosaic) is None
        assert measure(client, store, replace(mosaic, composite="median")) is None
        alone = measure(client, store, replace(mosaic, order=(0,)))
    assert (alone.border, alone.interior) == (0, 0)
    assert describe_seams(alone.to_json()) == ""


def test_a_run_of_a_mosaic_says_how_visible_its_seams_are(mosaic, tmp_path, bundle_of):
    output = tmp_path / "maps.zarr"
    result = run(mosaic, bundle_of(bands=1), output, show=False, block=64, allow_mismatch=True)
    metadata = open_store(str(output))[1]
    assert metadata.results["seams"] == result.found["seams"]
    assert result.found["seams"]["border_pairs"] > 100
    text = describe_seams(result.found["seams"])
    assert text in describe(str(output))
    assert text in write_report(output, tmp_path / "page.html").read_text()
    assert run(mosaic, bundle_of(bands=1), output, show=False, block=64, allow_mismatch=True).found == result.found
