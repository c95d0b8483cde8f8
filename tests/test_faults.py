"""The campaign of faults: its frame, and its quick mode."""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from benchmarks.faults.__main__ import Run, find_parts
from benchmarks.faults.__main__ import main as faults
from benchmarks.faults.content import difference
from benchmarks.faults.trial import TOO_LONG, Skipped, Trial, swathe


def right(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    assert folder.is_dir()
    for number in range(2 if quick else 3):
        yield Trial("right", f"fault {seed}.{number}", right=True)


def wrong(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    yield Trial("wrong", f"fault {seed}", right=False, detail="a byte is lost")


def skipped(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    raise Skipped("not root")


def broken(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    yield from right(seed, quick, folder)
    raise OSError("no space")


def nothing(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    yield from ()


def row(said: str, part: str) -> list[str]:
    """Return how many trials of a part were tried, right and wrong, by the table."""
    return next(line.split()[1:4] for line in reversed(said.splitlines()) if line.split()[:1] == [part])


def test_parts_are_counted_and_what_is_wrong_makes_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(["--quick", "--seed", "7"], {"right": right, "skipped": skipped}) == 0
    said, progress = capsys.readouterr()
    assert said.startswith("seed 7: right, skipped\n")
    assert progress.startswith("right: 0 tried, 0 wrong, 0 s; begins\n")
    assert row(said, "right") == ["2", "2", "0"]
    assert "skipped is left out: not root" in said
    assert faults(["--seed", "7"], {"right": right, "wrong": wrong}) == 1
    said = capsys.readouterr().out
    assert "WRONG wrong: fault 7: a byte is lost" in said
    assert row(said, "all") == ["4", "3", "1"]
    assert faults(["--only", "right"], {"right": right, "wrong": wrong}) == 0


@pytest.mark.parametrize(("part", "why"), [(broken, "ended with OSError('no space')"), (nothing, "tried nothing")])
def test_a_part_that_fails_or_tries_nothing_is_wrong(part: Run, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults([], {"part": part, "right": right}) == 1
    said = capsys.readouterr().out
    assert f"WRONG part: the part: {why}" in said
    assert row(said, "right") == ["3", "3", "0"]


def test_the_command_has_limits_and_what_it_said_is_kept() -> None:
    done = swathe("info", "nowhere.tif")
    assert done.code > 0
    assert done.is_clear
    assert "nowhere.tif" in done.last
    assert done.memory > 1 << 20
    slow = swathe("info", "nowhere.tif", seconds=0.05)
    assert (slow.code, slow.is_clear) == (TOO_LONG, False)
    assert swathe("--version", before=("prlimit", "--data=4096")).code != 0


def test_outputs_differ_by_a_byte(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"same")
    assert difference(tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b/x").write_bytes(b"sane")
    assert difference(tmp_path / "a", tmp_path / "b") == "other bytes: ['x']"
    assert difference(tmp_path / "a/x", tmp_path / "b/x") == "other bytes: ['']"
    assert difference(tmp_path / "a", tmp_path / "c") == "no output"


@pytest.mark.parametrize("name", ["a.gpkg", "a.parquet", "a.zip", "a.json", "a.html", "_metadata", "_SHA256SUMS"])
def test_outputs_made_at_another_time_are_the_same_and_others_are_not(tmp_path: Path, name: str) -> None:
    for folder, when, value in (("a", "2026-01-01", 1), ("b", "2026-02-02", 1), ("c", "2026-01-01", 2)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / name, f"{when}T10:00:00Z", value)
    assert difference(tmp_path / "a", tmp_path / "b") == ""
    assert difference(tmp_path / "a", tmp_path / "c") == f"other bytes: [{name!r}]"


def write(file: Path, when: str, value: int) -> None:
    """Write a file of a kind, that says when it was made, and a value."""
    frame = gpd.GeoDataFrame({"value": [value], "when": [when]}, geometry=[shapely.Point(1, 2)], crs=4326)
    if file.suffix == ".gpkg":
        frame.drop(columns="when").to_file(file, metadata={"when": when})
    elif file.suffix == ".parquet":
        frame.to_parquet(file)
    elif file.suffix == ".zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("bundle.json", json.dumps({"when": when, "speed": len(when), "value": value}))
    elif file.name == "_metadata":
        table = pa.table({"value": [1] * value}, metadata={"when": when})
        pq.write_table(table, file)
    elif file.name == "_SHA256SUMS":
        (file.parent / "x.json").write_text(f'"{when}"')
        digest = hashlib.sha256((file.parent / "x.json").read_bytes()).hexdigest()
        file.write_text(f"{digest if value == 1 else 'other'}  x.json\n")
    else:
        file.write_text(f"{when} {value}")


@pytest.mark.slow
def test_nothing_is_wrong_in_the_quick_campaign(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not find_parts():
        pytest.skip("no part is there yet")
    code = faults(["--quick", "--folder", str(tmp_path)])
    assert code == 0, capsys.readouterr().out
