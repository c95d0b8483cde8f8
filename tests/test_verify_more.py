"""Verify and repair of stores that lack blocks, of stores made from mosaics, and on a Dask cluster."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import metadata, pixels, save, write_raster
from test_durable import stopped_after
from test_each import PIECES, cut, mosaic_of
from test_verify import content, flip

from models import Bundle
from models.errors import SceneError, StoreError
from pipeline import Verification, open_mosaic, run, verify
from pipeline.cli.app import cli
from pipeline.inference import run as running

HOW = {"block": 128, "tile": 128, "engine": "torch", "show": False}
DAMAGED = ("class_map/c/0/1", "probability/c/0/1/3", "overviews/1/class_map/c/0/1", "zarr.json", "y/c/0")
LOST = "probability/c/0/2/0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a scene and a bundle."""
    folder = tmp_path_factory.mktemp("made")
    write_raster(folder / "scene.tif", pixels((3, 300, 530)), nodata=0)
    save(folder / "bundle", metadata("simple-unet"))
    return folder


def damage(store: Path) -> set[tuple[str, str]]:
    """Flip a bit of some files, remove one; return what `verify` should call them."""
    for number, name in enumerate(DAMAGED):
        flip(store / name, 1001 * number + 40)
    (store / LOST).unlink()
    return {*(("damaged", name) for name in DAMAGED), ("missing", LOST)}


def named(problems: tuple[object, ...]) -> set[tuple[str, str]]:
    return {(one.what, one.name) for one in problems}


def assert_mended(found: Verification, store: Path, before: dict[str, bytes], what: set[tuple[str, str]]) -> None:
    assert found.whole, (found.problems, found.notes)
    assert named(found.repaired) == what
    assert content(store) == before


def pixel_shards(store: Path) -> dict[str, bytes]:
    return {name: text for name, text in content(store).items() if "/c/" in name and "seconds" not in name}


def test_a_store_that_lacks_blocks_is_repaired_and_goes_on(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, store, real = (made / "scene.tif", made / "bundle"), tmp_path / "m.zarr", running.predict_block

    def predict(source: object, window: object, inference: object) -> object:
        if (window.top, window.left) == (128, 256):
            raise SceneError("this part of the file cannot be read")
        return real(source, window, inference)

    with monkeypatch.context() as patch:
        patch.setattr(running, "predict_block", predict)
        assert [one.index for one in run(*given, store, on_error="skip", **HOW).skipped] == [(0, 1, 2)]
    before = content(store)
    assert verify(store, show=False).whole
    what = damage(store) | {("foreign", "class_map/c/1/2")}
    (store / "class_map/c/1/2").write_bytes((store / "class_map/c/1/1").read_bytes())  # where the block lacks
    assert named(verify(store, show=False).damaged) == what
    assert_mended(verify(store, repair=True, show=False), store, before, what)
    with pytest.MonkeyPatch.context() as patch:
        stopped_after(patch, 0)
        with pytest.raises(KeyboardInterrupt):
            run(*given, store, on_error="skip", **HOW)
    with pytest.raises(StoreError, match="is not finished"):  # what it held before is no measure of it any more
        verify(store, repair=True, show=False)
    again = run(*given, store, on_error="skip", **HOW)
    assert again.skipped == ()
    assert again.resumed >= again.blocks - 1
    run(*given, tmp_path / "whole.zarr", **HOW)
    assert pixel_shards(store) == pixel_shards(tmp_path / "whole.zarr")
    assert verify(store, show=False).whole


def test_a_store_of_a_mosaic_is_repaired_from_its_index(tmp_path: Path, bundle_of: Callable[..., Bundle]) -> None:
    index = mosaic_of(cut(pixels((3, 160, 190)), tmp_path, PIECES), tmp_path, (160, 190)).index.path
    damaged = ["class_map/c/0/1", "probability/c/0/1/1"]
    for name, mosaic in (("plain", index), ("mean", open_mosaic(index, composite="mean"))):
        store = tmp_path / f"{name}.zarr"
        run(mosaic, bundle_of("unet"), store, **{**HOW, "block": 96})
        before = content(store)
        for number, part in enumerate(damaged):
            flip(store / part, 1001 * number + 40)
        asked = CliRunner().invoke(cli, ["verify", str(store), "--repair", "-q"])
        if name == "plain":
            assert asked.exit_code == 0, asked.output
        else:  # no option of `verify` says how a mosaic was made
            assert asked.exit_code == 4
            assert "what they are made of has changed" in asked.output
            assert content(store) != before
            assert_mended(verify(store, repair=True, scene=mosaic, show=False), store, before,
                          {("damaged", part) for part in damaged})  # fmt: skip
        assert content(store) == before


@pytest.mark.parametrize("where", ["client", pytest.param("workers", marks=pytest.mark.slow)])
def test_on_a_cluster_the_same_is_found_and_repaired(made: Path, tmp_path: Path, client: Client, where: str) -> None:
    store = tmp_path / "m.zarr"
    run(made / "scene.tif", made / "bundle", store, **HOW)
    before = content(store)
    what = damage(store)
    if where == "client":
        assert verify(store, client=client, show=False) == verify(store, show=False)
        mended = verify(store, repair=True, client=client, show=False)
    else:
        mended = verify(store, repair=True, workers=2, show=False)
    assert_mended(mended, store, before, what)
