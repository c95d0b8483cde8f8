"""Numbers that are none: weights, samples and answers of NaN or infinity never become a class."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from helpers import BANDS, CLASSES, metadata, network, pixels, save, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from test_precision import offered

from models import ClassInfo, engine_openvino, engine_torch
from models.bundle import WEIGHTS, load_bundle, save_bundle
from models.encoding import Encoding, classify
from models.errors import BundleError, EngineError, SceneError, SwatheError
from models.importing import import_model
from models.metadata import z_score
from models.openvino_core import CORE, ov
from models.segmenter import Segmenter
from pipeline import build_index, run, segment
from pipeline.cli.describe import describe, describe_run
from pipeline.io.scene import open_source
from pipeline.jobs.job import run_job
from pipeline.store import ledger
from pipeline.store.store import Summary
from train.evaluation.baselines import Brightness


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
        import_model(tmp_path / "w.pth", tmp_path / "b", config=config(tmp_path))
    assert not (tmp_path / "b").exists()


def config(folder: Path, **changes: Any) -> Path:
    """What `import_model` is told of `network("unet", 3, 2)`."""
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
        import_model(tmp_path / "w.pth", tmp_path / "c", config=config(tmp_path, classes=classes))


# samples too large, and answers that are no numbers

SIDE = 96


def scene(folder: Path, bad: dict[tuple[int, int, int], float], side: int = SIDE) -> tuple[Path, np.ndarray]:
    """A float32 scene of three bands in which samples `(band, row, column)` hold something else."""
    values = pixels((3, side, side), "float32")
    for place, value in bad.items():
        values[place] = value
    return write_raster(folder / "scene.tif", values), values


def around(places: Any, radius: int, side: int = SIDE) -> np.ndarray:
    """Which pixels see one of some samples, bool `(y, x)`."""
    seen = np.zeros((side, side), bool)
    for _, row, column in places:
        seen[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1] = True
    return seen


def read(store: str | Path, name: str = "class_map") -> np.ndarray:
    return np.asarray(zarr.open_group(str(store), mode="r")[name])


@pytest.mark.slow
@settings(max_examples=12)
@given(
    bad=st.dictionaries(
        st.tuples(st.integers(0, 2), st.integers(0, SIDE - 1), st.integers(0, SIDE - 1)),
        st.sampled_from([3e38, -3e38, 1e30, -1e20]),
        min_size=1,
        max_size=3,
    ),
    engine=st.sampled_from(["torch", "openvino"]),
    block=st.sampled_from([32, 64, 96]),
)
def test_pixels_that_see_a_sample_too_large_are_nodata_in_every_engine_however_cut(bad, engine, block, bundle_of):
    """All others are bit for bit those of the scene that lacks the sample."""
    bundle = bundle_of("unet", dtype="float32", classes=3)
    values = pixels((3, SIDE, SIDE), "float32")
    lacking = values.copy()
    for place, value in bad.items():
        values[place], lacking[place] = value, np.nan
    how: dict[str, Any] = {"engine": engine, "device": "cpu", "block": block, "tile": min(block, 64)}
    found = segment(to_scene(values), bundle, on_nonfinite="nodata", **how)
    right = segment(to_scene(lacking), bundle, **how)
    reach = around(bad, bundle.metadata.receptive_field.radius)
    maps, wanted = found.class_map.values, right.class_map.values
    assert (maps[reach] == 255).all()
    assert np.isnan(found.probability.values[:, reach]).all()
    assert np.array_equal(maps[~reach], wanted[~reach])
    assert np.array_equal(found.probability.values[:, ~reach], right.probability.values[:, ~reach])


def to_scene(values: np.ndarray) -> xr.DataArray:
    """Values in memory; a sample that is NaN is missing."""
    return xr.DataArray(values, dims=("band", "y", "x"), coords={"band": list(BANDS[: len(values)])})


def test_a_block_fails_where_a_sample_is_too_large_and_says_where(tmp_path, bundle_of):
    path, _ = scene(tmp_path, {(1, 40, 70): 3e38})
    with pytest.raises(SceneError) as caught:
        run(path, bundle_of("unet", dtype="float32"), tmp_path / "o.zarr", block=32, show=False)
    said = str(caught.value)
    assert "holds 3e+38 at row 40, column 70 (x 500705, y 8999595), more than a network can take" in said
    assert "pixels of the block have no class" in said
    assert "--on-nonfinite nodata" in said
    assert len(said.splitlines()) == 1
    assert open_metadata(tmp_path / "o.zarr")["state"] == "running"


def open_metadata(store: Path) -> dict[str, Any]:
    return dict(json.loads((store / "zarr.json").read_text())["attributes"]["swathe"])


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_pixels_of_no_number_are_counted_in_the_store_also_of_blocks_done_before(engine, tmp_path, bundle_of, capfd):
    """The counts stand in done markers and records: the run is stopped between, by a block that fails."""
    bad = {(0, 10, 10): 3e38, (2, 80, 50): -3e38}
    path, _ = scene(tmp_path, bad)
    bundle = bundle_of("unet", dtype="float32")
    how: dict[str, Any] = {"block": 32, "engine": engine, "device": "cpu"}
    with pytest.raises(SceneError):
        run(path, bundle, tmp_path / "o.zarr", show=False, **how)
    result = run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", show=True, **how)
    reach = around(bad, bundle.metadata.receptive_field.radius)
    count = int(reach.sum())
    assert result.resumed > 0
    assert result.found["nonfinite"] == result.pixels["nodata"] == count
    assert np.array_equal(read(tmp_path / "o.zarr") == 255, reach)
    assert np.array_equal((read(tmp_path / "o.zarr", "probability") == 255).any(axis=0), reach)
    assert "nodata: the network's answer is NaN or infinite there" in capfd.readouterr().err
    assert f"{count:,} pixels are nodata" in describe(str(tmp_path / "o.zarr"))
    assert f"{count:,} pixels are nodata" in describe_run(result, "o")
    again = run(path, bundle, tmp_path / "o.zarr", show=False, **how)  # how it is asked for is no part of the identity
    assert (again.resumed, again.found["nonfinite"]) == (again.blocks, count)


def test_counts_go_from_markers_into_records_and_come_back(tmp_path, bundle_of, monkeypatch):
    monkeypatch.setattr(ledger, "RECORD", 2)
    bad = {(0, 10, 10): 3e38, (2, 80, 50): -3e38}
    path, _ = scene(tmp_path, bad)
    bundle = bundle_of("unet", dtype="float32")
    result = run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", block=32, show=False, overviews=False)
    blocks = [ledger.Record.of([Summary(0, 0, 0, (1, 2, 3), 0.5, nonfinite=n), Summary(0, 0, 1, (1, 2, 3), 0.5)])
              for n in (0, 7)]  # fmt: skip
    back = [ledger.Record.from_bytes(block.to_bytes()) for block in blocks]
    assert [None if b is None or b.nonfinite is None else b.nonfinite.tolist() for b in back] == [None, [7, 0]]
    marker = Summary(0, 1, 2, (1, 2), 0.5, nonfinite=5)
    assert Summary.from_marker((0, 1, 2), marker.marker()) == marker
    assert result.found["nonfinite"] == around(bad, bundle.metadata.receptive_field.radius).sum()


class Odd(torch.nn.Module):
    """The logits are the first bands, as they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, scaled: torch.Tensor) -> torch.Tensor:
        return scaled[:, : self.channels] * 1.0


