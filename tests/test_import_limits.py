"""Small hostile files of weights: what would take memory without bound, or is of no use, is refused in one line."""

import pytest
import torch

import models.importing as importing
from models.build import build
from models.errors import SwatheError
from models.importing import import_model

SETTINGS = {
    "name": "small",
    "bands": ["red", "green", "blue"],
    "dtype": "uint16",
    "scaling": {"divisor": 10000},
    "classes": ["ground", "roof"],
}
SMALL = {**SETTINGS, "architecture": "unet", "options": {"widths": [4, 8]}}


def refused(path, settings, *words):
    """Return the one line in which an import is refused; nothing is written."""
    with pytest.raises(SwatheError) as caught:
        import_model(path, path.parent / "out", config=settings)
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said
    assert not (path.parent / "out").exists()
    return said


def small_state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build("unet", 3, 2, widths=[4, 8]).state_dict()


def saved(folder, state):
    torch.save(state, folder / "w.pth")
    return folder / "w.pth"


@pytest.mark.parametrize("encoder", ["resnet18", "mit_b0"])
def test_a_network_is_made_only_where_the_weights_fit(encoder, tmp_path, monkeypatch):
    """Its settings may ask for any size; one of 20,000 channels takes 15 GB."""
    monkeypatch.setattr(importing, "build", lambda *_, **__: pytest.fail("it was made"))
    options = {"encoder_name": encoder, "decoder_channels": [20_000] * 5}
    told = {**SETTINGS, "architecture": "smp:Unet", "options": options}
    refused(saved(tmp_path, small_state()), told, "does not fit smp:Unet: missing ")
