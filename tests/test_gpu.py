"""The GPU path on a device that is made up: the order of what it is asked for, its memory, its failures.

What CUDA itself does is tested where there is a GPU (`pytest -m gpu`).
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from helpers import pixels
from torch import Tensor, nn

from models.encoding import Encoding, classify, encode
from models.engine import GPU_SLOTS, EngineSpec, make_engine
from models.engine_torch import Shortened, TorchEngine, _shorten, fold_batch_norm
from models.errors import DeviceLostError, EngineError
from models.gpu import GPU, MOST_PIXELS, MOST_TILES, fitting_tiles

ENCODING = Encoding((None, 0.6), "uint8", (0, 1))


class Stream:
    def __init__(self, device: "Pretended", name: str) -> None:
        self.device, self.name = device, name

    def wait_event(self, event: "Event") -> None:
        self.device.log("wait", self.name, event.reached)


class Event:
    """Of a pretended device; only waiting for it brings what was to be fetched."""

    def __init__(self, device: "Pretended") -> None:
        self.device, self.reached, self.due = device, "", list[Callable[[], object]]()

    def record(self, stream: Stream) -> None:
        self.reached = stream.name
        self.device.log("record", stream.name)
        if stream.name == "fetching":
            self.due, self.device.mine.due = self.device.mine.due, []

    def synchronize(self) -> None:
        self.device.log("synchronize", self.reached)
        self.device.hold_back()
        for bring in self.due:
            bring()


class Pretended:
    """A GPU whose copies to the host come as late as they may, and whose memory holds so many tiles."""

    name = "pretended"

    def __init__(self, room: int = 99, one: int = 100, free: int = 10_000) -> None:
        self.room, self.one, self.left = room, one, free
        self.asked: list[int] = []
        self.drained = 0
        self.buffers: list[int] = []
        self.mine = threading.local()
        self.calls: dict[int, list[tuple[str, ...]]] = {}
        self.names = iter(["sending", "computing", "fetching"])
        self.gate: threading.Barrier | None = None
        self.launching = 0

    def log(self, *what: str) -> None:
        self.calls.setdefault(threading.get_ident(), []).append(what)

    def hold_back(self) -> None:
        if self.gate:
            self.gate.wait(timeout=20)

    def host_memory(self, size: int) -> Tensor:
        self.buffers.append(size)
        return torch.full((size,), 77, dtype=torch.uint8)

    def stream(self) -> Stream:
        return Stream(self, next(self.names))

    def event(self) -> Event:
        return Event(self)

    @contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        self.log("on", stream.name)
        yield

    def send(self, tiles: Tensor) -> Tensor:
        self.log("send")
        self.mine.due = []
        return tiles.clone()

    def fetch(self, result: Tensor, into: Tensor) -> None:
        self.log("fetch")
        self.mine.due.append(partial(into.copy_, result))

    @contextmanager
    def kernels(self) -> Iterator[None]:
        self.launching += 1
        assert self.launching == 1, "two calls launch at a time"
        yield
        self.launching -= 1

    def start_measuring(self) -> None:
        pass

    def measured(self) -> int:
        return self.one

    def free(self) -> int:
        return self.left

    def drain(self) -> None:
        self.log("drain")
        self.drained += 1

    def network(self, segmenter: nn.Module) -> Callable[[Tensor], Tensor]:
        def run(tiles: Tensor) -> Tensor:
            assert tiles.is_contiguous(memory_format=torch.channels_last)
            self.log("network")
            self.asked.append(len(tiles))
            if len(tiles) > self.room:
                self.launching -= 1
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return segmenter(tiles)

        return run


@pytest.fixture
def on(bundle_of, monkeypatch, threads) -> Callable[..., TorchEngine]:
    """Make the torch engine of a device that is made up."""

    def make(device: Pretended, **changes: Any) -> TorchEngine:
        made = make_engine(bundle_of("unet", **changes), EngineSpec("torch", "cpu", threads=1))
        assert isinstance(made, TorchEngine)
        made.place = GPU(device, device.network(made.place.network), GPU_SLOTS)
        return made

    return make


def test_a_batch_is_sent_computed_and_fetched_without_a_stop(on):
    device = Pretended()
    engine, tiles = on(device), pixels((2, 3, 32, 32))
    engine.segment(tiles, ENCODING)
    (log,) = device.calls.values()
    log.clear()
    engine.segment(tiles, ENCODING)
    assert log == [
        ("on", "sending"), ("send",), ("record", "sending"),
        ("on", "computing"), ("wait", "computing", "sending"), ("network",), ("record", "computing"),
        ("on", "fetching"), ("wait", "fetching", "computing"), ("fetch",), ("fetch",), ("record", "fetching"),
        ("synchronize", "fetching"),
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float16", "float64", ">u2"])
def test_what_comes_back_is_what_a_cpu_gives(dtype, on, bundle_of):
    cpu = make_engine(bundle_of("unet"), EngineSpec("torch", "cpu", threads=1))
    tiles = pixels((5, 3, 64, 48), "uint8").astype(dtype)
    engine = on(Pretended(free=400))
    np.testing.assert_allclose(engine.predict(tiles), cpu.predict(tiles), atol=1e-6)
    found = engine.segment(tiles[:, :, ::-1], ENCODING)
    right = engine.predict(tiles[:, :, ::-1])
    np.testing.assert_array_equal(found.class_map, [classify(one, ENCODING.thresholds) for one in right])
    np.testing.assert_array_equal(found.probability, [encode(one, np.dtype("uint8")) for one in right])


def test_results_outlive_the_memory_that_they_came_in(on):
    engine = on(Pretended())
    one, other = pixels((1, 3, 32, 32)), pixels((1, 3, 32, 32), seed=1)
    first = engine.predict(one)
    kept = first.copy()
    assert not np.array_equal(engine.predict(other), kept)
    np.testing.assert_array_equal(first, kept)


def test_as_many_calls_as_slots_are_under_way_at_once(on):
    """Each waits for its results until all have been asked for: with fewer at a time, the barrier would break."""
    device = Pretended()
    engine = on(device)
    tiles = [pixels((1, 3, 32, 32 + 16 * (n % 2)), seed=n) for n in range(4 * GPU_SLOTS)]
    alone = [engine.segment(tile, ENCODING).probability for tile in tiles]
    device.gate = threading.Barrier(GPU_SLOTS)
    with ThreadPoolExecutor(2 * GPU_SLOTS) as pool:
        together = list(pool.map(lambda tile: engine.segment(tile, ENCODING).probability, tiles))
    for one, right in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, right)


def test_host_memory_is_kept_and_grows(on):
    device = Pretended()
    engine = on(device)
    for side in (32, 16, 32, 64, 48):
        engine.segment(pixels((1, 3, side, side)), Encoding(None, "uint8", (1,)))
    assert device.buffers == [3 * 32 * 32 * 2, 32 * 32, 32 * 32, 3 * 64 * 64 * 2, 64 * 64, 64 * 64]


def test_the_first_tile_of_a_shape_says_how_many_fit(on):
    device = Pretended(one=100, free=1000)  # half of it holds five, four as a power of two
    engine = on(device)
    engine.predict(pixels((9, 3, 32, 32)))
    assert (device.asked, engine.batch) == ([1, 4, 4], 4)
    device.one = 50  # smaller tiles at the edge: what is read ahead stays that of the large ones
    engine.predict(pixels((9, 3, 16, 32)))
    assert (device.asked[3:], engine.batch) == ([1, 8], 4)


@pytest.mark.parametrize(
    ("one", "free", "side", "count"),
    [(1, 2**40, 64, MOST_TILES), (100, 1000, 64, 4), (1000, 100, 64, 1), (1, 2**40, 1024, MOST_PIXELS // 2**20),
     (1, 2**40, 8192, 1), (0, 1000, 64, MOST_TILES), (100, 0, 64, 1)],
)  # fmt: skip
def test_tiles_at_a_time(one, free, side, count):
    assert fitting_tiles(one, free, (side, side)) == count


def test_batch_is_halved_when_memory_is_short(on, bundle_of, caplog):
    device = Pretended(room=2)
    engine, values = on(device), pixels((9, 3, 32, 32))
    caplog.set_level("WARNING", "swathe")  # clusters of other tests leave handlers that let nothing pass
    found = engine.predict(values)
    assert device.asked == [1, 8, 4, 2, 2, 2, 2]
    assert (engine.batch, device.drained) == (2, 2)
    assert caplog.messages == [f"GPU memory is short: {n // 2} tiles at a time instead of {n}" for n in (8, 4)]
    right = make_engine(bundle_of("unet"), EngineSpec("torch", "cpu", threads=1))
    np.testing.assert_allclose(found, right.predict(values), atol=1e-6)


def test_a_gpu_that_fails_while_a_smaller_batch_is_prepared(on, monkeypatch):
    device = Pretended(room=2)
    engine = on(device)

    def fail() -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(device, "drain", fail)
    with pytest.raises(DeviceLostError, match="the GPU failed"):
        engine.predict(pixels((9, 3, 32, 32)))


def test_one_tile_that_does_not_fit_is_an_error(on):
    device = Pretended(room=0)
    engine = on(device)
    for _ in range(GPU_SLOTS + 1):  # each gives its slot back
        with pytest.raises(
            EngineError, match="one tile of 32 x 48 pixels does not fit in the GPU's memory; use a smaller --tile"
        ):
            engine.predict(pixels((3, 3, 32, 48)))


@pytest.mark.parametrize(
    ("kind", "said", "lost"),
    [
        (torch.AcceleratorError, "CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure'", True),
        (RuntimeError, "CUDA error: an illegal memory access was encountered", True),
        (RuntimeError, "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        (RuntimeError, "CUDA driver error: device-side assert", True),
        (RuntimeError, "Sizes of tensors must match except in dimension 1", False),
    ],
)
@pytest.mark.parametrize("where", ["send", "network", "synchronize"])
def test_a_gpu_that_fails_is_said_in_one_line(kind, said, lost, where, on, monkeypatch):
    device = Pretended()
    engine = on(device)

    def fail(*what: str) -> None:
        if what[0] == where:
            device.launching = 0
            raise kind(said)

    monkeypatch.setattr(device, "log", fail)
    for _ in range(GPU_SLOTS + 1):
        with pytest.raises(DeviceLostError if lost else RuntimeError) as caught:
            engine.predict(pixels((1, 3, 32, 32)))
    assert caught.value.__cause__ is not caught.value
    first = said.split("\n")[0]
    assert str(caught.value) == (f"the GPU failed (pretended): {first}" if lost else said)


def test_memory_that_only_the_driver_is_short_of_is_no_lost_gpu(on, monkeypatch):
    device = Pretended()
    engine, memory = on(device), device.host_memory

    def short(size: int) -> Tensor:
        if size > 4 * 2 * 32 * 32 * 4:  # what four tiles give
            raise torch.AcceleratorError("CUDA error: out of memory")
        return memory(size)

    monkeypatch.setattr(device, "host_memory", short)
    engine.predict(pixels((9, 3, 32, 32)))
    assert device.asked == [1, 4, 4]


@pytest.mark.parametrize(
    ("raised", "kind", "said"),
    [
        (torch.AcceleratorError("CUDA error: unspecified launch failure"), DeviceLostError,
         "the GPU failed (cuda): CUDA error: unspecified launch failure"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), EngineError,
         "the GPU's memory is full (cuda); end what else uses it: CUDA out of memory. Tried to allocate 2.00 GiB"),
    ],
)  # fmt: skip
def test_a_gpu_that_fails_while_the_engine_is_made(raised, kind, said, bundle_of, monkeypatch):
    def broken() -> None:
        raise raised

    monkeypatch.setattr("models.engine_torch.CUDA", broken)
    monkeypatch.setattr("models.engine_torch.prepared", lambda *_, **__: None)
    with pytest.raises(kind) as caught:
        TorchEngine(bundle_of("unet"), "cuda", "fp32", GPU_SLOTS, None, compile=False, fold=True)
    assert (type(caught.value), str(caught.value)) == (kind, said)


@pytest.mark.parametrize("fold", [True, False])
def test_weights_in_half_precision_answer_as_autocast_does(fold, bundle_of, threads):
    torch.set_num_threads(1)
    bundle, tiles = bundle_of("unet"), torch.from_numpy(pixels((1, 3, 64, 64)).astype(np.float32))
    one, other = bundle.segmenter(), bundle.segmenter()
    if fold:
        one.network, other.network = fold_batch_norm(one.network), fold_batch_norm(other.network)
    assert _shorten(one, torch.bfloat16, bundle)
    assert isinstance(one.network, Shortened)
    kinds = {type(module): {p.dtype for p in module.parameters()} for module in one.network.modules()}
    assert kinds[nn.Conv2d] == {torch.bfloat16}
    assert kinds.get(nn.BatchNorm2d, {torch.float32}) == {torch.float32}
    with torch.inference_mode():
        found, exact = one(tiles), bundle.segmenter()(tiles)
        with torch.autocast("cpu", torch.bfloat16):
            right = other(tiles)
    assert found.dtype == torch.float32
    assert found.std() > 0.1
    if fold:
        np.testing.assert_allclose(found, right, atol=1e-6)
    assert (found - exact).abs().mean() < 1.2 * (right - exact).abs().mean()


def test_a_network_with_numbers_of_its_own_keeps_its_weights(bundle_of):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x + torch.ones(1, 3, 1, 1))

    segmenter = bundle_of("unet").segmenter()
    segmenter.network = own = Own()
    assert not _shorten(segmenter, torch.bfloat16, bundle_of("unet"))
    assert segmenter.network is own
    assert own.inner.weight.dtype == torch.float32
