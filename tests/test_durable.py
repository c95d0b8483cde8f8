"""Nothing lost: kills, full disks, damaged sources and rivals, and the same call again after each."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from distributed import LocalCluster
from helpers import metadata, pixels, save, write_raster

from models.errors import SceneError, StoreError
from pipeline import open_maps, plan, run, write_clean, write_objects
from pipeline.cli.app import GRACE
from pipeline.inference.run import Network, Segmentation
from pipeline.jobs.job import Task, run_block, run_job
from pipeline.store.lifecycle import remove_store
from pipeline.store.store import open_store, read_metadata, sole_writer

SWATHE = Path(sys.executable).with_name("swathe")
ENGINE = {"engine": "torch", "threads": 1}
CUT = {"block": 128, "tile": 128}


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A scene of 48 blocks and 12 of its overview, the bundle for it, and what an undisturbed run gives."""
    folder = tmp_path_factory.mktemp("case")
    write_raster(folder / "scene.tif", pixels((3, 700, 900)), nodata=0)
    save(folder / "bundle", metadata("simple-unet"))
    run(folder / "scene.tif", folder / "bundle", folder / "whole.zarr", show=False, **CUT, **ENGINE)
    to_cog(_plan(folder, overviews=False, probability=None), folder / "whole.tif", show=False)
    return folder


def _plan(case, **more):
    return plan(case / "scene.tif", case / "bundle", **{**CUT, **ENGINE, **more})


def to_cog(prepared, output, overwrite=False, **more):
    return run_job(Segmentation(prepared), output, "all" if overwrite else "nothing", **more)


MANIFESTS = ("manifest.npz", "manifest.copy.npz")


def _again(case, output, **more):
    return run(case / "scene.tif", case / "bundle", output, show=False, **{**CUT, **ENGINE, **more})


def content(store: Path) -> dict:
    """All files of a store but the times of its blocks, and the manifests that have their digest."""
    paths = [path for path in store.rglob("*") if path.is_file() and not {"seconds", *MANIFESTS} & set(path.parts)]
    return {str(path.relative_to(store)): path.read_bytes() for path in paths}


