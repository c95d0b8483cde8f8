"""Blocks that fail for good are set aside (`--on-error skip`): nodata, listed, and tried again by the same command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import pixels, write_raster
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import OutputError, PlanError, SceneError, StoreError
from pipeline import run, write_clean, write_objects
from pipeline.cli.app import cli
from pipeline.cli.describe import describe
from pipeline.inference import run as running
from pipeline.jobs.run_log import RunLog
from pipeline.jobs.skipped import Provisional, Skips
from pipeline.store import store as stores
from pipeline.store.overviews import mode_of_four
from pipeline.store.store import open_store

SIDE, BLOCK = 160, 32
Places = set[tuple[int, int]]
Fail = Callable[[Places], list[tuple[int, int]]]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raster(tmp_path_factory.mktemp("scene") / "s.tif", pixels((3, SIDE, SIDE)))


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let blocks fail, by row and column; gives a list of those that are computed all the same."""
    real = running.predict_block
    monkeypatch.setattr(running, "level_count", lambda geobox: 3)

    def let(places: Places, error: Exception | None = None) -> list[tuple[int, int]]:
        done: list[tuple[int, int]] = []

        def predict(source: Any, window: Any, inference: Any) -> Any:
            place = window.top // BLOCK, window.left // BLOCK
            if place in places:
                raise error or SceneError("this part of the file cannot be read")
            done.append(place)
            return real(source, window, inference)

        monkeypatch.setattr(running, "predict_block", predict)
        return done

    return let


def read(store: Path, name: str = "class_map") -> np.ndarray:
    return np.asarray(zarr.open_group(str(store), mode="r")[name])


def own(store: Path) -> dict[str, Any]:
    return dict(json.loads((store / "zarr.json").read_text())["attributes"]["swathe"])


def shards(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.rglob("c/*") if path.is_file()} | {
        str(path.relative_to(store)): path.read_bytes() for path in store.rglob("c/*/*") if path.is_file()
    }


def holes(whole: np.ndarray, places: Places) -> np.ndarray:
    """The map without some blocks."""
    found = whole.copy()
    for row, column in places:
        found[row * BLOCK : (row + 1) * BLOCK, column * BLOCK : (column + 1) * BLOCK] = 255
    return found


def test_a_run_with_bad_blocks_ends_and_the_same_call_does_just_those(scene, bundle_of, fail, tmp_path, capfd):
    bundle, bad = bundle_of("unet"), {(0, 1), (2, 2), (4, 4)}
    how: dict[str, Any] = {"block": BLOCK, "on_error": "skip"}
    fail(set())
    run(scene, bundle, tmp_path / "whole.zarr", block=BLOCK, show=False)
    whole, out = read(tmp_path / "whole.zarr"), tmp_path / "o.zarr"

    fail(bad)
    log = RunLog()
    result = run(scene, bundle, out, log=log, show=True, **how)
    right = holes(whole, bad)
    assert {one.index[1:] for one in result.skipped} == bad
    assert all("cannot be read" in one.reason for one in result.skipped)
    assert result.blocks == 25 - len(bad)
    assert result.pixels["nodata"] == (right == 255).sum()
    assert own(out)["state"] == "partial"
    assert {(one["row"], one["column"]) for one in own(out)["results"]["skipped"]} == bad
    assert log.facts()["skipped"] == 3
    assert "is set aside: block 0, 1" in capfd.readouterr().err
    opened, _ = open_store(str(out))
    for level in range(4):
        assert np.array_equal(read(out, f"overviews/{level}/class_map" if level else "class_map"), right), level
        window = opened.geobox.level(level).whole
        assert np.array_equal(opened.read(level, window).class_map, right), level
        right = mode_of_four(right)
    assert "3 blocks failed and are nodata; the same `swathe segment` command tries just those again" in describe(
        str(out)
    )

    fail({(2, 2)})  # one of them still fails
    assert [one.index for one in run(scene, bundle, out, show=False, **how).skipped] == [(0, 2, 2)]
    with pytest.raises(SceneError, match="block 2, 2"):
        run(scene, bundle, out, block=BLOCK, show=False)  # and fails the run, if it is not to be set aside
    done = fail(set())
    again = run(scene, bundle, out, show=False, **how)
    assert (done, again.skipped, again.resumed) == ([(2, 2)], (), 24)
    assert own(out)["state"] == "complete"
    assert "skipped" not in own(out)["results"]
    assert again.pixels == dict(own(tmp_path / "whole.zarr")["results"]["pixels"])
    assert not (out / ".swathe").exists()
    mine, theirs = shards(out), shards(tmp_path / "whole.zarr")
    assert [name for name in theirs if "seconds" not in name and mine[name] != theirs[name]] == []


@pytest.mark.slow
def test_what_is_made_of_a_store_that_lacks_blocks_is_another_thing_than_of_the_whole(scene, bundle_of, fail, tmp_path):
    bundle, out = bundle_of("unet"), tmp_path / "o.zarr"
    fail({(1, 1)})
    run(scene, bundle, out, block=BLOCK, on_error="skip", show=False)
    write_clean(out, tmp_path / "c.zarr", opening=1, show=False)
    inside = np.s_[BLOCK : 2 * BLOCK, BLOCK : 2 * BLOCK]
    assert (read(tmp_path / "c.zarr")[inside] == 255).all()
    write_objects(out, tmp_path / "objects.zarr", show=False)
    assert (read(tmp_path / "objects.zarr", "objects")[inside] == 0).all()
    fail(set())
    run(scene, bundle, out, block=BLOCK, on_error="skip", show=False)
    with pytest.raises(StoreError, match="belongs to another run"):
        write_clean(out, tmp_path / "c.zarr", opening=1, show=False)


