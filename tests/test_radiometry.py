"""Values of another scale, offset or type than in training: brought to the bundle's, refused, or told.

A scene is written as the digital numbers that a bundle was trained on (reflectance * 10,000), and as others write the
same reflectance; all give the same map.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import xarray as xr
from click.testing import CliRunner, Result
from helpers import GRID, SHARED, UTM, metadata, save
from training_data import small_settings

from models import Band, Bundle, BundleMetadata, Radiometry, load_bundle, shipped_bundles
from models.errors import BundleError, PlanError, StoreError, SwatheError, TrainingError
from models.importing import import_model
from models.metadata import QUANTILES
from models.mlm import from_item, to_item
from pipeline import open_maps, open_scene, plan, run, segment
from pipeline.grid.geobox import Window
from pipeline.inference.radiometry import doubts, far_apart
from pipeline.io.radiometry import Rescaled, adjust, bring_to, same_unit
from pipeline.io.scene import open_source
from train.cli.app import cli
from train.config import Settings
from train.data.datasets import gather
from train.data.samples import Sample
from train.data_qa.checks import describe
from train.data_qa.inspection import check
from train.fitting.fit import train

NAMES = ("red", "green", "blue")
REFLECTANCE = Radiometry(1e-4, 0.0, "reflectance")
SIZE = 96


def digital_numbers(seed: int = 0) -> np.ndarray:
    """Return smooth DN = reflectance * 10,000, uint16 `(band, y, x)`, with a missing corner and missing samples."""
    random = np.random.default_rng(seed)
    rough = random.normal(0, 1, (3, SIZE // 8, SIZE // 8)).repeat(8, 1).repeat(8, 2)
    values = np.clip(2000 + 800 * rough + random.normal(0, 50, (3, SIZE, SIZE)), 200, 9000).round().astype(np.uint16)
    values[:, :20, :30] = 0  # missing in all bands
    values[1, 60:70, 60:70] = 0  # and in one
    return values


def described(**changes: Any) -> BundleMetadata:
    values = digital_numbers()
    marks = [np.quantile(band[band > 0], QUANTILES) for band in values]
    bands = tuple(
        Band(name, 2000.0, REFLECTANCE, tuple(map(float, mark))) for name, mark in zip(NAMES, marks, strict=True)
    )
    return replace(metadata("unet", background="class_0"), bands=bands, **changes)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return save(tmp_path_factory.mktemp("radiometry") / "b", described())


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same network, of which nothing is known but the type of its values."""
    made = described()
    return save(
        tmp_path_factory.mktemp("radiometry") / "u",
        replace(made, bands=tuple(Band(band.name, band.mean) for band in made.bands)),
    )


def write(path: Path, values: np.ndarray, nodata: float | None = 0, **tags: Any) -> Path:
    profile = {"driver": "GTiff", "crs": UTM, "transform": GRID, "dtype": values.dtype.name, "count": len(values),
               "height": values.shape[1], "width": values.shape[2], "nodata": nodata}  # fmt: skip
    with rasterio.open(path, "w", **profile) as target:
        target.write(values)
        target.descriptions = NAMES[: len(values)]
        for name, given in tags.items():
            setattr(target, name, given)
    return path


def ways(folder: Path) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Write the same reflectance as people have it: name, file, options that say what the file does not."""
    dn = digital_numbers()
    missing = dn == 0
    shifted = np.where(missing, 0, dn + 1000).astype(np.uint16)
    reflectance = np.where(missing, -9999, dn * 1e-4).astype(np.float32)
    landsat = np.where(missing, 0, np.rint((dn * 1e-4 + 0.2) / 2.75e-5)).astype(np.uint16)
    floats = np.where(missing, np.nan, dn * 1e-4)
    each = np.stack([dn[0] + 1000, dn[1] * 2, dn[2]]) * ~missing
    yield "tags", write(folder / "tags.tif", shifted, scales=(1e-4,) * 3, offsets=(-0.1,) * 3), {}
    yield "flags", write(folder / "flags.tif", shifted), {"scale": 1e-4, "offset": -0.1}
    yield "landsat", write(folder / "l.tif", landsat, scales=(2.75e-5,) * 3, offsets=(-0.2,) * 3), {}
    yield "floats", write(folder / "f.tif", reflectance, -9999), {"reflectance": True}
    yield "unit", write(folder / "unit.tif", floats, None, units=("reflectance",) * 3), {}
    yield "int16", write(folder / "i.tif", dn.astype(np.int16), scales=(1e-4,) * 3), {}
    yield "percent", write(folder / "p.tif", (floats * 100).astype(np.float32), None), {"scale": 0.01, "offset": 0}
    yield (
        "bands",
        write(folder / "b.tif", each.astype(np.uint16)),
        {"scale": [1e-4, 5e-5, 1e-4], "offset": [-0.1, 0, 0]},
    )
    yield "wrong tags", write(folder / "w.tif", shifted, scales=(0.5,) * 3), {"scale": 1e-4, "offset": -0.1}


NAMED = ("tags", "flags", "landsat", "floats", "unit", "int16", "percent", "bands", "wrong tags")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("ways")
    return {"plain": (write(folder / "plain.tif", digital_numbers()), {})} | {n: (p, o) for n, p, o in ways(folder)}


Scenes = dict[str, tuple[Path, dict[str, Any]]]


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What Swathe logs; pytest's own handler is silent while the tests' client lives, which mutes that of Dask."""
    texts, handler, log = list[str](), logging.Handler(), logging.getLogger("swathe")
    handler.emit = lambda record: texts.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    yield texts
    log.removeHandler(handler)


