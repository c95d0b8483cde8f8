"""The benchmarks still run. What they measure here, on tiny scenes, means nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from masks import comb, spiral
from scipy import ndimage

from benchmarks.child import table
from benchmarks.gpu import main as gpu
from benchmarks.host import SleepingEngine
from benchmarks.host import main as host
from benchmarks.masks import LINES, make_block
from benchmarks.objects import main as objects
from benchmarks.overhead import main as overhead
from benchmarks.scenes import BANDS, make_pixels, write_scene
from benchmarks.throughput import main as throughput
from benchmarks.training import PLAIN, STILL, VARIED, ZOOMED, open_sample, swathe_round, write_pair
from benchmarks.training import main as training
from models.encoding import Encoding
from pipeline.grid.geobox import Window
from train.data.statistics import compute_statistics

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one folder for all benchmarks, so that the bundle is made once."""
    return tmp_path_factory.mktemp("benchmarks")


def test_a_scene_is_the_same_however_it_is_cut(tmp_path: Path) -> None:
    write_scene(tmp_path / "scene.tif", 1100)
    with rasterio.open(tmp_path / "scene.tif") as file:
        pixels = file.read()
        assert (file.descriptions, file.nodata, file.crs.to_epsg()) == (BANDS, 0, 32737)
        assert file.block_shapes[0] == (512, 512)
        assert file.compression.value == "DEFLATE"
    window = Window(1000, 1100, 37, 60)
    np.testing.assert_array_equal(pixels[:, 1000:1100, 37:60], make_pixels(window, 1100))
    missing = (pixels == 0).all(axis=0)
    assert 0.005 < missing.mean() < 0.1
    assert np.array_equal(missing, (pixels == 0).any(axis=0))
    assert (pixels.std(axis=(1, 2)) > 300).all()


def test_a_table_is_laid_out_in_columns() -> None:
    assert table(["", "s"], [["long", "1"], ["b", "10"]]) == "       s\n----  --\nlong   1\nb     10"


def test_sizes_and_names_that_make_no_sense_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, reason in ((["--size", "100"], "multiple of 64"), (["--only", "magic"], "takes some of")):
        with pytest.raises(SystemExit):
            throughput(arguments)
        assert reason in capsys.readouterr().err


@pytest.mark.slow
def test_throughput_runs(folder: Path) -> None:
    names = "swathe,engine,monai,dask"
    small = ["--size", "256", "--repeats", "1", "--only", names, "--network", "simple-unet", "--folder", str(folder)]
    said = _said("throughput", *small)
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.count("GB") == 1}
    assert {"swathe", "engine", "dask"} <= set(rows)
    assert 0.95 < float(rows["dask"][8]) <= 1  # agrees
    assert "of the bare engine's pixels/s" in said
    assert ("monai" in rows) != ("monai is not installed" in said)


@pytest.mark.slow
def test_scale_runs(folder: Path) -> None:
    said = _said("scale", "--scenes", "16", "--side", "50", "--loop", "80", "--folder", str(folder / "scale"))
    rows = {line.split("  ")[0]: line for line in said.splitlines() if " GB" in line}
    assert list(rows) == ["index", "plan", "resume", "sea, 2,025 blocks", "sea, 2,500 blocks", "loop"]
    assert (" 2,500 " in rows["plan"], " 2,250 " in rows["resume"]) == (True, True)
    assert float(rows["loop"].split(" ms of CPU")[0].split()[-1]) > 0


@pytest.mark.slow
def test_memory_runs_and_cleans_up(folder: Path) -> None:
    assert _said("memory", "--sizes", "320", "--folder", str(folder)).count(" GB") == 1 + 4
    assert not (folder / "320").exists()


@pytest.mark.slow
def test_publish_runs_and_cleans_up(folder: Path) -> None:
    said = _said("publish", "--size", "2048", "--folder", str(folder / "publish"))
    assert [line.split("  ")[0] for line in said.splitlines()[-2:]] == ["1 worker", "2 workers"]
    assert "as 16 COGs" in said
    assert not (folder / "publish/out").exists()


@pytest.mark.slow
def test_workers_run(folder: Path) -> None:
    said = _said("workers", "--size", "768", "--repeats", "1", "--folder", str(folder))
    rows = [line.split("  ")[0] for line in said.splitlines() if " process" in line]
    assert rows == [f"{name}, {count}" for name in ("free", "simple-unet") for count in ("1 process", "2 processes")]


def test_overhead_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    overhead(["--blocks", "20", "--writes", "10", "--folder", str(folder)])
    said = capsys.readouterr().out
    assert "scheduling: 20 blocks" in said
    assert "writing: 10 blocks" in said


def test_host_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host(["--size", "512", "--repeats", "1", "--rates", "20", "--callers", "2", "--folder", str(folder)])
    said = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in said.splitlines()]
    assert {"map: 1 thread", "probability, overviews: 2 threads", "map: encoding", "decoding"} <= set(rows)
    assert said.count("two threads") == 2
    assert said.count("%") == 2


