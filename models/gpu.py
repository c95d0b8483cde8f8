"""Tiles through a GPU for several threads at a time: one batch is computed while the next is sent, the last fetched.

A call copies its tiles into page-locked memory, which the GPU reads by itself, and asks for the way there, the network
and the way back on three streams, which wait for each other on the GPU alone. Only then does it wait, for its own
results, without Python's lock. So two or three calls at a time leave the GPU no gap. Kernels are launched well before
their turn comes, in less than a millisecond where a batch takes tens: CUDA graphs would save what nobody waits for.
"""

import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import LifoQueue
from typing import Any, NoReturn, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import DeviceLostError, EngineError
from .timing import spending

logger = logging.getLogger("swathe")

SHARE = 0.5  # of the free memory that one batch may take: tiles of other shapes, and the network's user, need some
MOST_TILES = 32
MOST_PIXELS = 1 << 23  # of a batch, halo and all; more gain nothing, and the host holds as many for each slot
# what torch sends as it is; other types are made float32 on the host first
NATIVE = {np.dtype(t) for t in ("uint8", "int8", "int16", "uint16", "int32", "int64", "float32", "float16")}
BROKEN = ("CUDA error", "CUDA driver", "cuDNN error", "CUDNN_STATUS", "CUBLAS_STATUS", "cublas error", "NVML")
SHORT = ("out of memory", "ALLOC_FAILED")

# one call launches at a time, in the whole process: a batch's kernels stay together, and cuDNN's settings are global
_LAUNCHING = threading.Lock()

Finish = Callable[[Tensor], list[Tensor]]


class Event(Protocol):
    """A point in a stream's work."""

    def record(self, stream: Any) -> None:
        """Put it behind what the stream has been asked for."""

    def synchronize(self) -> None:
        """Wait until it is reached, sleeping, and without Python's lock."""


class Accelerator(Protocol):
    """What is asked of CUDA here, and nothing else: tests put a device of their own in its place."""

    name: str

    def host_memory(self, size: int) -> Tensor:
        """Return so many bytes, uint8 `(size,)`, that the device can read and write by itself."""
        ...

    def stream(self) -> Any:
        """Return a new stream, with `wait_event(event)`: what it is asked for after that begins after the event."""
        ...

    def event(self) -> Event:
        """Return a new event."""
        ...

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Let all that is asked for inside go to a stream."""
        ...

    def send(self, tiles: Tensor) -> Tensor:
        """Ask for tiles in `host_memory` to be copied to the device."""
        ...

    def fetch(self, result: Tensor, into: Tensor) -> None:
        """Ask for a result to be copied into `host_memory`."""

    def kernels(self) -> AbstractContextManager[Any]:
        """Let the same kernels be chosen each time, and no float32 be shortened."""
        ...

    def start_measuring(self) -> None:
        """Forget the peak of memory."""

    def measured(self) -> int:
        """Return by how many bytes memory has grown at most since then."""
        ...

    def free(self) -> int:
        """Return the bytes that a new batch could take."""
        ...

    def drain(self) -> None:
        """Wait for all that was asked for, and let go of memory that nothing holds."""


class CUDA:
    """The GPU that this thread has chosen, else the first that `CUDA_VISIBLE_DEVICES` lets this process see."""

    def __init__(self) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device())
        self.name = f"{torch.cuda.get_device_name(self._device)}, {self._device}"
        self._before = 0

    def host_memory(self, size: int) -> Tensor:
        """See `Accelerator`."""
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)

    def stream(self) -> torch.cuda.Stream:
        """See `Accelerator`."""
        return torch.cuda.Stream(self._device)

    def event(self) -> Event:
        """See `Accelerator`. A thread that waits for a blocking event sleeps: it leaves its core to those that read."""
        return torch.cuda.Event(blocking=True)

    def on(self, stream: torch.cuda.Stream) -> AbstractContextManager[Any]:
        """See `Accelerator`; other threads may have chosen another GPU."""
        return torch.cuda.stream(stream)

    def send(self, tiles: Tensor) -> Tensor:
        """See `Accelerator`."""
        return tiles.to(self._device, non_blocking=True)

    def fetch(self, result: Tensor, into: Tensor) -> None:
        """See `Accelerator`."""
        into.copy_(result, non_blocking=True)

    def kernels(self) -> AbstractContextManager[Any]:
        """See `Accelerator`. cuDNN's default rounds float32 to 10 bits (TF32); its benchmark chooses by the clock."""
        return torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False, fp32_precision="ieee"
        )

    def start_measuring(self) -> None:
        """See `Accelerator`."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def measured(self) -> int:
        """See `Accelerator`."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def free(self) -> int:
        """See `Accelerator`: what the driver has left, and what torch keeps for itself without using it."""
        unused = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        return int(torch.cuda.mem_get_info(self._device)[0]) + unused

    def drain(self) -> None:
        """See `Accelerator`."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()


class HostMemory:
    """Page-locked memory that grows to the largest array it has held: getting such memory takes milliseconds."""

    def __init__(self, device: Accelerator) -> None:
        self._device = device
        self._bytes: Tensor | None = None

    def shaped(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return it as an array; what it held before is gone."""
        size = int(np.prod(shape)) * dtype.itemsize
        if self._bytes is None or len(self._bytes) < size:
            self._bytes = None  # before there are two
            self._bytes = self._device.host_memory(size)
        return self._bytes[:size].view(dtype).view(shape)


