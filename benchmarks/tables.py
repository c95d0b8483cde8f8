"""Tables of very many rows: how much memory the client and a worker take, and how that grows with the number of rows.

    python -m benchmarks.tables --sizes 1024,2048,4096

On chessboards, whose black squares are objects, one for every two pixels: 4096 x 4096 pixels have 8.4 million. All are
cut into blocks of the same size, so that what a worker holds at once is the same. Each verb runs in a fresh process,
with one Dask worker of two threads in another:

objects    `write_objects` without mean widths, its table in parts
parts      `write_vectors` of what `objects` left, as a folder of GeoParquet
file       the same as one GeoParquet file
cells      `write_cells` of what `objects` left, by cells of 4 x 4 pixels, as one GeoParquet file: 4096 x 4096 have 10^6

`client` and `worker` are the peaks of the processes, nothing subtracted. `per row` is what the client takes for each
row more, from the smallest to the largest size. The rows are counted in what was written. Promise: nearly nothing.
"""

import argparse
from pathlib import Path
from typing import Any

from .child import cpu_seconds, measure, peak_bytes, report, run_module, table, workplace

VERBS = ("objects", "parts", "file", "cells")
BLOCK = 256
CELL = 4


def run_verb(verb: str, folder: Path) -> None:
    """Do a verb in this process with a worker in another, and report both."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        before = cpu_seconds()
        _do(verb, folder, client)
        used, (worker,) = cpu_seconds() - before, client.run(peak_bytes).values()
    report(rows=_count(verb, folder), client=peak_bytes(), worker=worker, cpu=used)


def _do(verb: str, folder: Path, client: Any) -> None:
    from pipeline import write_cells, write_objects, write_vectors

    objects, more = folder / "objects.zarr", {"client": client, "show": False}
    if verb == "objects":
        write_objects(folder / "mask.zarr", objects, widths=False, **more)
    elif verb == "cells":
        write_cells(objects, folder / "cells.parquet", CELL, **more)
    else:
        write_vectors(objects, f"{folder}/parts/" if verb == "parts" else folder / "file.parquet", **more)


def _count(verb: str, folder: Path) -> int:
    import pyarrow.parquet as pq

    paths = {
        "objects": "objects.zarr/table.parquet", "parts": "parts/_metadata",
        "file": "file.parquet", "cells": "cells.parquet",
    }  # fmt: skip
    path = folder / paths[verb]
    return int(pq.read_metadata(path / "_metadata" if path.is_dir() else path).num_rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Tables of very many rows.")
    parser.add_argument("--sizes", default="1024,2048,4096", help="rows and columns of the chessboards")
    parser.add_argument("--folder", type=Path, help="where masks and outputs go while they are needed")
    parser.add_argument("--verb", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.verb:
        run_verb(chosen.verb[0], Path(chosen.verb[1]))
    elif chosen.make:
        from .masks import write_mask

        write_mask(chosen.make[1], "chess", int(chosen.make[0]), BLOCK)
    else:
        with workplace(chosen.folder) as folder:
            measure_all([int(size) for size in chosen.sizes.split(",")], folder)


def measure_all(sizes: list[int], folder: Path) -> None:
    """Measure all verbs on all sizes and print the table."""
    found: dict[str, list[dict[str, Any]]] = {verb: [] for verb in VERBS}
    for size in sizes:
        place = folder / str(size)
        place.mkdir()
        run_module("benchmarks.tables", "--make", size, place / "mask.zarr")
        for verb in VERBS:
            found[verb].append(measure("benchmarks.tables", "--verb", verb, place))
            print(f"{size} {verb}: {found[verb][-1]}", flush=True)
    rows = []
    for verb, runs in found.items():
        more = runs[-1]["rows"] - runs[0]["rows"]
        slope = f"{(runs[-1]['client'] - runs[0]['client']) / more:.1f} B" if more else ""
        for size, run in zip(sizes, runs, strict=True):
            peaks = [f"{run[name] / 1e9:.2f} GB" for name in ("client", "worker")]
            rows.append([f"{verb}, {size}", f"{run['rows']:,}", f"{run['cpu']:.1f}", *peaks, slope])
    print(f"\n{table(['', 'rows', 'client cpu s', 'client', 'worker', 'per row'], rows)}")


if __name__ == "__main__":
    main()
