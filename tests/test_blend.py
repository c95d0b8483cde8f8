"""Networks without an exact halo: the same bytes however a scene is cut and done, and those of a plain reference.

The reference lays tiles over the whole scene in numpy, runs the engine on each, and crops or weighs them: it shares no
code of geometry, reading or blending with what it checks.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import zarr
from helpers import metadata, pixels, save, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st
from test_exact import class_map_of, punch, stored

import pipeline.inference.predict as prediction
from models import Bundle
from models.engine import EngineSpec, make_engine
from models.errors import PlanError, SceneError, StoreError
from models.hardware import cpu_gains
from models.metadata import ReceptiveField
from pipeline import plan, run, segment
from pipeline.catalog.build import build_index
from pipeline.cli.describe import describe
from pipeline.grid.geobox import Window
from pipeline.inference import overlap as measuring
from pipeline.inference.plan import plan_scene
from pipeline.inference.predict import predict
from pipeline.io.untrusted import end_children
from pipeline.store.store import read_metadata

UNBOUNDED = ReceptiveField(32, None)
DECODER = {"decoder_channels": [16, 8, 8, 8, 8]}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "squeeze-excite": ("smp:Unet", {"encoder_name": "tu-mobilenetv3_small_100", **DECODER}),
    "instance norm": (
        "smp:Unet",
        {"encoder_name": "resnet18", "decoder_use_norm": {"type": "instancenorm", "affine": True}, **DECODER},
    ),
}
SIDE, STRIDE = 96, 32
FIXED = 96  # side of the only tiles that the third network takes
Blended = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory) -> Callable[..., Bundle]:
    made: dict[str, Bundle] = {}

    def give(name: str) -> Bundle:
        if name not in made:
            architecture, options = NETWORKS.get(name, ("simple-unet", {"widths": [4, 8, 8]}))
            field = UNBOUNDED if name in NETWORKS else ReceptiveField(8, None)
            described = metadata(architecture, name=name.replace(" ", "-"), options=options, receptive_field=field,
                                 classes=3, patch=SIDE)  # fmt: skip
            made[name] = save(tmp_path_factory.mktemp("bundle") / "b", described)
        return made[name]

    return give


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[int, ...]]]:
    """Let networks take tiles of one side alone; yields the shapes of what engines are given, from any verb."""
    given, make = set[tuple[int, ...]](), prediction.make_engine

    def watched(*args: Any) -> Any:
        engine = make(*args)
        for name in ("predict", "segment"):
            whole = getattr(engine, name)

            def one(pixels: np.ndarray, *rest: Any, whole: Any = whole) -> Any:
                given.add(pixels.shape[2:])
                return whole(pixels, *rest)

            setattr(engine, name, one)
        return engine

    monkeypatch.setattr(prediction, "make_engine", watched)
    monkeypatch.setattr(prediction, "_engines", {})
    monkeypatch.setattr("pipeline.inference.grid_choice.fixed_side", lambda _: FIXED)
    yield given
    assert given <= {(FIXED, FIXED)}


def starts(size: int, side: int, step: int, stride: int) -> list[int]:
    found = [0]
    while found[-1] + side < size:
        found.append(found[-1] + step)
    if len(found) > 1:
        found[-1] = -(-(size - side) // stride) * stride
    return found


def taper(side: int, overlap: int, how: str) -> np.ndarray:
    place = np.arange(side) + 0.5
    if how == "gaussian":
        return np.exp(-((place - side / 2) ** 2) / (2 * (side / 8) ** 2))
    ramp = np.minimum(np.minimum(place, side - place) / overlap, 1) if overlap else np.ones(side)
    return ramp if how == "linear" else (1 - np.cos(np.pi * ramp)) / 2


def reference(
    values: np.ndarray, missing: np.ndarray, bundle: Bundle, engine: str, *, side: int, overlap: int, blend: str,
    fixed: bool = False, moved: int = 0,
) -> np.ndarray:  # fmt: skip
    """Probabilities of the whole scene; NaN where nothing was observed. `moved`: the grid begins so much earlier."""
    described = bundle.metadata
    stride = described.receptive_field.stride
    before = overlap // 2 // stride * stride + moved
    height, width = (size + 2 * before for size in values.shape[1:])
    means = np.array([round(band.mean) for band in described.bands])
    filled = np.where(missing, means[:, None, None], values).astype(values.dtype)
    sides = [side if fixed else min(side, -(-size // stride) * stride) for size in (height, width)]
    rows, columns = (
        starts(size, one, side - overlap, stride) for size, one in zip((height, width), sides, strict=True)
    )
    beyond = [
        (before, before + at[-1] + one - size)
        for at, one, size in zip((rows, columns), sides, (height, width), strict=True)
    ]
    whole = np.pad(filled, [(0, 0), *beyond], mode="reflect")
    made = make_engine(bundle, EngineSpec(name=engine, device="cpu"))
    answers = {
        (top, left): made.predict(np.ascontiguousarray(whole[None, :, top : top + sides[0], left : left + sides[1]]))[0]
        for top in rows
        for left in columns
    }
    found = np.full((len(described.classes), *whole.shape[1:]), np.nan)
    if blend == "crop":
        for number, top in enumerate(rows):
            first = 0 if number == 0 else (rows[number - 1] + sides[0] + top) // 2
            for place, left in enumerate(columns):
                begin = 0 if place == 0 else (columns[place - 1] + sides[1] + left) // 2
                found[:, first : top + sides[0], begin : left + sides[1]] = answers[top, left][
                    :, first - top :, begin - left :
                ]
    else:
        total, weight = np.zeros_like(found), np.zeros(whole.shape[1:])
        for (top, left), answer in answers.items():
            mine = np.outer(*(taper(one, overlap, blend) for one in sides))
            total[:, top : top + sides[0], left : left + sides[1]] += answer * mine
            weight[top : top + sides[0], left : left + sides[1]] += mine
        found = total / weight
    found = found[:, before : height - before, before : width - before].astype(np.float32)
    found[:, missing.all(axis=0)] = np.nan
    return found


def options_of(blend: str, **more: Any) -> dict[str, Any]:
    how = {"blend": "crop"} if blend == "crop" else {"blend": "feather", "taper": blend}
    return {"tile": SIDE, **how, **more}


@st.composite
def cases(draw: st.DrawFn, overlaps: tuple[int, ...]) -> tuple[np.ndarray, float | None, str, int]:
    height, width, seed = draw(st.integers(40, 170)), draw(st.integers(40, 170)), draw(st.integers(0, 99))
    values = pixels((3, height, width), "uint16", seed)
    nodata = punch(values, draw(st.sampled_from(["none", "partial"])), np.random.default_rng(seed))
    blend = draw(st.sampled_from(["crop", "linear", "cosine", "gaussian"]))
    return values, nodata, blend, draw(st.sampled_from(overlaps))


@settings(max_examples=3)
@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", [*NETWORKS, "fixed"])
@given(data=st.data())
def test_the_same_bytes_for_any_blocks_threads_and_order_and_those_of_the_reference(
    name, engine, data, bundles, tmp_path, client, threads
):
    values, nodata, blend, overlap = data.draw(cases((32, 64) if name in NETWORKS else (0, 24, 40)))
    bundle, path = bundles(name), write_raster(tmp_path / "s.tif", values, nodata=nodata, photometric="minisblack")
    missing = np.zeros(values.shape, bool) if nodata is None else values == nodata
    with pytest.MonkeyPatch.context() as patch:
        if name == "fixed":
            patch.setattr("pipeline.inference.grid_choice.fixed_side", lambda _: FIXED)
        right = reference(
            values, missing, bundle, engine, side=SIDE, overlap=overlap, blend=blend, fixed=name == "fixed"
        )
        how = options_of(blend, overlap=overlap, engine=engine, probability_of="all")
        blocks = st.integers(30, 170)
        lazy = [
            segment(path, bundle, block=data.draw(blocks), threads=data.draw(st.integers(1, 3)), **how).compute()
            for _ in range(2)
        ]
        run(path, bundle, tmp_path / "o.zarr", client=client, block=data.draw(blocks), probability="float32",
            overviews=False, show=False, overwrite=True, **how)  # fmt: skip
    durable = stored(tmp_path / "o.zarr")
    found = lazy[0].probability.values
    np.testing.assert_array_equal(found, lazy[1].probability.values)
    np.testing.assert_array_equal(found, durable["probability"])
    np.testing.assert_array_equal(durable["class_map"], class_map_of(found))
    np.testing.assert_array_equal(durable["class_map"], lazy[0].class_map.values)
    # of a weighted sum the reference's is in float64
    exact = engine == "torch" and blend == "crop"
    np.testing.assert_allclose(found, right, atol=0 if exact else 1e-6 if engine == "torch" else 1e-5, rtol=0)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    values = pixels((3, 200, 270)).clip(1)
    values[:, 60:110, 100:190] = 0
    names = ("red", "green", "blue")
    return write_raster(tmp_path_factory.mktemp("scene") / "s.tif", values, nodata=0, descriptions=names)


@pytest.mark.parametrize("blend", ["crop", "cosine"])
def test_windows_in_any_order_are_those_of_the_whole(blend, bundles, scene, threads):
    prepared = plan_scene(str(scene), bundles("squeeze-excite"), options(blend))
    whole = predict(prepared.source, prepared.geobox.whole, prepared.inference)
    windows = list(prepared.geobox.whole.split(71, 53))
    random.Random(0).shuffle(windows)
    for window in windows[:8]:
        part = predict(prepared.source, window, prepared.inference)
        assert (part.class_map == whole.class_map[window.slices]).all()
        assert (part.probability == whole.probability[:, *window.slices]).all()
    wanted = np.zeros(whole.class_map.shape, bool)
    wanted[20:90, 30:200] = True
    some = predict(prepared.source, prepared.geobox.whole, prepared.inference, wanted)
    assert (some.class_map == np.where(wanted, whole.class_map, 255)).all()


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_number_of_threads_gives_the_same_bits(name, engine, bundles, threads, monkeypatch):
    """Means over a whole tile are sums that threads share out: so each call has one, and there are more calls."""
    monkeypatch.setattr("models.engine.MOST_STREAMS", 1)  # as on a machine of many cores for each call
    tile, bundle = pixels((1, 3, SIDE, SIDE)), bundles(name)
    answers = []
    for count in (1, 3, 16):
        spec = options("crop").spec(bundle.metadata)
        made = make_engine(bundle, replace(spec, name=engine, device="cpu", threads=count))
        assert made.slots == count
        answers.append(made.predict(tile))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def options(blend: str, **more: Any) -> Any:
    from pipeline.inference.options import SegmentOptions

    return SegmentOptions(**options_of(blend, engine="openvino", **more))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_worker_processes_change_nothing(engine, bundles, scene, tmp_path, threads):
    how = {"engine": engine, "show": False, **options_of("linear", overlap=32)}
    run(scene, bundles("squeeze-excite"), tmp_path / "one.zarr", block=64, **how)
    run(scene, bundles("squeeze-excite"), tmp_path / "two.zarr", block=64, workers=2, **how)
    run(scene, bundles("squeeze-excite"), tmp_path / "large.zarr", block=256, **how)
    one = stored(tmp_path / "one.zarr")
    for other in ("two", "large"):
        for name, values in stored(tmp_path / f"{other}.zarr").items():
            np.testing.assert_array_equal(one[name], values)


@pytest.mark.parametrize("overlap", [None, 32, "auto"])
def test_a_scene_without_pixels_can_be_planned(overlap, bundles, tmp_path):
    """Nothing can be measured there; only an overlap that is to be measured needs that."""
    path = write_raster(tmp_path / "s.tif", np.zeros((3, 200, 270), np.uint16), nodata=0)
    how = {"tile": SIDE, "overlap": overlap, "engine": "openvino"}
    if overlap == "auto":
        with pytest.raises(PlanError, match="no observed pixels were found to measure an overlap on"):
            plan(path, bundles("squeeze-excite"), **how)
        return
    assert "not exact: tiles of 96, overlap 32; the network" in str(plan(path, bundles("squeeze-excite"), **how))
    assert (segment(path, bundles("squeeze-excite"), **how).class_map.values == 255).all()


def test_geotiff_and_untrusted_scenes_hold_the_same(bundles, scene, tmp_path):
    how = {"engine": "openvino", "show": False, **options_of("gaussian", overlap=32)}
    bundle = bundles("squeeze-excite")
    run(scene, bundle, tmp_path / "o.zarr", **how)
    run(scene, bundle, tmp_path / "o.tif", block=64, **how)
    right = stored(tmp_path / "o.zarr")
    with rasterio.open(tmp_path / "o.tif") as map_:
        assert (map_.read(1) == right["class_map"]).all()
    try:
        run(scene, bundle, tmp_path / "apart.zarr", untrusted=True, block=96, **how)
    finally:
        end_children()
    assert all((right[name] == values).all() for name, values in stored(tmp_path / "apart.zarr").items())


@pytest.mark.parametrize("each", ["inner", "feather"])
def test_what_a_scene_of_a_mosaic_says_does_not_depend_on_blocks(each, bundles, tmp_path):
    values = pixels((3, 150, 210)).clip(1)
    for name, left, right in (("a", 0, 130), ("b", 75, 210)):  # off the stride
        transform = rasterio.Affine(10, 0, 500_000 + 10 * left, 0, -10, 9_000_000)
        write_raster(tmp_path / f"{name}.tif", values[:, :, left:right], transform=transform, nodata=0)
    build_index([str(tmp_path / "a.tif"), str(tmp_path / "b.tif")], tmp_path / "i.parquet", show=False)
    bundle = bundles("squeeze-excite")
    how = {"each": each, "engine": "openvino", "probability_of": "all", **options_of("linear", overlap=32)}
    found = [
        segment(tmp_path / "i.parquet", bundle, block=block, **how).compute(scheduler="synchronous").probability.values
        for block in (50, 96, 256)
    ]
    assert not np.isnan(found[0]).any()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    alone = reference(values[:, :, :130], np.zeros((3, 150, 130), bool), bundle, "openvino",
                      side=SIDE, overlap=32, blend="linear")  # fmt: skip
    np.testing.assert_allclose(found[0][:, :, :70], alone[:, :, :70], atol=1e-5, rtol=0)


def test_a_network_of_fixed_tiles_gets_no_others(fixed, bundles, scene, tmp_path):
    """In runs, calibration and measurements of precision and overlap; a scene that is smaller is filled up."""
    bundle = bundles("fixed")
    how = {"engine": "torch", "device": "cpu", "tolerance": 1.0}
    told = str(plan(scene, bundle, calibrate=True, precision="auto", overlap="auto", **how))
    assert "tiles    of 96 x 96 pixels on one grid over the scene; blend crop" in told
    assert "overlap  not exact: tiles of 96, overlap 0, measured change 0." in told
    assert fixed == {(96, 96)}
    small = write_raster(tmp_path / "small.tif", pixels((3, 50, 120)), descriptions=("red", "green", "blue"))
    found = segment(small, bundle, **how).compute().probability.values
    right = reference(pixels((3, 50, 120)), np.zeros((3, 50, 120), bool), bundle, "torch",
                      side=96, overlap=24, blend="crop", fixed=True)  # fmt: skip
    np.testing.assert_array_equal(found, right)


@pytest.mark.slow
def test_int8_of_a_network_of_fixed_tiles_is_measured_on_such(fixed, bundles, tmp_path):
    """Its ranges and its error are those of whole tiles."""
    pytest.importorskip("nncf")
    if not cpu_gains("int8"):
        pytest.skip("this CPU gains nothing from int8")
    path = write_raster(tmp_path / "s.tif", pixels((3, 600, 700)), descriptions=("red", "green", "blue"))
    how: dict[str, Any] = {"engine": "openvino", "precision": "int8", "show": False, "overviews": False}
    maps = [tmp_path / f"{block}.zarr" for block in (150, 512)]
    for out, block in zip(maps, (150, 512), strict=True):
        run(path, bundles("fixed"), out, block=block, **how)
    assert fixed == {(96, 96)}
    assert read_metadata(str(maps[0])).identity["precision"] == "int8"
    assert all((stored(maps[0])[name] == values).all() for name, values in stored(maps[1]).items())


def test_tiles_of_one_side_that_hold_the_halo_are_exact(fixed, bundle_of, scene, tmp_path, monkeypatch, threads):
    """As the whole network on the whole scene, and the same run as one that is free to choose its tiles."""
    monkeypatch.setattr("test_blend.FIXED", 192)
    bundle = bundle_of()  # of radius 58
    how = {"engine": "torch", "device": "cpu", "threads": 1, "show": False, "overviews": False}
    run(scene, bundle, tmp_path / "fixed.zarr", block=72, **how)
    assert fixed == {(192, 192)}
    assert "overlap  halo 64, exact: tiled equals whole" in str(plan(scene, bundle))
    monkeypatch.setattr("pipeline.inference.grid_choice.fixed_side", lambda _: None)
    fixed.clear()
    run(scene, bundle, tmp_path / "free.zarr", **how)
    for name, values in stored(tmp_path / "free.zarr").items():
        np.testing.assert_array_equal(values, stored(tmp_path / "fixed.zarr")[name])
    assert run(scene, bundle, tmp_path / "fixed.zarr", **how).resumed > 0
    fixed.clear()


def test_the_plan_says_that_it_is_not_exact_and_by_how_much(bundles, scene, monkeypatch):
    how: dict[str, Any] = {"engine": "openvino"}
    told = str(plan(scene, bundles("squeeze-excite"), tile=96, blend="feather", taper="cosine", **how))
    assert "tiles    of 96 x 96 pixels on one grid over the scene; blend feather, cosine" in told
    change = float(told.partition("overlap  not exact: tiles of 96, overlap 32, measured change ")[2].split(";")[0])
    assert 0 < change < 2
    assert "the network sees 2." in told
    assert "pixels per pixel; 2.05 but for tiles that blocks share, which both compute" in str(
        plan(scene, bundles("squeeze-excite"), tile=96, overlap=32, block=128, **how)
    )
    # what was measured is kept, and a run's plan knows it without measuring
    monkeypatch.setattr(measuring, "_measured", lambda *_: pytest.fail("it is measured again"))
    again = plan_scene(str(scene), bundles("squeeze-excite"), options("cosine"))
    assert again.overlap is not None
    assert f"{again.overlap.change:.2g}" == f"{change:.2g}"
    whole = str(plan(scene, bundles("squeeze-excite"), tile=384, **how))
    assert "overlap  none: one tile holds the scene; the network sees 1.88 pixels per pixel\n" in whole


def test_the_change_is_what_moving_the_grid_changes(bundles, scene):
    """Measured once more here, in plain numpy over the same windows."""
    prepared = plan_scene(str(scene), bundles("squeeze-excite"), options("crop"))
    inference = prepared.inference
    with rasterio.open(scene) as opened:
        values = opened.read()
    windows = measuring.corners(prepared.source, prepared.plan)
    assert all(max(window.shape) <= 64 for window in windows)
    assert all((values[:, *window.slices] != 0).any() for window in windows)
    missing = values == 0
    how = {"bundle": inference_bundle(bundles), "engine": "openvino", "side": 96, "overlap": 32, "blend": "crop"}
    here = reference(values, missing, **how)
    moved = reference(values, missing, **how, moved=32)
    change, changed, count = 0.0, 0, 0
    for window in windows:
        one, other = here[:, *window.slices], moved[:, *window.slices]
        seen = ~np.isnan(one[0])
        change += np.abs(one - other)[:, seen].max(axis=0).sum()
        changed += (one.argmax(axis=0) != other.argmax(axis=0))[seen].sum()
        count += seen.sum()
    expected = max(change, 2 * changed) / count
    assert measuring.measure_change(prepared.source, inference) == pytest.approx(expected, abs=1e-3)


def inference_bundle(bundles: Callable[..., Bundle]) -> Bundle:
    return bundles("squeeze-excite")


def changes(monkeypatch: pytest.MonkeyPatch, by_overlap: dict[int, float]) -> list[int]:
    """Let measurements give these changes; returns the overlaps that are measured."""
    asked: list[int] = []

    def measured(source: Any, inference: Any) -> float:
        asked.append(inference.plan.grid.overlap)
        return by_overlap[asked[-1]]

    monkeypatch.setattr(measuring, "measure_change", measured)
    return asked


def test_auto_takes_the_least_overlap_within_the_tolerance(bundles, scene, monkeypatch):
    how: dict[str, Any] = {"tile": 256, "tolerance": 0.05, "engine": "openvino"}
    asked = changes(monkeypatch, {0: 0.3, 32: 0.1, 64: 0.04, 96: 0.06, 128: 0.02})
    told = str(plan(scene, bundles("squeeze-excite"), overlap="auto", **how))
    assert "not exact: tiles of 256, overlap 64, measured change 0.04" in told
    assert "note     overlap auto: 64 pixels, measured change 0.04 within 0.05" in told
    assert asked == [0, 32, 64]
    assert plan(scene, bundles("squeeze-excite"), halo="auto", **how).plan.grid.overlap == 64
    told = str(plan(scene, bundles("squeeze-excite"), overlap="auto", **how | {"tolerance": 0.004}))
    assert "overlap auto: none is within 0.004; 128 pixels have the least measured change, 0.02" in told


def test_a_run_that_continues_takes_the_overlap_of_its_store(bundles, scene, tmp_path, monkeypatch):
    bundle, out = bundles("squeeze-excite"), tmp_path / "o.zarr"
    how: dict[str, Any] = {"tile": 96, "overlap": "auto", "tolerance": 0.05, "engine": "openvino", "show": False}
    changes(monkeypatch, {0: 0.2, 32: 0.04})
    assert run(scene, bundle, out, **how).resumed == 0
    kept = read_metadata(str(out))
    assert (kept.plan.grid.overlap, kept.overlap["change"]) == (32, 0.04)
    assert kept.identity["cut"] == {"tiles on a grid": 96, "overlap": 32, "blend": "crop"}
    asked = changes(monkeypatch, {0: 0.01})  # as another machine might find it
    assert run(scene, bundle, out, **how).resumed > 0
    assert asked == []
    with pytest.raises(StoreError, match="overlap 0, there 32"):
        run(scene, bundle, out, **how | {"tolerance": 0.06})


def test_other_grids_are_other_runs_and_blocks_are_none(bundles, scene, tmp_path):
    bundle, out = bundles("squeeze-excite"), tmp_path / "o.zarr"
    how: dict[str, Any] = {"engine": "openvino", "show": False, "tile": 96, "overlap": 32}
    run(scene, bundle, out, **how)
    for more in ({"block": 512}, {"overlap": None, "halo": 16}, {"overlap": 10}):
        assert run(scene, bundle, out, **how | more).resumed > 0
    for more, named in (
        ({"overlap": 64}, "overlap 64, there 32"),
        ({"tile": 128}, "tiles on a grid 128, there 96"),
        ({"blend": "feather"}, "blend feather, there crop"),
    ):
        with pytest.raises(StoreError, match=named):
            run(scene, bundle, out, **how | more)


def test_a_store_of_before_whose_tiles_followed_blocks_is_refused(bundles, scene, tmp_path):
    """Such was `--halo N` of these networks: its pixels depended on tiles and blocks."""
    bundle, out = bundles("squeeze-excite"), tmp_path / "o.zarr"
    how: dict[str, Any] = {"engine": "openvino", "show": False, "halo": 32}
    run(scene, bundle, out, **how)
    attributes = json.loads((out / "zarr.json").read_text())
    own = attributes["attributes"]["swathe"]
    del own["plan"]["grid"]
    own["identity"]["cut"] = {"tile": 1024, "tall": 1, "block": 512}
    (out / "zarr.json").write_text(json.dumps(attributes))
    with pytest.raises(StoreError, match=r"belongs to another run.*tiles on a grid"):
        run(scene, bundle, out, **how)


def test_a_sample_that_is_too_large_takes_the_answer_of_all_tiles_that_see_it(bundles, tmp_path):
    values = pixels((3, 160, 160), "float32")
    values[0, 20, 120] = 3e38
    path = write_raster(tmp_path / "s.tif", values)
    bundle = save(tmp_path / "b", replace(bundles("fixed").metadata, dtype="float32"))
    how: dict[str, Any] = {"tile": 96, "overlap": 32, "engine": "openvino", "show": False, "overviews": False}
    with pytest.raises(SceneError, match=r"holds 3e\+38 at row 20, column 120"):
        run(path, bundle, tmp_path / "no.zarr", blend="feather", **how)
    # tiles begin at -16, 48 and 80: of the first row, the second and the third see it
    for blend, (bottom, left) in (("crop", (64, 64)), ("feather", (80, 48))):
        expected = np.zeros((160, 160), bool)
        expected[:bottom, left:] = True
        for block in (64, 512):
            out = tmp_path / f"{blend}{block}.zarr"
            result = run(path, bundle, out, blend=blend, on_nonfinite="nodata", block=block, **how)
            assert ((stored(out)["class_map"] == 255) == expected).all()
            assert result.found["nonfinite"] == expected.sum()


def test_memory_too_small_for_tiles_of_one_size_says_so(fixed, bundles, scene):
    with pytest.raises(PlanError, match=r"the smallest tiles of this network need .* GB; give --memory"):
        plan(scene, bundles("fixed"), memory="20 MB", engine="torch", device="cpu")


def test_stores_on_a_grid_are_written_again_where_they_are_damaged(bundles, scene, tmp_path):
    from pipeline.postprocess.verify import verify

    out = tmp_path / "o.zarr"
    run(scene, bundles("squeeze-excite"), out, engine="openvino", show=False, block=96,
        **options_of("linear", overlap=32))  # fmt: skip
    before = stored(out)
    shard = next(one for one in sorted((out / "class_map" / "c").rglob("*")) if one.is_file())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    verify(str(out), repair=True, show=False)
    assert all((before[name] == values).all() for name, values in stored(out).items())
    assert zarr.open_group(out, mode="r").attrs["swathe"]["plan"]["grid"]["taper"] == "linear"
    assert "not exact: tiles of 96, overlap 32, feather, linear" in describe(str(out))


def test_lazy_windows_compute_no_more_than_their_tiles(fixed, bundles, scene):
    maps = segment(scene, bundles("fixed"), engine="torch", device="cpu", block=96)
    assert fixed == set()
    maps.class_map[:20, :20].compute()
    assert fixed == {(96, 96)}
    assert maps.class_map.shape == Window.of((200, 270)).shape
