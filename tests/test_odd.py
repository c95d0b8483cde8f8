"""About a hundred odd and hostile rasters through the real thing: each ends in a correct map or in a clear refusal.

A worker process does them one after the other, and is replaced when one takes too long or brings it down, so that a
crash of GDAL fails one test and not the session. Run as a script, this file is that worker.
"""

import csv
import json
import select
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 -- registers `.rio`
import xarray as xr
from helpers import BANDS, SHARED, receptive_field, save
from rasterio.enums import ColorInterp

from models import Band, Bundle, BundleMetadata, ClassInfo, SwatheError, z_score

LIMIT = 20  # seconds for one file: of the clock, or of work where other programs have the processors
HUNG = 60  # seconds of the clock after which a file is given up
START = 120  # seconds for a worker to import all it needs, on a busy machine
ODD = SHARED / "odd"
NODATA = 255

# refused by design, for these reasons; everything else that GDAL reads must become a map
UNREADABLE = "cannot be read"
REFUSED = {"complex": "complex numbers", "huge-dims": "declares", "subdatasets-only": "holds no pixels of its own"}


def manifest() -> list[dict[str, str]]:
    if not (ODD / "MANIFEST.csv").exists():
        return []
    with open(ODD / "MANIFEST.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Worker:
    """A process that is sent one path a line and answers with one line of JSON."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def ask(self, path: Path) -> dict[str, Any]:
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        return self.answer(HUNG)

    def start(self) -> None:
        command = [sys.executable, __file__, str(self.folder)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.answer(START) == {"ready": True}

    def answer(self, limit: float) -> dict[str, Any]:
        assert self.process is not None
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], limit)
        line = self.process.stdout.readline() if ready else ""
        if line:
            return json.loads(line)  # type: ignore[no-any-return]
        self.stop()
        return {"outcome": "died" if ready else f"took over {limit} s"}

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                assert pipe is not None
                pipe.close()
            self.process = None


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    made = Worker(tmp_path_factory.mktemp("odd"))
    yield made
    made.stop()


def cases() -> list[Any]:
    """Every file; all but the first of each kind are slow."""
    rows = manifest()
    first = {row["file"].split("/")[0]: row["file"] for row in reversed(rows)}.values()
    marks = {row["file"]: () if row["file"] in first else pytest.mark.slow for row in rows}
    return [pytest.param(row, id=row["file"], marks=marks[row["file"]]) for row in rows]


@pytest.mark.skipif(not ODD.exists(), reason="needs ../shared/data/odd")
@pytest.mark.parametrize("row", cases())
def test_ends_in_a_right_map_or_a_clear_refusal(row: dict[str, str], worker: Worker) -> None:
    path = ODD / row["file"]
    answer = worker.ask(path)
    assert answer.get("seconds", HUNG) <= LIMIT, answer["outcome"]
    assert answer["printed"] == "", "GDAL or rasterio wrote to the terminal"
    if answer["outcome"] == "map":
        assert not row["observed_gdal_behaviour"].startswith("fails to open")
        check_map(path, Path(answer["zarr"]), Path(answer["tif"]))
        return
    assert answer["outcome"] == "refused", answer.get("traceback")
    message = answer["message"]
    assert len(message.splitlines()) <= 2
    assert len(message) < 700
    assert path.name in message
    assert any(reason in message for reason in expected_reasons(row)), message


def expected_reasons(row: dict[str, str]) -> list[str]:
    if not row["observed_gdal_behaviour"].startswith("ok"):
        return [UNREADABLE, REFUSED["huge-dims"]]
    if row["bands"] == "0":
        return [REFUSED["subdatasets-only"]]
    return [text for feature, text in REFUSED.items() if feature in row["features"].split()]


def check_map(path: Path, store: Path, tif: Path) -> None:
    """Compare position and missing pixels with what rasterio itself reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as source, rasterio.open(tif) as made:
            assert made.shape == source.shape
            assert made.transform.almost_equals(source.transform, precision=1e-12)
            assert made.crs == source.crs
            assert made.nodata == NODATA
            missing = missing_in(source)
            np.testing.assert_array_equal(made.read(1) == NODATA, missing)
    with xr.open_zarr(store) as maps:
        assert (maps.rio.crs is None) == (made.crs is None)
        np.testing.assert_array_equal(maps.class_map.isnull().values, missing)


def missing_in(source: rasterio.DatasetReader) -> np.ndarray:
    """Where no band but alpha holds a number that is not nodata, or a mask or alpha band hides the pixel.

    Three pictures are tagged so and are nowhere opaque: their last band is one as the others.
    """
    tagged = source.count > 1 and source.colorinterp[-1] == ColorInterp.alpha
    alpha = tagged and source.read(source.count).max() in (1, 255, np.iinfo(source.dtypes[0]).max)
    data = source.read(list(source.indexes[: -1 if alpha else None]))
    sentinels = np.array([np.nan if v is None else v for v in source.nodatavals[: len(data)]])[:, None, None]
    asked = source.nodata is None and tagged == alpha
    hidden = source.dataset_mask() == 0 if asked else np.zeros(source.shape, bool)
    if alpha:
        hidden |= source.read(source.count) == 0
    return hidden | (~np.isfinite(data) | (data == sentinels)).all(axis=0)


def serve(folder: Path) -> None:
    """Be the worker: read paths, answer with what came of each; what else is printed to the terminal goes along."""
    import os
    import tempfile

    from pipeline.cluster.connect import dask_client

    answers = os.fdopen(os.dup(1), "w")
    with tempfile.TemporaryFile() as printed, dask_client(None, 2) as client:
        os.dup2(printed.fileno(), 1)
        os.dup2(printed.fileno(), 2)
        answers.write(json.dumps({"ready": True}) + "\n")
        answers.flush()
        for number, line in enumerate(sys.stdin):
            printed.truncate(0)
            printed.seek(0)
            clock, work = time.monotonic(), time.process_time()
            answer = attempt(Path(line.rstrip("\n")), folder / f"{os.getpid()}-{number}", client)
            answer["seconds"] = min(time.monotonic() - clock, time.process_time() - work)
            sys.stderr.flush()
            printed.seek(0)
            answer["printed"] = printed.read().decode(errors="replace")
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


def attempt(path: Path, folder: Path, client: Any) -> dict[str, Any]:
    store, tif = folder / "out.zarr", folder / "out.tif"
    try:
        from pipeline import run, write_cog
        from pipeline.io.scene import open_source

        folder.mkdir(parents=True)
        source = open_source(path)
        bundle = bundle_for(len(source.bands), source.dtype, folder.parent)
        every = range(1, len(source.bands) + 1)
        run(path, bundle, store, client=client, show=False, engine="openvino", bands=list(every),
            note=lambda _: None)  # fmt: skip
        write_cog(store, tif)
    except SwatheError as error:
        return {"outcome": "refused", "message": str(error), "kind": type(error).__name__}
    except BaseException as error:
        return {"outcome": repr(error), "traceback": traceback.format_exc()}
    return {"outcome": "map", "zarr": str(store), "tif": str(tif)}


def bundle_for(bands: int, dtype: np.dtype[Any], folder: Path) -> Bundle:
    from models import load_bundle

    path = folder / f"bundle-{bands}-{dtype.name}"
    if path.exists():
        return load_bundle(path)
    middle = 0.0 if dtype.kind == "f" else float(np.iinfo(dtype).max // 2)
    metadata = BundleMetadata(
        name="tiny",
        architecture="simple-unet",
        options={"widths": [4, 8, 8]},
        bands=tuple(Band(BANDS[n] if n < len(BANDS) else f"b{n}", middle) for n in range(bands)),
        dtype=dtype.name,
        scaling=z_score([middle] * bands, [max(middle, 1000.0)] * bands),
        classes=(ClassInfo("other", "000000"), ClassInfo("thing", "FF8800")),
        receptive_field=receptive_field("simple-unet"),
    )
    return save(path, metadata)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
