"""Runs whose workers and schedulers are killed, and the benchmark that does it by the hundred."""

import json
from pathlib import Path

import pytest

from benchmarks.chaos import main as chaos
from benchmarks.chaos_processes import Hit, in_flight, read_work, redone
from benchmarks.chaos_scene import difference
from benchmarks.soak import MOST, Series
from benchmarks.two_hosts import why_not


def test_blocks_that_were_begun_twice_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "blocks.log"
    log.write_text(
        "begin 1.0 7 o.zarr 0.0.0\nbegin 1.0 8 o.zarr 0.0.1\nbegin 1.5 8 other.zarr 0.0.1\nend 2.0 7 o.zarr 0.0.0\n"
        "begin 2.0 7 o.zarr 0.0.2\nbegin 3.0 9 o.zarr 0.0.1\nend 4.0 9 o.zarr 0.0.1\n"
    )
    work = read_work(log, "o.zarr")
    assert redone(work) == 1
    assert in_flight(work, [Hit("killed", frozenset([8]), 2.0, 2.0)]) == 1
    assert in_flight(work, [Hit("killed", frozenset([7, 8]), 2.9, 2.9)]) == 3  # word of an end may not have arrived
    assert in_flight(work, [Hit("killed", frozenset([9]), 2.0, 2.0)]) == 0
    assert in_flight(work, [Hit("cut off", frozenset([9]), 2.0, 3.0)]) == 1


def test_outputs_differ_by_any_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "x/0").write_text("same")
        (tmp_path / name / "zarr.json").write_text(
            json.dumps({"attributes": {"swathe": {"state": "complete", "identity": 1, "results": {}, "at": name}}})
        )
    assert difference(tmp_path / "a", tmp_path / "b") == ""
    (tmp_path / "b/x/0").write_text("else")
    assert difference(tmp_path / "a", tmp_path / "b") == "other bytes: ['x/0']"
    (tmp_path / "b/x/1").write_text("more")
    assert difference(tmp_path / "a", tmp_path / "b") == "other files: ['x/1']"


@pytest.mark.slow
def test_outputs_are_the_same_when_workers_are_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ["kill"]
    code = chaos(["--only", *kinds, "--runs", "1", "--lanes", "1", "--folder", str(tmp_path)])
    said = capsys.readouterr().out
    assert code == 0, said
    rows = {line.split()[0]: line.split()[1:4] for line in said.splitlines() if line.endswith(" of 1")}
    assert rows == {kind: ["1", "1", "0"] for kind in kinds}


def test_what_grows_is_seen() -> None:
    series = Series([float(n) for n in range(100)], {name: [5.0] * 100 for name in MOST})
    assert not any(series.grows(name) for name in MOST)
    series.values["files"] = [n / 10 for n in range(100)]
    series.values["RSS"] = [1e9 + 0.3e6 * n for n in range(100)]  # by 15 MB after warming up, of 1 GB
    assert [name for name in MOST if series.grows(name)] == ["files"]
    series.values["RSS"] = [1e8 + 0.3e6 * n for n in range(100)]
    assert [name for name in MOST if series.grows(name)] == ["RSS", "files"]
    assert series.growth("files") == pytest.approx((5.75, 9.15, 4.9))


def test_namespaces_are_there_or_it_is_said_why_not() -> None:
    assert why_not() == "" or "network namespaces" in why_not()
