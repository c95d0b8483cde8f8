"""In every precision tiled equals whole; auto takes what a measured error allows; a run keeps its hardware."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner
from helpers import GRID, pixels, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import box

import models.engine as engines
import models.quantised as quantised
from benchmarks.precision import DATA, compare, labelled
from models import SwatheError, load_bundle
from models.bundle import add_int8, add_metrics
from models.encoding import Encoding
from models.engine import EngineSpec, make_engine, resolve
from models.errors import EngineError
from models.quantise import quantise_network
from models.quantised import QuantisedGraph, keep_graph
from pipeline import plan, quantise, run, segment
from pipeline.catalog.index import IndexedScene, write_index
from pipeline.cli.describe import describe_bundle
from pipeline.cli.models import quantise as quantise_verb
from pipeline.inference import precision as choosing
from pipeline.inference import predict as predicting
from pipeline.inference.options import SegmentOptions
from pipeline.inference.predict import InferenceSpec, predict, shared_engine
from pipeline.inference.run import Segmentation
from pipeline.inference.samples import observed_windows
from pipeline.io.raster_files import open_rasters
from pipeline.io.scene import open_source
from pipeline.jobs import job as filling
from pipeline.mosaic.source import MosaicSource
from pipeline.store.store import open_store
from train.evaluation.evaluation import NetworkPredictor, describe_engines

OPENVINO: dict[str, Any] = {"engine": "openvino", "device": "cpu"}


def offered(precision: str, engine: str = "openvino") -> bool:
    try:
        resolve(EngineSpec(name=engine, device="cpu", precision=precision))
    except EngineError:
        return False
    return precision != "int8" or quantised.can_quantise()


HERE = [precision for precision in ("fp32", "bf16", "fp16", "int8") if offered(precision)]
needs_int8 = pytest.mark.skipif("int8" not in HERE, reason="this CPU gains nothing from int8, or NNCF is missing")
needs_bf16 = pytest.mark.skipif("bf16" not in HERE, reason="this CPU gains nothing from bf16")


@pytest.fixture(scope="module")
def int8(bundle_of) -> QuantisedGraph:
    """The graph of `bundle_of(bands=2)`, quantised once."""
    if "int8" not in HERE:
        pytest.skip("int8 does not run here")
    graph = quantise_network(bundle_of(bands=2), [pixels((2, 128, 128), seed=seed) for seed in range(2)])
    keep_graph(graph)
    return graph


@settings(max_examples=4)
@pytest.mark.parametrize("precision", HERE)
@given(data=st.data())
def test_tiled_equals_whole_bit_for_bit(precision, data, bundle_of, int8, tmp_path):
    check_tiled_is_whole(precision, data, bundle_of(bands=2), int8, tmp_path)


@pytest.mark.slow
@settings(max_examples=40)
@pytest.mark.parametrize("precision", HERE)
@given(data=st.data())
def test_tiled_equals_whole_bit_for_bit_in_many_cuts(precision, data, bundle_of, int8, tmp_path):
    check_tiled_is_whole(precision, data, bundle_of(bands=2), int8, tmp_path)


def check_tiled_is_whole(precision: str, data: st.DataObject, bundle: Any, int8: QuantisedGraph, folder: Path) -> None:
    """Draw a scene with gaps and a cut, and compare with the scene in one tile."""
    shape = data.draw(st.tuples(st.integers(9, 300), st.integers(9, 300)))
    values = pixels((2, *shape), seed=data.draw(st.integers(0, 99)))
    values[:, : data.draw(st.integers(0, 40)), : data.draw(st.integers(0, 300))] = 0
    path = write_raster(folder / "scene.tif", values, nodata=0)
    cut = data.draw(st.fixed_dictionaries({"tile": st.integers(20, 300), "block": st.integers(20, 400)}))
    threads = data.draw(st.sampled_from([1, 2]))
    digest = int8.digest if precision == "int8" else ""
    tiled, whole = (
        answer(plan(path, bundle, **OPENVINO, threads=threads, **some).inference, path, bundle, precision, digest)
        for some in (cut, {"tile": 400, "block": 512})
    )
    np.testing.assert_array_equal(tiled, whole)
    assert np.isnan(tiled).any() == bool((values[0] == 0).all(axis=-1).any() or (values == 0).all(axis=0).any())


def answer(inference: InferenceSpec, path: Any, bundle: Any, precision: str, graph: str) -> np.ndarray:
    source = plan(path, bundle, **OPENVINO).source
    spec = replace(inference.spec, precision=precision, graph=graph)
    inference = replace(inference, spec=spec, encoding=Encoding(None, "float32", (0, 1)))
    found = np.full((2, inference.plan.height, inference.plan.width), -1, np.float32)
    for block in inference.plan.blocks():
        found[:, *block.window.slices] = predict(source, block.window, inference).probability
    return found


@needs_int8
def test_the_same_tiles_give_the_same_graph(bundle_of, int8):
    again = quantise_network(bundle_of(bands=2), [pixels((2, 128, 128), seed=seed) for seed in range(2)])
    assert again.digest == int8.digest
    assert QuantisedGraph.unpack(again.pack()) == int8
    near, right = (
        make_engine(bundle_of(bands=2), EngineSpec("openvino", "cpu", precision, graph=digest)).predict(
            pixels((1, 2, 128, 128), seed=9)
        )
        for precision, digest in (("int8", int8.digest), ("fp32", ""))
    )
    assert 0 < np.abs(near - right).mean() < 0.1


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", pixels((2, 300, 400)), nodata=0)


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, *given: Any, **options: Any) -> None:
    """Begin a run that is stopped after some blocks."""
    real = filling.map_bounded

    def some(*args: Any, **keywords: Any) -> Any:
        yield from islice(real(*args, **keywords), count)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(filling, "map_bounded", some)
        with pytest.raises(KeyboardInterrupt):
            run(*given, **options)


def lose_cache(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Begin with an empty cache as a new process does, where any measurement fails."""
    monkeypatch.setenv("SWATHE_CACHE", str(folder))
    monkeypatch.setattr(predicting, "_engines", {})
    for name in ("quantise_network", "read_samples"):
        monkeypatch.setattr(choosing, name, lambda *_: pytest.fail("it is measured again"))