@pytest.mark.parametrize(("activation", "channels"), [("softmax", 2), ("softmax", 3), ("sigmoid", 1), ("sigmoid", 3)])
@pytest.mark.parametrize("how", ["likeliest", "threshold"])
@pytest.mark.parametrize("kept", ["uint8", None])
def test_logits_of_nan_or_infinity_have_no_class_in_the_graph(activation, channels, how, kept):
    """In both engines' graphs, and numpy says which pixels they are."""
    classes, values = max(2, channels), np.random.default_rng(0).normal(size=(1, channels, 16, 64)).astype(np.float32)
    draw = np.random.default_rng(1)
    for value in (np.nan, np.inf, -np.inf):
        for _ in range(20):
            values[0, draw.integers(channels), draw.integers(16), draw.integers(64)] = value
    segmenter = Segmenter(Odd(channels), z_score([0.0] * channels, [1.0] * channels), activation).eval()
    thresholds = None if how == "likeliest" else (None, *[0.4] * (classes - 1))
    encoding = Encoding(thresholds, kept, (1,) if kept else ())
    bad = ~np.isfinite(values).all(axis=(0, 1))
    with torch.inference_mode():
        probability = segmenter(torch.from_numpy(values))
    by_torch = engine_torch._encoded(probability, encoding)[0][0].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = ov.PartialShape([-1, channels, -1, -1])
        graph = ov.convert_model(segmenter, example_input=torch.zeros(values.shape), input=[(shape, ov.Type.f32)])
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = CORE.compile_model(engine_openvino._encoded(graph, encoding), "CPU", hint)
    by_openvino = np.asarray(compiled(values)[0])[0, 0]
    right = np.where(bad, 255, classify(np.nan_to_num(probability[0].numpy()), thresholds))
    assert np.array_equal(by_torch, right)
    assert np.array_equal(by_openvino == 255, bad)


def test_an_answer_of_nan_fails_or_is_nodata(tmp_path, bundle_of, monkeypatch):
    """Whatever is wrong with an engine, be it on a GPU: the class map that it gives says so, and that is looked at."""
    bundle = bundle_of("unet", dtype="float32")
    path, _ = scene(tmp_path, {})
    whole = engine_torch.TorchEngine.segment

    def spoils(self: Any, tiles: np.ndarray, encoding: Encoding) -> Any:
        answer = whole(self, tiles, encoding)
        answer.class_map[:, 40:43, 50] = 255
        return answer

    monkeypatch.setattr(engine_torch.TorchEngine, "segment", spoils)
    how: dict[str, Any] = {"engine": "torch", "device": "cpu", "block": SIDE, "tile": SIDE, "show": False}
    halo = bundle.metadata.receptive_field.halo
    with pytest.raises(EngineError, match=rf"no number at row {40 - halo}, column {50 - halo} .*3 pixels of the block"):
        run(path, bundle, tmp_path / "o.zarr", **how)
    assert run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", **how).pixels["nodata"] == 3


