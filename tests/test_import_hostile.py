"""Hostile and broken files for the readers of imports: each is refused in one line, and nothing in it is run."""

import importlib
import json
import os
import pickle
import subprocess
import zipfile
from contextlib import suppress

import pytest
import safetensors.torch
import torch
from foreign import Asks, definition, item, raw_checkpoint, save_lightning, save_package, save_smp

from models.errors import BundleError, NetworkError, SwatheError
from models.importing import import_model, read_state_dict
from models.imports.arcgis import read_arcgis
from models.imports.checkpoint import PlainValues, read_checkpoint
from models.imports.deepness import deepness_facts
from models.imports.hub import refuse_hub_folder
from models.imports.lightning import read_lightning
from models.imports.mlm_item import read_mlm_item
from models.imports.recognise import recognise
from models.imports.smp_folder import read_smp_folder

DEEP = '{"a":' + "[" * 20_000 + "]" * 20_000 + "}"


def refused(read, path, *words):
    """Return the one line in which a file is refused."""
    with pytest.raises(SwatheError) as caught:
        read(path)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) <= 600
    for word in words:
        assert word in said
    return said


# checkpoints


@pytest.mark.parametrize(
    "call", [(os.system,), (eval,), (exec,), (subprocess.Popen,), (importlib.import_module,), (print,)]
)
def test_pickles_that_ask_for_code(call, tmp_path, capfd):
    hostile = {
        "pytorch-lightning_version": "2",
        "state_dict": {},
        "hyper_parameters": {"a": Asks(call[0], "print('ran')")},
    }
    path = raw_checkpoint(tmp_path / "a.ckpt", hostile)
    refused(
        read_lightning, path, "which runs code as the file is read, and is refused", "torch.save(network.state_dict()"
    )
    refused(read_state_dict, path)
    assert "ran" not in capfd.readouterr().out


def test_code_in_a_class_of_ones_own_is_not_run(tmp_path):
    asks = Asks(raw_checkpoint, str(tmp_path / "made"), b"c")
    found = read_lightning(save_lightning(tmp_path / "a.ckpt", {"model.a": torch.ones(1)}, a=asks))
    assert found is not None
    assert "a is left out: it is foreign.raw_checkpoint" in found.notes[0]
    assert not (tmp_path / "made").exists()


def test_objects_among_the_weights(tmp_path):
    hostile = {"pytorch-lightning_version": "2", "state_dict": {"a": Asks(raw_checkpoint, "b", b"c")}}
    refused(read_lightning, raw_checkpoint(tmp_path / "a.ckpt", hostile), "objects among its weights")


def test_settings_without_end(tmp_path):
    endless = [0] * 10
    for _ in range(40):  # 2**40 values in some hundred bytes
        endless = [endless, endless]
    refused(read_lightning, save_lightning(tmp_path / "a.ckpt", {}, a=endless), "settings without end")
    around: list[object] = []
    around.append(around)
    refused(read_lightning, save_lightning(tmp_path / "b.ckpt", {}, a=around), "settings without end")


def test_many_classes(tmp_path):
    named = b"".join(b"cmodule\nName%d\n" % number for number in range(2_000))
    refused(read_lightning, raw_checkpoint(tmp_path / "a.ckpt", b"\x80\x02(" + named + b"t."), "2,000 classes")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x80\x02", b"\x80\x04\x95", b"\x80\x02X\xff\xff\xff\xff", b"\x80\x02}q\x00U\x01", b"\x80\x02h\x05."],
)
def test_damaged_pickles(content, tmp_path):
    refused(read_lightning, raw_checkpoint(tmp_path / "a.ckpt", content), "cannot be read as tensors and plain values")


def test_weights_packed_like_a_bomb(tmp_path):
    path = raw_checkpoint(tmp_path / "a.ckpt", b"\x80\x02N." + bytes(2**24), zipfile.ZIP_DEFLATED)
    refused(read_lightning, path, "packed like a zip bomb")


