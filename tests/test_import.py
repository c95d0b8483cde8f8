"""`swathe import`: what a file is is told by its content, wrong kinds are named, and what is missing is asked for."""

import argparse
import io
import json
import pickle
import struct
import sys
import tarfile
import textwrap
import tomllib
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner
from helpers import metadata, pixels, save, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from models import SwatheError, load_bundle
from models.build import build
from models.factory import MODULES
from models.importing import describe_model, import_model
from models.imports.recognise import recognise
from models.telling import telling
from pipeline.cli.app import cli

SMALL = {"widths": [4, 8, 8]}
SETTINGS = {
    "name": "small",
    "bands": ["red", "green", "blue", "nir"],
    "dtype": "uint16",
    "scaling": {"divisor": 10000},
    "classes": ["ground", "roof", "road"],
}


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Folders of the user are the test's: what is remembered and kept there must not be that of whoever runs it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv(MODULES, raising=False)


def weights(place: Path, classes: int = 3, bands: int = 4) -> Path:
    torch.manual_seed(0)
    torch.save({"state_dict": build("unet", bands, classes, **SMALL).state_dict()}, place / "w.pth")
    return place / "w.pth"


def zipped(place: Path, name: str, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(place / name, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return place / name


def script(place: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Conv2d(3, 2, 1)).save(place / "s.pt")
    return place / "s.pt"


def keras(place: Path, key: str, name: str) -> Path:
    with h5py.File(place / name, "w") as file:
        file.attrs[key] = "{}"
    return place / name


def pickled(place: Path, what: object, **more: object) -> Path:
    torch.save(what, place / "p.pth", **more)
    return place / "p.pth"


def written(place: Path, name: str, content: bytes) -> Path:
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(content)
    return place / name


def tar(place: Path) -> Path:
    with tarfile.open(place / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())
    return place / "a.tar"


def onnx_like(length: int) -> bytes:
    """The outermost fields of an ONNX file: version 8, and a graph of 100 bytes of which so many are there."""
    return b"\x08\x08" + b"\x12\x01a" + b"\x3a\x64" + bytes(length)


WRONG = {
    "missing": (lambda p: p / "none", "no such file or folder"),
    "empty": (lambda p: written(p, "w.onnx", b""), "is empty: it was cut off"),
    "zeros": (lambda p: written(p, "w.onnx", bytes(5000)), "is nothing but zeros"),
    "folder": (lambda p: written(p, "f/x", b"").unlink() or p / "f", "is an empty folder"),
    "folder of weights": (lambda p: written(p, "f/w.onnx", b"a").parent, "give one of its files, as .*w.onnx"),
    "folder of others": (lambda p: written(p, "f/a.csv", b"a").parent, "a folder of 1 files without a network"),
    "SavedModel": (lambda p: written(p, "f/saved_model.pb", b"\x08\x01").parent, r"SavedModel.*tf2onnx"),
    "bundle": (lambda p: save(p / "b", metadata()).path, "is a bundle of Swathe already"),
    "zipped bundle": (lambda p: save(p / "b.zip", metadata()).path, "is a bundle of Swathe already"),
    "Zarr": (lambda p: written(p, "f/zarr.json", b"{}").parent, "a Zarr store"),
    "TorchScript": (script, "is TorchScript, which is code"),
    "compiled": (lambda p: zipped(p, "a.pt2", {"a/data/aotinductor/model/x.so": b"x"}), "compiled by AOTInductor"),
    "Keras": (lambda p: keras(p, "model_config", "k.h5"), r"is a Keras model \(.h5\).*format=.onnx"),
    "weights of Keras": (lambda p: keras(p, "layer_names", "k.h5"), "weights of Keras without their model"),
    "zipped Keras": (lambda p: zipped(p, "k.keras", {"config.json": b"{}", "model.weights.h5": b""}), "a Keras model"),
    "HDF5": (lambda p: keras(p, "title", "n.nc"), "HDF5, as NetCDF-4"),
    "cut HDF5": (lambda p: written(p, "k.h5", b"\x89HDF\r\n\x1a\n" + bytes(9)), "damaged or cut HDF5"),
    "TensorFlow Lite": (lambda p: written(p, "m.tflite", b"\x1c\0\0\0TFL3" + bytes(99)), "TensorFlow Lite.*--tflite"),
    "GGUF": (lambda p: written(p, "m.gguf", b"GGUF" + bytes(99)), "is GGUF, weights of a language model"),
    "raster": (lambda p: write_raster(p / "r.tif", pixels((3, 16, 16))) or p / "r.tif", r"is a raster \(TIFF\)"),
    "picture": (lambda p: written(p, "r.png", b"\x89PNG\r\n\x1a\n123"), r"is a raster \(PNG\)"),
    "text": (lambda p: written(p, "m.txt", b"hello there"), "is a text file .'hello there'"),
    "Python": (lambda p: written(p, "m.py", b"import os\n"), "Python's source, of which none is run.*--factory"),
    "settings": (lambda p: written(p, "m.toml", b"name = 1\n"), r"TOML.: settings are given with --config"),
    "Git LFS": (lambda p: written(p, "w.pth", b"version https://git-lfs.github.com/spec/v1\noid"), "git lfs pull"),
    "HTML": (lambda p: written(p, "w.pth", b"\n<!DOCTYPE html><html>"), "is a page of HTML"),
    "OpenVINO": (lambda p: written(p, "m.xml", b'<?xml version="1.0"?><net/>'), "XML: of OpenVINO's IR"),
    "JSON": (lambda p: written(p, "m.json", b'{"a": 1}'), r"JSON that describes no network \(it holds a\)"),
    "broken JSON": (lambda p: written(p, "m.json", b'{"a": '), "is not JSON|looks like JSON"),
    "NumPy": (lambda p: np.savez(p / "a.npz", a=np.zeros(3)) or p / "a.npz", r"arrays of NumPy \(.npz\)"),
    "one array": (lambda p: np.save(p / "a.npy", np.zeros(3)) or p / "a.npy", "is an array of NumPy"),
    "zip": (lambda p: zipped(p, "a.zip", {"a.txt": b"1"}), r"a zip of 1 files without a network \(a.txt\)"),
    "cut zip": (lambda p: written(p, "w.pth", weights(p).read_bytes()[:2000]), "a zip without its end"),
    "tar": (tar, "is a tar: unpack it"),
    "gzip": (lambda p: written(p, "w.pth.gz", b"\x1f\x8b\x08abc"), "packed with gzip"),
    "unknown": (lambda p: written(p, "w.pth", b"\xfe\xed" * 40), "of a kind that is known .it begins with fe"),
    "cut safetensors": (lambda p: written(p, "w.safetensors", tensors(p)[:-9]), "safetensors that were cut off"),
    "damaged safetensors": (lambda p: written(p, "w", struct.pack("<Q", 9) + b"{nothing}" + bytes(9)), "no table"),
    "cut ONNX": (lambda p: written(p, "m.onnx", onnx_like(50)), "is ONNX that was cut off"),
    "no tensors": (lambda p: pickled(p, {"epoch": 3}), "holds no tensors by name"),
    "another pickle": (lambda p: written(p, "p.pkl", pickle.dumps(argparse.Namespace(a=1))),
                       "a pickle of argparse.Namespace, not of a network of torch; no code in it is run"),
}  # fmt: skip


def tensors(place: Path) -> bytes:
    safetensors.torch.save_file({"a": torch.zeros(9)}, place / "t.safetensors")
    return (place / "t.safetensors").read_bytes()


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_network_is_named_in_one_line(kind, tmp_path):
    make, said = WRONG[kind]
    path = make(tmp_path)
    done = CliRunner().invoke(cli, ["import", str(path), "-o", str(tmp_path / "out")])
    assert isinstance(done.exception, SwatheError), done.exception
    assert "\n" not in str(done.exception)
    assert str(path) in str(done.exception)
    with pytest.raises(SwatheError, match=said):
        describe_model(path)
    assert not (tmp_path / "out").exists()


class Own(nn.Conv2d):
    """A class that a pickle names."""


def beside() -> dict[str, object]:
    return {"state_dict": {"a": torch.zeros(3)}, "args": Own(1, 1, 1)}


@pytest.mark.parametrize(
    ("made", "new", "save_line"),
    [
        (lambda: Own(1, 1, 1), True, "torch.save(loaded.state_dict(), 'weights.pth')"),
        (lambda: Own(1, 1, 1), False, "torch.save(loaded.state_dict(), 'weights.pth')"),
        (beside, False, "torch.save(loaded['state_dict'], 'weights.pth')"),
    ],
)
def test_the_two_lines_for_a_pickle_save_its_weights(made, new, save_line, tmp_path, monkeypatch):
    """They are run as they are printed."""
    path = pickled(tmp_path, made(), _use_new_zipfile_serialization=new)
    with pytest.raises(SwatheError, match=r"is a pickle that holds test_import\.Own") as refused:
        recognise(path)
    lines = [line.strip() for line in str(refused.value).splitlines()[1:]]
    assert lines[1] == save_line
    monkeypatch.chdir(tmp_path)
    for line in lines:
        exec(line, globals())
    assert torch.load("weights.pth", weights_only=True)


def test_weights_beside_other_objects_are_read_without_these(tmp_path):
    """In files of torch 1.6 and later, where tensors are apart from the pickle."""
    assert recognise(pickled(tmp_path, beside())).network == "state"


STARTS = [b"", b"\x80\x02", b"\x80\x04\x95", b"PK\x03\x04", b"\x08\x08\x12\x03", b"\x10\0\0\0\0\0\0\0{", b"{", b"<"]


@settings(max_examples=60, deadline=None)
@given(content=st.binary(min_size=1, max_size=200), start=st.sampled_from(STARTS))
def test_whatever_a_file_holds_it_is_recognised_or_refused(content, start, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(start + content)
    with suppress(SwatheError):  # any other error fails
        recognise(path)


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "net.module."])
@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict"])
def test_a_described_network_is_imported_once_what_is_missing_is_filled_in(prefix, wrapper, tmp_path):
    network = build("unet", 4, 3, **SMALL)
    state = {prefix + key: value for key, value in network.state_dict().items()}
    torch.save({wrapper: state} if wrapper else state, tmp_path / "w.pth")
    text = describe_model(tmp_path / "w.pth")
    known = tomllib.loads(text)
    assert (known["architecture"], known["options"]) == ("unet", SMALL)
    assert (known["bands"], known["classes"]) == (["?"] * 4, ["?"] * 3)
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(SwatheError, match="does not tell bands, dtype, scaling, classes") as refused:
        import_model(tmp_path / "w.pth", tmp_path / "b", config=tmp_path / "c.toml")
    assert "--describe" in str(refused.value)
    for key, value in SETTINGS.items():
        line = next(line for line in text.splitlines() if line.startswith(f"{key} ="))
        text = text.replace(line, f"{key} = " + (json.dumps(value) if key != "scaling" else "{ divisor = 10000 }"))
    (tmp_path / "c.toml").write_text(text)
    bundle = import_model(tmp_path / "w.pth", tmp_path / "b", config=tmp_path / "c.toml")
    assert bundle.metadata.provenance["imported from"] == "w.pth"
    for key, tensor in bundle.network().state_dict().items():
        torch.testing.assert_close(tensor, network.state_dict()[key], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"bands": ["red", "green", "blue"]}, "it has 4 bands, and 3 are named"),
        ({"classes": ["a", "b"]}, "its answer has 3 channels, and 2 are asked for, of 2 classes with softmax"),
        ({"classes": ["a", "b"], "activation": "sigmoid"}, "3 channels, and 1 are asked for, of 2 classes with sig"),
        ({"classes": 3}, r"classes is a list.*received '3'"),
        ({"provenance": 3}, "provenance is a table"),
        ({"bands": ["red", "?", "blue", "nir"]}, "does not tell bands"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"architecture": "torchvision:none"}, "torchvision has no network of segmentation 'none'"),
        ({"architecture": "monai:none"}, "monai"),
        ({"architecture": "factory"}, "a factory is given as package.module:function"),
    ],
)  # fmt: skip
def test_settings_that_differ_from_the_file_are_named(more, said, tmp_path):
    with pytest.raises(SwatheError, match=said):
        import_model(weights(tmp_path), tmp_path / "b", config={**SETTINGS, **more})
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scaling": {"mean": 0, "stddev": 1, "divisor": 255}}, "received 'the keys mean, stddev, divisor'"),
        ({"scaling": {"divisor": 255, "clip": [0, 1], "offset": -1}}, "received 'the keys divisor, clip, offset'"),
        ({"scaling": {"stddev": 1}}, "scaling is mean and stddev, .*received 'the keys stddev'"),
        ({"scaling": 255}, "scaling is .*received '255'"),
        (
            {"scaling": {"mean": 0, "stddev": [1, 1, 1, -1]}},
            r"stddev in scaling is above 0; received '\[1, 1, 1, -1\]'",
        ),
        ({"scaling": {"divisor": "255"}}, "divisor in scaling is a number, or one for each of 4 bands; received '255'"),
        ({"scaling": {"divisor": True}}, "divisor in scaling is a number"),
        ({"scaling": {"divisor": float("inf")}}, "divisor in scaling is a number"),
        ({"scaling": {"divisor": 255, "means": [1, 2]}}, "means in scaling is a number, or one for each of 4"),
        ({"bands": "RGBN"}, "bands is a list.*received 'RGBN'"),
        ({"classes": {"cloud": 1, "clear": 0}}, "classes is a list.*received .*cloud"),
        (
            {"classes": [{"name": "cloud", "value": 1}, "b", "c"]},
            "a class is a name, or a table.*received .*'value': 1",
        ),
        ({"classes": [{"nam": "a"}, "b", "c"]}, "a class is a name, or a table.*received .*nam"),
        ({"dtype": "banana"}, "dtype is one of uint8, .*received 'banana'"),
        ({"dtype": 8}, "dtype is a text; received '8'"),
        ({"patch": -5}, "patch is a whole number.*received '-5'"),
        ({"patch": float("inf")}, "patch is a whole number.*received 'inf'"),
        ({"resolution": [60, -10]}, "resolution is metres per pixel above 0.*received"),
        ({"resolution": [2, 1]}, "resolution is metres per pixel above 0"),
        ({"resolution": 0}, "resolution is metres per pixel above 0"),
        ({"resolution": {"a": 1}}, "resolution is metres per pixel above 0"),
        ({"thresholds": True}, "thresholds is a probability.*received 'True'"),
        ({"thresholds": {"roof": True, "road": 0.5}}, "thresholds is a probability"),
        ({"drop": "loss"}, "drop is a list of texts.*received 'loss'"),
        ({"name": 5}, "name is a text; received '5'"),
        ({"architecture": 5}, "architecture is a text; received '5'"),
        ({"architecture": ["unet"]}, "architecture is a text; received .*unet"),
        ({"options": "x"}, "options is a table of keys and values; received 'x'"),
    ],
)
def test_settings_that_would_be_taken_for_something_else_are_refused(more, said, tmp_path):
    with pytest.raises(SwatheError, match=said) as refused:
        import_model(weights(tmp_path), tmp_path / "b", config={**SETTINGS, **more})
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "b").exists()