def test_a_sleeping_engine_is_busy_as_long_as_it_computes() -> None:
    engine, pixels = SleepingEngine(1e5, 0.001), np.full((1, 4, 50, 40), 2000, np.uint16)
    for _ in range(3):
        answer = engine.segment(pixels, Encoding())
    assert answer.class_map.shape == (1, 50, 40)
    assert answer.class_map.all()
    assert engine.computed == pytest.approx(3 * 0.02)
    assert engine.computed < engine.ended - engine.began
    assert engine.busy < 1


@pytest.mark.parametrize(("kind", "whole"), [("spiral", spiral), ("comb", comb)])
def test_lines_are_what_is_known_of_them(kind, whole) -> None:
    for size in (4, 8, 64, 132):
        mask = whole(size)
        np.testing.assert_array_equal(make_block(kind, Window(0, size, 0, size), size), mask)
        np.testing.assert_array_equal(make_block(kind, Window(1, 3, 2, 4), size), mask[1:3, 2:4])
        labels, count = ndimage.label(mask)
        holes, _ = ndimage.label(~mask)
        assert (count, labels[0, 0]) == (1, 1)
        assert (mask.sum(), set(np.bincount(holes.ravel())[1:])) == (LINES[kind](size).pixels, {LINES[kind](size).hole})


def test_objects_refuse_sizes_that_make_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        objects(["--size", "30"])
    assert "multiples of 4" in capsys.readouterr().err


@pytest.mark.slow
def test_objects_run_and_agree(folder: Path) -> None:
    said = _said("objects", "--size", "64", "--peers", "128", "--repeats", "1", "--folder", str(folder / "objects"))
    rows = [line.split() for line in said.splitlines() if line.count("GB") == 1]
    assert {tuple(row[:2]) for row in rows} >= {("comb,", "vectors"), ("spiral,", "fill"), ("noise,", "label,")}
    assert said.count("skimage agrees") == 4
    assert "DOES NOT AGREE" not in said
    assert ("blobs,", "polygons,", "rasterio") in {tuple(row[:3]) for row in rows}
    assert "polygons: rasterio +0 of " in said
    sums = re.search(r"zones: rasterio sum ([+-][\d.]+) of ([\d,.]+) pixels", said)
    assert sums
    assert 0 < abs(float(sums[1])) < 0.02 * float(sums[2].replace(",", ""))
    assert "left out:" not in re.sub(r"\w+ is not installed and is left out:", "", said)


@pytest.mark.usefixtures("threads")
def test_gpu_goes_its_way_on_a_cpu(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--size", "128", "--check", "64", "--repeats", "1", "--networks", "simple-unet", "--precisions", "fp32"]
    gpu([*small, "--device", "cpu", "--folder", str(folder)])
    difference, agrees, batch, *rates, busy = capsys.readouterr().out.splitlines()[-1].split()[2:]
    assert float(difference) < 1e-5
    assert float(agrees) == 1
    assert batch == "1"
    assert len(rates) == 4
    assert 0 < float(busy) <= 1


def test_gpu_says_so_where_there_is_none(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu([])
    assert capsys.readouterr().out == "no CUDA device is visible here: nothing is measured\n"


def test_chips_of_the_training_benchmark_are_those_of_its_files(tmp_path: Path) -> None:
    image, label = write_pair(tmp_path, 512)
    sample, window = open_sample(image, label), Window(10, 266, 37, 293)
    read = sample.read(window)
    with rasterio.open(image) as file:
        pixels = file.read()[:, 10:266, 37:293]
    missing = (pixels == 0).all(axis=0)
    np.testing.assert_array_equal(read.pixels, pixels)
    np.testing.assert_array_equal(read.labels, np.where(missing, 255, pixels[2] > 1200))
    assert missing.any()
    assert {0, 1} < set(np.unique(read.labels))
    statistics = compute_statistics([sample], 2)
    for chips, augment in ((PLAIN, STILL), (ZOOMED, VARIED)):
        took = swathe_round(sample, statistics, chips, augment, 9)()
        assert took.chips == 9
        assert took.wall > 0


def test_training_refuses_a_scene_that_is_too_small(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training(["--size", "300"])
    assert "512 or more" in capsys.readouterr().err


@pytest.mark.slow
def test_training_runs(folder: Path) -> None:
    small = ["--size", "512", "--chips", "8", "--steps", "1", "--repeats", "1", "--folder", str(folder / "training")]
    said = _said("training", *small)
    rows = {line.split("  ")[0] for line in said.splitlines() if line.count(" to ") == 1}
    assert {"plain", "varied", "learning clouds bf16", "learning simple-unet fp32"} <= rows
    assert "against learning buildings bf16: plain " in said
    assert ("torchgeo" in rows) != ("torchgeo is not installed" in said)


def _said(name: str, *arguments: str) -> str:
    """Run a benchmark as a user does and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