def test_a_damaged_block_of_the_maps_is_set_aside_by_clean(scene, bundle_of, fail, tmp_path):
    fail(set())
    run(scene, bundle_of("unet"), tmp_path / "o.zarr", block=BLOCK, show=False)
    (tmp_path / "o.zarr/class_map/c/1/3").write_bytes(b"damaged")
    result = write_clean(tmp_path / "o.zarr", tmp_path / "c.zarr", on_error="skip", show=False)
    assert [one.index for one in result.skipped] == [(0, 1, 3)]
    with pytest.raises(PlanError, match="skip cannot be of what goes over blocks"):
        write_clean(tmp_path / "o.zarr", tmp_path / "d.zarr", on_error="skip", min_object=5000, show=False)
    with pytest.raises(PlanError, match="skip cannot be of objects"):
        write_objects(tmp_path / "o.zarr", tmp_path / "d.zarr", on_error="skip", show=False)
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.slow
def test_a_run_of_which_every_block_fails_ends_with_the_error(scene, bundle_of, fail, tmp_path):
    fail({(row, column) for row in range(5) for column in range(5)})
    with pytest.raises(SceneError, match=r"failed and 0 did not, so it is no matter of single blocks; the last: block"):
        run(scene, bundle_of("unet"), tmp_path / "o.zarr", block=BLOCK, on_error="skip", show=False)
    assert own(tmp_path / "o.zarr")["state"] == "running"


@pytest.mark.slow
def test_a_defect_in_a_block_is_set_aside_and_an_output_that_cannot_be_written_is_not(
    scene, bundle_of, fail, tmp_path, monkeypatch
):
    fail({(3, 0)}, ZeroDivisionError("division by zero"))
    out = tmp_path / "o.zarr"
    result = run(scene, bundle_of("unet"), out, block=BLOCK, on_error="skip", show=False)
    assert [one.reason for one in result.skipped] == ["ZeroDivisionError: division by zero"]
    fail(set())

    def full(self: Any, level: int, window: Any, result: Any) -> Any:
        raise StoreError(f"{self.path}: No space left on device")

    monkeypatch.setattr(stores.Store, "_write", full)
    with pytest.raises(OutputError, match="No space left"):
        run(scene, bundle_of("unet"), out, block=BLOCK, on_error="skip", show=False)


@settings(max_examples=30)
@given(done=st.integers(0, 100), failures=st.integers(0, 100))
def test_a_run_goes_on_while_fewer_blocks_fail_than_twenty_or_than_are_done(done, failures):
    skips, ended = Skips(done), None
    for number in range(failures):
        try:
            skips.add((0, number, 0), SceneError("x"))
        except SceneError:
            ended = number + 1
            break
    first = max(20, done + 1)
    assert ended == (first if failures >= first else None)


@settings(max_examples=30)
@given(st.sets(st.tuples(st.integers(0, 2), st.integers(0, 7), st.integers(0, 7)), max_size=6),
       st.tuples(st.integers(1, 4), st.integers(0, 7), st.integers(0, 7)))  # fmt: skip
def test_overviews_above_a_block_that_is_lacking_are_provisional(lacking, index):
    skips = Skips(1000)
    for one in lacking:
        skips.add(one, SceneError("x"))
    level, row, column = index
    sides = {one: 2 ** (level - one[0]) for one in lacking if one[0] < level}
    below = [one for one, side in sides.items() if (one[1] // side, one[2] // side) == (row, column)]
    item = skips.item(index)
    assert isinstance(item, Provisional) == bool(below)
    if isinstance(item, Provisional):
        assert set(item.lacking) == {one for one in below if one[0] == level - 1}


def test_the_command_ends_with_3_and_a_tif_waits_for_what_is_lacking(scene, bundle_of, fail, tmp_path):
    words = [
        "segment",
        str(scene),
        "-m",
        str(bundle_of("unet").path),
        "--block",
        str(BLOCK),
        "-q",
        "--on-error",
        "skip",
    ]
    fail({(1, 2)})
    for name in ("o.zarr", "o.tif"):
        ended = CliRunner().invoke(cli, [*words, "-o", str(tmp_path / name)])
        assert ended.exit_code == 3, ended.output
        assert "1 block failed and is nodata; the same `swathe segment` command tries just that again" in ended.output
    assert not (tmp_path / "o.tif").exists()
    told = CliRunner().invoke(cli, ["stats", str(tmp_path / "o.zarr"), "-q"])
    assert (told.exit_code, "1 block failed and is nodata" in told.output) == (0, True)
    fail(set())
    for name in ("o.zarr", "o.tif"):
        assert CliRunner().invoke(cli, [*words, "-o", str(tmp_path / name)]).exit_code == 0
        assert (tmp_path / name).exists()
    assert not (tmp_path / "o.tif.unfinished.zarr").exists()