@needs_int8
@pytest.mark.parametrize(
    ("precision", "name"),
    [
        ("auto", "o.zarr"),
        ("int8", "o.tif"),
        pytest.param("int8", "o.zarr", marks=pytest.mark.slow),
        pytest.param("auto", "o.tif", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_run_goes_on_as_it_began_without_a_cache(
    precision, name, scene, bundle_of, int8, tmp_path, monkeypatch
):
    given = (scene, bundle_of(bands=2))
    cut = {"block": 128, "tile": 128, "precision": precision, "show": False, **OPENVINO}
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "first"))
    monkeypatch.setattr(choosing, "quantise_network", lambda *_: int8)  # which takes a second
    with monkeypatch.context() as patch:
        fixed(patch, int8=(0.001, 3.0), bf16=(0.001, 2.0))
        stop_after(3, patch, *given, tmp_path / name, **cut)
        run(*given, tmp_path / "whole.zarr", **cut)
    lose_cache(monkeypatch, tmp_path / "second")
    assert run(*given, tmp_path / name, **cut).resumed >= 3
    whole, ended = (read_map(tmp_path / path) for path in ("whole.zarr", name))
    np.testing.assert_array_equal(whole, ended)
    if name == "o.zarr":
        assert shards(tmp_path / "whole.zarr") == shards(tmp_path / name)
        assert not (tmp_path / name / ".swathe").exists()
        again = run(*given, tmp_path / name, **cut)
        assert again.resumed == again.blocks
        assert "0.0010, 3.0 times as fast" in open_store(str(tmp_path / name))[1].precision["note"]


def read_map(path: Path) -> np.ndarray:
    store = open_store(str(path))[0]
    return store.read_array("class_map", store.geobox.whole)


def shards(path: Path) -> dict[Path, bytes]:
    """Return the files of pixels."""
    found = {one.relative_to(path): one.read_bytes() for one in path.rglob("c/*/*") if one.is_file()}
    assert found
    return {name: content for name, content in found.items() if "seconds" not in name.parts}


@needs_int8
@needs_bf16
def test_what_a_store_says_holds_for_the_same_run_alone(scene, bundle_of, int8, tmp_path, monkeypatch):
    given, out = (scene, bundle_of(bands=2)), tmp_path / "o.zarr"
    cut = {"block": 128, "precision": "auto", "halo": "auto", "tolerance": 0.01, "show": False, **OPENVINO}
    monkeypatch.setattr(choosing, "quantise_network", lambda *_: int8)
    fixed(monkeypatch, int8=(0.001, 3.0), bf16=(0.001, 2.0))
    stop_after(1, monkeypatch, *given, out, **cut)
    assert (out / ".swathe" / "int8.zip").exists()
    fixed(monkeypatch, int8=(0.001, 3.0), bf16=(0.001, 9.0))  # speeds are never twice the same
    for other in ({"tolerance": 0.02}, {"halo": 8}):
        with pytest.raises(SwatheError, match="precision bf16, there int8"):
            run(*given, out, **cut | other)
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "lost"))
    graph = (out / ".swathe" / "int8.zip").read_bytes()
    (out / ".swathe" / "int8.zip").write_bytes(graph[:-9])
    with pytest.raises(SwatheError, match="precision bf16, there int8"):
        run(*given, out, **cut)
    (out / ".swathe" / "int8.zip").write_bytes(graph)
    with monkeypatch.context() as patch:
        patch.setattr(engines, "cpu_name", lambda: "x86_64 other")
        with pytest.raises(SwatheError, match=r"\(.*hardware x86_64 other, there"):
            run(*given, out, **cut)
    assert run(*given, out, **cut).resumed >= 1
    with monkeypatch.context() as patch:
        lose_cache(patch, tmp_path / "lost again")
        patch.setattr("pipeline.inference.halo.smallest_halo", lambda *_: pytest.fail("it is measured again"))
        again = run(*given, out, **cut)
    assert again.resumed == again.blocks
    assert run(*given, out, **cut, overwrite=True).resumed == 0  # which begins anew
    assert open_store(str(out))[1].identity["precision"] == "bf16"