def test_checkpoint_cut_off(tmp_path):
    whole = save_lightning(tmp_path / "a.ckpt", {"model.a": torch.ones(1000)}, model="unet").read_bytes()
    for length in (len(whole) // 2, len(whole) - 30):
        (tmp_path / "b.ckpt").write_bytes(whole[:length])
        assert read_lightning(tmp_path / "b.ckpt") is None  # no zip any more
        with pytest.raises(NetworkError):
            read_state_dict(tmp_path / "b.ckpt")


@pytest.mark.parametrize("changed", [
    {"in_channels": 10**9}, {"in_channels": -1}, {"in_channels": "four"}, {"num_classes": 10**6}, {"num_classes": 2.5},
    {"task": "detection"}, {"model": "\x1b[31mevil"}, {"model": "mask-rcnn"},
])  # fmt: skip
def test_absurd_settings_of_torchgeo(changed, tmp_path):
    told = {"model": "unet", "backbone": "resnet18", "in_channels": 4, "num_classes": 5, "task": "multiclass"} | changed
    said = refused(read_lightning, save_lightning(tmp_path / "a.ckpt", {}, **told))
    assert "\x1b" not in said


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_classes": 1e300},
        {"num_classes": 3},
        {"bands": ["a" * 10_000]},
        {"bands": ["R"] * 10_000},
        {"num_classes": [3]},
    ],
)
def test_absurd_settings_of_terratorch(arguments, tmp_path):
    refused(
        read_lightning, save_lightning(tmp_path / "a.ckpt", {}, model_args=arguments, model_factory="SMPModelFactory")
    )


def test_huge_views_take_no_memory(tmp_path):
    path = save_lightning(tmp_path / "a.ckpt", {}, a=torch.zeros(1).expand(2**40))
    values = PlainValues(path)
    assert values.table(read_checkpoint(path)["hyper_parameters"]) == {}
    assert "1,099,511,627,776 numbers" in values.left_out["a"]


# folders of smp and of the Hub


@pytest.mark.parametrize("changed", [
    {"in_channels": 10**12}, {"classes": 300}, {"classes": 0}, {"in_channels": None}, {"activation": "tanh"},
    {"activation": ["a"]},
    {"_model_class": ""}, {"_model_class": "U" * 10_000}, {"classes": True},
    {f"option{number}": 1 for number in range(200)},
])  # fmt: skip
def test_absurd_descriptions_of_smp(changed, tmp_path):
    refused(read_smp_folder, save_smp(tmp_path / "a", **changed), "config.json")


@pytest.mark.parametrize(
    "text",
    [DEEP, '{"_model_class": "Unet", "in_channels": 1' + "0" * 5000 + "}", '{"a": ', "{" + " " * 5_000_000 + "}"],
)
def test_hostile_json_in_folders(text, tmp_path):
    folder = save_smp(tmp_path / "a")
    (folder / "config.json").write_text(text)
    refused(read_smp_folder, folder)
    refused(refuse_hub_folder, folder)


def test_links_that_lead_out_of_a_folder(tmp_path):
    (tmp_path / "secret").write_text('{"_model_class": "Unet"}')
    for name in ("config.json", "model.safetensors"):
        folder = save_smp(tmp_path / name)
        (folder / name).unlink()
        (folder / name).symlink_to(tmp_path / "secret")
        refused(read_smp_folder, folder, "leads out of its folder")


def test_settings_in_a_folder_call_no_function(tmp_path, capfd):
    told = {"architecture": "factory", "options": {"factory": "os:system", "command": "echo ran"}, "bands": ["red"],
            "dtype": "uint8", "scaling": {"divisor": 255}, "classes": ["a", "b"]}  # fmt: skip
    folder = save_smp(tmp_path / "a")
    safetensors.torch.save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    (folder / "swathe.json").write_text(json.dumps(told))
    refused(lambda path: import_model(path, tmp_path / "out"), folder)
    assert "ran" not in capfd.readouterr().out
    assert not (tmp_path / "out").exists()


def test_folder_without_weights(tmp_path):
    folder = save_smp(tmp_path / "a")
    (folder / "model.safetensors").unlink()
    refused(read_smp_folder, folder, "without its weights")


