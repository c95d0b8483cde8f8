"""Bundles that hold an ONNX graph: every form of graph answers as the network it was made of, on each engine."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import network, pixels
from test_exporting import mistakes
from torch import Tensor, nn
from torch.nn import functional

from models import Bundle, load_bundle, measure_receptive_field, z_score
from models.bundle import ITEM, NETWORK, add_metrics, pack_bundle
from models.encoding import Encoding, classify
from models.engine import EngineSpec, make_engine, resolve
from models.errors import BundleError, EngineError, NetworkError
from models.exporting import write_item
from models.importing import import_onnx
from models.metadata import ReceptiveField
from models.segmenter import Segmenter

CPU = {name: EngineSpec(name=name, device="cpu", threads=1) for name in ("openvino", "onnxruntime")}
CENTRE, SPREAD = [2000.0, 2100.0, 1900.0], [800.0, 700.0, 900.0]
SETTINGS: dict[str, Any] = {
    "name": "foreign",
    "bands": ["red", "green", "blue"],
    "dtype": "uint16",
    "scaling": {"mean": CENTRE, "stddev": SPREAD},
    "classes": [{"name": name, "color": "808080"} for name in ("other", "road", "roof")],
}
UNET = ReceptiveField(4, 23)


class Form(nn.Module):
    """A U-Net as others write it: other axes, with its activation, or with the class alone."""

    def __init__(self, made: nn.Module, ending: str = "", nhwc: bool = False) -> None:
        super().__init__()
        self.made, self.ending, self.nhwc = made, ending, nhwc

    def forward(self, x: Tensor) -> Tensor:
        y = self.made(x.permute(0, 3, 1, 2) if self.nhwc else x)
        if self.ending == "classes":
            return y.argmax(1)
        if self.ending:
            y = {"softmax": lambda one: one.softmax(1), "sigmoid": torch.sigmoid}[self.ending](y)
        return y.permute(0, 2, 3, 1) if self.nhwc else y


def write(path: Path, made: nn.Module, shape: tuple[int, ...], fixed: tuple[str, ...] = (), **more: Any) -> Path:
    """Export with torch's older exporter; `fixed`: which of `batch` and `sides` keep the size of `shape`."""
    sides = (1, 2) if getattr(made, "nhwc", False) else (2, 3)
    free = {**({} if "batch" in fixed else {0: "n"}), **({} if "sides" in fixed else {sides[0]: "y", sides[1]: "x"})}
    axes = {"x": free, "y": free if more.pop("ranks", 4) == 4 else {0: "n", 1: "y", 2: "x"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter is deprecated, and traces
        torch.onnx.export(
            made.eval(), (torch.zeros(shape),), str(path), input_names=["x"], output_names=["y"], dynamo=False,
            dynamic_axes=axes, **more,
        )  # fmt: skip
    return path


FORMS: dict[str, tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    # of the module; what is fixed; what of the settings
    "logits": ({}, (), {}),
    "softmax": ({"ending": "softmax"}, (), {}),
    "classes": ({"ending": "classes"}, (), {}),
    "sigmoid of each": ({"ending": "sigmoid"}, (), {"activation": "sigmoid"}),
    "NHWC": ({"nhwc": True}, (), {}),
    "NHWC softmax": ({"nhwc": True, "ending": "softmax"}, (), {}),
    "fixed sides": ({}, ("sides",), {}),
    "fixed batch": ({}, ("batch",), {}),
    "NHWC, all fixed": ({"nhwc": True}, ("batch", "sides"), {}),
}
SIDE = 128


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Bundle, nn.Module]]:
    """Give a bundle of a form of graph, and the network it was made of."""
    made: dict[str, tuple[Bundle, nn.Module]] = {}

    def give(form: str) -> tuple[Bundle, nn.Module]:
        if form not in made:
            module, fixed, changed = FORMS[form]
            folder, unet = tmp_path_factory.mktemp("onnx"), network("unet", 3, 3)
            wrapped = Form(unet, **module)
            shape = (2, SIDE, SIDE, 3) if wrapped.nhwc else (2, 3, SIDE, SIDE)
            path = write(folder / "n.onnx", wrapped, shape, fixed, ranks=3 if wrapped.ending == "classes" else 4)
            made[form] = import_onnx(path, {**SETTINGS, **changed}, folder / "bundle"), unet
        return made[form]

    return give


