"""The shipped bundles do as well as they say, on the test scenes that their configs name, and beat their references."""

from pathlib import Path

import pytest
from helpers import SHARED

from models import load_bundle
from pipeline.jobs.dask import connected
from train import evaluate, read_settings
from train.data.datasets import gather
from train.evaluation.baselines import fit_brightness

CONFIGS = Path(__file__).parents[1] / "train/configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_what_its_config_describes(name):
    settings, facts = read_settings(CONFIGS / f"{name}.toml"), load_bundle(name).facts
    assert (facts.name, facts.band_names, facts.classes) == (settings.name, settings.bands, settings.classes)
    assert facts.architecture == settings.network.architecture
    assert {**facts.options, "widths": list(facts.options["widths"])} == dict(settings.network.options)
    assert facts.provenance["config"] == f"{name}.toml"
    assert facts.provenance["seed"] == settings.seed
    assert not set(facts.provenance["trained on"]) & {*facts.provenance["chosen on"], *facts.metrics["tested on"]}
    assert load_bundle(name).parameters < 600_000


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio")
@pytest.mark.parametrize("name", NAMES)
def test_its_scores_on_the_test_scenes(name):
    settings, bundle = read_settings(CONFIGS / f"{name}.toml"), load_bundle(name)
    parts = gather(settings)
    references = []
    if name == "clouds":
        with connected(None, threads=2) as client:
            references = [fit_brightness(parts.test, client, "the best for these very samples")]
    found = evaluate(bundle, parts.test, references=references, objects=False, show=False)
    iou = float(found.network.pooled.tally.confusion.iou[1])
    assert iou == pytest.approx(bundle.facts.metrics["test"]["iou"], abs=1e-3)
    for reference in found.references:
        assert iou > float(reference.pooled.tally.confusion.iou[1])
    if name == "buildings":
        assert iou > 0.33  # a random forest's: `swathe evaluate ... --reference forest`, which takes minutes
