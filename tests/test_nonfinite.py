"""Numbers that are none: weights, samples and answers of NaN or infinity never become a class."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import metadata, network, save
from safetensors.torch import load_file, save_file

from models import ClassInfo
from models.bundle import WEIGHTS, load_bundle, save_bundle
from models.errors import BundleError
from models.importing import import_bundle


def spoilt(value: float, key: str = "weight") -> torch.nn.Module:
    """A network one of whose numbers is wrong."""
    made = network("unet", 3, 2)
    state = made.state_dict()
    place = next(name for name in state if name.endswith(key))
    state[place].view(-1)[-1] = value
    return made


@pytest.mark.parametrize(
    ("value", "key"),
    [(float("nan"), "weight"), (float("inf"), "bias"), (-float("inf"), "running_mean"), (-1.0, "running_var")],
)
def test_weights_that_are_no_numbers_are_refused_when_made_imported_and_loaded(value, key, tmp_path):
    made = spoilt(value, key)
    with pytest.raises(BundleError, match=f"NaN, infinity or a variance below 0 in .*{key}") as caught:
        save_bundle(tmp_path / "made", made, metadata("unet"))
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())

    folder = save(tmp_path / "good", metadata("unet")).path
    state = load_file(folder / WEIGHTS)
    save_file({**state, **{name: value for name, value in made.state_dict().items() if name.endswith(key)}},
              folder / WEIGHTS)  # fmt: skip
    with pytest.raises(BundleError, match="good: weights hold NaN"):
        load_bundle(folder).network()

    torch.save(made.state_dict(), tmp_path / "w.pth")
    with pytest.raises(BundleError, match=r"w\.pth: weights hold NaN"):
        import_bundle(tmp_path / "w.pth", config(tmp_path), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def config(folder: Path, **changes: Any) -> Path:
    """What `import_bundle` is told of `network("unet", 3, 2)`."""
    said = {
        "name": "x", "architecture": "unet", "options": {"widths": [4, 8, 8]}, "bands": ["a", "b", "c"],
        "dtype": "uint8", "scaling": {"divisor": 255},
        "classes": [{"name": "clear", "color": "000000"}, {"name": "b", "color": "FFFFFF"}], **changes,
    }  # fmt: skip
    path = folder / "c.json"
    path.write_text(json.dumps(said))
    return path


@pytest.mark.parametrize("name", ["nodata", "NoData", " NODATA"])
def test_no_class_is_called_as_what_was_not_observed(name, tmp_path):
    """In a store's counts, its pixels would be those that were not observed."""
    with pytest.raises(BundleError, match=r"a class cannot be called .*rename it"):
        replace(metadata("unet"), classes=(ClassInfo("class_0", "000000"), ClassInfo(name, "FFFFFF")))
    folder = save(tmp_path / "b", metadata("unet")).path
    item = (folder / "bundle.json").read_text()
    (folder / "bundle.json").write_text(item.replace('"class_1"', json.dumps(name)))
    with pytest.raises(BundleError, match="a class cannot be called"):
        load_bundle(folder)
    torch.save(network("unet", 3, 2).state_dict(), tmp_path / "w.pth")
    classes = [{"name": "a", "color": "000000"}, {"name": name, "color": "FFFFFF"}]
    with pytest.raises(BundleError, match="a class cannot be called"):
        import_bundle(tmp_path / "w.pth", config(tmp_path, classes=classes), tmp_path / "c")
