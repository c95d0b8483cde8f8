"""Bundles for others: ONNX and torch.export files that answer alike, and STAC items that are valid by the schemas."""

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import click.testing
import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import referencing
import torch
import yaml
from helpers import CLASSES, metadata, save
from hypothesis import given, settings
from hypothesis import strategies as st

import models.exporting as exporting
import models.tracing as tracing
from models import Band, Bundle, ClassInfo, divide, load_bundle, min_max, shipped_bundles, z_score
from models.bundle import ITEM, WEIGHTS
from models.errors import BundleError, NetworkError, SwatheError
from models.exporting import describe, export_onnx, export_program, write_item
from models.metadata import ReceptiveField
from models.mlm import MLM_SCHEMA, from_item, to_item
from pipeline.cli.models import MODEL_VERBS

SCHEMAS = Path(__file__).parent / "mlm_schema"
STAC = "https://schemas.stacspec.org/v1.1.0/item-spec/json-schema/item.json"
WHOLE = tracing.Form()
KINDS: dict[str, dict[str, Any]] = {
    "softmax of two": {"architecture": "simple-unet"},
    "softmax of three": {"architecture": "unet", "classes": 3, "bands": 5, "dtype": "float32"},
    "sigmoid of one": {"architecture": "unet", "activation": "sigmoid", "scaling": min_max([0] * 3, [4000] * 3)},
}


def schemas() -> dict[str, Any]:
    """Every schema that is here, by the address under which others refer to it."""
    read = [json.loads(path.read_text()) for path in sorted(SCHEMAS.glob("*.json"))]
    by_id = {schema["$id"].rstrip("#"): schema for schema in read}
    # published with a slip in their own addresses
    by_id[STAC.replace("item.json", "common.json")] = by_id.pop(STAC.replace("item.json", "commonjson"))
    by_id["https://stac-extensions.github.io/processing/v1.1.0/schema.json"] = by_id.pop(
        "https://stac-extensions.github.io/processing/v1.0.0/schema.json"
    )
    return {address: {**schema, "$id": address} for address, schema in by_id.items()}


ALL = schemas()
REGISTRY = referencing.Registry().with_resources(
    [(address, referencing.Resource.from_contents(schema)) for address, schema in ALL.items()]
)


def mistakes(item: Any) -> list[str]:
    """What STAC 1.1.0, and each extension that an item says it has, find wrong with it."""
    return [
        f"{address}: {list(error.absolute_path)}: {error.message}"[:400]
        for address in [STAC, *item["stac_extensions"]]
        for error in validator(address).iter_errors(item)
    ]


@cache
def validator(address: str) -> Any:
    checks = jsonschema.Draft7Validator.FORMAT_CHECKER
    return jsonschema.Draft7Validator(ALL[address], registry=REGISTRY, format_checker=checks)


def item_of(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(to_item(metadata("unet", **changes), WEIGHTS, 1000, "2026-01-02T03:04:05Z")))


@pytest.mark.parametrize("scaling", [z_score([1, 2, 3], [4, 5, 6]), min_max([0, 0, 0], [1, 2, 3]), divide([9, 9, 9])])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_item_is_valid(scaling, dtype):
    assert mistakes(item_of(scaling=scaling, dtype=dtype)) == []


names = st.text(st.characters(categories=["L", "N"]) | st.sampled_from("-_."), min_size=1, max_size=12)
labels = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=25)
@given(
    names, labels, st.lists(labels, min_size=2, max_size=4, unique=True), labels,
    st.dictionaries(st.sampled_from(["widths", "depth"]), st.just([4, 8])), st.text(max_size=5),
)  # fmt: skip
def test_item_of_any_names_is_valid_and_comes_back(name, label, classes, band, options, description):
    described = metadata(
        "unet", name=name, bands=1, options=options, description=description, resolution=(0.5, 2.0),
        classes=2, provenance={"who": label},
    )  # fmt: skip
    described = replaced(described, [band], classes)
    item = json.loads(json.dumps(to_item(described, WEIGHTS, 1000, "2026-01-02T03:04:05Z")))
    assert mistakes(item) == []
    assert from_item(item) == described


def replaced(described: Any, bands: list[str], classes: list[str]) -> Any:
    from dataclasses import replace

    return replace(
        described,
        background=classes[0],
        bands=tuple(Band(name, 1.5) for name in bands),
        classes=tuple(ClassInfo(name, CLASSES[n].color) for n, name in enumerate(classes)),
    )