def stamps(store: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of every shard of the blocks that are marked."""
    found = {}
    for mark in store.glob(".swathe/*.json"):
        level, row, column, _ = mark.name.split(".")
        base = store / "overviews" / level if level != "0" else store
        for shard in (base / f"class_map/c/{row}/{column}", base / f"probability/c/0/{row}/{column}"):
            if shard.exists():
                found[shard] = (shard.stat().st_ino, shard.stat().st_mtime_ns)
    return found


def marked(store: Path) -> int:
    return len(list(store.glob(".swathe/0.*.json")))


# one run after another, in this process


def test_a_second_call_does_nothing(case, tmp_path):
    shutil.copytree(case / "whole.zarr", tmp_path / "o.zarr")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "o.zarr").rglob("*")}
    report = _again(case, tmp_path / "o.zarr")
    assert (report.blocks, report.resumed) == (48, 48)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "o.zarr").rglob("*")} == before


def test_a_store_says_once_what_it_is(case, tmp_path, monkeypatch):
    """In a fresh run, one that was stopped, and one that was finished, its JSON is read once to tell which it is."""
    from pipeline.store import store as stores
    from pipeline.store.files import Files

    told, read = [], Files.read
    monkeypatch.setattr(Files, "read", lambda self, name: told.append(name) or read(self, name))
    parsed, real = [], stores.StoreMetadata.from_json
    monkeypatch.setattr(
        stores.StoreMetadata, "from_json", lambda values: parsed.append(values["state"]) or real(values)
    )
    with monkeypatch.context() as patch:
        stopped_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            _again(case, tmp_path / "o.zarr")
    assert parsed == []  # there was nothing
    assert "zarr.json" not in told  # what is put into it is known
    told.clear()
    assert _again(case, tmp_path / "o.zarr").resumed >= 16  # one of five is of the overview
    assert parsed == ["running"]
    assert told.count("zarr.json") == 3  # what it is; whether it is as it was begun; and to call it complete
    told.clear()
    _again(case, tmp_path / "o.zarr")
    assert parsed == ["running", "complete"]
    assert told.count("zarr.json") == 1


def stopped_after(monkeypatch, blocks: int):
    """Make `run` stop, as by Ctrl-C, after some blocks."""
    from pipeline.jobs import job as filling

    count, real = 0, filling.map_bounded

    def map_bounded(*args, **kwargs):
        nonlocal count
        for result in real(*args, **kwargs):
            count += 1
            if count > blocks:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(filling, "map_bounded", map_bounded)


@pytest.mark.parametrize("blocks", [0, 7, 48, 52])
def test_a_stopped_run_is_continued_and_finished_blocks_stay(case, tmp_path, monkeypatch, client, blocks):
    with monkeypatch.context() as patch:
        stopped_after(patch, blocks)
        with pytest.raises(KeyboardInterrupt):
            _again(case, tmp_path / "o.zarr", client=client)
    time.sleep(0.5)  # the worker is this process's: what it had begun, it ends
    with pytest.raises(StoreError, match="not finished"):
        open_maps(tmp_path / "o.zarr")
    done, before = marked(tmp_path / "o.zarr"), stamps(tmp_path / "o.zarr")
    assert blocks * 4 // 5 <= done <= 48  # an overview's block comes after the four below it
    report = _again(case, tmp_path / "o.zarr", client=client)
    assert report.resumed == done
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in before} == before
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")


def test_overwrite_continues_what_this_run_began_and_repeats_what_it_finished(case, tmp_path, monkeypatch, client):
    with monkeypatch.context() as patch:
        stopped_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            _again(case, tmp_path / "o.zarr", client=client, overwrite=True)
    assert _again(case, tmp_path / "o.zarr", client=client, overwrite=True).resumed >= 16  # and overviews
    assert _again(case, tmp_path / "o.zarr", client=client, overwrite=True).resumed == 0
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")


def test_a_block_whose_shard_was_lost_is_done_again(case, tmp_path, monkeypatch, client):
    with monkeypatch.context() as patch:
        stopped_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            _again(case, tmp_path / "o.zarr", client=client)
    time.sleep(0.5)
    done = marked(tmp_path / "o.zarr")
    first, second, *_ = stamps(tmp_path / "o.zarr")
    first.unlink()
    os.truncate(second, 0)
    assert done - 2 <= _again(case, tmp_path / "o.zarr", client=client).resumed < done
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")


def test_a_finished_store_that_lost_a_shard_is_not_passed_as_finished(case, tmp_path):
    shutil.copytree(case / "whole.zarr", tmp_path / "o.zarr")
    (tmp_path / "o.zarr/probability/c/0/2/3").unlink()
    with pytest.raises(StoreError, match="damaged: block 2, 3 is missing; run it again with --overwrite"):
        _again(case, tmp_path / "o.zarr")


def test_a_block_done_twice_is_the_same_and_one_done_late_is_refused(case, tmp_path, client, monkeypatch):
    prepared = _plan(case)
    with monkeypatch.context() as patch:
        stopped_after(patch, 48)
        with pytest.raises(KeyboardInterrupt):
            run_job(Segmentation(prepared), tmp_path / "o.zarr", client=client, show=False)
    time.sleep(0.5)
    from pipeline.store.lifecycle import resume_store

    own = read_metadata(str(tmp_path / "o.zarr"))
    store = resume_store(str(tmp_path / "o.zarr"), own, prepared.geobox)
    task = Task(Network(prepared.source, prepared.inference), store, 2)
    shard = tmp_path / "o.zarr/class_map/c/1/2"
    before = shard.read_bytes(), shard.stat().st_mtime_ns
    run_block(task, (0, 1, 2))
    assert shard.read_bytes() == before[0]
    assert shard.stat().st_mtime_ns != before[1]
    run_job(Segmentation(prepared), tmp_path / "o.zarr", client=client, show=False)
    with pytest.raises(StoreError, match=r"block 1, 2 \(rows 128 to 256, columns 256 to 384\).*finished or replaced"):
        run_block(task, (0, 1, 2))
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")


# what is refused


@pytest.mark.parametrize(
    ("keywords", "named"),
    [
        ({"threshold": 0.7}, "threshold 0.7, there None"),
        ({"halo": 16}, "halo 16, there 64"),
        ({"probability": "float16"}, "probability float16, there uint8"),
        ({"probability": None}, "probability None, there uint8"),
        ({"engine": "openvino"}, "engine openvino on cpu, there torch on cpu"),
        ({"overviews": False}, "overviews False, there True"),
        ({"bands": [3, 2, 1]}, "another source"),
    ],
)
def test_another_runs_store_is_refused_with_the_settings_named(case, tmp_path, keywords, named):
    before = content(case / "whole.zarr")
    with pytest.raises(StoreError, match="belongs to another run") as caught:
        _again(case, case / "whole.zarr", **keywords)
    assert named in str(caught.value)
    assert "choose another output, or pass --overwrite" in str(caught.value)
    assert content(case / "whole.zarr") == before


def test_what_does_not_change_pixels_does_not_make_another_run(case):
    for keywords in ({"tile": 64}, {"block": 256}, {"threads": 2}):
        assert _again(case, case / "whole.zarr", **keywords).resumed == 48


def test_tiles_make_another_run_where_the_halo_is_not_exact(case, tmp_path, client):
    _again(case, tmp_path / "o.zarr", client=client, halo=8)
    with pytest.raises(StoreError, match="tile 64, there 128"):
        _again(case, tmp_path / "o.zarr", client=client, halo=8, tile=64)


def test_overwrite_removes_nothing_before_all_is_found_fit(case, tmp_path):
    shutil.copytree(case / "whole.zarr", tmp_path / "o.zarr")
    (tmp_path / "bad.tif").write_bytes((case / "scene.tif").read_bytes()[:60])
    bad = [
        ((tmp_path / "bad.tif", case / "bundle"), {}),
        ((case / "scene.tif", tmp_path / "none"), {}),
        ((case / "scene.tif", case / "bundle"), {"bands": [1, 2]}),
        ((case / "scene.tif", case / "bundle"), {"tile": 0}),
        ((case / "scene.tif", case / "bundle"), {"client": "nonsense"}),
    ]
    for given, keywords in bad:
        with pytest.raises(Exception, match=r"\w") as caught:
            run(*given, tmp_path / "o.zarr", overwrite=True, show=False, **keywords)
        assert type(caught.value).__module__ == "models.errors", caught.value
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")


def test_a_run_while_another_writes_is_refused(case, tmp_path):
    with sole_writer(str(tmp_path / "o.zarr")), pytest.raises(StoreError, match="another run is writing to it now"):
        _again(case, tmp_path / "o.zarr")
    _again(case, tmp_path / "o.zarr")


def test_a_geotiff_is_not_the_name_of_a_store_of_objects(case, tmp_path):
    with pytest.raises(StoreError, match="numbering objects fills a Zarr store"):
        write_objects(case / "whole.zarr", tmp_path / "o.tif", show=False)
    assert not list(tmp_path.iterdir())


def test_a_relative_output_is_the_same_place_for_every_worker(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = _again(case, "deep/o.zarr")
    assert Path(report.output) == tmp_path / "deep/o.zarr"
    assert content(tmp_path / "deep/o.zarr") == content(case / "whole.zarr")


# a block that fails


def test_a_damaged_source_block_is_named_and_the_others_are_kept(tmp_path, case, capfd):
    raw = pixels((3, 512, 512))
    path = write_raster(tmp_path / "s.tif", raw, tiled=True, blockxsize=128, blockysize=128, compress="deflate")
    damage(path)
    with pytest.raises(SceneError) as caught:
        run(path, case / "bundle", tmp_path / "o.zarr", show=False, **CUT, **ENGINE)
    assert str(caught.value).startswith("block ")
    assert "s.tif" in str(caught.value)
    assert "cannot be read: ZIPDecode" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""
    assert read_metadata(str(tmp_path / "o.zarr")).state == "running"


def damage(path: Path) -> None:
    """Spoil compressed bytes in the middle of a file."""
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 20_000)


# GeoTIFF


def test_a_finished_file_is_left_as_it_is_and_leftovers_go(case, tmp_path):
    prepared = _plan(case, overviews=False, probability=None)
    report = to_cog(prepared, tmp_path / "o.tif", show=False)
    assert (report.output, report.resumed) == (str(tmp_path / "o.tif"), 0)
    assert (tmp_path / "o.tif").read_bytes() == (case / "whole.tif").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.tif", "o.tif.aux.xml", "o.tif.sha256"]
    before = (tmp_path / "o.tif").stat().st_mtime_ns
    run_job(Segmentation(prepared), tmp_path / "o.tif.unfinished.zarr", show=False)  # as if killed before its removal
    again = to_cog(prepared, tmp_path / "o.tif", show=False)
    assert (again.resumed, again.pixels) == (48, report.pixels)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.tif", "o.tif.aux.xml", "o.tif.sha256"]
    assert (tmp_path / "o.tif").stat().st_mtime_ns == before
    with pytest.raises(StoreError, match=r"o\.tif exists"):
        to_cog(_plan(case, overviews=False, probability=None, threshold=0.7), tmp_path / "o.tif", show=False)


def test_a_finished_file_in_a_folder_that_nobody_may_write_to_is_complete(case, tmp_path, monkeypatch):
    _again(case, tmp_path / "o.tif")
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    assert _again(case, tmp_path / "o.tif").resumed == 48


def test_the_ending_of_the_output_decides_what_is_written(case, tmp_path):
    told = []
    result = _again(case, tmp_path / "o.tif", note=told.append)
    assert (tmp_path / "o.tif").read_bytes() == (case / "whole.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.tif", "o.tif.aux.xml", "o.tif.sha256"]
    assert (result.output, result.blocks, result.resumed) == (str(tmp_path / "o.tif"), 48, 0)
    assert [text.splitlines()[0][:8] for text in told] == ["scene   ", "writing "]
    assert _again(case, tmp_path / "o.tif").resumed == 48
    with pytest.raises(StoreError, match=r"o\.tif exists"):
        write_clean(case / "whole.zarr", tmp_path / "o.tif", min_object=9, show=False)
    write_clean(case / "whole.zarr", tmp_path / "c.zarr", min_object=9, show=False)
    write_clean(case / "whole.zarr", tmp_path / "c.tif", min_object=9, show=False)
    with rasterio.open(tmp_path / "c.tif") as file:
        np.testing.assert_array_equal(file.read(1), open_maps(tmp_path / "c.zarr").class_map.values)


def test_overwriting_a_file_replaces_an_unfinished_store_of_another_run(case, tmp_path, monkeypatch):
    shutil.copy(case / "whole.tif", tmp_path / "o.tif")
    other = _plan(case, overviews=False, probability=None, threshold=0.7)
    with monkeypatch.context() as patch:
        stopped_after(patch, 20)
        with pytest.raises(KeyboardInterrupt):
            to_cog(other, tmp_path / "o.tif", overwrite=True, show=False)
    assert (tmp_path / "o.tif").read_bytes() == (case / "whole.tif").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.jobs.job.written_before", lambda *_: None)
        mine = _plan(case, overviews=False, probability=None)
        to_cog(mine, tmp_path / "o.tif", overwrite=True, show=False)
    assert (tmp_path / "o.tif").read_bytes() == (case / "whole.tif").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["o.tif", "o.tif.aux.xml", "o.tif.sha256"]


# disks


@pytest.fixture
def disk(tmp_path):
    """A disk of 300 kB. `disk("size=64m")` makes it larger, `disk("ro")` read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", place], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")

    def change(options: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)
        return place

    yield change
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_more_room_lets_it_go_on(case, disk):
    place = disk("size=300k")
    done = swathe(case, place / "o.zarr")
    assert done.returncode == 1
    assert re_one_line(done.stderr, "No space left on device")
    assert read_metadata(str(place / "o.zarr")).state in ("creating", "running")
    before = stamps(place / "o.zarr")
    disk("size=64m")
    again = swathe(case, place / "o.zarr")
    assert again.returncode == 0, again.stderr
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in before} == before
    assert content(place / "o.zarr") == content(case / "whole.zarr")