def swathe(*words: Any) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words], catch_exceptions=False)


def flags(options: dict[str, Any]) -> list[str]:
    """Return options as the command takes them."""
    listed = []
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        listed += [f"--{name}"] if value is True else [f"--{name}", text]
    return listed


@pytest.mark.parametrize("way", NAMED)
def test_the_same_reflectance_gives_the_same_map_lazily(bundle: Bundle, scenes: Scenes, way: str) -> None:
    (plain, _), (path, options) = scenes["plain"], scenes[way]
    wanted, found = segment(str(plain), bundle).compute(), segment(str(path), bundle, **options).compute()
    assert np.isnan(found.probability).equals(np.isnan(wanted.probability))
    assert np.isnan(wanted.probability).any()
    assert float(abs(found.probability - wanted.probability).max()) < 2e-3
    assert (found.class_map == wanted.class_map).mean() > 0.998


@pytest.mark.parametrize("way", ["tags", "bands", "floats"])
def test_in_blocks_and_by_the_command_too(bundle: Bundle, scenes: Scenes, tmp_path: Path, way: str) -> None:
    path, options = scenes[way]
    done = swathe("segment", path, "-m", bundle.path, "-o", tmp_path / "m.zarr", "--block", "32",
                  "--probability", "float32", *flags(options))  # fmt: skip
    assert done.exit_code == 0
    wanted = segment(str(path), bundle, probability_of="class_1", **options).compute()
    made = open_maps(tmp_path / "m.zarr")
    np.testing.assert_array_equal(made.class_map, wanted.class_map)  # tiled equals whole
    np.testing.assert_array_equal(made.probability[1:], wanted.probability)


def test_nothing_changes_where_values_mean_the_same(bundle: Bundle, scenes: Scenes, tmp_path: Path) -> None:
    """Same bits, same identity: a store of before is the same run."""
    plain = plan(str(scenes["plain"][0]), bundle)
    assert not isinstance(plain.source, Rescaled)
    same = write(tmp_path / "plain.tif", digital_numbers(), scales=(1e-4,) * 3)
    assert not isinstance(plan(str(same), bundle).source, Rescaled)
    asked = plan(str(scenes["plain"][0]), bundle, scale=1e-4)
    assert asked.source.identity() == plain.source.identity()
    assert asked.source.dtype == np.uint16


def test_what_becomes_of_values_is_said_and_kept(bundle: Bundle, scenes: Scenes, tmp_path: Path) -> None:
    path = scenes["tags"][0]
    shown = swathe("plan", path, "-m", bundle.path).output
    assert "values of scale 0.0001, offset -0.1 are brought to the bundle's: scale 0.0001, offset 0" in shown
    assert "scale 0.0001, offset -0.1" in swathe("info", path).output
    assert "scale 0.0001, offset 0 (reflectance)" in swathe("bundles", bundle.path).output
    run(str(path), bundle, tmp_path / "m.zarr", show=False)
    kept = json.loads((tmp_path / "m.zarr/zarr.json").read_text())["attributes"]["swathe"]
    rescaled = {"gains": [1.0] * 3, "shifts": [-1000.0] * 3, "dtype": "float32"}
    assert kept["source"]["dtype"] == "uint16"
    assert kept["source"]["rescaled"] == rescaled == kept["identity"]["source"]["rescaled"]
    with pytest.raises(StoreError, match="belongs to another run"):  # which would give other pixels
        swathe("segment", path, "-m", bundle.path, "-o", tmp_path / "m.zarr", "--offset", "-0.05")


