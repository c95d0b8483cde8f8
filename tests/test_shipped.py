"""The shipped bundles do as well as they say, on the test scenes that their configs name, and beat their baselines."""

from pathlib import Path

import pytest
from helpers import SHARED

from models import load_bundle
from pipeline.cluster.connect import dask_client
from train import evaluate, read_settings
from train.data.datasets import gather
from train.evaluation.baselines import fit_brightness

CONFIGS = Path(__file__).parents[1] / "train/configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_what_its_config_describes(name):
    settings, metadata = read_settings(CONFIGS / f"{name}.toml"), load_bundle(name).metadata
    assert (metadata.name, metadata.band_names, metadata.classes) == (settings.name, settings.bands, settings.classes)
    assert metadata.architecture == settings.network.architecture
    assert {**metadata.options, "widths": list(metadata.options["widths"])} == dict(settings.network.options)
    assert metadata.provenance["config"] == f"{name}.toml"
    assert metadata.provenance["seed"] == settings.seed
    assert not set(metadata.provenance["trained on"]) & {
        *metadata.provenance["chosen on"],
        *metadata.metrics["tested on"],
    }
    assert load_bundle(name).parameters < 600_000


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
@pytest.mark.parametrize("name", NAMES)
def test_its_scores_on_the_test_scenes(name):
    settings, bundle = read_settings(CONFIGS / f"{name}.toml"), load_bundle(name)
    parts = gather(settings)
    baselines = []
    if name == "clouds":
        with dask_client(None, threads=2) as client:
            baselines = [fit_brightness(parts["test"], client, "the best for these very samples")]
    found = evaluate(bundle, parts["test"], baselines=baselines, objects=False, show=False)
    iou = float(found.network.pooled.counts.confusion.iou[1])
    assert iou == pytest.approx(bundle.metadata.metrics["test"]["iou"], abs=1e-3)
    for baseline in found.baselines:
        assert iou > float(baseline.pooled.counts.confusion.iou[1])
    if name == "buildings":
        assert iou > 0.33  # a random forest's: `swathe evaluate ... --baseline forest`, which takes minutes