@needs_int8
def test_lazy_and_durable_runs_in_int8_are_the_same(scene, bundle_of, tmp_path):
    given = {"precision": "int8", **OPENVINO}
    run(scene, bundle_of(bands=2), tmp_path / "o.zarr", show=False, probability="float32", **given)
    import zarr

    kept = np.asarray(zarr.open_group(tmp_path / "o.zarr", mode="r")["probability"][0])
    lazy = segment(scene, bundle_of(bands=2), block=100, **given).probability[1].compute()
    np.testing.assert_array_equal(lazy, kept)


@needs_int8
@pytest.mark.parametrize("precision", ["int8", "auto"])
def test_scenes_that_are_segmented_each_in_int8_are_the_uncut_one(precision, bundle_of, int8, tmp_path, monkeypatch):
    monkeypatch.setattr(choosing, "quantise_network", lambda *_: int8)  # of other pixels the ranges would be others
    if precision == "auto":
        fixed(monkeypatch, int8=(0.001, 3.0), bf16=(0.001, 2.0))
    bundle, values = bundle_of(bands=2), pixels((2, 128, 400))
    overlap = bundle.metadata.receptive_field.halo + 5
    sources = []
    for name, columns in {
        "whole": slice(400),
        "left": slice(200 + overlap),
        "right": slice(203 - overlap, 400),
    }.items():
        place = GRID * Affine.translation(columns.start or 0, 0)
        written = write_raster(tmp_path / f"{name}.tif", values[..., columns], nodata=0, transform=place)
        sources.append(open_rasters([str(written)]))
    pieces = [IndexedScene(f"s{n}", one, box(0, 0, 1, 1), digest=str(n)) for n, one in enumerate(sources[1:])]
    mosaic = MosaicSource(write_index(pieces, tmp_path / "scenes.parquet"), sources[0].geobox, (0, 1))
    for name, scene, each in (("uncut", tmp_path / "whole.tif", None), ("each", mosaic, "inner")):
        options = {"precision": precision, "probability": "float32", "each": each, "show": False, **OPENVINO}
        run(scene, bundle, tmp_path / name, overviews=False, **options)
        assert open_store(str(tmp_path / name))[1].identity["precision"] == "int8"
    uncut, merged = (open_store(str(tmp_path / name))[0] for name in ("uncut", "each"))
    for layer in ("class_map", "probability"):
        expected = uncut.read_array(layer, uncut.geobox.whole)
        np.testing.assert_array_equal(merged.read_array(layer, merged.geobox.whole), expected)
        assert len(np.unique(expected)) > 1