@pytest.mark.parametrize("engine", CPU)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_answers_as_the_network(form, engine, foreign, threads):
    bundle, unet = foreign(form)
    values = pixels((3, 3, SIDE, SIDE))
    activation = "sigmoid" if "sigmoid" in form else "softmax"
    with torch.inference_mode():
        right = Segmenter(unet, z_score(CENTRE, SPREAD), activation).eval()(torch.from_numpy(values)).numpy()
    found = make_engine(bundle, CPU[engine]).predict(values)
    assert found.dtype == np.float32
    if form == "classes":
        sure = np.sort(right, axis=1)[:, -1] - np.sort(right, axis=1)[:, -2] > 1e-4
        np.testing.assert_array_equal(found.argmax(axis=1)[sure], right.argmax(axis=1)[sure])
        assert set(np.unique(found)) == {0, 1}
    else:
        np.testing.assert_allclose(found, right, atol=1e-5, rtol=0)
        assert right.std() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_what_a_graph_is_and_how_far_it_sees_is_found(form, foreign):
    bundle, _ = foreign(form)
    options = bundle.metadata.options
    assert bundle.metadata.architecture == "onnx"
    assert bundle.metadata.receptive_field == UNET
    assert options["layout"] == ("NHWC" if "NHWC" in form else "NCHW")
    assert options["side"] == (SIDE if "sides" in FORMS[form][1] else None)
    assert options["batch"] == (2 if "batch" in FORMS[form][1] else None)
    endings = {"softmax": "probabilities", "sigmoid": "probabilities", "classes": "classes", "": "logits"}
    assert options["output"] == endings[FORMS[form][0].get("ending", "")]


@pytest.mark.parametrize("engine", CPU)
def test_maps_are_made_as_the_host_makes_them(engine, foreign, threads):
    made = make_engine(foreign("fixed batch")[0], CPU[engine])
    values = pixels((3, 3, 96, 64))
    found, right = made.segment(values, Encoding(None, "uint8", (1, 2))), made.predict(values)
    for number, probabilities in enumerate(right):
        np.testing.assert_array_equal(found.class_map[number], classify(probabilities))
    assert np.abs(found.probability / 250 - right[:, 1:]).max() < 0.0021


def test_a_bundle_of_a_graph_is_kept_packed_and_scored_as_any_other(foreign, tmp_path):
    bundle, _ = foreign("logits")
    assert sorted(path.name for path in bundle.path.iterdir()) == [ITEM, NETWORK]
    (tmp_path / "packed.zip").write_bytes(pack_bundle(bundle))
    packed = load_bundle(tmp_path / "packed.zip")
    assert packed.digest == bundle.digest
    scored = add_metrics(tmp_path / "packed.zip", {"iou": 0.5})
    assert scored.digest == bundle.digest
    assert scored.metadata.metrics == {"iou": 0.5}
    with pytest.raises(BundleError, match="holds an ONNX graph, of which there is no network in torch"):
        bundle.segmenter()


def test_its_items_are_valid(foreign, tmp_path):
    bundle, _ = foreign("NHWC, all fixed")
    assert mistakes(bundle.item) == []
    item = json.loads(write_item(bundle, tmp_path / "item.json").read_text())
    assert mistakes(item) == []
    assert item["assets"]["weights"]["mlm:artifact_type"] == "onnx.save"
    assert (tmp_path / item["assets"]["weights"]["href"]).samefile(bundle.path / NETWORK)