@pytest.mark.parametrize(
    "spoil",
    [
        lambda item: item["properties"].pop("mlm:name"),
        lambda item: item["properties"]["mlm:output"][0]["classification:classes"][0].pop("description"),
        lambda item: item["properties"]["mlm:output"][0]["classification:classes"][0].update(name="a b"),
        lambda item: item["assets"]["weights"].pop("mlm:artifact_type"),
        lambda item: item["assets"]["weights"].pop("bands"),
        lambda item: item["properties"].update(description=""),
        lambda item: item.update(geometry={}),
        lambda item: item["properties"]["mlm:input"][0]["input"].update(data_type="uint7"),
        lambda item: item["properties"].update({"mlm:hyperparameters": {}}),
        lambda item: item["assets"]["weights"].update({"file:checksum": "XYZ"}),
    ],
)
def test_the_schemas_find_mistakes(spoil, tmp_path):
    item = json.loads(write_item(save(tmp_path / "b", metadata("unet")), tmp_path / "item.json").read_text())
    assert mistakes(item) == []
    spoil(item)
    assert mistakes(item) != []


def test_items_of_older_bundles_are_read():
    """As written before items were valid by STAC: no title, no asset's bands."""
    item = item_of()
    for entry in item["properties"]["mlm:output"][0]["classification:classes"]:
        del entry["title"], entry["description"]
    item["assets"]["weights"].pop("bands")
    assert from_item(item) == metadata("unet")


def test_shipped_bundles_are_packaged_valid(tmp_path):
    for bundle in shipped_bundles():
        path = write_item(bundle, tmp_path / f"{bundle.metadata.name}.json")
        assert mistakes(json.loads(path.read_text())) == []


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save(tmp_path_factory.mktemp("tiny") / "a bundle", metadata("unet", bands=4, classes=3, resolution=(1, 2)))


@pytest.fixture(scope="module")
def made(tiny: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("made")
    return {"onnx": export_onnx(tiny, folder / "m.onnx").path, "pt2": export_program(tiny, folder / "m.pt2").path}


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_packaged_item_points_to_files_that_are_there(suffix, tiny, made, tmp_path):
    bundle = tiny
    if suffix:
        bundle = save(tmp_path / "b.zip", tiny.metadata)
        assert bundle.digest != ""
    exported = list(made.values()) if bundle is tiny else []
    path = write_item(bundle, tmp_path / "sub" / "item.json", exported)
    item = json.loads(path.read_text())
    assert mistakes(item) == []
    assert from_item(item) == tiny.metadata
    assert list(item["assets"]) == ["weights", *(["onnx", "pt2"] if exported else [])]
    for asset in item["assets"].values():
        from urllib.parse import unquote

        file = path.parent / unquote(asset["href"])
        assert file.stat().st_size == asset["file:size"]
        assert asset["file:checksum"] == "1220" + hashlib.sha256(file.read_bytes()).hexdigest()
    assert (
        item["properties"]["datetime"] == json.loads((tiny.path / ITEM).read_text())["properties"]["datetime"] or suffix
    )


def test_packages_that_are_refused(tiny, made, tmp_path):
    other = save(tmp_path / "other", metadata("unet"), seed=9)
    (tmp_path / "bad.onnx").write_bytes(b"no protobuf of a graph")
    (tmp_path / "bad.pt2").write_bytes(b"no zip")
    refused: list[tuple[Bundle, str, list[Any], str]] = [
        (other, "i.json", [made["onnx"]], "was not made of this bundle"),
        (other, "i.json", [made["pt2"]], "was not made of this bundle"),
        (tiny, "i.json", [tmp_path / "bad.pt2"], "cannot be read"),
        (tiny, "i.json", [tmp_path / "bad.onnx"], "cannot be read|not made of this"),
        (tiny, "i.json", [tmp_path / "none.onnx"], "no such file"),
        (tiny, "i.json", [tmp_path / "x.txt"], "neither .onnx nor .pt2"),
        (tiny, "i.json", [made["onnx"], made["onnx"]], "two files of the kind"),
        (tiny, "i.tif", [], "must end in .json"),
    ]
    for bundle, name, exported, says in refused:
        with pytest.raises(BundleError, match=says):
            write_item(bundle, tmp_path / name, exported)
    assert not list(tmp_path.glob("i.*"))
    write_item(tiny, tmp_path / "i.json")
    write_item(tiny, tmp_path / "i.json")  # the very same is there already
    with pytest.raises(BundleError, match="exists"):
        write_item(tiny, tmp_path / "i.json", href="https://example.org/other.zip")
    write_item(tiny, tmp_path / "i.json", overwrite=True)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "softmax of two" else pytest.mark.slow) for kind in KINDS]
)
def test_exported_files_answer_as_the_bundle(kind, tmp_path):
    """Read with ONNX Runtime and torch alone, other sizes and batches than those that the exporter checks."""
    bundle = save(tmp_path / "b", metadata(**KINDS[kind]))
    export_onnx(bundle, tmp_path / "m.onnx")
    export_program(bundle, tmp_path / "m.pt2")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), providers=["CPUExecutionProvider"])
    program = torch.export.load(tmp_path / "m.pt2").module()
    stride, bands = bundle.metadata.receptive_field.stride, len(bundle.metadata.bands)
    for batch, height, width in [(1, 2 * stride, 7 * stride), (5, 4 * stride, 3 * stride)]:
        scale = np.reshape(bundle.metadata.scaling.divisor, (-1, 1, 1))
        pixels = (np.random.default_rng(1).random((batch, bands, height, width)) * scale).astype(np.float32)
        right = bundle.segmenter()(torch.from_numpy(pixels)).detach().numpy()
        found = session.run(["probabilities"], {"pixels": pixels})[0]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, atol=3e-5, rtol=0)  # random weights magnify rounding
        np.testing.assert_allclose(program(torch.from_numpy(pixels)).numpy(), right, atol=1e-6, rtol=0)


