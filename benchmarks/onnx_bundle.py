"""Prints what an imported ONNX costs: the same networks as bundles of weights and as ONNX graphs, tile after tile.

`python -m benchmarks.onnx_bundle [--side 512] [--repeats 12] [--threads N]`: networks exported by both of torch's
exporters, imported and run by OpenVINO. Both answer the same tile in turns, so that what else the machine does hits
both; the ratio is that of the medians. Fixed sides are those of the tile.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models import Bundle
from models.encoding import Encoding
from models.engine import Engine, EngineSpec, make_engine
from models.importing import import_onnx

from .networks import make_bundle
from .scenes import BANDS

NETWORKS: dict[str, tuple[int, ...]] = {"simple-unet": (), "unet": (24, 48, 96)}  # and widths, if others than its own
WITHIN = 0.05  # that an imported network may be slower
FREE = {0: "n", 2: "y", 3: "x"}


def export(network: nn.Module, path: Path, side: int, *, dynamo: bool, fixed: bool) -> Path:
    """Write the network alone, from scaled pixels to logits, as most who publish one do."""
    rows, columns = (32 * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    free = {"dynamic_shapes": ({2: rows, 3: columns},)} if dynamo else {"dynamic_axes": {"x": FREE, "y": FREE}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing; of the older exporter, that it is older
        torch.onnx.export(
            network.requires_grad_(False), (torch.zeros(1, len(BANDS), side, side),), str(path), input_names=["x"],
            output_names=["y"], dynamo=dynamo, external_data=False, verbose=False, **({} if fixed else free),
        )  # fmt: skip
    return path


def imported(bundle: Bundle, folder: Path, side: int) -> Iterator[tuple[str, Bundle]]:
    """Yield the network of a bundle as it is imported from ONNX, by how that was written."""
    metadata = bundle.metadata
    settings = {
        "name": metadata.name, "bands": list(metadata.band_names), "dtype": metadata.dtype,
        "scaling": {"mean": list(metadata.scaling.first), "stddev": list(metadata.scaling.second)},
        "classes": [{"name": info.name, "color": info.color} for info in metadata.classes],
    }  # fmt: skip
    for name, dynamo, fixed in (
        ("older exporter", False, False),
        ("dynamo", True, False),
        ("fixed sides", False, True),
    ):
        path = export(bundle.network(), folder / f"{metadata.name} {name}.onnx", side, dynamo=dynamo, fixed=fixed)
        yield name, import_onnx(path, settings, folder / f"{metadata.name} {name}")


def seconds(engine: Engine, tile: NDArray[np.uint16], encoding: Encoding) -> float:
    """Return how long an engine takes for a tile."""
    began = time.perf_counter()
    engine.segment(tile, encoding)
    return time.perf_counter() - began


def compare(bundle: Bundle, other: Bundle, side: int, repeats: int, threads: int | None) -> tuple[float, float, float]:
    """Return the median seconds of two bundles that answer the same tile in turns, and how far they differ."""
    engines = [make_engine(one, EngineSpec("openvino", "cpu", threads=threads)) for one in (bundle, other)]
    tile = np.random.default_rng(0).normal(1500, 600, (1, len(BANDS), side, side)).clip(0, 10_000).astype(np.uint16)
    encoding = Encoding(None, "uint8", (0, 1))
    times = [[seconds(engine, tile, encoding) for engine in engines] for _ in range(repeats + 2)][2:]
    difference = float(np.abs(engines[0].predict(tile) - engines[1].predict(tile)).max())
    first, second = (statistics.median(one) for one in zip(*times, strict=True))
    return first, second, difference


def main() -> None:
    """Print a line for each network and each way of writing it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        for architecture, widths in NETWORKS.items():
            bundle = make_bundle(Path(name), architecture, widths=widths)
            for how, other in imported(bundle, Path(name), given.side):
                first, second, difference = compare(bundle, other, given.side, given.repeats, given.threads)
                worst = max(worst, second / first)
                print(f"{architecture:12} {how:15} bundle {first:.4f} s, ONNX {second:.4f} s a tile of {given.side}: "
                      f"ratio {second / first:.3f}; probabilities differ by {difference:.1g}", flush=True)  # fmt: skip
    print(f"slowest ratio {worst:.3f}, {'within' if worst <= 1 + WITHIN else 'NOT within'} {WITHIN:.0%}")


if __name__ == "__main__":
    main()