@pytest.mark.slow
@pytest.mark.parametrize("size", [200, 480])  # not even the store fits; of the sizes that fail, nearly the largest
def test_a_full_disk_leaves_no_file(case, disk, size):
    place = disk(f"size={size}k")
    while (done := swathe(case, place / "o.tif")).returncode == 0 and size > 200:
        size -= 40  # what is needed by the kilobyte depends on how many blocks are in work
        for path in place.iterdir():
            path.unlink()
        disk(f"size={size}k")
    assert done.returncode == 1
    assert re_one_line(done.stderr, "error: ")
    assert not (place / "o.tif").exists()
    assert {p.name for p in place.iterdir()} <= {"o.tif.unfinished.zarr"}
    disk("size=64m")
    again = swathe(case, place / "o.tif")
    assert again.returncode == 0, again.stderr
    assert (place / "o.tif").read_bytes() == (case / "whole.tif").read_bytes()
    assert {p.name for p in place.iterdir()} == {"o.tif", "o.tif.aux.xml", "o.tif.sha256"}


@pytest.mark.slow
def test_a_read_only_disk_is_refused_and_what_is_there_stays(case, disk):
    place = disk("size=64m")
    shutil.copytree(case / "whole.zarr", place / "o.zarr")
    shutil.copy(case / "whole.tif", place / "o.tif")
    disk("ro")
    for name, keywords in (
        ("new.zarr", ()),
        ("new.tif", ()),
        ("o.zarr", ("--overwrite",)),
        ("o.tif", ("--overwrite", "--threshold", "0.7")),
    ):
        done = swathe(case, place / name, *keywords)
        assert done.returncode == 1, name
        assert re_one_line(done.stderr, "Read-only file system|no permission"), done.stderr
    assert content(place / "o.zarr") == content(case / "whole.zarr")
    assert swathe(case, place / "o.zarr").returncode == 0  # it is finished: nothing is to be written
    assert open_maps(place / "o.zarr").class_map.values.any()
    exported = subprocess.run(
        [SWATHE, "export", place / "o.zarr", "-o", place / "x.tif"], capture_output=True, text=True
    )
    assert exported.returncode == 1
    assert re_one_line(exported.stderr, "no permission|Read-only")