def test_what_a_file_is_and_what_is_measured_is_told(tmp_path):
    told: list[str] = []
    with telling(lambda text, always: told.append(text)):
        import_model(weights(tmp_path), tmp_path / "b", config=SETTINGS)
    assert told[0].startswith("it is a state dict of ")
    assert any(text.startswith("measuring how far outputs see") for text in told)
    words = ["import", str(tmp_path / "w.pth"), "--config", "none.toml"]
    assert "none.toml cannot be read" in str(CliRunner().invoke(cli, words).exception)


MINE = """
    import os
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self, num_classes, width):
            super().__init__()
            self.first, self.last = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, num_classes, 1)

        def forward(self, x):
            full = self.last(torch.relu(self.first(x)))
            return {"out": full, "aux": full[:, :, ::2, ::2]}

    def unfit(): return 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own, on the path, and weights of its network."""
    (tmp_path / "code").mkdir()
    name = f"mine_{abs(hash(str(tmp_path)))}"
    (tmp_path / "code" / f"{name}.py").write_text(textwrap.dedent(MINE))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr("models.factory._named", set())
    network = __import__(name).Net(3, 5)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    yield name, network, tmp_path / "own.pth"
    sys.modules.pop(name, None)


def test_a_class_of_the_users_own_is_made_only_where_they_say_so(mine, tmp_path, monkeypatch):
    name, network, path = mine
    config = {**SETTINGS, "options": {"width": 5}}
    bundle = import_model(path, tmp_path / "b", config=config, factory=f"{name}:Net")
    assert bundle.metadata.options == {"width": 5, "factory": f"{name}:Net"}
    assert bundle.metadata.receptive_field.radius == 1
    pixels = torch.rand(1, 4, 32, 32) * 10000
    with torch.inference_mode():
        expected = network(pixels / 10000)["out"].softmax(1)
        torch.testing.assert_close(bundle.segmenter()(pixels), expected, rtol=0, atol=1e-6)
    monkeypatch.setattr("models.factory._named", set())  # as another process: the user's folder still knows it
    load_bundle(tmp_path / "b").network()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "of another user"))
    with pytest.raises(SwatheError, match=f"code of the user's own.*{MODULES}={name}:Net"):
        load_bundle(tmp_path / "b").network()
    for named in (f"other,{name}", f"{name}:Net"):
        monkeypatch.setenv(MODULES, named)
        load_bundle(tmp_path / "b").network()


