"""Nothing lost by clean, objects and vectorise either: kills, Ctrl-C, full disks, rivals, and the same call again."""

import os
import random
import shutil
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from masks import blobs, spiral
from stores import TOWN, write_store
from test_durable import SWATHE, content, disk, re_one_line  # noqa: F401

from models.errors import StoreError, SwatheError
from pipeline import Outlines, open_maps, write_clean, write_objects, write_vectors
from pipeline.cli.app import GRACE
from pipeline.jobs import job as filling
from pipeline.objects import tree as trees
from pipeline.store.store import open_store, read_metadata, sole_writer

CLEANING = {"threshold": 0.6, "hysteresis": 0.4, "closing": 2, "min_object": 300, "min_hole": "9 ha"}
FLAGS = tuple(word for name, value in CLEANING.items() for word in (f"--{name.replace('_', '-')}", str(value)))


@dataclass(frozen=True)
class Verb:
    """A durable verb: its name, its input and output in the case's folder, and its flags."""

    name: str
    store: str
    output: str
    flags: tuple[str, ...] = ()


VERBS = {
    "clean": Verb("clean", "maps.zarr", "clean.zarr", FLAGS),
    "clean to tif": Verb("clean", "maps.zarr", "clean.tif", FLAGS),
    "objects": Verb("objects", "clean.zarr", "objects.zarr"),
    "vectors of objects": Verb("vectorise", "objects.zarr", "objects.parquet", ("--simplify", "1.5")),
    "vectors of maps": Verb("vectorise", "maps.zarr", "maps.parquet"),
    "vectors to gpkg": Verb("vectorise", "objects.zarr", "objects.gpkg"),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory, client):
    """Maps of 6 x 6 blocks, with a spiral through most of them, and what undisturbed runs make of it."""
    folder = tmp_path_factory.mktemp("case")
    mask = blobs((380, 372), width=2.5, share=0.45)
    mask[20:300, 30:330] |= spiral((280, 300), gap=11)
    random_ = np.random.default_rng(0)
    probability = np.where(mask, random_.integers(110, 251, mask.shape), random_.integers(0, 120, mask.shape))
    class_map = np.where(np.arange(372) > 365, 255, mask).astype(np.uint8)
    probability = np.where(class_map == 255, 255, probability).astype(np.uint8)
    write_store(folder / "maps.zarr", class_map, probability=probability, classes=TOWN[:2], block=64)
    more = {"client": client, "show": False}
    write_clean(folder / "maps.zarr", folder / "clean.zarr", **CLEANING, **more)
    write_objects(folder / "clean.zarr", folder / "objects.zarr", **more)
    write_vectors(folder / "objects.zarr", folder / "objects.parquet", outlines=Outlines(simplify=1.5), **more)
    write_vectors(folder / "objects.zarr", folder / "objects.gpkg", **more)
    write_vectors(folder / "maps.zarr", folder / "maps.parquet", **more)
    assert (open_maps(folder / "clean.zarr").class_map.values == 1).any()
    return folder


def made(path: Path) -> object:
    """What an output holds, to be compared: bytes, but for what a GeoPackage says of when it was written."""
    if path.is_dir():
        return content(path)
    if path.suffix == ".gpkg":
        import geopandas

        frame = geopandas.read_file(path)
        return frame.to_wkb().to_csv(index=False), str(frame.crs)
    return path.read_bytes()


LAST = ("region", "open")  # of the files of a step of the tree: the one that says that it is done


def steps(folder: Path) -> dict[Path, tuple[int, int]]:
    """Inode and time of all that counts as done: shards whose blocks are marked, and steps of the tree."""
    found = [path for path in folder.rglob("*") if ".swathe" in path.parts and path.name.split(".")[0] in LAST]
    for mark in folder.rglob(".swathe/0.*.json"):
        _, row, column, _ = mark.name.split(".")
        shards = (mark.parents[1] / name / "c" / row / column for name in ("class_map", "objects"))
        found += [mark, *(shard for shard in shards if shard.exists())]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found if ".partial" not in path.name}