@pytest.mark.parametrize(("config", "said"), [
    ({"architectures": ["SegformerForSemanticSegmentation"]},
     "a model of transformers (SegformerForSemanticSegmentation)"),
    ({"architecture": "resnet50", "num_classes": 1000}, "an encoder of timm (resnet50)"),
    ({"_class_name": "UNet2DModel"}, "a model of diffusers (UNet2DModel)"),
])  # fmt: skip
def test_folders_of_other_libraries(config, said, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_smp_folder(tmp_path) is None
    refused(refuse_hub_folder, tmp_path, said)


# ArcGIS


@pytest.mark.parametrize("name", ["../crops.pth", "..\\crops.pth", "/etc/passwd.pth", "C:\\crops.pth",
                                  "\\\\server\\a.pth", "a/../../b.pth",
                                  "https://example.com/a.pth", "file:///etc/a.pth", "x" * 5000 + ".pth"])  # fmt: skip
def test_weights_outside_of_a_package(name, tmp_path):
    (tmp_path / "crops.pth").write_bytes(b"w")
    (tmp_path / "in").mkdir()
    text = json.dumps(definition(ModelFile=name))
    (tmp_path / "in" / "a.emd").write_text(text)
    refused(read_arcgis, tmp_path / "in" / "a.emd", "leads out of its folder")
    refused(
        read_arcgis,
        save_package(tmp_path / "a.dlpk", text, {name: b"w", "../crops.pth": b"w"}),
        "leads out of its folder",
    )


@pytest.mark.parametrize(("changed", "word"), [
    ({"ModelType": "ObjectDetection"}, "for ObjectDetection"),
    ({"ModelFile": "frozen.pb", "Framework": "TensorFlow"}, "of TensorFlow"),
    ({"ModelFile": "gone.pth"}, "gone.pth"),
    ({"ExtractBands": [0, 9]}, "value that cannot be used"),
    ({"ExtractBands": [-1]}, "value that cannot be used"),
    ({"ExtractBands": [10**9]}, "value that cannot be used"),
    ({"ExtractBands": [0] * 5000}, "value that cannot be used"),
    ({"ExtractBands": {"a": 1}}, "value that cannot be used"),
    ({"Classes": [{"Value": n, "Name": str(n)} for n in range(1000)]}, "value that cannot be used"),
    ({"Classes": [{"Value": "x", "Name": "a"}]}, "value that cannot be used"),
    ({"Classes": ["a"]}, "value that cannot be used"),
    ({"Classes": [{"Value": 1, "Name": {"a": 1}}]}, "value that cannot be used"),
    ({"ImageHeight": 1e18}, "value that cannot be used"),
    ({"NormalizationStats": {"band_min_values": [0]}}, "value that cannot be used"),
    ({"NormalizationStats": dict.fromkeys(definition()["NormalizationStats"], [float("nan")] * 4)},
     "value that cannot be used"),
])  # fmt: skip
def test_absurd_definitions(changed, word, tmp_path):
    text = json.dumps(definition(**changed))
    refused(read_arcgis, save_package(tmp_path / "a.dlpk", text, {"crops.pth": b"w"}), word)
    (tmp_path / "crops.pth").write_bytes(b"w")
    (tmp_path / "a.emd").write_text(text)
    refused(read_arcgis, tmp_path / "a.emd", word)


@pytest.mark.parametrize("text", [DEEP, "[1]", "no JSON", b"\xff\xfe\x00"])
def test_hostile_json_in_packages(text, tmp_path):
    refused(read_arcgis, save_package(tmp_path / "a.dlpk", text, {"crops.pth": b"w"}), "JSON")


def test_packages_like_bombs(tmp_path):
    text = json.dumps(definition())
    bomb = save_package(tmp_path / "a.dlpk", text, {"crops.pth": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    refused(read_arcgis, bomb, "packed like a zip bomb")
    many = save_package(tmp_path / "b.dlpk", text, {str(number): b"" for number in range(10_001)})
    refused(read_arcgis, many, "10,002 files")
    two = save_package(tmp_path / "c.dlpk", text, {"other.emd": b"{}"})
    refused(read_arcgis, two, "2 models")


def test_package_that_lies_about_its_sizes(tmp_path):
    path = save_package(tmp_path / "a.dlpk", json.dumps(definition()), {"crops.pth": b"w" * 5000})
    whole = path.read_bytes()
    for number in range(len(whole) - 200, len(whole) - 20):  # the directory, where sizes and places are
        (tmp_path / "b.dlpk").write_bytes(whole[:number] + bytes([whole[number] ^ 0x55]) + whole[number + 1 :])
        with suppress(BundleError):  # and raises nothing else
            read_arcgis(tmp_path / "b.dlpk")


# Deepness


@pytest.mark.parametrize("properties", [
    {"model_type": '"Detector"'}, {"model_type": "[" * 20_000}, {"model_type": '"a"', "class_names": "(" * 5_000},
    {"seg_thresh": "7"}, {"seg_thresh": "nan"}, {"seg_thresh": "[0.5]"}, {"seg_thresh": "0.5", "resolution": "0"},
    {"seg_thresh": "0.5", "resolution": "-3"}, {"seg_thresh": "0.5", "resolution": "1e300"},
    {"seg_thresh": "0.5", "tile_size": "1000000000"}, {"seg_thresh": "0.5", "class_names": '{"0": "a", "2": "b"}'},
    {"seg_thresh": "0.5", "class_names": "open('/etc/passwd')"}, {"seg_thresh": "0.5", "class_names": '["a"]'},
    {"seg_thresh": "0.5", "class_names": json.dumps(dict(enumerate("a" * 1000)))},
    {"standardization_mean": "[0, 1]", "standardization_std": "[1]"},
    {"standardization_mean": "[0]", "standardization_std": "[0, 0]"},
    {"standardization_mean": "9" * 200_000, "standardization_std": "[1]"},
])  # fmt: skip
def test_hostile_metadata_of_deepness(properties, tmp_path):
    refused(lambda path: deepness_facts(properties, path), tmp_path / "a.onnx")


# STAC Items


@pytest.mark.parametrize("href", ["../weights.pth", "/etc/passwd", "a/../../weights.pth", "C:\\weights.pth", ""])
def test_assets_outside_of_an_items_folder(href, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "in").mkdir()
    whole = item()
    whole["assets"]["model"]["href"] = href
    (tmp_path / "in" / "item.json").write_text(json.dumps(whole))
    refused(read_mlm_item, tmp_path / "in" / "item.json", "leads out of its folder")


def test_asset_that_is_a_link_out_of_the_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"w")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "weights.pth").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "item.json").write_text(json.dumps(item()))
    refused(read_mlm_item, tmp_path / "in" / "item.json", "leads out of its folder")