def test_the_users_word_wins_and_it_is_said(bundle: Bundle, scenes: Scenes) -> None:
    path, options = scenes["wrong tags"]
    assert "the scene itself says scale 0.5, offset 0" in str(plan(str(path), bundle, **options))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"offset": -0.1}, PlanError, "needs a scale"),
        ({"scale": [1e-4, 1e-4]}, PlanError, "one for each of the 3 bands"),
        ({"scale": 0.0}, PlanError, "finite number but 0"),
        ({"scale": float("nan")}, PlanError, "finite"),
        ({"scale": "1e-4"}, PlanError, "finite"),
        ({"scale": 1.0, "reflectance": True}, PlanError, "reflectance means"),
    ],
)
def test_words_that_make_no_radiometry(
    bundle: Bundle, scenes: Scenes, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        plan(str(scenes["flags"][0]), bundle, **options)


def test_a_type_of_unknown_values_is_refused_with_what_to_say(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "f.tif", (digital_numbers() * 1e-4).astype(np.float32))
    with pytest.raises(BundleError, match="--scale and --offset or --reflectance"):
        plan(str(path), bundle)


def test_units_that_differ_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "db.tif", digital_numbers(), units=("dB",) * 3)
    with pytest.raises(BundleError, match="trained on reflectance in red, and the scene holds dB"):
        plan(str(path), bundle)
    forced = plan(str(path), bundle, allow_mismatch=True)
    assert "holds dB" in str(forced)
    np.testing.assert_array_equal(forced.source.read(Window(0, 9, 0, 99).clip((SIZE, SIZE))).data,
                                  digital_numbers()[:, :9])  # fmt: skip


def test_bands_of_which_only_some_are_known(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "some.tif", digital_numbers(), scales=(2e-4, 1.0, 1.0))
    with pytest.raises(BundleError, match="nothing of green, blue"):
        plan(str(path), bundle)


def test_a_bundle_that_does_not_know_its_unit(unknown: Bundle, scenes: Scenes, logged: list[str]) -> None:
    """What a scene says is not applied, and that is told, also by the lazy call; what the user says is refused."""
    tagged, plain = scenes["tags"][0], scenes["plain"][0]
    line = "the scene has scale 0.0001, offset -0.1, which is not applied"
    assert line in swathe("plan", tagged, "-m", unknown.path).output
    assert line in segment(str(tagged), unknown).attrs["notes"]
    assert line in " ".join(logged)
    assert "note" not in str(plan(str(plain), unknown))
    with pytest.raises(BundleError, match="does not say what its values mean"):
        plan(str(plain), unknown, scale=1e-4)


def test_tags_that_say_nothing(unknown: Bundle, bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "dn.tif", digital_numbers(), units=("DN", "1", ""))
    for one in (unknown, bundle):
        prepared = plan(str(path), one)
        assert not prepared.notes
        assert not prepared.doubts
        assert not isinstance(prepared.source, Rescaled)


@pytest.mark.parametrize(("one", "other", "same"), [
    ("K", "kelvin", True), ("", "dB", True), ("dB", "DB ", True), ("dB", "reflectance", False),
    ("unitless", "reflectance", True)])  # fmt: skip
def test_words_for_units(one: str, other: str, same: bool) -> None:
    assert same_unit(Radiometry(unit=one), Radiometry(unit=other)) is same


# values unlike those of the training


@pytest.mark.parametrize("change", ["x3", "plus", "percent", "stretched"])
def test_values_far_from_the_trainings_are_told(bundle: Bundle, tmp_path: Path, change: str, logged: list[str]) -> None:
    dn = digital_numbers()
    changed = {"x3": dn * 3, "plus": dn + 4000, "percent": dn * 1e-2, "stretched": dn / 9000 * 255}[change]
    scene = write(tmp_path / "s.tif", np.where(dn == 0, 0, changed).astype(np.uint16))
    prepared = plan(str(scene), bundle)
    assert "values of red (and of green, blue) are unlike those of the training: 1 to 99 % are" in prepared.doubts[0]
    assert "in training" in str(prepared)
    segment(str(scene), bundle)
    assert "unlike those of the training" in " ".join(logged)