# stopped in each stage, in this process


def stopped_after(monkeypatch, module, results: int, key: str = ""):
    """Make a call stop, as by Ctrl-C, after some results of the tasks whose key contains this."""
    count, real = 0, module.map_bounded

    def map_bounded(*args, **kwargs):
        nonlocal count
        for result in real(*args, **kwargs):
            count += key in kwargs["key"]
            if count > results:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(module, "map_bounded", map_bounded)


@pytest.mark.parametrize(
    ("verb", "module", "key", "results"),
    [
        ("clean", trees, "hysteresis-up_sweep", 0),
        ("clean", trees, "hysteresis-up_sweep", 20),
        ("clean", trees, "hysteresis-down_sweep", 3),
        ("clean", trees, "objects-up_sweep", 39),
        ("clean", trees, "holes-down_sweep", 0),
        ("clean", filling, "swathe-block", 17),
        ("objects", trees, "labels-up_sweep", 36),
        ("objects", trees, "labels-down_sweep", 1),
        ("objects", filling, "swathe-block", 30),
        ("objects", trees, "measures-reduce_rows-0", 12),
        ("objects", trees, "measures-reduce_rows-1", 2),
        ("vectors of objects", trees, "polygons-reduce_rows-0", 9),
        ("vectors of objects", trees, "polygons-reduce_rows-2", 0),
        ("vectors of maps", trees, "labels-up_sweep", 9),
        ("vectors of maps", trees, "measures-reduce_rows-0", 9),
        ("vectors of maps", trees, "polygons-reduce_rows-1", 1),
    ],
)
def test_stopped_in_any_stage_and_continued(case, tmp_path, monkeypatch, client, verb, module, key, results):
    what = VERBS[verb]
    with monkeypatch.context() as patch:
        stopped_after(patch, module, results, key)
        with pytest.raises(KeyboardInterrupt):
            call(what, case, tmp_path, client)
    time.sleep(0.3)  # the worker is this process's: what it had begun, it ends
    before = steps(tmp_path)
    assert len(before) >= (0 if "down" in key else results)
    assert not (tmp_path / what.output).is_file()
    call(what, case, tmp_path, client, watched=before)
    assert made(tmp_path / what.output) == made(case / what.output)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".sha256"] == [what.output]


@pytest.mark.parametrize(
    ("verb", "key", "results", "kind"),
    [
        ("objects", "labels-up_sweep-1", 3, "region.1"),
        ("objects", "labels-down_sweep-2", 0, "merged.1"),
        pytest.param("objects", "measures-reduce_rows-1", 3, "open.1", marks=pytest.mark.slow),
        pytest.param("objects", "measures-reduce_rows-2", 0, "part.0", marks=pytest.mark.slow),
        pytest.param("vectors of maps", "polygons-reduce_rows-2", 0, "part.1", marks=pytest.mark.slow),
        pytest.param("clean", "hysteresis-down_sweep-1", 0, "totals.0", marks=pytest.mark.slow),
    ],
)
def test_steps_whose_files_are_damaged_are_done_again(
    case, tmp_path, monkeypatch, client, verb, key, results, kind, caplog
):
    what = VERBS[verb]
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, results, key)
        with pytest.raises(KeyboardInterrupt):
            call(what, case, tmp_path, client)
    time.sleep(0.3)
    found = sorted(path for path in tmp_path.rglob(f"{kind}.*") if ".partial" not in path.name)
    for path, way in zip(found[:-1], ("empty", "flipped", "whole") * len(found), strict=False):
        tear(path, way)
    found[-1].unlink()
    with caplog.at_level("INFO", logger="swathe"):
        call(what, case, tmp_path, client)
    told = [one.message for one in caplog.records if one.name == "swathe" and "was damaged or lost" in one.message]
    named = {one.split("/")[-1].split(" ")[0] for one in told}  # of tasks at the same time, one is heard
    assert named & {path.name for path in found}
    assert made(tmp_path / what.output) == made(case / what.output)


