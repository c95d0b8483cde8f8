"""What a segmentation decides by: the bundle's thresholds everywhere, by class, unless others are asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from helpers import metadata, pixels, save, write_raster
from torch import float32, from_numpy, no_grad

from models import Bundle
from models.encoding import classify
from models.errors import BundleError, PlanError, StoreError
from pipeline import open_maps, plan, run, segment
from pipeline.cli.app import cli
from pipeline.inference.options import SegmentOptions
from train.data.classes import value_table
from train.data.labels import open_labels
from train.data.samples import Sample
from train.evaluation.evaluation import evaluate

FIXED: dict[str, Any] = {"engine": "torch", "threads": 1}
BOUNDS = {"class_1": 0.42, "class_2": 0.3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three classes with a threshold each."""
    described = replace(metadata("simple-unet", classes=3), thresholds=BOUNDS)
    return save(tmp_path_factory.mktemp("decision") / "b", described)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", pixels((3, 64, 80)))


@pytest.fixture(scope="module")
def likely(bundle: Bundle, scene: Path) -> np.ndarray:
    """Probabilities of the network on the whole scene, reflected at its edges."""
    with rasterio.open(scene) as file:
        padded = np.pad(file.read().astype(np.float32), ((0, 0), (64, 64), (64, 64)), "reflect")
    with no_grad():
        return bundle.segmenter()(from_numpy(padded)[None]).to(float32)[0, :, 64:-64, 64:-64].numpy()


def slow(likely: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """The rule, pixel by pixel."""
    found = np.zeros(likely.shape[1:], np.uint8)
    for place in np.ndindex(found.shape):
        value = 1 if likely[1][place] >= likely[2][place] else 2
        found[place] = value if likely[value][place] > np.float32(bounds[f"class_{value}"]) else 0
    return found


def test_every_verb_decides_by_the_bundle(bundle, scene, likely, tmp_path, client, threads):
    right = slow(likely, BOUNDS)
    assert {0, 1, 2} == set(np.unique(right))
    assert (right != likely.argmax(0)).any()
    assert (segment(scene, bundle, **FIXED).class_map.values == right).all()
    for name in ("maps.zarr", "map.tif"):
        run(scene, bundle, tmp_path / name, client=client, show=False, **FIXED)
    assert (open_maps(tmp_path / "maps.zarr").class_map.values == right).all()
    with rasterio.open(tmp_path / "map.tif") as file:
        assert (file.read(1) == right).all()
    source = plan(scene, bundle).source
    labels = np.random.default_rng(0).integers(0, 3, right.shape).astype(np.uint8)
    path = write_raster(tmp_path / "labels.tif", labels[None])
    truth = open_labels(str(path), source.geobox, value_table(bundle.metadata.classes))
    sample = Sample("s", source, truth, (source.geobox.whole,), (str(scene),))
    counts = evaluate(bundle, [sample], show=False, client=client, **FIXED).network.pooled.counts.confusion.counts
    assert counts.tolist() == [[int(((labels == t) & (right == p)).sum()) for p in range(3)] for t in range(3)]


def test_another_decision_may_be_asked_for(bundle, scene, likely, threads):
    for asked, right in (
        ("likeliest", classify(likely)),
        (0.35, slow(likely, {"class_1": 0.35, "class_2": 0.35})),
        ({"class_1": 0.5, "class_2": 0.2}, slow(likely, {"class_1": 0.5, "class_2": 0.2})),
    ):
        assert (segment(scene, bundle, threshold=asked, **FIXED).class_map.values == right).all()


def test_plan_info_and_store_say_it(bundle, scene, tmp_path, client, threads):
    words = "class_1 above 0.42, class_2 above 0.3, else class_0"
    assert f"{words}, the bundle's own" in str(plan(scene, bundle))
    assert "the likeliest class" in str(plan(scene, bundle, threshold="likeliest"))
    run(scene, bundle, tmp_path / "maps.zarr", client=client, show=False, **FIXED)
    shown = CliRunner().invoke(cli, ["info", str(tmp_path / "maps.zarr")]).output
    assert words in shown
    assert "background is class_0" in shown
    assert words in CliRunner().invoke(cli, ["bundles", str(bundle.path)]).output
    again = {"client": client, "show": False, **FIXED}
    assert run(scene, bundle, tmp_path / "maps.zarr", threshold=BOUNDS, **again).resumed == 1  # the same run
    with pytest.raises(StoreError, match=r"another run .*threshold"):
        run(scene, bundle, tmp_path / "maps.zarr", threshold="likeliest", **again)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"class_1": 0.5}, "one for each class but the background .class_1, class_2.; received class_1"),
        ({"class_1": 0.5, "class_2": 0.5, "tree": 0.5}, "received class_1, class_2, tree"),
        ({"class_1": 0.5, "class_2": 1.5}, "from 0 to 1"),
        ("most", "from 0 to 1, or 'likeliest'; received 'most'"),
        (float("nan"), "from 0 to 1"),
        (True, "from 0 to 1"),
        ({"class_1": "likeliest", "class_2": 0.5}, "from 0 to 1"),
        ({"class_1": None, "class_2": 0.5}, "from 0 to 1"),
    ],
)
def test_wrong_thresholds_are_refused(bundle, scene, asked, says):
    with pytest.raises(PlanError, match=says):
        plan(scene, bundle, threshold=asked)


def test_without_a_background_there_is_nothing_below_a_threshold(scene, tmp_path, threads):
    described = metadata("simple-unet", classes=3)
    with pytest.raises(BundleError, match="need a background"):
        replace(described, background=None, thresholds=BOUNDS)
    none = save(tmp_path / "none", replace(described, background=None))
    assert none.metadata.background_value is None
    with pytest.raises(PlanError, match="need a background, which pixels below them become"):
        plan(scene, none, threshold=0.5)
    third = save(
        tmp_path / "third", replace(described, background="class_2", thresholds={"class_0": 0.4, "class_1": 0.4})
    )
    whole = segment(scene, third, threshold="likeliest", **FIXED)
    likely, found = whole.probability.values, segment(scene, third, **FIXED).class_map.values
    best = np.where(likely[0] >= likely[1], 0, 1)
    right = np.where(np.where(best == 0, likely[0], likely[1]) > np.float32(0.4), best, 2)
    assert (found == right).all()
    assert SegmentOptions().decision(third.metadata) == (0.4, 0.4, None)