@pytest.mark.slow
def test_both_exporters_of_torch_write_the_same_network(tmp_path, threads):
    unet, free = network("unet", 3, 3), torch.export.Dim
    rows, columns = (4 * free(name, min=2) for name in ("rows", "columns"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            unet.requires_grad_(False), (torch.zeros(2, 3, 64, 64),), str(tmp_path / "new.onnx"), dynamo=True,
            verbose=False, dynamic_shapes=({0: free("n", min=1), 2: rows, 3: columns},),
        )  # fmt: skip
    write(tmp_path / "old.onnx", Form(unet), (2, 3, 64, 64))
    bundles = [import_onnx(tmp_path / f"{name}.onnx", SETTINGS, tmp_path / name) for name in ("new", "old")]
    assert [one.metadata.receptive_field for one in bundles] == [UNET, UNET]
    answers = [make_engine(one, CPU["openvino"]).predict(pixels((2, 3, 64, 96))) for one in bundles]
    np.testing.assert_allclose(*answers, atol=1e-5, rtol=0)


def test_the_same_import_again_is_done_already_and_another_is_refused(foreign, tmp_path):
    bundle, _ = foreign("logits")
    again = import_onnx(bundle.path / NETWORK, SETTINGS, bundle.path)
    assert again.digest == bundle.digest
    with pytest.raises(BundleError, match="exists"):
        import_onnx(bundle.path / NETWORK, {**SETTINGS, "dtype": "uint8"}, bundle.path)


def test_engines_that_cannot_are_named(foreign, bundle_of):
    bundle, _ = foreign("fixed sides")
    assert resolve(EngineSpec(onnx=True)).name == "openvino"
    for spec, said in (
        (EngineSpec("torch"), "which torch does not run"),
        (EngineSpec("onnxruntime", "cpu", "int8"), "in fp32; for int8 use --engine openvino"),
        (EngineSpec(device="cuda"), "no ONNX Runtime with CUDA is here"),
    ):
        with pytest.raises(EngineError, match=said):
            make_engine(bundle, spec)
    with pytest.raises(EngineError, match="bundles that hold an ONNX graph"):
        make_engine(bundle_of("unet"), CPU["onnxruntime"])
    for spec in CPU.values():
        with pytest.raises(EngineError, match="tiles of 128 x 128 pixels alone; received 64 x 128"):
            make_engine(bundle, spec).predict(pixels((1, 3, 64, 128)))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"bands": ["red", "green"], "scaling": {"divisor": 1}}, "takes 3 bands, and the settings name 2"),
        ({"classes": SETTINGS["classes"][:2]}, "answers for 3 classes, and the settings name 2"),
        ({"options": {"output": "probabilities"}}, "which are no probabilities"),
        ({"options": {"output": "classes"}}, "3 channels of class numbers"),
        ({"options": {"side": 64}}, "no fixed side of 64"),
        ({"options": {"output_name": "z"}}, "no output 'z'; it has y"),
        ({"options": {"layers": 3}}, "no option 'layers'"),
        ({"options": {"layout": "NHWC"}}, "takes 3 rows and any number of columns"),
    ],
)
def test_settings_that_differ_from_the_graph_are_refused(changed, said, foreign, tmp_path):
    path = foreign("logits")[0].path / NETWORK
    with pytest.raises((NetworkError, BundleError), match=said):
        import_onnx(path, {**SETTINGS, **changed}, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


class Seeing(nn.Module):
    """A small network with a step that looks near or at the whole tile, then ReLU, which drops NaN in most runtimes."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self.step, self.first, self.last = step, nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
        self.norm, self.groups = nn.InstanceNorm2d(8), nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = {
            "max pooling": lambda: functional.interpolate(functional.max_pool2d(y, 2), scale_factor=2, mode="nearest"),
            "squeeze-excite": lambda: y * torch.sigmoid(y.mean((2, 3), keepdim=True)),
            "global maximum": lambda: y * torch.sigmoid(y.amax((2, 3), keepdim=True)),
            "instance norm": lambda: self.norm(y),
            "group norm": lambda: self.groups(y),
            "attention": lambda: self.attention(y),
            "clamp": lambda: functional.hardswish(y).clamp(0, 6),
        }[self.step]()
        return self.last(functional.relu(y))

    def attention(self, y: Tensor) -> Tensor:
        rows = y.mean(3)  # (n, channel, y): each row looks at all others
        weights = (rows.transpose(1, 2) @ rows).softmax(-1)
        return y + (weights @ rows.transpose(1, 2)).transpose(1, 2)[..., None]


@pytest.mark.parametrize(
    ("step", "radius"),
    [("clamp", 2), ("max pooling", 3), ("squeeze-excite", None), ("global maximum", None), ("instance norm", None),
     ("group norm", None), ("attention", None)],
)  # fmt: skip
def test_what_looks_at_the_whole_tile_has_no_radius(step, radius, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Seeing(step)
    sides = ("sides",) if radius is None else ()  # measured in one tile, which is quicker than in ever larger ones
    bundle = import_onnx(write(tmp_path / "n.onnx", made, (1, 3, 64, 64), sides), SETTINGS, tmp_path / "bundle")
    assert bundle.metadata.receptive_field.radius == radius
    if radius is not None:
        assert bundle.metadata.receptive_field == measure_receptive_field(made, 3)
