"""Caps on what files may hold: refused before anything is allocated, read without end or parsed too deeply."""

import io
import json
import os
import pickle
import re
import shutil
import socket
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr

from models.bundle import load_bundle, shipped_bundles
from models.errors import BundleError, ClusterError, NetworkError, PlanError, SceneError, SwatheError, TrainingError
from models.importing import import_model, read_state_dict
from models.limits import DEEPEST, check_chunk, largest_chunk, parse_json, parse_toml
from models.system import forget_peak, peak_bytes
from pipeline.cluster.profiles import read_profile
from pipeline.grid.geobox import Window
from pipeline.inference.prices import read_prices
from pipeline.io.scene import open_scene, open_source
from pipeline.mosaic.open import open_mosaic
from train.config.settings import read_settings

BOMBS = {
    "deep lists": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "deep tables": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "just too deep": (b"[" * (DEEPEST + 2) + b"]" * (DEEPEST + 2), "at most 64 levels"),
    "long number": (b"1" * 4000, "at most 64 are read"),
    "longer number": (b"1" * 1_000_000, "4300 digits"),
    "no text": (b"\xff\xff[", "decode"),
    "empty": (b"", "Expecting value"),
}
NO_FILE = re.compile("a pipe|a device|a socket")


@pytest.mark.parametrize("name", BOMBS)
def test_json_that_nobody_means_is_refused_as_other_bad_json_is(name: str) -> None:
    with pytest.raises(ValueError, match=BOMBS[name][1]):
        parse_json(BOMBS[name][0])


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a." * 5000 + "a = 1", "[" + "a." * 5000 + "a]", "a = " + "1" * 4000, "a = " + "[" * 400],
)
def test_toml_that_nobody_means_is_refused_as_other_bad_toml_is(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"too deeply|64 are read|Invalid"):
        parse_toml(text)
    (path := tmp_path / "file.toml").write_text(text)
    for read, error in ((read_settings, TrainingError), (read_prices, PlanError)):
        with pytest.raises(error) as caught:
            read(path)
        assert str(caught.value).count("\n") <= 1


def test_what_people_write_is_read() -> None:
    nested: object = 2**63
    for _ in range(DEEPEST - 1):
        nested = {"a": [1.5, None]} if nested == 2**63 else [nested]
    text = json.dumps(nested)
    assert parse_json(text) == parse_json(text.encode()) == nested
    assert parse_toml('a.b = [1, "x"]') == {"a": {"b": [1, "x"]}}
    with pytest.raises(ValueError, match="11 bytes; at most 10"):
        parse_json('["1234567"]', 10)


