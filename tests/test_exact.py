"""Tiled equals whole: however a scene is cut, the answer is the network's on the whole reflected scene, bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from helpers import BANDS, middle, one_threshold, pixels, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.inference.predict as prediction
from models import Bundle
from models.encoding import NODATA, classify, encode
from models.engine import EngineSpec, make_engine
from pipeline import run, segment
from pipeline.io.raster import RasterSource

DTYPES = ("uint8", "int8", "uint16", "int16", "int32", "float32", "float64")


@dataclass(repr=False)
class Scene:
    """Raw values with holes, and how they are to be cut."""

    values: np.ndarray
    nodata: float | None
    cuts: dict[str, Any]
    on_disk: bool

    def __repr__(self) -> str:
        return f"{self.values.dtype} {self.values.shape}, nodata {self.nodata}, {self.cuts}, on disk {self.on_disk}"

    def open(self, folder: Path) -> Path | xr.DataArray:
        if self.on_disk:
            return write_raster(folder / "scene.tif", self.values, nodata=self.nodata, photometric="minisblack")
        return xr.DataArray(self.values, dims=("band", "y", "x"), attrs={"nodata": self.nodata})


@st.composite
def scenes(draw: st.DrawFn, stride: int, halo: int, largest: int = 700, dtypes: tuple[str, ...] = DTYPES) -> Scene:
    height, width, bands = draw(st.integers(1, largest)), draw(st.integers(1, largest)), draw(st.integers(1, 4))
    dtype, seed = draw(st.sampled_from(dtypes)), draw(st.integers(0, 999))
    values = pixels((bands, height, width), dtype, seed)
    kinds = ["none", "partial", "all"] + ["nan"] * np.issubdtype(values.dtype, np.floating)
    nodata = punch(values, draw(st.sampled_from(kinds)), np.random.default_rng(seed))
    side = max(height, width)
    cuts = {
        "tile": draw(st.integers(max(1, side // 12), 800)),
        "block": draw(st.integers(max(1, side // 5), 800)),
        "halo": draw(st.sampled_from(["exact", halo + stride, halo + 3 * stride - 1])),
    }
    return Scene(values, nodata, cuts, draw(st.booleans()))


def punch(values: np.ndarray, kind: str, random: np.random.Generator) -> float | None:
    """Make pixels and samples of values missing; give what stands for them."""
    if kind == "none":
        return None
    if kind == "all":
        values[:] = 7
        return 7.0
    rows, columns = (np.sort(random.integers(0, n + 1, 2)) for n in values.shape[1:])
    hollow = 7 if kind == "partial" else np.nan
    values[:, rows[0] : rows[1], columns[0] : columns[1]] = hollow
    values[random.random(values.shape) < 0.05] = hollow if kind == "partial" else np.inf
    return 7.0 if kind == "partial" else None


def whole(scene: Scene, bundle: Bundle, spec: EngineSpec) -> np.ndarray:
    """The reference for a scene whose bands have one nodata value."""
    missing = ~np.isfinite(scene.values) if scene.nodata is None else scene.values == scene.nodata
    return reference(scene.values, missing, bundle, spec)


def reference(values: np.ndarray, missing: np.ndarray, bundle: Bundle, spec: EngineSpec) -> np.ndarray:
    """The engine once over the whole reflected scene; NaN where nothing was observed."""
    metadata = bundle.metadata
    means = np.array([band.mean for band in metadata.bands])
    if np.issubdtype(values.dtype, np.integer):
        means = means.round()
    filled = np.where(missing, means[:, None, None], values).astype(values.dtype)
    halo, stride = metadata.receptive_field.halo, metadata.receptive_field.stride
    height, width = values.shape[1:]
    edges = [(0, 0), *((halo, halo + -size % stride) for size in (height, width))]
    answer = make_engine(bundle, spec).predict(np.pad(filled, edges, mode="reflect")[None])[0]
    answer = answer[:, halo : halo + height, halo : halo + width].copy()
    answer[:, missing.all(axis=0)] = np.nan
    return answer


def class_map_of(probability: np.ndarray) -> np.ndarray:
    unseen = np.isnan(probability[0])
    return np.where(unseen, NODATA, np.nan_to_num(probability).argmax(axis=0)).astype(np.uint8)


def stored(path: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(path, mode="r")
    return {name: np.asarray(group[name][:]) for name in ("class_map", "probability")}


def ran(scene: Scene, bundle: Bundle, folder: Path, client: Client, **keywords: Any) -> dict[str, np.ndarray]:
    keep = {"probability": "float32", "probability_of": "all", "overviews": False, **scene.cuts}
    run(scene.open(folder), bundle, folder / "out.zarr", client=client, show=False, overwrite=True, **(keep | keywords))
    return stored(folder / "out.zarr")


def bundle_for(bundle_of: Any, architecture: str, scene: Scene, **more: Any) -> Bundle:
    return bundle_of(architecture, bands=len(scene.values), dtype=scene.values.dtype.name, **more)


@settings(max_examples=20)
@pytest.mark.parametrize(("architecture", "stride", "halo"), [("simple-unet", 8, 64), ("unet", 4, 24)])
@given(data=st.data())
def test_torch_is_exact(architecture, stride, halo, data, bundle_of, tmp_path, client, threads):
    scene = data.draw(scenes(stride, halo))
    heads = [{"classes": 2}, {"classes": 5}, {"activation": "sigmoid"}, {"classes": 3, "activation": "sigmoid"}]
    bundle = bundle_for(bundle_of, architecture, scene, **data.draw(st.sampled_from(heads)))
    keywords = {"engine": "torch", "threads": data.draw(st.sampled_from([1, 2, 3]))}
    right = whole(scene, bundle, EngineSpec(name="torch", device="cpu", threads=keywords["threads"]))
    lazy = segment(scene.open(tmp_path), bundle, **scene.cuts, **keywords).compute()
    np.testing.assert_array_equal(lazy.probability, right)
    np.testing.assert_array_equal(lazy.class_map, class_map_of(right))
    found = ran(scene, bundle, tmp_path, client, **keywords)
    np.testing.assert_array_equal(found["probability"], right)
    np.testing.assert_array_equal(found["class_map"], class_map_of(right))


@settings(max_examples=8)
@pytest.mark.parametrize(("architecture", "stride", "halo"), [("simple-unet", 8, 64), ("unet", 4, 24)])
@given(data=st.data())
def test_openvino_is_near_its_whole_and_near_torch(
    architecture, stride, halo, data, bundle_of, tmp_path, client, threads
):
    scene = data.draw(scenes(stride, halo, dtypes=("uint16", "float64")))
    scene.values = np.resize(scene.values, (2, *scene.values.shape[1:]))  # few bundles: each is compiled
    bundle = bundle_for(bundle_of, architecture, scene)
    keywords = {"engine": "openvino", "threads": data.draw(st.sampled_from([1, 2]))}
    right = whole(scene, bundle, EngineSpec(name="openvino", threads=keywords["threads"]))
    torch_right = whole(scene, bundle, EngineSpec(name="torch", device="cpu"))
    lazy = segment(scene.open(tmp_path), bundle, **scene.cuts, **keywords).compute()
    np.testing.assert_allclose(lazy.probability, right, atol=1e-5, rtol=0)
    found = ran(scene, bundle, tmp_path, client, **keywords)["probability"]
    np.testing.assert_allclose(found, right, atol=1e-5, rtol=0)
    # the promise is what stands above; two libraries round float32 sums of raw values in the thousands differently
    np.testing.assert_allclose(found, torch_right, atol=5e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "shape", "tile"),
    [("torch", (150, 70), 64), ("torch", (1, 129), 128), ("openvino", (1, 129), 128), ("openvino", (330, 200), 192)],
)
def test_deep_encoder_is_exact(engine, shape, tile, bundle_of, tmp_path, threads):
    bundle = bundle_of("unet-resnet", bands=2)
    scene = Scene(pixels((2, *shape)), 7.0, {"tile": tile, "block": 2 * tile}, True)
    punch(scene.values, "partial", np.random.default_rng(0))
    right = whole(scene, bundle, EngineSpec(name=engine, device="cpu"))
    found = segment(scene.open(tmp_path), bundle, engine=engine, **scene.cuts).compute()
    np.testing.assert_allclose(found.probability, right, atol=0 if engine == "torch" else 1e-5, rtol=0)


def test_whole_is_exact_without_folding(bundle_of, threads):
    """Not a wish of `segment`: the engine itself, over a crop and over the whole."""
    for architecture in ("simple-unet", "unet"):
        bundle = bundle_of(architecture)
        halo = bundle.metadata.receptive_field.halo
        values = pixels((1, 3, 400, 328))
        for count in (1, 2, 3):
            engine = make_engine(bundle, EngineSpec(name="torch", device="cpu", fold=False, threads=count))
            answer = engine.predict(values)
            for top, left, height, width in ((0, 0, 8, 8), (64, 8, 136, 200), (120, 72, 16, 64)):
                crop = values[:, :, top : top + height + 2 * halo, left : left + width + 2 * halo]
                core = np.s_[:, :, halo : halo + height, halo : halo + width]
                moved = np.s_[:, :, halo + top : halo + top + height, halo + left : halo + left + width]
                np.testing.assert_array_equal(engine.predict(crop)[core], answer[moved])


@dataclass
class Counted:
    """How often sources were read and engines were asked."""

    reads: int = 0
    tiles: int = 0


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    count, read, make = Counted(), RasterSource.read, prediction.make_engine

    def counting_read(self, window):
        count.reads += 1
        return read(self, window)

    def counting_engine(bundle, spec, graph=b""):
        engine = make(bundle, spec, graph)
        segment = engine.segment

        def counting(inputs, encoding):
            count.tiles += len(inputs)
            return segment(inputs, encoding)

        engine.segment = counting
        return engine

    monkeypatch.setattr(RasterSource, "read", counting_read)
    monkeypatch.setattr(prediction, "make_engine", counting_engine)
    monkeypatch.setattr(prediction, "_engines", {})
    return count


def test_building_the_lazy_graph_computes_nothing(bundle_of, tmp_path, counted, threads):
    path = write_raster(tmp_path / "scene.tif", pixels((3, 512, 512)))
    maps = segment(path, bundle_of(), block=128, tile=128, engine="torch")
    maps.class_map[:200], maps.probability.mean("class")
    assert (counted.reads, counted.tiles) == (0, 0)
    maps.class_map[100:140, :10].compute()
    assert (counted.reads, counted.tiles) == (2, 2)
    maps.isel(y=slice(300, 301), x=slice(500, 501)).compute()
    assert (counted.reads, counted.tiles) == (3, 3)


def test_graph_grows_little_with_blocks(bundle_of, tmp_path):
    path = write_raster(tmp_path / "scene.tif", pixels((3, 1024, 1024)))
    maps = segment(path, bundle_of(), block=64)
    assert maps.class_map.data.numblocks == (16, 16)
    assert len(maps.class_map.__dask_graph__()) <= 5 * 256 + 8


def test_blocks_without_pixels_skip_the_network(bundle_of, tmp_path, client, counted, threads):
    values = pixels((3, 256, 384))
    values[:, :, 128:] = 0
    path = write_raster(tmp_path / "scene.tif", values, nodata=0)
    keywords = {"block": 128, "tile": 128, "engine": "torch"}
    report = run(path, bundle_of(), tmp_path / "out.zarr", client=client, show=False, **keywords)
    assert (counted.reads, counted.tiles) == (6, 2)
    assert report.pixels["nodata"] == 256 * 256
    assert (stored(tmp_path / "out.zarr")["class_map"][:, 128:] == NODATA).all()


@pytest.mark.parametrize("kept", ["uint8", "float16", "float32"])
def test_probabilities_are_kept_as_promised(kept, bundle_of, tmp_path, client, threads):
    scene = Scene(pixels((3, 90, 100)), 7.0, {}, True)
    punch(scene.values, "partial", np.random.default_rng(1))
    right = whole(scene, bundle_of(), EngineSpec(name="torch", device="cpu", threads=1))
    found = ran(scene, bundle_of(), tmp_path, client, probability=kept, engine="torch", threads=1)["probability"]
    seen = ~np.isnan(right)
    assert found.dtype == kept
    if kept == "uint8":
        np.testing.assert_array_equal(found[seen], np.floor(right[seen] * 250.0 + 0.5))
        assert (found[~seen] == NODATA).all()
    else:
        np.testing.assert_array_equal(found, right.astype(kept))


@given(value=st.floats(0, 1, width=32))
def test_uint8_probability_is_within_half_a_step(value):
    coded = encode(np.array([value], np.float32), np.dtype(np.uint8))
    assert coded[0] != NODATA
    assert abs(int(coded[0]) / 250 - value) <= 0.5 / 250 + 1e-6


@pytest.mark.parametrize("value", [0.0, 0.5, 0.7, 0.996, 1.0])
def test_uint8_probability_is_exact_at_its_steps(value):
    assert encode(np.array([value], np.float32), np.dtype(np.uint8))[0] == round(value * 250)


@given(st.lists(st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), min_size=4, max_size=4), min_size=2, max_size=4),
       st.sampled_from([None, 0.0, 0.25, 0.5, 0.6, 1.0]))  # fmt: skip
def test_class_map_follows_its_rule(layers, threshold):
    found = classify(np.array(layers, np.float32)[:, None, :], one_threshold(threshold, len(layers)))[0]
    for place, values in enumerate(zip(*layers, strict=True)):
        if threshold is None:
            assert found[place] == values.index(max(values))
        else:
            best = max(values[1:])
            assert found[place] == (1 + values[1:].index(best) if best > threshold else 0)


def test_threshold_reaches_lazy_and_durable_alike(bundle_of, tmp_path, client, threads):
    scene = Scene(pixels((3, 60, 80)), None, {}, True)
    right = whole(scene, bundle_of(classes=3), EngineSpec(name="torch", device="cpu", threads=1))
    best = right[1:].argmax(axis=0) + 1
    rule = np.where(right[1:].max(axis=0) > 0.3, best, 0)
    assert set(np.unique(rule)) == {0, 1, 2}
    keywords = {"threshold": 0.3, "engine": "torch", "threads": 1}
    assert (segment(scene.open(tmp_path), bundle_of(classes=3), **keywords).class_map.values == rule).all()
    assert (ran(scene, bundle_of(classes=3), tmp_path, client, **keywords)["class_map"] == rule).all()


def test_one_class_can_be_kept(bundle_of, tmp_path, threads):
    path = write_raster(tmp_path / "scene.tif", pixels((3, 40, 50)))
    every = segment(path, bundle_of(classes=3), engine="torch").probability
    one = segment(path, bundle_of(classes=3), engine="torch", probability_of="class_2").probability
    assert list(one["class"].values) == ["class_2"]
    np.testing.assert_array_equal(one.values[0], every.values[2])


def test_bands_are_taken_in_the_networks_order(bundle_of, tmp_path, threads):
    values = pixels((3, 40, 50))
    plain = write_raster(tmp_path / "a.tif", values, descriptions=BANDS[:3])
    turned = write_raster(tmp_path / "b.tif", values[::-1], descriptions=BANDS[:3][::-1])
    one, other = (segment(path, bundle_of(), engine="torch").probability.values for path in (plain, turned))
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_worker_processes_change_nothing(bundle_of, tmp_path, client, threads):
    scene = Scene(pixels((3, 500, 430)), 7.0, {"block": 128, "tile": 64}, True)
    punch(scene.values, "partial", np.random.default_rng(1))
    (tmp_path / "here").mkdir()
    here = ran(scene, bundle_of(), tmp_path / "here", client, engine="torch")
    (tmp_path / "there").mkdir()
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster, set_as_default=False) as far,
    ):
        there = ran(scene, bundle_of(), tmp_path / "there", far, engine="torch")
    for name, array in here.items():
        np.testing.assert_array_equal(array, there[name])


def test_missing_samples_take_the_bands_mean(bundle_of):
    """One missing band of a pixel that is observed: the network sees that band's mean, whatever the file holds."""
    values = pixels((3, 64, 64), "float32")
    values[1, 20:30, 20:30] = np.nan
    filled = values.copy()
    filled[1, 20:30, 20:30] = np.float32(bundle_of(dtype="float32").metadata.bands[1].mean)
    assert middle("float32") != filled[1, 20, 20]
    given_values = values.copy()
    one, other = (
        segment(xr.DataArray(v, dims=("band", "y", "x")), bundle_of(dtype="float32"), engine="torch").probability.values
        for v in (values, filled)
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(values, given_values)


def test_encoding_of_the_lazy_way_ignores_what_is_stored(bundle_of):
    scene = xr.DataArray(pixels((3, 16, 16)), dims=("band", "y", "x"))
    assert segment(scene, bundle_of(), probability="uint8").probability.dtype == np.float32