def test_a_run_is_not_continued_on_other_hardware(scene, bundle_of, tmp_path, monkeypatch):
    given = {"block": 128, "show": False, **OPENVINO}
    run(scene, bundle_of(bands=2), tmp_path / "o.zarr", **given)
    here = engines.cpu_name()
    monkeypatch.setattr(engines, "cpu_name", lambda: "x86_64 other")
    with pytest.raises(SwatheError, match=r"hardware x86_64 other, there"):
        run(scene, bundle_of(bands=2), tmp_path / "o.zarr", **given)
    monkeypatch.setattr(engines, "cpu_name", lambda: here)
    assert run(scene, bundle_of(bands=2), tmp_path / "o.zarr", **given).resumed > 0


@pytest.mark.parametrize("precision", HERE)
def test_a_worker_of_other_hardware_answers_in_fp32_alone(precision, scene, bundle_of, int8):
    inference = plan(scene, bundle_of(bands=2), **OPENVINO).inference
    digest = int8.digest if precision == "int8" else ""
    spec = replace(inference.spec, precision=precision, hardware="x86_64 other", graph=digest)
    if precision == "fp32":
        assert shared_engine(replace(inference, spec=spec)).slots
        return
    with pytest.raises(EngineError, match=f"the run has x86_64 other, this worker {engines.cpu_name()[:6]}"):
        shared_engine(replace(inference, spec=spec))


def fixed(monkeypatch: pytest.MonkeyPatch, **found: tuple[float, float]) -> None:
    """Let precisions have these errors and speeds."""

    def measure(_: Any, inference: InferenceSpec) -> choosing.Measured:
        error, speed = found[inference.spec.precision]
        return choosing.Measured(error, error / 4, 0.0, speed)

    monkeypatch.setattr(choosing.Comparison, "measure", measure)
    monkeypatch.setattr(
        choosing.Comparison, "of", lambda inference, samples: choosing.Comparison(samples, [], 1.0, inference)
    )
    monkeypatch.setattr(choosing, "resolve", lambda spec: resolve_known(spec, found))
    monkeypatch.setattr(choosing, "kept_choice", lambda key: None)


def resolve_known(spec: EngineSpec, known: Any) -> EngineSpec:
    if spec.precision != "fp32" and spec.precision not in known:
        raise EngineError("not here")
    return spec


