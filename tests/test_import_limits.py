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


def test_weights_that_repeat_their_numbers_are_refused(tmp_path):
    """A file of some bytes may say that it holds a network of any size."""
    state = small_state()
    key = next(key for key in state if state[key].ndim == 4)
    wide = torch.zeros(1).expand(20_000, 20_000, 3, 3)
    refused(saved(tmp_path, {**state, key: wide}), SMALL, "w.pth", "repeats", "3,600,000,000")


ODD = {
    "complex64": lambda ones: ones.to(torch.complex64),
    "int8": lambda ones: ones.to(torch.int8),
    "bool": lambda ones: ones.to(torch.bool),
    "float8_e4m3fn": lambda ones: ones.to(torch.float8_e4m3fn),
    "sparse": lambda ones: ones.to_sparse(),
    "meta": lambda ones: ones.to("meta"),
    "qint8": lambda ones: torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ODD)
def test_weights_of_a_kind_that_no_network_here_has_are_named(kind, tmp_path):
    state = small_state()
    key = next(key for key in state if state[key].ndim == 4)
    assert state[key].shape == (4, 3, 3, 3)
    refused(saved(tmp_path, {**state, key: ODD[kind](state[key])}), SMALL, "w.pth", key, kind)


def test_half_precision_is_taken(tmp_path):
    half = {key: value.to(torch.bfloat16) if value.is_floating_point() else value
            for key, value in small_state().items()}  # fmt: skip
    assert import_model(saved(tmp_path, half), tmp_path / "out", config=SMALL).parameters


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("rename", "x", "rename is a table"),
        ("rename", {"a": 5}, "rename is a table"),
        ("rename", {"down": "\\g<none>"}, "'down'"),
        ("swap", [5], "swap is a list of texts"),
        ("swap", "down", "swap is a list of texts"),
        ("drop", 5, "drop is a list of texts"),
        ("options", {5: 1}, "options is a table"),
        ("drop", {"a": 1}, "drop is a list of texts"),
    ],
)
def test_patterns_of_wrong_types_are_named(key, value, word, tmp_path):
    refused(saved(tmp_path, small_state()), {**SMALL, key: value}, word)