def test_a_trained_network_within_a_hundred_thousandth(tmp_path):
    bundle = load_bundle("buildings")
    assert export_onnx(bundle, tmp_path / "m.onnx").difference < 1e-5


def test_exported_files_say_what_they_are(tiny, made):
    described = json.loads(json.dumps(describe(tiny)))
    held = {entry.key: entry.value for entry in onnx.load(made["onnx"]).metadata_props}
    told_by_onnx = {key: value if isinstance(described[key], str) else json.loads(value) for key, value in held.items()}
    extra = {"swathe.json": ""}
    torch.export.load(made["pt2"], extra_files=extra)
    for told in (told_by_onnx, json.loads(extra["swathe.json"])):
        assert told == described
        assert told["name"] == "tiny-unet"
        assert told["digest"] == tiny.digest
        assert [band["name"] for band in told["bands"]] == list(tiny.metadata.band_names)
        assert [entry["name"] for entry in told["classes"]] == list(tiny.metadata.class_names)
        assert told["scaling"]["divisor"] == list(tiny.metadata.scaling.divisor)
        assert told["stride"] == 4
    graph = onnx.load(made["onnx"]).graph
    assert [value.name for value in (*graph.input, *graph.output)] == ["pixels", "probabilities"]
    sides = [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    assert [bool(side) for side in sides] == [True, False, True, True]


def told_by_mlm(program: Path) -> Any:
    extra = {"mlm-metadata": ""}
    torch.export.load(program, extra_files=extra)
    return yaml.safe_load(extra["mlm-metadata"])


def test_programs_hold_metadata_that_mlm_finds_valid(tiny, made):
    """As an Item's properties, whose prefix `stac_model` leaves out in the YAML that it embeds."""
    told = told_by_mlm(made["pt2"])
    assert told["$schema"] == MLM_SCHEMA
    item = item_of()
    kept = {key: value for key, value in item["properties"].items() if key in ("datetime", "bands")}
    item["properties"] = kept | {f"mlm:{key}": value for key, value in told["properties"].items()}
    assert mistakes(item) == []
    (given,), (result,) = told["properties"]["input"], told["properties"]["output"]
    assert given["input"]["shape"] == [-1, 4, -1, -1]
    assert given["input"]["data_type"] == "float32"  # raw values: the program scales, so nobody else should
    assert "value_scaling" not in given
    assert [entry["name"] for entry in result["classification:classes"]] == list(tiny.metadata.class_names)
    given["input"].pop("shape")
    assert mistakes(item) != []


def test_stac_model_reads_what_programs_hold(tiny, made):
    """With the library itself, where it is installed; it takes each class apart, and any extra field ill."""
    schema = pytest.importorskip("stac_model.schema")
    found = schema.MLModelProperties(**told_by_mlm(made["pt2"])["properties"])
    assert (found.name, found.total_parameters) == ("tiny-unet", tiny.parameters)
    assert list(found.input[0].bands) == list(tiny.metadata.band_names)
    assert found.input[0].value_scaling is None
    assert [entry.name for entry in found.output[0].classes] == list(tiny.metadata.class_names)


def test_sides_off_the_stride_are_refused_by_the_program(made):
    program = torch.export.load(made["pt2"]).module()
    with pytest.raises(Exception, match=r"(?s)4|multiple|Guard"):
        program(torch.zeros(1, 4, 30, 32))


@pytest.mark.parametrize(("export", "name"), [(export_onnx, "m.onnx"), (export_program, "m.pt2")])
def test_a_file_that_answers_otherwise_is_not_written(export, name, tiny, tmp_path, monkeypatch):
    (tmp_path / name).write_text("the old one")
    right, other = tracing.trace, save(tmp_path / "other", tiny.metadata, seed=5)

    def wrong(bundle: Bundle, form: tracing.Form = WHOLE) -> Any:
        return right(other, form)

    for place in (exporting, tracing):
        monkeypatch.setattr(place, "trace", wrong)
    with pytest.raises(NetworkError, match="differs from the bundle by"):
        export(tiny, tmp_path / name, overwrite=True)
    assert (tmp_path / name).read_text() == "the old one"
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".sha256"} == {name, "other"}