@pytest.mark.parametrize(
    ("found", "chosen", "says"),
    [
        ({"bf16": (0.001, 1.8), "fp16": (0.002, 2.5)}, "fp16", "precision fp16 0.0020, 2.5 times as fast as fp32"),
        ({"bf16": (0.001, 1.8), "fp16": (0.005, 2.5)}, "bf16", r"precision bf16 0.0010, 1.8 .*\(fp16 0.0050"),
        ({"bf16": (0.001, 1.0)}, "fp32", "nothing faster is within it .bf16 0.0010, 1.0 times"),
        ({"bf16": (0.02, 2.0)}, "fp32", "precision fp32, since nothing faster is within it"),
        ({}, "fp32", "nothing faster runs here"),
    ],
)
def test_auto_takes_the_fastest_that_is_within_the_tolerance(found, chosen, says, scene, bundle_of, monkeypatch):
    import re

    fixed(monkeypatch, **found)
    made = plan(scene, bundle_of(bands=2), precision="auto", **OPENVINO)
    assert made.inference.spec.precision == chosen
    assert any(re.search(says, note) for note in made.notes), made.notes
    assert f", {chosen}" in str(made)


@needs_bf16
def test_precision_and_halo_share_the_tolerance(scene, bundle_of, monkeypatch):
    fixed(monkeypatch, bf16=(0.003, 2.0))
    made = plan(scene, bundle_of(bands=2), precision="auto", halo="auto", tolerance=0.01, **OPENVINO)
    assert made.inference.spec.precision == "bf16"
    assert any("within 0.007" in note for note in made.notes), made.notes


def test_auto_measures_and_keeps_what_it_chose(scene, bundle_of, monkeypatch):
    monkeypatch.setattr(choosing, "can_quantise", lambda: False)  # so that it is quick
    monkeypatch.setattr(choosing, "WINDOWS", 3)
    first = plan(scene, bundle_of(bands=2), precision="auto", tolerance=0.03, **OPENVINO)
    monkeypatch.setattr(choosing.Comparison, "of", None)  # it is not measured again
    again = plan(scene, bundle_of(bands=2), precision="auto", tolerance=0.03, **OPENVINO)
    assert first.inference == again.inference
    assert any("tolerance 0.03" in note for note in again.notes)


def test_too_few_pixels_are_fp32_and_refused_in_int8(bundle_of, tmp_path):
    empty = np.zeros((2, 200, 200), np.uint16)
    empty[:, :20, :20] = 900
    path = write_raster(tmp_path / "scene.tif", empty, nodata=0)
    made = plan(path, bundle_of(bands=2), precision="auto", **OPENVINO)
    assert made.inference.spec.precision == "fp32"
    assert any("400 observed pixels" in note for note in made.notes)
    if "int8" in HERE:
        with pytest.raises(SwatheError, match="int8 needs pixels to set its ranges by"):
            plan(path, bundle_of(bands=2), precision="int8", **OPENVINO)


def test_int8_is_refused_with_what_to_do(scene, bundle_of, monkeypatch):
    with pytest.raises(SwatheError, match="int8 runs in OpenVINO"):
        plan(scene, bundle_of(bands=2), precision="int8", engine="torch", device="cpu")
    with pytest.raises(SwatheError, match="precision is one of auto, fp32"):
        plan(scene, bundle_of(bands=2), precision="int4")
    with monkeypatch.context() as patch:
        patch.setattr(engines, "cpu_gains", lambda precision: precision == "fp32")
        for precision in ("int8", "bf16", "fp16"):
            with pytest.raises(SwatheError, match=f"{precision} is not faster on this CPU"):
                plan(scene, bundle_of(bands=2), precision=precision, **OPENVINO)
    monkeypatch.setattr(choosing, "can_quantise", lambda: False)
    monkeypatch.setattr(engines, "cpu_gains", lambda precision: True)
    with pytest.raises(SwatheError, match=r"pip install 'swathe\[int8\]'"):
        plan(scene, bundle_of(bands=2), precision="int8", **OPENVINO)