def test_values_like_the_trainings_are_not(bundle: Bundle, scenes: Scenes) -> None:
    for path, options in scenes.values():
        assert not plan(str(path), bundle, **options).doubts


def test_an_array_is_compared_too_and_keeps_what_it_says(bundle: Bundle, scenes: Scenes) -> None:
    opened = open_scene(str(scenes["tags"][0]))
    prepared = plan(opened, bundle)
    assert not prepared.doubts
    assert isinstance(prepared.source, Rescaled)
    floats = open_scene(str(scenes["unit"][0]))
    assert isinstance(plan(floats, bundle).source, Rescaled)
    assert plan(xr.DataArray(opened * 5, attrs=opened.attrs).astype("uint16"), bundle).doubts


quantiles = (800.0, 900.0, 1000.0, 1100.0, 1500.0, 3000.0, 5000.0)


@pytest.mark.parametrize(
    ("here", "far"),
    [
        (quantiles, False),
        ([q * 1.2 for q in quantiles], False),
        ([q + 1000 for q in quantiles], True),
        ([q / 1e4 for q in quantiles], True),
        ([q * 5 for q in quantiles], True),
        ([820.0] * 7, False),  # open water
        ([700.0] * 7, True),
    ],
)
def test_the_rule_of_quantiles(here: list[float], far: bool) -> None:
    assert far_apart(here, quantiles) is far


def test_a_bundle_keeps_radiometry_and_quantiles(bundle: Bundle) -> None:
    made = described()
    assert from_item(json.loads(json.dumps(to_item(made, "w", 1, "2020-01-01T00:00:00Z")))).bands == made.bands
    assert bundle.metadata.bands == made.bands


# the wrapper itself


def test_missing_samples_stay_missing_in_every_type(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "s.tif", digital_numbers())))
    missing = digital_numbers() == 0
    whole = Window(0, SIZE, 0, SIZE)
    for kind in ("float32", "uint16", "int16", "float64"):
        made = bring_to(source, (Radiometry(1e-4, -0.1),) * 3, (Radiometry(1e-4),) * 3, kind)
        read = made.read(whole)
        for place, sentinel in enumerate(made.nodata):
            found = np.isnan(read.data[place]) if sentinel is None else read.data[place] == sentinel
            np.testing.assert_array_equal(found, missing[place])
        np.testing.assert_array_equal(read.valid, source.read(whole).valid)


def test_bands_keep_their_own_numbers_when_they_are_selected(tmp_path: Path) -> None:
    source = open_source(str(write(tmp_path / "s.tif", digital_numbers())))
    made = bring_to(source, (Radiometry(1.0), Radiometry(2.0), Radiometry(3.0)), (Radiometry(1.0),) * 3)
    turned = made.select(["blue", 1])
    whole = Window(0, SIZE, 0, SIZE)
    np.testing.assert_array_equal(turned.read(whole).data, made.read(whole).data[[2, 0]])
    assert turned.bands == ("blue", "red")


# training and evaluation


def labelled(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray], seed: int, **tags: Any) -> None:
    """Write `NAME_image.tif`, digital numbers as some other maker writes them, and `NAME_label.tif`."""
    dn = digital_numbers(seed)
    write(folder / f"{name}_image.tif", change(dn), **tags)
    write(folder / f"{name}_label.tif", (dn[:1] > 2300).astype(np.uint8), None)


def shifted(dn: np.ndarray) -> np.ndarray:
    return np.where(dn == 0, 0, dn + 1000).astype(np.uint16)


def as_landsat(dn: np.ndarray) -> np.ndarray:
    return np.where(dn == 0, 0, np.rint((dn * 1e-4 + 0.2) / 2.75e-5)).astype(np.uint16)


def as_floats(dn: np.ndarray) -> np.ndarray:
    return (dn * 1e-4).astype(np.float32)


OLD, NEW = {"scales": (1e-4,) * 3}, {"scales": (1e-4,) * 3, "offsets": (-0.1,) * 3}
LANDSAT = {"scales": (2.75e-5,) * 3, "offsets": (-0.2,) * 3}


def settings(folder: Path, *sets: dict[str, Any], **more: Any) -> Settings:
    data = [{"root": str(folder), **one} for one in sets]
    return small_settings(folder, data=data, bands=list(NAMES), **more)