@pytest.mark.parametrize("allowed", [None, "{}", "{}:Net"])
@pytest.mark.parametrize("asked", ["{}:os.system", "os:system", "{}:torch.hub.load"])
def test_a_bundle_calls_nothing_but_what_its_user_has_named(mine, asked, allowed, tmp_path, monkeypatch):
    """Whoever sends a bundle may write another function and other options into it."""
    import_model(mine[2], tmp_path / "b", config={**SETTINGS, "options": {"width": 5}}, factory=f"{mine[0]}:Net")
    item = json.loads((tmp_path / "b/bundle.json").read_text())
    item["properties"]["mlm:hyperparameters"] = {"factory": asked.format(mine[0]), "command": f"touch {tmp_path}/ran"}
    (tmp_path / "b/bundle.json").write_text(json.dumps(item))
    if allowed:
        monkeypatch.setenv(MODULES, allowed.format(mine[0]))
    with pytest.raises(SwatheError, match=r"code of the user's own|is not called"):
        load_bundle(tmp_path / "b").network()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("Net", "package.module:function"),
        ("../evil:run", "package.module:function"),
        ("none_such_module:run", "cannot be imported"),
        ("{}:Other", "cannot be imported"),
        ("{}:unfit", "makes a int, not a torch.nn.Module"),
        ("{}:Net", "cannot be built"),
    ],
)
def test_a_factory_that_makes_no_network_is_refused(mine, factory, said, tmp_path):
    with pytest.raises(SwatheError, match=said):
        import_model(mine[2], tmp_path / "b", config=SETTINGS, factory=factory.format(mine[0]))
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "config").exists()


def test_bundles_are_listed_with_licences_and_found_by_name(tmp_path):
    run = CliRunner().invoke
    (tmp_path / "c.json").write_text(json.dumps({**SETTINGS, "provenance": {"licence": "CC0-1.0"}}))
    words = ["import", str(weights(tmp_path)), "--config", str(tmp_path / "c.json"), "-q"]
    assert "wrote" in run(cli, words).output
    assert "already complete" in run(cli, words).output
    listed = run(cli, ["bundles"]).output
    assert listed.startswith("buildings ")
    assert str(tmp_path / "data") in listed
    assert "small" in listed
    assert "CC0-1.0" in listed
    assert "csmask-4b-l1c" in listed
    card = run(cli, ["info", "small"]).output
    assert "licence     CC0-1.0" in card
    assert "imported from: w.pth" in card
    assert run(cli, ["bundles", "small"]).output == card
    assert "Apache-2.0" in run(cli, ["info", "clouds"]).output
    (tmp_path / "data/swathe/bundles/broken.zip").write_bytes(b"PK\x03\x04")
    assert "not usable" in run(cli, ["bundles"]).output