def test_windows_are_spread_and_the_same_each_time(scene, bundle_of):
    made = plan(scene, bundle_of(bands=2), **OPENVINO)
    found = observed_windows(made.source, made.plan, 9, 64)
    assert found == observed_windows(made.source, made.plan, 9, 64)
    assert len(found) == 9
    assert {window.top // 100 for window in found} >= {0, 1}
    assert all(window.top >= 0 and window.bottom <= 300 and window.right <= 400 for window in found)


def test_expected_iou_is_that_of_certain_truth():
    truth = np.array([1, 1, 0, 0, 1])
    mine = np.array([1, 0, 1, 0, 1], np.uint8)
    likely = np.stack([1.0 - truth, truth]).astype(np.float32)
    np.testing.assert_allclose(choosing.expected_iou(likely, mine), [1 / 3, 2 / 4])


def test_a_geotiff_that_does_not_say_its_hardware_counts_as_written(scene, bundle_of, tmp_path, monkeypatch):
    given = {"show": False, **OPENVINO}
    with monkeypatch.context() as patch:
        patch.setattr(Segmentation, "identity", lambda self: without_hardware(self))
        run(scene, bundle_of(bands=2), tmp_path / "o.tif", **given)
    before = (tmp_path / "o.tif").stat().st_mtime_ns
    assert run(scene, bundle_of(bands=2), tmp_path / "o.tif", **given).resumed == 1
    assert (tmp_path / "o.tif").stat().st_mtime_ns == before


IDENTITY = Segmentation.identity


def without_hardware(job: Segmentation) -> dict[str, Any]:
    return {key: value for key, value in IDENTITY(job).items() if key != "hardware"}


@needs_int8
@pytest.mark.parametrize("name", ["b", "b.zip"])
def test_a_bundle_that_carries_its_graph_needs_no_nncf(name, scene, bundle_of, int8, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.inference.quantise.quantise_network", lambda *_: int8)  # which takes seconds
    monkeypatch.setattr("pipeline.inference.quantise.WINDOWS", 3)
    monkeypatch.setattr(choosing, "WINDOWS", 3)
    plain = bundle_of(bands=2)
    made = quantise(plain, [scene], tmp_path / name)
    assert made.int8 == int8
    assert made.digest != plain.digest
    assert 0.5 < made.int8_scores["scene.tif"]["agreement"] <= 1
    assert made.network().state_dict().keys() == plain.network().state_dict().keys()
    assert "int8        carried" in describe_bundle(str(made.path))
    monkeypatch.setattr(choosing, "can_quantise", lambda: False)
    monkeypatch.setattr(quantised, "kept_graph", lambda digest: None)
    planned = plan(scene, made, precision="int8", **OPENVINO)
    assert planned.inference.spec.graph == int8.digest
    assert planned.inference.graph == b""  # it goes to workers by the bundle's path
    values = predict(planned.source, planned.plan.block_at(0, 0).window, planned.inference)
    assert values.class_map.shape == (300, 400)
    assert add_metrics(made.path, {"a": 1}).int8 == int8
    before = (made.path if made.path.is_file() else made.path / "bundle.json").read_bytes()
    (tmp_path / f"{name}.sha256").unlink()  # as a kill at its very end leaves it
    assert quantise(plain, [scene], tmp_path / name).digest == made.digest
    assert (tmp_path / f"{name}.sha256").exists()
    assert (made.path if made.path.is_file() else made.path / "bundle.json").read_bytes() == before
    with pytest.raises(SwatheError, match="exists"):
        quantise(plain, [scene], tmp_path / name, tolerance=0.1)
    with pytest.raises(SwatheError, match="exists"):
        quantise(bundle_of(bands=2, seed=1), [scene], tmp_path / name)


@needs_int8
def test_a_damaged_graph_is_refused(scene, bundle_of, int8, tmp_path):
    made = add_int8(bundle_of(bands=2), tmp_path / "b", int8, {})
    (tmp_path / "b" / "int8.bin").write_bytes(int8.weights[:-4])
    with pytest.raises(SwatheError, match=r"not the one that bundle\.json names"):
        plan(scene, load_bundle(made.path), precision="int8", **OPENVINO)
    (tmp_path / "b" / "int8.bin").unlink()
    with pytest.raises(SwatheError, match=r"holds no int8\.bin"):
        plan(scene, load_bundle(made.path), precision="int8", **OPENVINO)
    foreign = add_int8(bundle_of(bands=3), tmp_path / "c", int8, {})
    spec = EngineSpec("openvino", "cpu", "int8", graph=int8.digest)
    with pytest.raises(SwatheError, match=r"the int8 graph has channels \[2, 2\], the bundle \[3, 2\]"):
        make_engine(foreign, spec)
    nonsense = add_int8(bundle_of(bands=2), tmp_path / "d", QuantisedGraph(b"<net/>", b""), {})
    with pytest.raises(SwatheError, match="cannot read the int8 graph"):
        make_engine(nonsense, EngineSpec("openvino", "cpu", "int8"))


@needs_int8
def test_auto_goes_on_where_nncf_fails(scene, bundle_of, monkeypatch):
    def fail(*_: Any) -> None:
        raise EngineError("NNCF cannot quantise this")

    fixed(monkeypatch, bf16=(0.001, 2.0), int8=(0.0, 3.0))
    monkeypatch.setattr(choosing, "quantise_network", fail)
    assert plan(scene, bundle_of(bands=2), precision="auto", **OPENVINO).inference.spec.precision == "bf16"
    with pytest.raises(SwatheError, match="NNCF cannot quantise this"):
        plan(scene, bundle_of(bands=2), precision="int8", **OPENVINO)


def test_quantise_takes_scenes_one_after_the_other(bundle_of, monkeypatch):
    given = []
    made = SimpleNamespace(path="o", metadata=bundle_of().metadata, digest="d", int8_scores={})
    monkeypatch.setattr("pipeline.inference.quantise.quantise", lambda *args, **more: given.append(args) or made)
    for scenes in ("--scenes a.tif b.tif c.tif -o o", "--scenes a.tif -o o --scenes b.tif c.tif",
                   "-o o --scenes a.tif --scenes b.tif --scenes c.tif"):  # fmt: skip
        done = CliRunner().invoke(quantise_verb, ["net", *scenes.split()])
        assert done.exit_code == 0, done.output
    assert given == [("net", ("a.tif", "b.tif", "c.tif"), "o")] * 3
    assert CliRunner().invoke(quantise_verb, ["net", "a.tif", "-o", "o"]).exit_code == 2


def test_an_evaluation_measures_by_the_decision_that_it_scores_with(scene, bundle_of, monkeypatch):
    fixed(monkeypatch, bf16=(0.001, 2.0))
    seen, measure = [], choosing.Comparison.measure
    monkeypatch.setattr(choosing.Comparison, "measure", lambda *args: seen.append(args[1]) or measure(*args))
    options = SegmentOptions(precision="auto", threshold=0.3, **OPENVINO)
    prepared = NetworkPredictor(bundle_of(bands=2), options).plan(open_source(scene))
    assert [one.encoding.thresholds for one in seen] == [(None, 0.3)]
    assert prepared.inference.encoding.thresholds is None  # scores need the likeliest class as it is
    spec = replace(prepared.inference.spec, precision="fp32")
    exact = replace(prepared, inference=replace(prepared.inference, spec=spec))
    assert describe_engines({"a": prepared, "b": prepared}) == "openvino on cpu, bf16"
    assert describe_engines({"a": prepared, "b": exact, "c": prepared}) == "openvino on cpu, bf16 for a, c; fp32 for b"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.skipif(not DATA.exists(), reason="the shared data are not here")
@pytest.mark.parametrize("name", ["kampala_ug_b", "scene C", "Urban_00_0515", "s2 chip_1"])
def test_auto_keeps_the_classes_of_labelled_scenes(name, tmp_path):
    (one,) = (one for one in labelled(tmp_path) if one.name.startswith(name))
    found = compare(one)
    assert found.agreement >= 0.998, found
    assert abs(found.iou[0] - found.iou[1]) <= 0.003, found