def values(samples: Sequence[Sample]) -> list[np.ndarray]:
    return [sample.read(Window.of(sample.geobox.shape)).pixels for sample in samples]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    for name, change, tags in (("plain", np.array, OLD), ("new", shifted, NEW), ("landsat", as_landsat, LANDSAT),
                               ("bare", shifted, {}), ("floats", as_floats, {}), ("other", np.array, {})):  # fmt: skip
        labelled(folder, name, change, 1, **tags)
    return folder


@pytest.mark.parametrize("dtype", ["", "uint16"])
def test_training_sets_are_brought_to_one_radiometry(sets: Path, dtype: str) -> None:
    found = gather(settings(sets, {"train": ["plain", "new"]}, {"validate": ["landsat"]}, dtype=dtype))
    new, plain, landsat = values([*found["train"], *found["validate"]])  # by name: that of `new` is theirs
    valid = digital_numbers(1) > 0
    assert new.dtype == plain.dtype == landsat.dtype == np.dtype(dtype or "float32")
    np.testing.assert_array_equal(new[valid], digital_numbers(1)[valid] + 1000)
    np.testing.assert_array_equal(plain[valid], new[valid])
    assert np.abs(landsat[valid].astype(float) - new[valid]).max() <= 0.5
    for sample in [*found["train"], *found["validate"]]:
        assert sample.source.radiometry == (Radiometry(1e-4, -0.1),) * 3


def test_a_training_may_say_what_all_values_mean(sets: Path) -> None:
    all_of = {"scale": 1e-4, "offset": 0.0, "unit": "reflectance"}
    of_bare = {"scale": 1e-4, "offset": -0.1}
    found = gather(
        settings(sets, {"train": ["new", "other"]}, {"train": ["bare"], "radiometry": of_bare}, radiometry=all_of)
    )
    for read in values(found["train"]):
        np.testing.assert_array_equal(read[digital_numbers(1) > 0], digital_numbers(1)[digital_numbers(1) > 0])
    assert found["train"][0].source.radiometry == (REFLECTANCE,) * 3


def test_sets_of_which_one_says_nothing_are_refused(sets: Path) -> None:
    with pytest.raises(TrainingError, match="say it in its \\[\\[data\\]\\] set, as radiometry"):
        gather(settings(sets, {"train": ["new"]}, {"train": ["bare"]}))
    by_gain = {"train": ["bare"], "gain": 1.0, "offset": -1000.0}  # which says it in another way
    found = gather(settings(sets, {"train": ["plain"]}, by_gain, dtype="uint16"))
    plain, bare = values(found["train"])
    np.testing.assert_array_equal(bare[digital_numbers(1) > 0], plain[digital_numbers(1) > 0])
    assert found["train"][1].source.radiometry == (Radiometry(1e-4),) * 3