def test_asset_of_another_checksum(tmp_path):
    whole = item()
    whole["assets"]["model"]["file:checksum"] = "1220" + "0" * 64
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(whole))
    refused(read_mlm_item, tmp_path / "item.json", "its SHA-256 is")


ABSURD = [
    ("mlm:tasks", ["classification"]), ("mlm:tasks", ["regression", "downscaling"]), ("mlm:input", []),
    ("mlm:input", [{}, {}]),
    ("mlm:input", [{"bands": ["B04"], "input": None}]), ("mlm:input", [{"bands": 5}]), ("mlm:input", 5),
    ("mlm:output", ["a"]),
    ("mlm:output", [{"classification:classes": [{"value": n, "name": "a"} for n in range(5000)]}]),
    ("mlm:output", [{"classification:classes": [{"value": None, "name": "a"}]}]),
    ("mlm:output", [{"classification:classes": [{"value": 0, "name": ""}]}]),
    ("mlm:output", [{"classification:classes": [{"value": float("inf"), "name": "a"}]}]),
    ("gsd", "coarse"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), ABSURD)
def test_absurd_items(field, value, tmp_path):
    whole = item()
    whole["properties"][field] = value
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(whole))
    refused(read_mlm_item, tmp_path / "item.json")


@pytest.mark.parametrize("taken", [
    {"bands": ["a"] * 10_000}, {"bands": [{"name": "b" * 1000}]}, {"value_scaling": [{"type": "z-score", "mean": 1}]},
    {"value_scaling": [{"type": "z-score", "mean": "x", "stddev": 1}] * 2},
    {"value_scaling": [{"type": "scale", "value": 1}] * 7},
    {"value_scaling": ["scale"]}, {"value_scaling": {"type": "scale"}},
])  # fmt: skip
def test_absurd_inputs_of_items(taken, tmp_path):
    whole = item()
    whole["properties"]["mlm:input"][0] |= taken
    (tmp_path / "weights.pth").write_bytes(b"w")
    (tmp_path / "item.json").write_text(json.dumps(whole))
    refused(read_mlm_item, tmp_path / "item.json")