def re_one_line(stderr: str, pattern: str) -> bool:
    """Whether the last line is the error, and the only one."""
    import re

    lines = [line for line in stderr.splitlines() if line.startswith(("error", "internal", "Traceback"))]
    return len(lines) == 1 and stderr.splitlines()[-1] == lines[0] and bool(re.search(pattern, lines[0]))


# kills


def command(case, output, *more):
    return [
        SWATHE, "segment", case / "scene.tif", "-m", case / "bundle", "-o", output,
        "--block", "128", "--tile", "128", "--engine", "torch", "--threads", "1", *more,
    ]  # fmt: skip


def swathe(case, output, *more):
    return subprocess.run(command(case, output, *more), capture_output=True, text=True, timeout=300)


class Run:
    """The real command in a process group of its own."""

    def __init__(self, case: Path, output: Path) -> None:
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command(case, output), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )

    def wait_for(self, *paths: Path) -> float:
        """Wait until one of these is there, or the run has ended; give the seconds since it began."""
        while self.process.poll() is None and not any(path.exists() for path in paths):
            time.sleep(0.002)
        return time.monotonic() - self.began

    def kill(self) -> bool:
        """Kill the group; whether it was still running."""
        running = self.process.poll() is None
        if running:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        return running


def watched(case: Path, output: Path, *begin: Path) -> tuple[float, float]:
    """Run undisturbed; give the seconds until it touches its output, and from there to the end."""
    undisturbed = Run(case, output)
    start = undisturbed.wait_for(*begin)
    assert undisturbed.process.wait() == 0
    return start, time.monotonic() - undisturbed.began - start