@pytest.mark.parametrize(
    ("sets_of", "more", "words"),
    [
        ([{"train": ["new"], "radiometry": {"unit": "dB"}}, {"train": ["plain"], "radiometry": {"unit": "K"}}], {},
         "this training is of"),
        ([{"train": ["new"]}], {"radiometry": {"unit": "reflectance"}, "dtype": "uint16"}, "whole numbers"),
        ([{"train": ["floats"], "radiometry": {"scale": 1.0}}], {"dtype": "uint16"}, "whole numbers"),
        ([{"train": ["new"], "gain": 2.0, "radiometry": {"scale": 1e-4}}], {"dtype": "uint16"}, "one of them"),
        ([{"train": ["new"], "radiometry": [{"scale": 1e-4}]}], {}, "one for each of the 3 bands"),
        ([{"train": ["new"], "radiometry": {"scael": 1e-4}}], {}, "did you mean 'scale'"),
        ([{"train": ["new"], "radiometry": {"scale": 0.0}}], {}, "make no values"),
    ],
)  # fmt: skip
def test_radiometry_of_settings_that_makes_no_sense(
    sets: Path, sets_of: list[dict[str, Any]], more: dict[str, Any], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        gather(settings(sets, *sets_of, **more))


def test_the_bundle_of_a_training_knows_its_values(sets: Path, tmp_path: Path) -> None:
    """And gives the same map of scenes of the same reflectance, and the same scores."""
    config = settings(sets, {"train": ["plain"], "validate": ["new"]}, loop={"steps": 4, "check_every": 4})
    made = train(config, tmp_path / "b", show=False)
    observed = [band[band > 0] for band in digital_numbers(1)]
    for band, its in zip(made.metadata.bands, observed, strict=True):
        assert band.radiometry == Radiometry(1e-4)
        assert band.quantiles == tuple(np.quantile(its, QUANTILES, method="inverted_cdf").tolist())
    one, two = (segment(str(sets / f"{name}_image.tif"), made).compute() for name in ("plain", "new"))
    np.testing.assert_allclose(one.probability, two.probability, atol=1e-4)
    texts = []
    for name in ("plain", "new"):
        done = swathe("evaluate", made.path, sets / f"{name}_image.tif", sets / f"{name}_label.tif", "-o",
                      tmp_path / name, "-q", "--baseline", "brightness")  # fmt: skip
        texts.append([line for line in done.output.splitlines() if line.startswith("|")])
    assert texts[0] == texts[1]
    bare = swathe("evaluate", made.path, sets / "bare_image.tif", sets / "bare_label.tif", "-o", tmp_path / "bare",
                  "-q", "--scale", "0.0001", "--offset", "-0.1", "--baseline", "brightness")  # fmt: skip
    assert [line for line in bare.output.splitlines() if line.startswith("|")] == texts[0]


def test_check_shows_values_and_what_they_mean(sets: Path) -> None:
    found = gather(settings(sets, {"train": ["plain"], "validate": ["new"]}))
    text = describe(check(found, settings(sets, {"train": ["plain"]})))
    low, high = (int(np.quantile(digital_numbers(1)[0][digital_numbers(1)[0] > 0], q, method="inverted_cdf"))
                 for q in (0.01, 0.99))  # fmt: skip
    assert f"values: 1 to 99 % of red {low:,} to {high:,}" in text
    assert "they mean: scale 0.0001, offset 0" in text


# shipped and imported bundles


def test_quantiles_are_no_part_of_a_bundles_digest(tmp_path: Path) -> None:
    """They only warn: stores of the shipped bundles, which had none, continue."""
    digests = {bundle.metadata.name: bundle.digest[:12] for bundle in shipped_bundles()}
    assert digests == {"buildings": "b0f77243a519", "clouds": "3a07141700a9"}
    assert all(band.quantiles for bundle in shipped_bundles() for band in bundle.metadata.bands)
    made = described()
    bare = replace(made, bands=tuple(replace(band, quantiles=()) for band in made.bands))
    other = replace(made, bands=tuple(replace(band, radiometry=None) for band in made.bands))
    one, two, three = (save(tmp_path / name, its) for name, its in (("a", made), ("b", bare), ("c", other)))
    assert one.digest == two.digest != three.digest


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not there")
@pytest.mark.parametrize(
    ("name", "scene"),
    [
        ("buildings", "oam_buildings/scenes/kampala_ug_b_z21_image.tif"),
        ("buildings", "oam_buildings/scenes/zanzibar_tz_a_z20_image.tif"),
        ("buildings", "oam_buildings/scenes/banepa2_np_z20_image.tif"),
        ("clouds", "landsat8_redcross/scenes/C_rgb_u16.tif"),
    ],
)
def test_real_scenes_raise_no_false_alarm_and_changed_ones_do(name: str, scene: str) -> None:
    known = load_bundle(name).metadata
    source = open_source(str(SHARED / scene))
    assert doubts([source], known) == []
    for gain, shift in ((0.02, 0.0), (2.0, 0.0), (1.0, 1000.0), (1e-4, 0.0)):
        assert "unlike" in doubts([adjust(source, gain, shift, "float32")], known)[0], (gain, shift)


def test_imported_weights_may_say_what_values_mean(tmp_path: Path) -> None:
    made = described()
    network = save(tmp_path / "b", made)
    config = {"name": "in", "architecture": made.architecture, "options": dict(made.options), "dtype": "uint16",
              "bands": list(NAMES), "scaling": {"mean": 2000, "stddev": 800},
              "classes": [{"name": info.name, "color": info.color} for info in made.classes],
              "radiometry": {"scale": 1e-4, "unit": "reflectance"},
              "quantiles": [list(band.quantiles) for band in made.bands]}  # fmt: skip
    weights = network.path / "weights.safetensors"
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert import_model(weights, tmp_path / "in", config=tmp_path / "c.json").metadata.bands == made.bands
    for key, wrong in (("radiometry", [{}]), ("radiometry", {"scael": 1}), ("quantiles", [[1, 2]])):
        (tmp_path / "c.json").write_text(json.dumps(config | {key: wrong}))
        with pytest.raises(BundleError, match=key):
            import_model(weights, tmp_path / "other", config=tmp_path / "c.json")


# other ways to say it


def stac_item(folder: Path, path: Path) -> Path:
    """Write an Item with one asset whose `raster:bands` say scale and offset, which the file does not."""
    said = {"scale": 1e-4, "offset": -0.1, "nodata": 0}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "s", "geometry": None, "links": [], "properties": {
            "datetime": "2023-01-01T00:00:00Z"},
        "assets": {"data": {"href": path.name, "type": "image/tiff; application=geotiff", "roles": ["data"],
                            "eo:bands": [{"name": n, "common_name": n} for n in NAMES], "raster:bands": [said] * 3}},
    }  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item))
    return folder / "item.json"