def _zip(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


@pytest.fixture
def special(tmp_path: Path) -> list[str]:
    """A pipe that nobody writes to, a device that never ends, a socket, and a link to the device."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    os.symlink("/dev/zero", tmp_path / "link")
    return [str(tmp_path / "pipe"), "/dev/zero", str(tmp_path / "socket"), str(tmp_path / "link")]


@pytest.mark.timeout(60)
def test_what_is_no_file_is_refused_before_it_is_opened(special: list[str], tmp_path: Path) -> None:
    for number, path in enumerate(special):
        for ending in ("", ".tif", ".nc", ".json", ".zip", ".parquet", ".safetensors", ".toml", ".gpkg"):
            os.symlink(path, named := tmp_path / f"{number}{ending}")
            for read, error in (
                (open_source, SceneError),
                (open_mosaic, SceneError),
                (load_bundle, BundleError),
                (read_state_dict, NetworkError),
                (read_settings, TrainingError),
                (read_prices, PlanError),
            ):
                with pytest.raises(error, match=NO_FILE) as caught:
                    read(str(named))  # type: ignore[operator]
                assert str(caught.value).count("\n") <= 1
        with pytest.raises(ClusterError, match=NO_FILE):
            read_profile("ssh", str(tmp_path / f"{number}.toml"))
        with pytest.raises(BundleError, match=NO_FILE):
            import_model(path, tmp_path / "made.zip", config=path)


def test_a_bundle_that_holds_a_pipe_is_refused(tmp_path: Path) -> None:
    shutil.copytree(shipped_bundles()[0].path, folder := tmp_path / "bundle")
    (folder / "weights.safetensors").unlink()
    os.mkfifo(folder / "weights.safetensors")
    with pytest.raises(BundleError, match="is a pipe"):
        load_bundle(folder)


def _zarr(path: Path, name: str = "pixels", **settings: object) -> str:
    group = zarr.open_group(path, mode="w")
    settings = {"dtype": "float64", "dimension_names": ("y", "x"), **settings}
    group.create_array(name, **settings)  # type: ignore[arg-type]
    return str(path)


def test_zarr_that_unpacks_to_more_than_the_memory_is_refused_before_it_does(tmp_path: Path) -> None:
    side = int((2 * largest_chunk() / 8) ** 0.5)
    forget_peak()
    before = peak_bytes()
    bombs = {
        "chunk": _zarr(tmp_path / "chunk.zarr", shape=(side, side), chunks=(side, side)),
        "pixels": _zarr(tmp_path / "pixels.zarr", shape=(2**60, 2**60), chunks=(256, 256)),
        "side": _zarr(tmp_path / "side.zarr", shape=(4, 2**40), chunks=(4, 256)),
        "bands": _zarr(tmp_path / "bands.zarr", shape=(10**6, 8, 8), chunks=(1, 8, 8),
                       dimension_names=("band", "y", "x")),
    }  # fmt: skip
    coordinate = _zarr(tmp_path / "coordinate.zarr", shape=(256, 256), chunks=(256, 256))
    zarr.open_group(coordinate).create_array("x", shape=(largest_chunk(),), dtype="float64", chunks=(10**6,),
                                             dimension_names=("x",))  # fmt: skip
    for path in (*bombs.values(), coordinate):
        with pytest.raises(SceneError, match="at most") as caught:
            open_scene(path)
        assert str(caught.value).count("\n") <= 1
    assert peak_bytes() - before < 2**27


def test_a_raster_in_one_huge_piece_is_refused_and_one_in_tiles_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.limits.largest_chunk", lambda: 300_000)
    form = {
        "driver": "GTiff",
        "width": 400,
        "height": 400,
        "count": 3,
        "dtype": "uint8",
        "compress": "deflate",
        "transform": rasterio.Affine(10, 0, 0, 0, -10, 0),
    }
    for name, cut in (("strip", {"blockysize": 400}), ("tiles", {"tiled": True, "blockxsize": 256, "blockysize": 256})):
        with rasterio.open(tmp_path / f"{name}.tif", "w", interleave="pixel", **form, **cut) as file:
            file.write(np.arange(3 * 400 * 400).reshape(3, 400, 400).astype(np.uint8))
    with pytest.raises(SceneError, match="3 x 400 x 400 numbers, 480,000 bytes each; at most 300,000"):
        open_source(tmp_path / "strip.tif")
    assert open_source(tmp_path / "tiles.tif").geobox.shape == (400, 400)


def test_a_continent_is_within_the_limits() -> None:
    check_chunk("a scene", (13, 1024, 1024), 4, SwatheError, "")
    from models.limits import check_extent

    check_extent("a scene", 13, (10**6, 10**6), SwatheError)


def test_opening_zarr_reads_no_pixels_whatever_its_dims(tmp_path: Path) -> None:
    group = zarr.open_group(tmp_path / "s.zarr", mode="w")
    for name in ("red", "green"):
        group.create_array(name, shape=(200, 300), chunks=(100, 100), dtype="int16", dimension_names=("y", "x"))
        group[name][:] = np.arange(200 * 300).reshape(200, 300) % 999  # type: ignore[index]
    wanted = open_source(tmp_path / "s.zarr").read(Window(90, 150, 20, 110)).data
    np.testing.assert_array_equal(wanted, [np.asarray(group["red"])[90:150, 20:110]] * 2)  # type: ignore[index]
    for chunk in (tmp_path / "s.zarr").glob("*/c/*/0"):
        chunk.write_bytes(b"no pixels")
    source = open_source(tmp_path / "s.zarr")
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(source)).read(Window(90, 99, 100, 110)).data.shape, (2, 9, 10)
    )
    with pytest.raises(SceneError, match="could not be computed"):
        source.read(Window(0, 10, 0, 10))


def test_a_damaged_png_is_refused_since_gdal_makes_pixels_up(tmp_path: Path) -> None:
    form = {"driver": "PNG", "width": 60, "height": 50, "count": 3, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no position
        with rasterio.open(tmp_path / "s.png", "w", **form) as file:
            file.write(np.random.default_rng(0).integers(0, 255, (3, 50, 60), np.uint8))
    assert open_source(tmp_path / "s.png").geobox.shape == (50, 60)
    content = (tmp_path / "s.png").read_bytes()
    for name, changed in (("cut", content[:-500]), ("flipped", content[:700] + b"?" + content[701:])):
        (tmp_path / f"{name}.png").write_bytes(changed)
        with pytest.raises(SceneError, match="damaged PNG"):
            open_source(tmp_path / f"{name}.png")