def kill_once(case: Path, output: Path, begin: tuple[Path, ...], delay: float) -> bool:
    """Begin a run and kill it some seconds after it first touches its output; whether it was still running."""
    run_ = Run(case, output)
    if delay >= 0:
        run_.wait_for(*begin)
    time.sleep(abs(delay))  # a negative one counts from the start
    return run_.kill()


def killed_zarr(case: Path, folder: Path, delays: list[float]) -> int:
    output = folder / "o.zarr"
    killed = 0
    for delay in delays:
        killed += kill_once(case, output, (output,), delay)
        own = read_metadata(str(output))  # never raises: what is there is always known as ours
        if own is None or own.state != "complete":
            with pytest.raises(StoreError):
                open_store(str(output))
    complete = own is not None and own.state == "complete"
    done, before = marked(output), stamps(output)
    last = swathe(case, output)
    assert last.returncode == 0, last.stderr
    expected = 48 if complete else done
    assert (f"{expected} of them done before" in last.stdout) == (expected > 0), last.stdout
    assert {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in before} == before
    assert content(output) == content(case / "whole.zarr")
    assert [p.name for p in folder.iterdir()] == ["o.zarr"]
    return killed


def killed_tif(case: Path, folder: Path, delays: list[float]) -> int:
    output, killed = folder / "o.tif", 0
    store, workshop = folder / "o.tif.unfinished.zarr", folder / ".o.tif.partial"
    for delay in delays:
        writing = delay >= 10  # tens: counted from where the COG is begun
        killed += kill_once(case, output, (workshop,) if writing else (store,), delay - 10 if writing else delay)
        assert not output.exists() or output.read_bytes() == (case / "whole.tif").read_bytes()
    before = stamps(store)
    last = swathe(case, output)
    assert last.returncode == 0, last.stderr
    assert (case / "whole.tif").read_bytes() == output.read_bytes()
    assert before is not None
    assert sorted(p.name for p in folder.iterdir()) == ["o.tif", "o.tif.aux.xml", "o.tif.sha256"]
    return killed