def tear(path: Path, way: str) -> None:
    """Damage a file, as a power cut does, or a bit that flips; or leave it whole."""
    if way == "empty":
        os.truncate(path, 0)
    elif way == "flipped":
        text = bytearray(path.read_bytes())
        text[len(text) // 2] ^= 16
        path.write_bytes(text)


def call(what: Verb, case: Path, folder: Path, client, *, watched=None, **more) -> None:
    """Call the function behind a verb. `watched`: what must not be written again."""
    source, output, more = case / what.store, folder / what.output, {"client": client, "show": False, **more}
    written = []
    with pytest.MonkeyPatch.context() as patch:
        real = os.replace
        patch.setattr(os, "replace", lambda a, b: (written.append(Path(b)), real(a, b)))
        if what.name == "clean":
            write_clean(source, output, **{**CLEANING, **more})
        elif what.name == "objects":
            write_objects(source, output, **more)
        else:
            simplify = float(what.flags[1]) if what.flags else None
            write_vectors(source, output, outlines=Outlines(simplify=simplify), **more)
    assert not set(watched or ()) & set(written)


def test_a_second_call_does_nothing(case, tmp_path, client):
    for name in ("clean", "objects"):
        shutil.copytree(case / VERBS[name].output, tmp_path / VERBS[name].output)
        before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
        call(VERBS[name], case, tmp_path, client)
        assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


# other settings, other files


def test_other_settings_are_refused_by_name_and_overwrite_replaces(case, tmp_path, client):
    shutil.copytree(case / "clean.zarr", tmp_path / "clean.zarr")
    for keywords, named in (
        ({"min_object": 301}, "min_object 301 px, there 300 px"),
        ({"hysteresis": None}, "hysteresis None, there 0.4"),
        ({"opening": 1}, "opening 1, there None"),
    ):
        with pytest.raises(StoreError, match=rf"belongs to another run \({named}\).*--overwrite"):
            call(VERBS["clean"], case, tmp_path, client, **keywords)
    assert content(tmp_path / "clean.zarr") == content(case / "clean.zarr")
    call(VERBS["clean"], case, tmp_path, client, min_object=301, overwrite=True)
    assert open_store(str(tmp_path / "clean.zarr"))[1].cleaned["min_object"] == "301 px"
    call(VERBS["clean"], case, tmp_path, client, overwrite=True)
    assert content(tmp_path / "clean.zarr") == content(case / "clean.zarr")
    shutil.copytree(case / "objects.zarr", tmp_path / "objects.zarr")
    for keywords, named in (({"connectivity": 8}, "connectivity 8, there 4"), ({"widths": False}, "widths False")):
        with pytest.raises(StoreError, match=rf"belongs to another run \({named}"):
            call(VERBS["objects"], case, tmp_path, client, **keywords)


def test_an_older_file_is_not_taken_for_what_a_stopped_run_would_have_made(case, tmp_path, monkeypatch, client):
    output = tmp_path / "objects.parquet"
    shutil.copy(case / "maps.parquet", output)
    before = output.read_bytes()
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, 12, "polygons")
        with pytest.raises(KeyboardInterrupt):
            call(VERBS["vectors of objects"], case, tmp_path, client, overwrite=True)
    with pytest.raises(SwatheError, match="exists; choose another output"):
        call(VERBS["vectors of objects"], case, tmp_path, client)
    assert output.read_bytes() == before
    call(VERBS["vectors of objects"], case, tmp_path, client, overwrite=True)
    assert output.read_bytes() == made(case / "objects.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["objects.parquet", "objects.parquet.sha256"]


def test_outlines_of_other_settings_are_not_mixed(case, tmp_path, monkeypatch, client):
    with monkeypatch.context() as patch:
        stopped_after(patch, trees, 30, "polygons")
        with pytest.raises(KeyboardInterrupt):
            write_vectors(case / "objects.zarr", tmp_path / "objects.parquet", client=client, show=False)
    call(VERBS["vectors of objects"], case, tmp_path, client)
    assert made(tmp_path / "objects.parquet") == made(case / "objects.parquet")


@pytest.mark.parametrize("verb", ["clean", "objects", "vectors of maps"])
def test_while_another_run_writes_there_it_is_refused(case, tmp_path, client, verb):
    output = tmp_path / VERBS[verb].output
    held = f"{output}.unfinished" if output.suffix == ".parquet" else str(output)
    with sole_writer(held), pytest.raises(StoreError, match="another run is writing to it now"):
        call(VERBS[verb], case, tmp_path, client)
    assert not list(tmp_path.iterdir())


# the real command


def command(case: Path, what: Verb, folder: Path) -> list[object]:
    return [SWATHE, what.name, case / what.store, "-o", folder / what.output, *what.flags]


def swathe(case: Path, what: Verb, folder: Path):
    return subprocess.run(command(case, what, folder), capture_output=True, text=True, timeout=300)


def touched(what: Verb, folder: Path) -> bool:
    """Whether a run has begun to write."""
    return any(folder.iterdir())


def kill_once(case: Path, what: Verb, folder: Path, delay: float) -> bool:
    """Begin a run and kill its group some seconds after it first writes; whether it was still running."""
    process = subprocess.Popen(command(case, what, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)  # fmt: skip
    while process.poll() is None and not touched(what, folder):
        time.sleep(0.002)
    time.sleep(delay)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def killed(case: Path, what: Verb, folder: Path, delays: list[float]) -> int:
    """Kill runs at these moments, each continuing the one before; then run to the end, and look at all that is left."""
    count = sum(kill_once(case, what, folder, delay) for delay in delays)
    output = folder / what.output
    if output.is_file():
        assert made(output) == made(case_reference(case, what))
        if what.name == "vectorise" and not Path(f"{output}.unfinished").exists():
            return 0  # it was at its end: the file is whole, nothing is left over, and the same command would refuse it
    if output.is_dir() and (own := read_metadata(str(output))) and own.state != "complete":
        with pytest.raises(StoreError, match=f"not finished; run the same `swathe {what.name}` command again"):
            open_store(str(output))
    before = {} if output.is_dir() and read_metadata(str(output)) is None else steps(folder)
    written, last = watch_writes(case, what, folder, before)
    assert last.returncode == 0, last.stderr
    assert not written, written
    assert made(output) == made(case_reference(case, what))
    allowed = {what.output, f"{what.output}.sha256"}
    allowed |= {f"{what.output}.aux.xml"} if output.suffix == ".tif" else set()
    assert {path.name for path in folder.iterdir()} <= allowed
    assert not [path for path in folder.rglob("*") if ".partial" in path.name or ".swathe" in path.parts]
    return count


def watch_writes(case: Path, what: Verb, folder: Path, before: dict[Path, tuple[int, int]]):
    """Run to the end; give what of `before` was written again, as seen while it ran, and how it ended."""
    written = set()
    process = subprocess.Popen(command(case, what, folder), stdout=-1, stderr=-1, text=True)
    while process.poll() is None:
        for path, stamp in before.items():
            try:
                now = path.stat()
            except OSError:  # cleaned up at the end
                continue
            if (now.st_ino, now.st_mtime_ns) != stamp:
                written.add(path)
        time.sleep(0.05)
    out, err = process.communicate()
    return written, subprocess.CompletedProcess(process.args, process.returncode, out, err)


def case_reference(case: Path, what: Verb) -> Path:
    if what.output != "clean.tif":
        return case / what.output
    path = case / "whole" / what.output
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        done = swathe(case, what, path.parent)
        assert done.returncode == 0, done.stderr
    return path


@pytest.mark.slow
def test_thirty_kills_and_nothing_is_lost(case, tmp_path):
    seed = time.time_ns() % 2**32
    chance = random.Random(seed)
    work = {}
    for name, what in VERBS.items():
        case_reference(case, what)
        work[name] = duration(case, what, tmp_path / f"{what.output}.again")
    plan = {"clean": 7, "clean to tif": 4, "objects": 7, "vectors of objects": 4, "vectors of maps": 7,
            "vectors to gpkg": 3}  # fmt: skip
    cases = [(name, [chance.uniform(0, work[name])]) for name, count in plan.items() for _ in range(count)]
    cases += [(name, [chance.uniform(0, work[name] / 2) for _ in range(3)]) for name in ("clean", "objects")]
    print(f"seed {seed}: works {work}; kills {cases}")

    def one(number: int) -> int:
        name, delays = cases[number]
        for attempt in range(4):  # a kill that came too late is none: again, sooner
            folder = tmp_path / f"{number}.{attempt}"
            folder.mkdir()
            sooner = [delay / 2**attempt for delay in delays]
            try:
                if count := killed(case, VERBS[name], folder, sooner):
                    return count
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, case {number} {name} {sooner}: {error}") from error
        return 0

    with ThreadPoolExecutor(2) as pool:
        count = sum(pool.map(one, range(len(cases))))
    print(f"{count} of {sum(len(delays) for _, delays in cases)} were killed while they ran")
    assert count >= 30


def duration(case: Path, what: Verb, folder: Path) -> float:
    """Give the seconds from a run's first writing to its end."""
    folder.mkdir()
    process = subprocess.Popen(command(case, what, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not touched(what, folder):
        time.sleep(0.002)
    began = time.monotonic()
    assert process.wait() == 0
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["clean", "objects", "vectors of maps"])
def test_a_signal_stops_soon_and_says_how_to_go_on(case, tmp_path, verb):
    what = VERBS[verb]
    process = subprocess.Popen(command(case, what, tmp_path), stdout=-1, stderr=-1, text=True)
    while len(steps(tmp_path)) < 5 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)  # until the command has heard of them as well
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < GRACE + 0.5
    assert (process.returncode, out) == (130, ""), err
    assert err.splitlines()[-1] == "stopped; what is finished is kept, run the same command again to continue"
    assert "Traceback" not in err
    assert swathe(case, what, tmp_path).returncode == 0
    assert made(tmp_path / what.output) == made(case / what.output)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["clean", "objects", "vectors of maps", "vectors to gpkg"])
def test_of_two_commands_at_once_one_is_refused_and_the_other_undisturbed(case, tmp_path, verb):
    what = VERBS[verb]
    both = [subprocess.Popen(command(case, what, tmp_path), stdout=-1, stderr=-1, text=True) for _ in range(2)]
    ended = [(process.communicate(timeout=120)[1].splitlines()[-1], process.returncode) for process in both]
    assert sorted(code for _, code in ended) == [0, 1], ended
    (said,) = [line for line, code in ended if code]
    assert "another run is writing to it now" in said
    assert made(tmp_path / what.output) == made(case / what.output)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".sha256"] == [what.output]


@pytest.mark.slow
@pytest.mark.parametrize("verb", list(VERBS))
def test_a_full_disk_is_said_and_leaves_nothing_half(case, disk, verb):  # noqa: F811
    what, size = VERBS[verb], 400
    place = disk(f"size={size}k")
    while (done := swathe(case, what, place)).returncode == 0 and size > 100:
        size //= 2
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        disk(f"size={size}k")
    assert done.returncode == 1, done.stderr
    assert re_one_line(done.stderr, "No space left|full|could not be written|cannot be written"), done.stderr
    output = place / what.output
    assert not output.is_file()
    if output.is_dir():
        with pytest.raises(StoreError):
            open_store(str(output))
    before = steps(place)
    disk("size=64m")
    written, again = watch_writes(case, what, place, before)
    assert again.returncode == 0, again.stderr
    assert not written
    assert made(output) == made(case_reference(case, what))
