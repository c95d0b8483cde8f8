"""Whole scenes through an ONNX graph: tiled equals whole on each engine, and precisions, and the memory of tiles."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import network, pixels, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact import punch, stored
from test_onnx import SETTINGS, Form, write

from models import Bundle
from models.engine import EngineSpec, make_engine, resolve
from models.engine_memory import measure_memory
from models.errors import EngineError, SwatheError
from models.importing import import_onnx
from models.quantised import can_quantise
from models.system import forget_peak, peak_bytes
from pipeline import open_maps, plan, run, segment
from pipeline.inference.options import SegmentOptions
from pipeline.inference.plan import plan_scene
from pipeline.inference.predict import predict, shared_engine

ENGINES = ("openvino", "onnxruntime")
SHAPE = (210, 330)


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("free")
    path = write(folder / "n.onnx", Form(network("unet", 3, 3), nhwc=True), (1, 128, 128, 3))
    return import_onnx(path, SETTINGS, folder / "bundle")


@pytest.fixture(scope="module")
def fixed(tmp_path_factory) -> Bundle:
    folder = tmp_path_factory.mktemp("fixed")
    path = write(folder / "n.onnx", Form(network("unet", 3, 3)), (2, 3, 128, 128), ("sides", "batch"))
    return import_onnx(path, SETTINGS, folder / "bundle")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    values = pixels((3, *SHAPE))
    return write_raster(tmp_path_factory.mktemp("scene") / "s.tif", values, descriptions=SETTINGS["bands"])


def whole(bundle: Bundle, engine: str) -> np.ndarray:
    """The engine once over the whole reflected scene."""
    halo, stride = 24, 4
    edges = [(0, 0), *((halo, halo + -size % stride) for size in SHAPE)]
    padded = np.pad(pixels((3, *SHAPE)), edges, mode="reflect")
    answer = make_engine(bundle, EngineSpec(engine, "cpu", threads=1)).predict(padded[None])[0]
    return answer[:, halo : halo + SHAPE[0], halo : halo + SHAPE[1]]


@pytest.mark.parametrize("engine", ENGINES)
def test_tiled_is_whole(engine, free, scene, tmp_path, client, threads):
    right = whole(free, engine)
    lazy = segment(scene, free, engine=engine, tile=64, block=128, threads=1, probability="float32").compute()
    np.testing.assert_allclose(lazy.probability, right, atol=1e-5, rtol=0)
    for tile, block in ((64, 128), (128, 256)):
        output = tmp_path / f"{tile}.zarr"
        run(scene, free, output, client=client, show=False, engine=engine, tile=tile, block=block, threads=1,
            probability="float32")  # fmt: skip
        np.testing.assert_allclose(open_maps(output).probability, right, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_graph_of_one_size_runs_over_a_whole_scene(engine, fixed, free, scene, tmp_path, client, threads):
    """The same network with free sides says what is right, wherever tiles of the one size have all their context."""
    run(scene, fixed, tmp_path / "m.zarr", client=client, show=False, engine=engine, threads=1, probability="float32")
    found, right = open_maps(tmp_path / "m.zarr").probability.values, whole(free, engine)
    assert found.shape == right.shape
    assert np.isfinite(found).all()
    assert (np.abs(found - right) < 1e-5).mean() > 0.5


def test_plans_and_memory_are_those_of_the_graph(free, fixed, scene):
    said = plan(scene, free, threads=1)
    assert said.inference.spec.name == "openvino"
    with pytest.raises(SwatheError, match="torch does not run"):
        plan(scene, free, engine="torch")
    for bundle in (free, fixed):
        assert measure_memory(bundle, resolve(EngineSpec(device="cpu", threads=1, onnx=True))).measured


@pytest.fixture(scope="module")
def eights(tmp_path_factory) -> Bundle:
    """A graph of eight tiles at a time, whose eight classes make its answers large."""
    folder = tmp_path_factory.mktemp("eights")
    path = write(folder / "n.onnx", Form(network("unet", 3, 8)), (8, 3, 128, 128), ("sides", "batch"))
    classes = [{"name": f"c{number}", "color": "808080"} for number in range(8)]
    return import_onnx(path, {**SETTINGS, "classes": classes}, folder / "bundle")


@pytest.fixture(scope="module")
def squeezed(tmp_path_factory) -> Callable[[int], Bundle]:
    """Graphs of one size and batch that see their whole tile."""
    made: dict[int, Bundle] = {}

    def give(batch: int) -> Bundle:
        if batch not in made:
            folder = tmp_path_factory.mktemp("squeezed")
            options = {"encoder_name": "tu-mobilenetv3_small_100", "decoder_channels": [16, 8, 8, 8, 8]}
            path = write(folder / "n.onnx", Form(network("smp:Unet", 3, 3, **options)), (batch, 3, 96, 96),
                         ("sides", "batch"))  # fmt: skip
            made[batch] = import_onnx(path, SETTINGS, folder / "bundle")
        return made[batch]

    return give


@settings(max_examples=4)
@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("engine", ENGINES)
@given(data=st.data())
def test_batches_blocks_threads_and_order_change_no_bit(engine, batch, data, squeezed, tmp_path, client, threads):
    """Which tiles share a batch follows from the blocks. Scenes may be smaller than a tile, blocks than a stride."""
    shape, seed = data.draw(st.tuples(st.integers(1, 230), st.integers(1, 230))), data.draw(st.integers(0, 99))
    values = pixels((3, *shape), seed=seed).astype(data.draw(st.sampled_from(["uint16", "int16", "float32"])))
    nodata = punch(values, data.draw(st.sampled_from(["none", "partial", "all"])), np.random.default_rng(seed))
    path = write_raster(tmp_path / "s.tif", values, nodata=nodata, photometric="minisblack")
    blend = data.draw(st.sampled_from(["crop", "linear", "cosine", "gaussian"]))
    feather = {"blend": "feather", "taper": blend} if blend != "crop" else {}
    overlap = data.draw(st.sampled_from([0, 20, 64]))
    how: dict[str, Any] = {"engine": engine, "device": "cpu", "overlap": overlap, "allow_mismatch": True,
                           "probability": "float32", "probability_of": "all", **feather}  # fmt: skip
    prepared = plan_scene(str(path), squeezed(batch), SegmentOptions(threads=1, **how))
    right = predict(prepared.source, prepared.geobox.whole, prepared.inference)
    windows = list(prepared.geobox.whole.split(data.draw(st.integers(7, 200)), data.draw(st.integers(7, 200))))
    for window in data.draw(st.permutations(windows))[:8]:
        part = predict(prepared.source, window, prepared.inference)
        np.testing.assert_array_equal(part.probability, right.probability[:, *window.slices])
        np.testing.assert_array_equal(part.class_map, right.class_map[window.slices])
    run(path, squeezed(batch), tmp_path / "o.zarr", client=client, block=data.draw(st.integers(1, 200)), show=False,
        threads=data.draw(st.integers(1, 5)), overwrite=True, overviews=False, **how)  # fmt: skip
    found = stored(tmp_path / "o.zarr")
    np.testing.assert_array_equal(found["probability"], right.probability)
    np.testing.assert_array_equal(found["class_map"], right.class_map)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("blend", ["crop", "feather"])
def test_a_block_takes_no_more_memory_than_planned(blend, engine, eights, tmp_path, threads):
    path = write_raster(tmp_path / "s.tif", pixels((3, 500, 500)), descriptions=SETTINGS["bands"])
    options = SegmentOptions(engine=engine, device="cpu", threads=1, overlap=64, blend=blend)
    prepared = plan_scene(str(path), eights, options, calibrated=False)
    found = measure_memory(eights, prepared.inference.spec)
    planned = replace(prepared.cut.cost, network=found.per_pixel).block_bytes(prepared.plan)
    shared_engine(prepared.inference)
    before = forget_peak()
    predict(prepared.source, prepared.geobox.whole, prepared.inference)
    assert peak_bytes() - before <= planned  # and less where the process has memory that it took before


@pytest.mark.slow
@pytest.mark.skipif(not can_quantise(), reason="NNCF is not installed")
@pytest.mark.parametrize("which", ["free", "fixed"])
def test_precisions_are_measured_as_of_any_bundle(which, scene, request, tmp_path, client, threads):
    bundle = request.getfixturevalue(which)
    try:
        resolve(EngineSpec("openvino", "cpu", "int8"))
    except EngineError:
        pytest.skip("this CPU gains nothing from int8")
    run(scene, bundle, tmp_path / "8.zarr", client=client, show=False, precision="int8", threads=1, device="cpu")
    run(scene, bundle, tmp_path / "32.zarr", client=client, show=False, threads=1, device="cpu")
    one, other = (open_maps(tmp_path / name).class_map.values for name in ("8.zarr", "32.zarr"))
    assert 0.8 < (one == other).mean() < 1
    with pytest.raises(SwatheError, match="for bf16 use --engine openvino"):
        plan(scene, bundle, precision="bf16", engine="onnxruntime")