@pytest.mark.slow
def test_thirty_kills_and_nothing_is_lost(case, tmp_path):
    seed = time.time_ns() % 2**32
    chance = random.Random(seed)
    (tmp_path / "t").mkdir()
    start, work = watched(case, tmp_path / "t/o.zarr", tmp_path / "t/o.zarr")
    cases: list[tuple] = [(killed_zarr, [chance.uniform(0, work)]) for _ in range(13)]
    cases += [(killed_zarr, [chance.uniform(0, 0.25)]), (killed_zarr, [-chance.uniform(0, start)])]
    cases += [(killed_zarr, [chance.uniform(0, work / 2) for _ in range(4)]) for _ in range(2)]
    cases += [(killed_tif, [chance.uniform(0, work)]) for _ in range(3)]
    cases += [(killed_tif, [10 + chance.uniform(0, 0.2)]) for _ in range(5)]
    cases += [(killed_tif, [chance.uniform(0, work / 2), 10 + chance.uniform(0, 0.2), 10 + chance.uniform(0, 0.3)])]
    moments = [(way.__name__, [round(d, 3) for d in delays]) for way, delays in cases]
    print(f"seed {seed}: starts {start:.2f} s, works {work:.2f} s; kills {moments}")

    def one(number: int) -> int:
        way, delays = cases[number]
        for attempt in range(4):  # a kill that came too late is none: again, sooner
            folder = tmp_path / f"{number}.{attempt}"
            folder.mkdir()
            sooner = [
                delay // 10 * 10 + delay % 10 / 2**attempt if delay >= 10 else delay / 2**attempt for delay in delays
            ]
            try:
                if killed := way(case, folder, sooner):
                    return killed
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, case {number} {way.__name__} {sooner}: {error}") from error
        return 0

    with ThreadPoolExecutor(2) as pool:
        killed = sum(pool.map(one, range(len(cases))))
    print(f"{killed} of {sum(len(delays) for _, delays in cases)} were killed while they ran")
    assert killed >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", ["o.zarr", "o.tif"])
def test_of_two_commands_at_once_one_is_refused_and_the_other_undisturbed(case, tmp_path, name):
    both = [subprocess.Popen(command(case, tmp_path / name), stdout=-1, stderr=-1, text=True) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1].splitlines()[-1], process.returncode) for process in both]
    assert sorted(code for _, code in ended) == [0, 1], ended
    (said,) = [line for line, code in ended if code]
    assert "another run is writing to it now" in said
    if name == "o.tif":
        assert (tmp_path / name).read_bytes() == (case / "whole.tif").read_bytes()
    else:
        assert content(tmp_path / name) == content(case / "whole.zarr")