def test_deep_items(tmp_path):
    (tmp_path / "item.json").write_text('{"properties": ' + DEEP + "}")
    refused(read_mlm_item, tmp_path / "item.json", "nested too deeply")


def test_a_pickle_of_a_network_is_no_checkpoint_of_lightning(tmp_path):
    torch.save(torch.nn.Conv2d(1, 1, 1), tmp_path / "a.pth")
    assert read_lightning(tmp_path / "a.pth") is None
    with pytest.raises(NetworkError, match=r"torch\.nn\.modules\.conv\.Conv2d"):
        read_state_dict(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps({"a": 1}))
    assert read_lightning(tmp_path / "b.pth") is None


def test_bombs_of_weights_alone(tmp_path):
    path = raw_checkpoint(tmp_path / "a.pth", b"\x80\x02N." + bytes(2**24), zipfile.ZIP_DEFLATED)
    refused(read_state_dict, path, "packed like a zip bomb")
    torch.save({"a": torch.ones(5_000), "b": torch.ones(5_000)}, tmp_path / "b.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "a") as archive:
        large = next(one for one in archive.infolist() if one.filename.endswith("data/0"))
        archive.filelist += [large] * 3
        archive.writestr("more", b"")  # that the directory is written anew
    refused(read_state_dict, tmp_path / "b.pth", "lie over each other")


def test_weights_that_hold_themselves(tmp_path):
    around: dict[str, object] = {}
    around["model"] = around
    torch.save(around, tmp_path / "a.pth")
    refused(read_state_dict, tmp_path / "a.pth", "no tensors by name")


def test_the_weights_that_are_named_are_read(tmp_path):
    folder = save_smp(tmp_path / "a")
    (folder / "pytorch_model.bin").write_bytes(b"others")
    for name in ("pytorch_model.bin", "model.safetensors"):
        found = read_smp_folder(folder / name)
        assert found is not None
        assert found.path.name == name


@pytest.mark.parametrize("key", ["drop", "rename", "swap"])
def test_a_folder_gives_no_patterns_of_keys(key, tmp_path):
    """Some take longer than any user waits; an export of ours holds none."""
    folder = save_smp(tmp_path / "a")
    endless = "((a+)+)+b"
    (folder / "swathe.json").write_text(json.dumps({key: {endless: "x"} if key == "rename" else [endless]}))
    refused(read_smp_folder, folder, f"swathe.json has {key}")


def test_links_to_themselves_in_folders(tmp_path):
    os.symlink("loop.pth", tmp_path / "loop.pth")
    (tmp_path / "a.emd").write_text(json.dumps(definition(ModelFile="loop.pth")))
    refused(read_arcgis, tmp_path / "a.emd", "names loop.pth, which is not in")


@pytest.mark.parametrize("keys", [("down.0.0.weight", "final.weight"), ("conv1.0.weight", "final.weight"),
                                  ("contract1.0.weight", "expand1.6.weight")])  # fmt: skip
@pytest.mark.parametrize("shape", [(), (4,)])
def test_keys_of_a_network_and_shapes_of_none(keys, shape, tmp_path):
    torch.save({key: torch.ones(shape) for key in keys}, tmp_path / "a.pth")
    assert "architecture" not in recognise(tmp_path / "a.pth").facts
