"""A published network end to end: PyPI's ukis-csmask, imported from its ONNX files, against its own program.

The networks (Apache-2.0, German Aerospace Center) are not shipped: `pip install 'ukis-csmask[cpu]==1.0.0'`.
"""

import json
from collections.abc import Sequence

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from numpy.typing import NDArray

from benchmarks.csmask import (
    DATA,
    EXAMPLES,
    Chip,
    Classes,
    agreement_in_tiles,
    graph_file,
    intersection_and_union,
    landsat_chips,
    our_classes,
    sentinel_chips,
    side_by_side,
    their_classes,
    write_scene,
)
from models import Bundle, load_bundle
from models.imports.settings import metadata_of, read_settings
from pipeline.cli.app import cli

NAMES = ("4b_l1c", "4b_l2a", "6b_l1c", "6b_l2a")
OVERLAP = 64

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
needs_wheel = pytest.mark.skipif(graph_file(NAMES[0]) is None, reason="needs pip install 'ukis-csmask[cpu]==1.0.0'")
needs_chips = pytest.mark.skipif(not (DATA / "l8_biome").exists(), reason="needs ../shared/data")


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_short_and_whole(name: str) -> None:
    path = EXAMPLES / f"csmask_{name}.toml"
    assert len(path.read_text().splitlines()) <= 10
    metadata = metadata_of(read_settings(path) | {"architecture": "onnx"})
    assert metadata.class_names == ("clear", "cloud", "shadow")
    assert {band.radiometry.unit for band in metadata.bands if band.radiometry} == {"reflectance"}


@needs_wheel
@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_those_beside_the_graph(name: str) -> None:
    """ukis-csmask keeps bands, means and deviations in a JSON beside each ONNX file."""
    path = graph_file(name)
    assert path is not None
    told = json.loads(path.with_suffix(".json").read_text())["data"]
    metadata = metadata_of(read_settings(EXAMPLES / f"csmask_{name}.toml") | {"architecture": "onnx"})
    assert list(metadata.band_names) == told["dataset_statistics"]["band_names"]
    given = (metadata.scaling.first, metadata.scaling.second)
    np.testing.assert_array_equal(np.float32(given), np.float32(told["dataset_statistics"]["img"]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network of four bands of Level-1C, as the command imports it."""
    output = tmp_path_factory.mktemp("csmask") / "bundle"
    config = EXAMPLES / f"csmask_{NAMES[0]}.toml"
    words = ["import", str(graph_file(NAMES[0])), "--config", str(config), "-o", str(output)]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made = load_bundle(output)
    assert made.metadata.options["side"] == 256
    assert made.metadata.receptive_field.radius is None  # squeeze-and-excite sees the whole tile
    return made


@pytest.fixture(scope="module")
def landsat(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Chip, Classes]:
    """Chips of Landsat 8 as one scene, whose tags say scale and offset, and what the command makes of it."""
    scene, folder = side_by_side(list(landsat_chips())), tmp_path_factory.mktemp("landsat")
    words = ["segment", str(write_scene(scene, folder / "scene.tif")), "-m", str(bundle.path), "-o",
             str(folder / "map.tif"), "--overlap", str(OVERLAP)]  # fmt: skip
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with rasterio.open(folder / "map.tif") as file:
        return scene, file.read(1)


@pytest.fixture(scope="module")
def sentinel(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Chip, Classes]]:
    """Three chips of Sentinel-2, each a scene."""
    folder = tmp_path_factory.mktemp("sentinel")
    scenes = [(chip, write_scene(chip, folder / f"{chip.name}.tif")) for chip in sentinel_chips()]
    return [(chip, our_classes(path, bundle, overlap=OVERLAP)) for chip, path in scenes]


@needs_wheel
@needs_chips
@pytest.mark.slow
def test_the_same_tile_has_the_same_classes(
    landsat: tuple[Chip, Classes], sentinel: list[tuple[Chip, Classes]]
) -> None:
    """Seen over all tiles: 0.99999."""
    for maps, tiles, least in (([landsat], 5, 80_000), (sentinel, 2, 40_000)):
        counts = np.sum([agreement_in_tiles(chip, ours, OVERLAP, tiles) for chip, ours in maps], axis=0)
        assert counts[1] > least
        assert counts[0] >= 0.995 * counts[1]


@needs_wheel
@needs_chips
@pytest.mark.slow
def test_clouds_are_found_as_well(landsat: tuple[Chip, Classes], sentinel: list[tuple[Chip, Classes]]) -> None:
    """IoU of cloud is CSmask's or better over all that is labelled, and over the chips but for where tiles lie.

    Seen: 0.731 over the scene (CSmask 0.712), 0.737 over the chips (0.740). CSmask's own changes by 0.011 over the
    scene and by 0.006 over the chips where its input begins 102 pixels later.
    """
    ours, theirs = ([_counts(maps, whose) for maps in ([landsat], sentinel)] for whose in ("ours", "theirs"))
    assert _score(ours[0]) >= _score(theirs[0])
    assert _score(ours[1]) >= _score(theirs[1]) - 0.006
    assert _score(ours[0] + ours[1]) >= _score(theirs[0] + theirs[1])


def _counts(maps: Sequence[tuple[Chip, Classes]], whose: str) -> NDArray[np.int_]:
    """Return pixels of intersection and union over some chips."""
    return np.sum([
        intersection_and_union(ours if whose == "ours" else their_classes(chip.reflectance), chip.labels)
        for chip, ours in maps
    ], axis=0)  # fmt: skip


def _score(counts: NDArray[np.int_]) -> float:
    return float(counts[0] / counts[1])