@pytest.mark.slow
def test_workers_may_die_while_a_run_goes_on(case, tmp_path):
    seed = time.time_ns() % 2**32
    chance = random.Random(seed)
    ended, killed = threading.Event(), []
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0",
        worker_dashboard_address="127.0.0.1:0", silence_logs=50,
    ) as cluster, cluster.get_client() as client:  # fmt: skip

        def killing() -> None:
            while not ended.wait(chance.uniform(1.5, 3)) and len(killed) < 3:
                pid = chance.choice(list(cluster.workers.values())).pid
                if pid:
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

        killer = threading.Thread(target=killing)
        killer.start()
        try:
            for number in range(6):
                _again(case, tmp_path / f"{number}.zarr", client=client)
                assert content(tmp_path / f"{number}.zarr") == content(case / "whole.zarr"), (seed, number)
                if len(killed) == 3:
                    break
        finally:
            ended.set()
            killer.join()
    assert killed, seed


# an object store


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a server on this machine that speaks S3."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()  # one that is kept knows the server of another test
    files = s3fs.S3FileSystem()
    files.mkdir("swathe-test")
    yield files
    files.rm("swathe-test", recursive=True)  # servers of one process share what they hold
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of moto's
def test_a_run_into_an_object_store_is_continued(case, bucket, client, monkeypatch, tmp_path):
    output = "s3://swathe-test/o.zarr"
    with monkeypatch.context() as patch:
        stopped_after(patch, 10)
        with pytest.raises(KeyboardInterrupt):
            _again(case, output, client=client)
    time.sleep(0.5)
    assert _again(case, output, client=client).resumed >= 10
    bucket.get("swathe-test/o.zarr", str(tmp_path / "o.zarr"), recursive=True)
    assert content(tmp_path / "o.zarr") == content(case / "whole.zarr")
    bucket.rm("swathe-test/o.zarr/class_map/c/0/0")
    bucket.invalidate_cache()
    with pytest.raises(StoreError, match=f"{output} is damaged: block 0, 0 is missing"):
        _again(case, output, client=client)
    with pytest.raises(StoreError, match="nobucket"):
        _again(case, "s3://nobucket/o.zarr", client=client)


# Ctrl-C


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "code"),
    [((signal.SIGINT,), 130), ((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), 143)],
)
@pytest.mark.parametrize("moment", ["import", "blocks"])
def test_a_signal_stops_soon_and_says_how_to_go_on(case, tmp_path, numbers, code, moment):
    process = subprocess.Popen(command(case, tmp_path / "o.zarr"), stdout=-1, stderr=-1, text=True)
    while moment == "blocks" and marked(tmp_path / "o.zarr") < 3 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.5)
    began = time.monotonic()
    for number in numbers:
        process.send_signal(number)
        time.sleep(0.1)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < GRACE + 1.5
    assert process.returncode == code, err
    assert out == ""
    kept = "stopped; what is finished is kept, run the same command again to continue"
    unknown = "stopped; what was finished before, if anything, is kept: run the same command again"
    assert err.splitlines()[-1] in ((kept,) if moment == "blocks" else (kept, unknown))
    assert "Traceback" not in err
    assert "distributed" not in err
    if moment == "blocks":
        process = subprocess.Popen(command(case, tmp_path / "o.zarr"), stdout=-1, stderr=-1, text=True)
        time.sleep(0.5)  # it has not seen yet that something is there
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[1].splitlines()[-1] in (
            kept,
            unknown,
            "stopped before anything was begun",
        )
        assert " of them done before" in swathe(case, tmp_path / "o.zarr").stdout


def test_removing_a_store_that_is_not_there_is_nothing(tmp_path):
    remove_store(str(tmp_path / "none.zarr"))
    assert not list(tmp_path.iterdir())


def test_the_reference_itself_is_right(case):
    """All that the others compare with: no nodata inside, both classes, as many pixels as the scene has."""
    maps = open_maps(case / "whole.zarr")
    values, counts = np.unique(maps.class_map.values, return_counts=True)
    assert set(values) <= {0, 1, 255}
    assert counts.sum() == 700 * 900
    assert counts[:2].min() > 1000