class Slot:
    """The host's memory and the events of one call at a time."""

    def __init__(self, device: Accelerator) -> None:
        self.sent, self.computed, self.fetched = device.event(), device.event(), device.event()
        self._device = device
        self._tiles = HostMemory(device)
        self._results: list[HostMemory] = []

    def hold(self, pixels: NDArray[Any]) -> Tensor:
        """Copy tiles to where the device reads them."""
        dtype = pixels.dtype.newbyteorder("=") if pixels.dtype.newbyteorder("=") in NATIVE else np.dtype(np.float32)
        tiles = self._tiles.shaped(pixels.shape, getattr(torch, dtype.name))
        np.copyto(tiles.numpy(), pixels, casting="unsafe")
        return tiles

    def places(self, results: list[Tensor]) -> list[Tensor]:
        """Return where the device is to put results."""
        while len(self._results) < len(results):
            self._results.append(HostMemory(self._device))
        return [
            memory.shaped(tuple(result.shape), result.dtype)
            for memory, result in zip(self._results, results, strict=False)
        ]


class GPU:
    """A network on a GPU, which any number of threads may ask at a time; beyond `slots` of them wait.

    Parameters
    ----------
    device
        Streams, events and memory.
    network
        Raw pixels `(n, band, y, x)` float32, channels last, on the device, to probabilities `(n, class, y, x)` there.
    slots
        Calls at a time.
    """

    def __init__(self, device: Accelerator, network: Callable[[Tensor], Tensor], slots: int) -> None:
        self.batch = 8  # until a tile was measured
        self._device, self.network = device, network
        self._sending, self._computing, self._fetching = (device.stream() for _ in range(3))
        self._free: LifoQueue[Slot] = LifoQueue()  # the last used is the largest
        for _ in range(slots):
            self._free.put(Slot(device))
        self._most: dict[tuple[int, ...], int] = {}  # tiles at a time, by their rows and columns

    def run(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]]:
        """Run the network and `finish` over tiles `(n, band, y, x)`, in as many batches as memory asks for.

        The first tile of each shape goes alone, to measure what it takes. With n, cuDNN may choose other kernels, which
        round float32 otherwise in the last places.

        Raises
        ------
        EngineError
            Not even one tile fits in memory.
        DeviceLostError
            The GPU failed; nothing more can be done in this process.
        """
        parts: list[list[NDArray[Any]]] = []
        start, shape = 0, pixels.shape[2:]
        while start < len(pixels):
            some = pixels[start : start + self._most.get(shape, 1)]
            found = self._fitting(some, finish)
            if found is None:
                fewer = _power_of_two(len(some) - 1)
                logger.warning("GPU memory is short: %d tiles at a time instead of %d", fewer, len(some))
                self._allow(shape, fewer)
                continue
            parts.append(found)
            start += len(some)
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _fitting(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]] | None:
        """Return the results of a batch, or None where memory was short of it."""
        try:
            found = self._in_slot(pixels, finish)
            if found is None:
                self._device.drain()  # only now: the error held what the batch had on the device
        except RuntimeError as error:
            raise_engine_error(error, self._device.name)
        return found

    def _in_slot(self, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]] | None:
        with spending("wait"):
            slot = self._free.get()
        try:
            return self._through(slot, pixels, finish)
        except RuntimeError as error:
            if not is_memory_short(error):
                raise
            if len(pixels) == 1:
                rows, columns = pixels.shape[2:]
                raise EngineError(
                    f"one tile of {rows} x {columns} pixels does not fit in the GPU's memory; use a smaller --tile"
                ) from error
        finally:
            self._free.put(slot)
        return None

    @torch.inference_mode()
    def _through(self, slot: Slot, pixels: NDArray[Any], finish: Finish) -> list[NDArray[Any]]:
        """Send, compute and fetch. What is on the device is held until the end, so that no memory is used twice."""
        device = self._device
        tiles = slot.hold(pixels)
        with device.on(self._sending):
            sent = device.send(tiles)
            slot.sent.record(self._sending)
        with _LAUNCHING, device.on(self._computing), device.kernels():
            self._computing.wait_event(slot.sent)
            results = self._computed(sent, finish)
            slot.computed.record(self._computing)
        with device.on(self._fetching):
            self._fetching.wait_event(slot.computed)
            places = slot.places(results)
            for result, place in zip(results, places, strict=True):
                device.fetch(result, place)
            slot.fetched.record(self._fetching)
        slot.fetched.synchronize()
        return [place.numpy().copy() for place in places]

    def _computed(self, tiles: Tensor, finish: Finish) -> list[Tensor]:
        shape = tuple(tiles.shape[2:])
        new = shape not in self._most
        if new:
            self._device.start_measuring()
        channels_last = tiles.to(torch.float32).contiguous(memory_format=torch.channels_last)
        results = [result.contiguous() for result in finish(self.network(channels_last).to(torch.float32))]
        if new:
            self._allow(shape, fitting_tiles(self._device.measured() // len(tiles), self._device.free(), shape))
        return results

    def _allow(self, shape: tuple[int, ...], most: int) -> None:
        self._most[shape] = most
        self.batch = min(list(self._most.values()))  # that of the largest tiles; at edges there are smaller ones


def fitting_tiles(one: int, free: int, shape: tuple[int, ...]) -> int:
    """Return how many tiles to pass at a time, a power of two.

    Parameters
    ----------
    one, free
        Bytes that one tile takes; bytes that are free.
    shape
        A tile's rows and columns, halo and all.
    """
    most = min(MOST_TILES, MOST_PIXELS // int(np.prod(shape)), int(SHARE * free) // max(1, one))
    return _power_of_two(max(1, most))


def _power_of_two(count: int) -> int:
    """Return the largest that is not above a count of at least one."""
    return 1 << (count.bit_length() - 1)


def is_memory_short(error: RuntimeError) -> bool:
    """Whether a smaller batch may do; torch's own allocator, the driver's and cuDNN's say it in different words."""
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(word in str(error) for word in SHORT)


def raise_engine_error(error: RuntimeError, name: str) -> NoReturn:
    """Raise one of torch's errors as what it says of the GPU: that memory is short or that it failed; else as it is."""
    if is_memory_short(error):
        raise EngineError(f"the GPU's memory is full ({name}); end what else uses it: {_first(error)}") from error
    if isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in BROKEN):
        raise DeviceLostError(f"the GPU failed ({name}): {_first(error)}") from error
    raise error


def _first(error: RuntimeError) -> str:
    return str(error).strip().split("\n", 1)[0]
