"""How fast the host is: everything but the network, from GeoTIFF to Zarr store, and whether a device would wait for it.

    python -m benchmarks.host --size 8192 --repeats 3

The whole of `run`, with an engine that costs next to nothing in the network's place: its class maps and probabilities
are made of the input by one operation on integers each, and compress less well than those of the trained SimpleUNet of
`benchmarks.trained` (to 0.02 and 0.28 bytes a pixel, against 0.014 and 0.145). Two outputs: the class map alone, and
with uint8 probabilities and overviews. Each with one thread and with two.

`Mpx/s` by the clock; `Mpx/core-s` by the seconds that all cores together have spent, which say more where others use
the machine too. `decoding` is rasterio reading the same file once, in one thread; `encoding` is the store's codec alone
on the chunks of either output.

Then with an engine that sleeps as long as a device of some speed would compute, one call at a time, and some
milliseconds more per call for the way there and back. `busy` is the share of time, from the begin of the first call to
the end of the last, that the device computes. Its rates count what it sees: the halo too.

Rounds are interleaved after one to warm up; medians are given. All in one process, `run` and all that it starts anew
each time included: a cluster, a store, and the digest of a file of up to 256 MB, 0.15 s that no second thread shortens
and that show in a scene of 4096 x 4096.

Promises, on two cores: 25 Mpx per core-second with probability and overviews, 35 with the map alone; two threads 1.8 x
one; a device that two cores can feed is busy 95 % of the time.
"""

import argparse
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from models.bundle import Bundle
from models.encoding import STEPS, Encoding, Prediction
from models.engine import Engine
from models.system import usable_cpus
from pipeline import plan, run
from pipeline.grid.geobox import Window
from pipeline.inference.predict import share_engine

from .child import cpu_seconds, table, workplace
from .networks import make_bundle
from .scenes import write_scene

OUTPUTS: Mapping[str, dict[str, Any]] = {
    "map": {"probability": None, "overviews": False},
    "probability, overviews": {"probability": "uint8", "overviews": True},
}
THREADS = (1, 2)
SIDE = 1024  # of the windows that are read for `decoding`
BRIGHT, SHIFT = 1500, 6  # the value above which a pixel is of the second class; what is left of it is the probability
LATENCY = 0.005  # seconds that a call to a device takes besides

Rates = dict[str, float]  # Mpx per second, by the clock and by core


