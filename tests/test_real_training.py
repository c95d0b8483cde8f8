"""Trainings on real files of the articles' sets, a few steps each: read as published, learnt from, scored whole."""

import numpy as np
import pytest
import torch
from helpers import SHARED

from models import load_bundle
from train import evaluate, settings_of, train
from train.data.datasets import gather

pytestmark = [
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data"),
    pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning:rasterio"),
]
CLOUD = [{"name": "clear", "color": "000000"}, {"name": "cloud", "color": "FFFFFF"}]
ROAD = [{"name": "other", "color": "000000"}, {"name": "road", "color": "FFFFFF"}]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def quick(data, classes, bands, **loop):
    return settings_of(
        {
            "name": "quick",
            "bands": bands,
            "classes": classes,
            "data": [data],
            "seed": 1,
            "network": {"architecture": "unet", "options": {"widths": [12, 24, 32]}},
            "chips": {"size": 96, "batch": 6},
            "loop": {"steps": 120, "check_every": 40, "learning_rate": 5e-3, "ema": 0.9, "threads": 2, **loop},
        }
    )


@pytest.mark.slow
def test_38_cloud_is_learnt_and_scored_on_whole_patches(tmp_path):
    data = {"layout": "38-cloud", "root": str(SHARED / "cloud38/38-Cloud_training"), "train": ["*LC08_L1TP_06*"],
            "validate": ["*LC08_L1TP_0[123]*"]}  # fmt: skip
    settings = quick(data, CLOUD, ["red", "green", "blue", "nir"])
    bundle = train(settings, tmp_path / "clouds", show=False)
    assert bundle.metadata.dtype == "uint16"
    assert bundle.metadata.band_names == ("red", "green", "blue", "nir")
    found = evaluate(bundle, gather(settings)["train"], show=False)
    # of what it has seen: three patches teach nothing about other scenes
    assert found.network.pooled.counts.confusion.accuracy > 0.6
    assert 0 <= load_bundle(tmp_path / "clouds").metadata.metrics["validation"]["iou"] <= 1


@pytest.mark.slow
def test_massachusetts_roads_are_learnt_without_their_white_no_data(tmp_path):
    data = {
        "layout": "massachusetts",
        "root": str(SHARED / "mass_roads"),
        "train": ["*17428735_15"],
        "validate": ["*17428750_15"],
    }
    settings = quick(data, ROAD, ["red", "green", "blue"])
    parts = gather(settings)
    for sample in (*parts["train"], *parts["validate"]):
        from train.config.schema import IGNORE

        read = sample.read(sample.geobox.whole)
        white = (read.pixels == 255).all(axis=0)
        assert (read.labels[white] == IGNORE).all()
        assert not read.valid[white].any()
        assert np.isin(read.labels[~white], (0, 1)).all()
    bundle = train(settings, tmp_path / "roads", show=False)
    assert bundle.metadata.metrics["validation"]["iou"] > 0.1