def other_ways(folder: Path) -> Iterator[tuple[str, Any]]:
    dn = digital_numbers()
    bare = write(folder / "bare.tif", shifted(dn))
    yield "STAC Item", str(stac_item(folder, bare))
    opened = open_scene(str(bare)).load()
    yield "CF attributes", opened.assign_attrs(scale_factor=1e-4, add_offset=-0.1)
    yield "attributes of rioxarray", opened.assign_attrs(scales=[1e-4] * 3, offsets=[-0.1] * 3)
    physical = opened.astype("float32") * 1e-4 - 0.1
    yield "units", physical.where(opened != 0).assign_attrs(units="reflectance", _FillValue=np.nan)
    files = []
    for number, name in enumerate(NAMES):
        one = write(folder / f"s_{name}.tif", shifted(dn)[number][None], scales=(1e-4,), offsets=(-0.1,))
        files.append(str(one))
    yield "files of one band", files
    vrt = folder / "s.vrt"
    with rasterio.open(write(folder / "tagged.tif", shifted(dn), scales=(1e-4,) * 3, offsets=(-0.1,) * 3)) as tagged:
        rasterio.shutil.copy(tagged, vrt, driver="VRT")
    yield "VRT", str(vrt)


def test_whoever_says_it_the_map_is_the_same(bundle: Bundle, scenes: Scenes, tmp_path: Path) -> None:
    wanted = segment(str(scenes["plain"][0]), bundle).compute()
    for name, scene in other_ways(tmp_path):
        found = segment(scene, bundle).compute()
        np.testing.assert_array_equal(np.isnan(found.probability), np.isnan(wanted.probability), name)
        assert float(abs(found.probability - wanted.probability).max()) < 1e-3, name


def test_pictures_show_a_scene_whose_values_were_converted(bundle: Bundle, scenes: Scenes, tmp_path: Path) -> None:
    path = scenes["tags"][0]
    run(str(path), bundle, tmp_path / "m.zarr", show=False)
    done = swathe("report", tmp_path / "m.zarr", "-o", tmp_path / "page.html")
    assert done.exit_code == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_contradiction_is_said_where_no_value_changes_too(bundle: Bundle, tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif", digital_numbers(), scales=(0.5,) * 3)
    prepared = plan(str(path), bundle, scale=1e-4)
    assert "the scene itself says scale 0.5, offset 0" in str(prepared)
    assert prepared.source.dtype == np.uint16


def test_the_plan_says_what_values_are_taken_to_mean(bundle: Bundle, unknown: Bundle, scenes: Scenes) -> None:
    plain, tagged = (str(scenes[name][0]) for name in ("plain", "tags"))
    means = "values mean scale 0.0001, offset 0 (reflectance)"
    assert f"{means}, as in training: the scene does not say\n" in str(plan(plain, bundle))
    assert f"{means}\n" in str(plan(tagged, bundle))
    assert "values mean" not in str(plan(plain, unknown))


def test_doubts_are_told_though_the_command_is_quiet(bundle: Bundle, tmp_path: Path, logged: list[str]) -> None:
    path = write(tmp_path / "s.tif", digital_numbers() * 3)
    swathe("segment", path, "-m", bundle.path, "-o", tmp_path / "m.tif", "-q")
    assert "unlike those of the training" in " ".join(logged)


def test_check_tells_of_sets_that_say_nothing_and_goes_on(sets: Path) -> None:
    errors: list[SwatheError] = []
    found = gather(settings(sets, {"train": ["new"]}, {"train": ["bare"]}), errors=errors)
    assert len(found["train"]) == 2
    assert "as radiometry" in str(errors)