class OfAnotherMind(torch.nn.Module):
    """What it does depends on values, which no graph can hold."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels if pixels.sum() > 0 else -pixels


@pytest.mark.parametrize(("export", "name"), [(export_onnx, "m.onnx"), (export_program, "m.pt2")])
def test_exports_that_are_refused(export, name, tiny, tmp_path, monkeypatch):
    with pytest.raises(BundleError, match="must end in"):
        export(tiny, tmp_path / "m.bin")
    (tmp_path / name).touch()
    with pytest.raises(BundleError, match="exists"):
        export(tiny, tmp_path / name)
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="cannot be written"):
        export(tiny, tmp_path / "file" / name)
    monkeypatch.setattr(Bundle, "segmenter", lambda _: OfAnotherMind())
    with pytest.raises(NetworkError, match="unet cannot be exported by") as caught:
        export(tiny, tmp_path / f"new-{name}")
    assert len(str(caught.value)) < 500
    assert {path.name for path in tmp_path.iterdir()} == {name, "file"}


def test_missing_packages_are_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(NetworkError, match=r"needs onnxscript: pip install 'swathe\[export\]'"):
        export_onnx(tiny, tmp_path / "m.onnx")


def test_too_large_for_onnx(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tracing, "LARGEST_ONNX", 1000)
    with pytest.raises(NetworkError, match=r"too many for ONNX: write a \.pt2"):
        export_onnx(tiny, tmp_path / "m.onnx")


def command(*words: str | Path) -> click.testing.Result:
    group = click.Group(commands={verb.name: verb for verb in MODEL_VERBS})
    return click.testing.CliRunner().invoke(group, [str(word) for word in words])


def test_the_verbs(tiny, tmp_path, capfd):
    found = command("export-model", tiny.path, "-o", tmp_path / "m.pt2")
    assert (found.exit_code, found.stderr) == (0, "swathe: exporting tiny-unet, then comparing\n")
    assert found.stdout.startswith(f"wrote {tmp_path / 'm.pt2'}: ")
    assert command("export-model", tiny.path, "-o", tmp_path / "m.onnx", "-q").stderr == ""
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""  # nothing that the exporters have to say
    words = [
        "package",
        tiny.path,
        "-o",
        tmp_path / "i.json",
        "--with",
        tmp_path / "m.pt2",
        "--with",
        tmp_path / "m.onnx",
    ]
    assert command(*words, "--href", "https://example.org/w").stdout == f"wrote {tmp_path / 'i.json'}\n"
    item = json.loads((tmp_path / "i.json").read_text())
    assert mistakes(item) == []
    assert item["assets"]["weights"]["href"] == "https://example.org/w"
    assert command("package", tiny.path, "-o", "i.txt").exit_code == 2
    assert command("export-model", tiny.path, "-o", "i.txt").exit_code == 2
    assert isinstance(command(*words).exception, SwatheError)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "options", "receptive_field"),
    [
        ("unet-resnet", {"depth": 18}, ReceptiveField(64, 468)),
        ("smp:Unet", {"encoder_name": "resnet18"}, ReceptiveField(32, 311)),
        ("smp:FPN", {"encoder_name": "resnet18"}, ReceptiveField(32, None)),
        ("smp:DeepLabV3Plus", {"encoder_name": "resnet18"}, ReceptiveField(32, None)),
        ("smp:Unet", {"encoder_name": "efficientnet-b0"}, ReceptiveField(32, None)),
        ("smp:Unet", {"encoder_name": "tu-mobilenetv3_small_100"}, ReceptiveField(32, None)),
    ],
)
def test_larger_networks_export(architecture, options, receptive_field, tmp_path):
    described = metadata(architecture, name="large", bands=4, options=options, receptive_field=receptive_field)
    bundle = save(tmp_path / "b", described)
    assert export_program(bundle, tmp_path / "m.pt2").difference < 1e-5
    assert export_onnx(bundle, tmp_path / "m.onnx").difference < 1e-3
