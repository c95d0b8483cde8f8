"""Whether what was written is as it was, and what is damaged mended, to the bytes of before."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import metadata, pixels, save, write_raster
from stores import town, write_store

from models.errors import StoreError
from pipeline import open_maps, publish, run, verify, write_cog, write_objects
from pipeline.postprocess.clean import write_clean
from pipeline.store.store import COPY, MANIFEST
from train.cli.app import cli

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A store, cleaned, and its objects, with their table in one file."""
    folder = tmp_path_factory.mktemp("made")
    pixels = RNG.integers(0, 3, (40, 40)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    write_store(folder / "m.zarr", pixels, probability=RNG.integers(0, 250, pixels.shape).astype(np.uint8))
    write_clean(folder / "m.zarr", folder / "c.zarr", min_object=40, show=False)
    write_objects(folder / "c.zarr", folder / "o.zarr", show=False)
    return folder


def content(store: Path) -> dict[str, bytes]:
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def flip(path: Path, bit: int) -> None:
    damaged = bytearray(path.read_bytes())
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    path.write_bytes(damaged)


@pytest.mark.parametrize("name", ["c.zarr", "o.zarr"])
def test_every_file_that_is_flipped_is_named_and_made_again(made: Path, name: str) -> None:
    store, before = made / name, content(made / name)
    assert verify(store, show=False).whole
    for number, path in enumerate(before):
        flip(store / path, 7919 * number)
    found = verify(store, show=False)
    assert {problem.name for problem in found.problems} == {MANIFEST, COPY}
    assert [note.partition(":")[0] for note in found.notes] == [
        "both copies of the manifest are lost"
    ]  # nothing can be known without them
    (store / COPY).write_bytes(before[COPY])
    found = verify(store, repair=True, show=False)
    assert found.whole, (found.problems, found.notes)
    assert {problem.name for problem in found.repaired} == {*before} - {COPY}
    assert content(store) == before


def swathe(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, [str(word) for word in words])
    return done.exit_code, done.output


def test_blocks_of_a_segmentation_are_done_again_from_the_scene(tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", pixels((3, 300, 530)), nodata=0)
    save(tmp_path / "bundle", metadata("simple-unet"))
    store = tmp_path / "m.zarr"
    run(scene, tmp_path / "bundle", store, block=128, tile=128, engine="torch", threshold=0.4, show=False)
    before = content(store)
    damaged = ["class_map/c/0/1", "probability/c/0/2/4", "overviews/1/class_map/c/0/0", "x/c/0", "zarr.json"]
    for number, name in enumerate(damaged):
        flip(store / name, 1001 * number + 40)
    (store / "class_map/c/1/1").unlink()
    (store / "class_map/c/2/0").write_bytes(b"")
    (store / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match=r"`swathe verify .*m.zarr --repair` makes again what is damaged"):
        run(scene, tmp_path / "bundle", store, block=128, tile=128, engine="torch", threshold=0.4, show=False)
    code, said = swathe("verify", store, "-q")
    assert code == 4
    for name in (*damaged, "class_map/c/2/0"):
        assert f"damaged: {name}\n" in said
    assert "missing: class_map/c/1/1\n" in said
    assert "foreign: notes.txt\n" in said
    assert "is damaged: 7 of" in said
    assert swathe("verify", store, "-q", "--quick")[1].count("damaged: ") == 2

    scene = scene.rename(tmp_path / "elsewhere.tif")
    code, said = swathe("verify", store, "-q", "--repair")
    assert code == 4, said
    assert "note: " in said
    assert "repaired: zarr.json (it was damaged)" in said
    write_raster(tmp_path / "scene.tif", pixels((3, 300, 530), seed=9), nodata=0)
    code, said = swathe("verify", store, "-q", "--repair")
    assert code == 4
    assert "what they are made of has changed (" in said
    code, said = swathe("verify", store, "-q", "--repair", "--scene", scene)
    assert code == 0, said
    assert content(store) == before | {"notes.txt": b"mine"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".zarr") == ["m.zarr"]


def test_a_finished_store_says_what_mends_it(tmp_path: Path) -> None:
    store = write_store(tmp_path / "m.zarr", town(200, 200))
    flip(store / "class_map/c/1/1", 99)
    with pytest.raises(StoreError, match=r"m.zarr: .*; `swathe verify .*m.zarr --repair` makes again what is damaged"):
        write_cog(store, tmp_path / "m.tif")
    (store / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr.json cannot be read; `swathe verify .* --repair`"):
        open_maps(store)


def test_stores_that_lost_their_manifests_and_what_is_none(tmp_path: Path) -> None:
    store = write_store(tmp_path / "m.zarr", town(100, 100))
    (store / MANIFEST).unlink()
    assert [str(one) for one in verify(store, show=False).problems] == [f"missing: {MANIFEST}"]
    (store / COPY).unlink()
    for words in ((), ("--quick",), ("--repair",)):
        code, said = swathe("verify", store, "-q", *words)
        assert code == 4, said
        assert f"missing: {MANIFEST}\nmissing: {COPY}\nnote: both copies of the manifest are lost" in said
        assert "--repair` mends it" not in said
    with pytest.raises(StoreError, match="there is no"):
        verify(tmp_path / "none.tif", show=False)
    with pytest.raises(StoreError, match="has no digest beside it"):
        verify(write_raster(tmp_path / "a.tif", pixels((3, 9, 9))), show=False)


def test_stores_of_before_have_no_manifest_and_are_not_called_damaged(tmp_path: Path) -> None:
    shutil.unpack_archive(Path(__file__).parent / "data" / "stores_before_0_1.zip", tmp_path)
    with pytest.raises(StoreError, match="has no manifest, as it was written before there were any"):
        verify(tmp_path / "maps.zarr", show=False)


def test_single_files_bundles_and_publications(tmp_path: Path) -> None:
    store = write_store(tmp_path / "m.zarr", town(300, 300))
    cog, bundle, maps = write_cog(store, tmp_path / "m.tif"), tmp_path / "bundle", tmp_path / "maps"
    save(bundle, metadata("simple-unet"))
    publish(store, maps, side=512, dates="2024-01-01T00:00:00Z", show=False)
    for folder, sums in ((tmp_path, "m.tif.sha256"), (tmp_path, "bundle.sha256"), (maps, "_SHA256SUMS")):
        subprocess.run(["sha256sum", "-c", "--strict", "--quiet", sums], cwd=folder, check=True)
    listed = {line.partition("  ")[2] for line in (maps / "_SHA256SUMS").read_text().splitlines()}
    assert listed == {*content(maps)} - {"_SHA256SUMS"}
    for output, part in ((cog, "m.tif"), (cog, "m.tif.aux.xml"), (bundle, "bundle/bundle.json"), (maps, "mosaic.vrt")):
        path = (maps if output == maps else tmp_path) / part
        assert verify(output, show=False).whole
        flip(path, 77)
        assert [str(one) for one in verify(output, show=False).problems] == [f"damaged: {part}"]
        assert verify(output, quick=True, show=False).whole
        path.unlink()
        assert [str(one) for one in verify(output, quick=True, show=False).problems] == [f"missing: {part}"]
        write_cog(store, tmp_path / "m.tif", overwrite=True)
    assert swathe("verify", cog)[0] == 0
    assert swathe("verify", maps, "--repair")[0] == 1


def test_a_file_that_is_replaced_while_it_is_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.postprocess import verify as module

    store = write_store(tmp_path / "m.zarr", town(100, 100))
    cog = write_cog(store, tmp_path / "m.tif")
    other, real, times = (
        write_store(tmp_path / "o.zarr", town(100, 100)[::-1].copy()),
        module.read_parts,
        iter(range(9)),
    )

    def replaced_first(*given: object, **more: object) -> object:
        if next(times) == 0:
            write_cog(other, cog, overwrite=True)
        return real(*given, **more)

    monkeypatch.setattr(module, "read_parts", replaced_first)
    assert verify(cog, show=False).whole
    assert next(times) == 2


def test_what_was_read_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.jobs import verify as module

    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "TOGETHER", 5)
    store = write_store(tmp_path / "m.zarr", town(200, 200))
    flip(store / "class_map/c/0/0", 9)
    real, seen = module.check_task, []

    def broken_off(files: object, task: tuple[int, object]) -> object:
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(task[0])
        return real(files, task)

    monkeypatch.setattr(module, "check_task", broken_off)
    with pytest.raises(KeyboardInterrupt):
        verify(store, show=False)
    first, seen[:] = list(seen), []
    monkeypatch.setattr(module, "check_task", lambda files, task: (seen.append(task[0]), real(files, task))[1])
    assert [one.name for one in verify(store, show=False).problems] == ["class_map/c/0/0"]
    assert seen
    assert not set(first) & set(seen)
    assert not list((tmp_path / "cache").rglob("*.json"))