class FreeEngine:
    """An engine that costs next to nothing: the last band's values are class and probability."""

    batch = 1
    slots = max(THREADS)

    def predict(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """See `models.engine.Engine`."""
        objects = (pixels[:, -1:] >> SHIFT).astype(np.float32) / np.float32(STEPS)
        return np.concatenate([1 - objects, objects], axis=1)

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """See `models.engine.Engine`; probabilities are uint8 and of the second class, whatever is asked for."""
        band = pixels[:, -1]
        class_map = (band > BRIGHT).view(np.uint8)
        if encoding.probability is None:
            return Prediction(class_map, None)
        return Prediction(class_map, (band >> SHIFT).astype(np.uint8)[:, None])


class SleepingEngine(FreeEngine):
    """A device of some speed: one call at a time computes, the others wait, and Python goes on meanwhile.

    Parameters
    ----------
    rate
        Pixels that the device computes in a second, those of the halo too.
    latency
        Seconds that each call takes besides, in which the device may compute for others.
    slots, batch
        As `models.engine.Engine` has them.
    """

    def __init__(self, rate: float, latency: float = LATENCY, *, slots: int = 2, batch: int = 1) -> None:
        self.rate, self.latency, self.slots, self.batch = rate, latency, slots, batch
        self.computed = self.began = self.ended = 0.0
        self._device = threading.Lock()

    def segment(self, pixels: NDArray[Any], encoding: Encoding) -> Prediction:
        """See `models.engine.Engine`."""
        seconds = pixels[:, 0].size / self.rate
        time.sleep(self.latency)
        with self._device:
            started = time.perf_counter()
            time.sleep(seconds)
            self.began, self.ended = self.began or started, time.perf_counter()
            self.computed += seconds
        return super().segment(pixels, encoding)

    @property
    def busy(self) -> float:
        """Share of the time, from the begin of the first call to the end of the last, that the device computed."""
        return self.computed / (self.ended - self.began) if self.computed else 0.0


def run_with(engine: Engine, scene: Path, bundle: Bundle, store: Path, threads: int, **options: Any) -> Rates:
    """Segment a scene into a new store with an engine in place of the bundle's."""
    options = {"engine": "openvino", "threads": threads, **options}
    share_engine(bundle.digest, plan(scene, bundle, **options).inference.spec, engine)
    shutil.rmtree(store, ignore_errors=True)
    return _rates(lambda: sum(run(scene, bundle, store, show=False, **options).pixels.values()))


def decode(scene: Path) -> Rates:
    """Read a file once, in this thread."""
    with rasterio.Env(GDAL_CACHEMAX=2**28, GDAL_NUM_THREADS="1"), rasterio.open(scene) as file:
        windows = list(Window.of(file.shape).split(SIDE))
        return _rates(lambda: sum(file.read(window=window.to_rasterio())[0].size for window in windows))


def encode(store: Path) -> Rates:
    """Encode all pixels of a store again, chunk by chunk, in this thread; the rate is of pixels of the map."""
    group = zarr.open_group(store, mode="r")
    arrays = [array for _, array in group.members(max_depth=None) if isinstance(array, zarr.Array) and array.shards]
    chunks = [(_codec(array), chunk) for array in arrays for chunk in _chunks(array)]
    pixels = max(array.shape[-2] * array.shape[-1] for array in arrays)
    return _rates(lambda: pixels * all(codec.encode(chunk) for codec, chunk in chunks))


def _codec(array: "zarr.Array[Any]") -> Zstd:
    (codec,) = array.compressors
    if not isinstance(codec, ZstdCodec):
        raise TypeError(f"the store is not encoded by zstd but by {codec}")
    return Zstd(level=codec.level, checksum=codec.checksum)


def _chunks(array: "zarr.Array[Any]") -> list[NDArray[Any]]:
    """Return the chunks of an array; those at the far ends smaller than the store has them."""
    values = np.asarray(array[...])
    layers = values.reshape(-1, *values.shape[-2:])
    windows = list(Window.of(layers.shape[1:]).split(array.chunks[-1]))
    return [np.ascontiguousarray(layer[window.slices]) for layer in layers for window in windows]


def _rates(action: Callable[[], int]) -> Rates:
    """Do something that returns its pixels."""
    started, used = time.perf_counter(), cpu_seconds()
    pixels = action()
    return {
        "Mpx/s": pixels / (time.perf_counter() - started) / 1e6,
        "Mpx/core-s": pixels / (cpu_seconds() - used) / 1e6,
    }


def measure_host(scene: Path, bundle: Bundle, folder: Path, repeats: int) -> None:
    """Run the free engine by outputs and threads, and decoding and encoding alone; print the table."""
    jobs: dict[str, Callable[[], Rates]] = {}
    for name, options in OUTPUTS.items():
        store = folder / f"{len(jobs)}.zarr"
        for threads in THREADS:
            label = f"{name}: {threads} thread{'s' * (threads > 1)}"
            jobs[label] = partial(run_with, FreeEngine(), scene, bundle, store, threads, **options)
        jobs[f"{name}: encoding"] = partial(encode, store)
    jobs["decoding"] = partial(decode, scene)
    found: dict[str, list[Rates]] = {name: [] for name in jobs}
    for _ in range(repeats + 1):
        for name, job in jobs.items():
            found[name].append(job())
    medians = {
        name: {unit: statistics.median(one[unit] for one in rounds[1:]) for unit in rounds[0]}
        for name, rounds in found.items()
    }
    rows = [[name, *(f"{rate:.1f}" for rate in rates.values())] for name, rates in medians.items()]
    print(table(["", "Mpx/s", "Mpx/core-s"], rows), end="\n\n")
    for name in OUTPUTS:
        one, two = (medians[f"{name}: {count}"]["Mpx/s"] for count in ("1 thread", "2 threads"))
        print(f"{name}: two threads {two / one:.2f} x one")


def measure_busy(scene: Path, bundle: Bundle, folder: Path, rates: Sequence[float], callers: Sequence[int]) -> None:
    """Run the sleeping engine at some Mpx per second, called by some threads; print the table."""
    rows = []
    for (name, options), rate, slots in product(OUTPUTS.items(), rates, callers):
        engine = SleepingEngine(rate * 1e6, slots=slots)
        found = run_with(engine, scene, bundle, folder / "busy.zarr", slots, **options)
        rows.append([name, f"{rate:g}", f"{slots}", f"{engine.busy:.1%}", f"{found['Mpx/s']:.1f}"])
    print("\n" + table(["a device of", "Mpx/s", "callers", "busy", "scene Mpx/s"], rows))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The host with an engine that costs nothing, and one that sleeps.")
    parser.add_argument("--size", type=int, default=8192, help="rows and columns")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs="*", default=[30, 45], help="of the sleeping device, in Mpx/s")
    parser.add_argument("--callers", type=int, nargs="*", default=[1, 2, 4], help="threads that call it")
    parser.add_argument("--folder", type=Path, help="where scene, bundle and outputs go and stay")
    chosen = parser.parse_args(arguments)
    with workplace(chosen.folder) as folder:
        bundle, scene = make_bundle(folder), folder / f"scene-{chosen.size}.tif"
        if not scene.exists():
            write_scene(scene, chosen.size)
        print(f"{chosen.size} x {chosen.size} pixels, {usable_cpus()} cores, {chosen.repeats} rounds\n")
        if chosen.repeats:
            measure_host(scene, bundle, folder, chosen.repeats)
        measure_busy(scene, bundle, folder, chosen.rates, chosen.callers)


if __name__ == "__main__":
    main()