@pytest.mark.parametrize("each", ["mean", *(pytest.param(how, marks=pytest.mark.slow) for how in ("inner", "max"))])
def test_of_scenes_that_are_segmented_each_one_that_has_no_answer_says_nothing(each, tmp_path, bundle_of):
    """Where the other scene has one, that is what is kept; where none has, it is nodata, and numpy says where."""
    bundle = bundle_of("unet", dtype="float32", classes=3)
    radius = bundle.metadata.receptive_field.radius
    for name, place in (("a", (0, 20, 20)), ("b", (1, 24, 24))):
        values = pixels((3, SIDE, SIDE), "float32", seed=ord(name))
        values[place] = 3e38
        write_raster(tmp_path / f"{name}.tif", values)
    index = tmp_path / "i.parquet"
    build_index([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")], index, show=False)
    how: dict[str, Any] = {"each": each, "block": 32, "show": False}
    with pytest.raises(SceneError, match=r"holds 3e\+38 at row"):
        run(index, bundle, tmp_path / "o.zarr", **how)
    result = run(index, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", **how)
    both = around([(0, 20, 20)], radius) & around([(0, 24, 24)], radius)
    assert np.array_equal(read(tmp_path / "o.zarr") == 255, both)
    assert result.found["nonfinite"] > 0


def test_baselines_make_no_class_of_a_sample_too_large(tmp_path):
    path, _ = scene(tmp_path, {(1, 40, 70): 3e38})
    baseline = Brightness("here", 0.5, (0.1, 0.1, 0.1))
    job = baseline.job(open_source(str(path)), CLASSES[:2], 64)
    with pytest.raises(EngineError, match="no number at row 40, column 70"):
        run_job(job, tmp_path / "o.zarr", show=False)


# other precisions than fp32, where this CPU has them

LESS = [("torch", "bf16"), ("openvino", "bf16"), ("openvino", "int8")]
WIDE = 160  # int8 sets its ranges by so many pixels


def needs(engine: str, precision: str) -> None:
    if not offered(precision, engine):
        pytest.skip(f"{precision} by {engine} does not run on this CPU, or gains nothing")


@pytest.mark.parametrize(("engine", "precision"), LESS)
def test_in_every_precision_a_sample_too_large_fails_or_is_nodata(engine, precision, tmp_path, bundle_of):
    needs(engine, precision)
    bad = {(0, 10, 10): 3e38, (2, 80, 50): -3e38}
    path, _ = scene(tmp_path, bad, WIDE)
    bundle = bundle_of("unet", dtype="float32")
    how: dict[str, Any] = {"engine": engine, "device": "cpu", "precision": precision, "show": False}
    with pytest.raises(SceneError, match=r"holds 3e\+38 at row 10, column 10"):
        run(path, bundle, tmp_path / "o.zarr", **how)
    assert open_metadata(tmp_path / "o.zarr")["state"] == "running"
    result = run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", **how)
    reach = around(bad, bundle.metadata.receptive_field.radius, WIDE)
    assert result.found["nonfinite"] == result.pixels["nodata"] == reach.sum()
    assert np.array_equal(read(tmp_path / "o.zarr") == 255, reach)


@pytest.mark.parametrize("classes", [pytest.param(2, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize(("engine", "precision"), LESS)
def test_in_every_precision_an_answer_that_overflows_is_no_class(engine, precision, classes, tmp_path):
    """Weights that are numbers, and whose products with what a network makes of any pixel are none."""
    needs(engine, precision)
    described = metadata("unet", dtype="float32", classes=classes)
    made = network("unet", 3, described.channels)
    last = [module for module in made.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    with torch.no_grad():
        last.weight *= 3e38 / last.weight.abs().max()
        last.bias.fill_(3e38)
    bundle = save_bundle(tmp_path / "b", made, described)
    path, _ = scene(tmp_path, {}, WIDE)
    how: dict[str, Any] = {"engine": engine, "device": "cpu", "precision": precision, "show": False}
    if precision == "int8":  # whose ranges would make numbers of it
        with pytest.raises(SwatheError, match="cannot be int8: its answer is no number at some pixels"):
            run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", **how)
        return
    with pytest.raises(EngineError, match="the network's answer is no number at row"):
        run(path, bundle, tmp_path / "o.zarr", **how)
    result = run(path, bundle, tmp_path / "o.zarr", on_nonfinite="nodata", **how)
    assert result.found["nonfinite"] == result.pixels["nodata"] > 0
    found, probability = read(tmp_path / "o.zarr"), read(tmp_path / "o.zarr", "probability")
    assert np.array_equal(found == 255, (probability == 255).all(axis=0))
