"""Encode whole shards as Zarr would write them, to the byte, in the thread that has them.

Zarr gives each chunk to a pool of its own by way of an event loop that all threads share: they wait for each other
there, and spend half as much again as the compression takes.
Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs.zstd import Zstd  # type: ignore[import-untyped]
from numpy.typing import NDArray
from zarr.codecs import ShardingCodec, ZstdCodec
from zarr.core.indexing import morton_order_iter
from zarr.core.metadata import ArrayV3Metadata


def encode_shard(array: "zarr.Array[Any]", values: NDArray[Any]) -> bytes:
    """Encode one shard.

    Parameters
    ----------
    array
        Whose shard it is: little-endian chunks compressed by zstd, the index at the shard's end with its CRC-32C, as
        `lifecycle.create_store` makes them.
    values
        All pixels of the shard `(..., y, x)`; fewer at the array's far edges.

    Returns
    -------
    bytes
        Chunks in Morton order, those beyond the edge full of the fill value; then the index.
    """
    assert array.shards is not None
    compressor = _compressor(array)
    counts = tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))
    index, parts, offset = np.empty((*counts, 2), "<u8"), [], 0
    for place in morton_order_iter(counts):
        part: bytes = compressor.encode(_chunk(array, values, place))
        index[place] = offset, len(part)
        parts.append(part)
        offset += len(part)
    table = index.tobytes()
    return b"".join([*parts, table, int(google_crc32c.value(table)).to_bytes(4, "little")])


def _compressor(array: "zarr.Array[Any]") -> Zstd:
    """Return the compressor of an array's chunks. Raises ValueError: it is not one of ours."""
    match array.metadata:
        case ArrayV3Metadata(codecs=(ShardingCodec(codecs=(_, ZstdCodec(level=level, checksum=checksum))),)):
            return _zstd(level, checksum)
    raise ValueError(f"{array.path} has other codecs than Swathe gives it; run again with --overwrite")


@lru_cache
def _zstd(level: int, checksum: bool) -> Zstd:
    return Zstd(level=level, checksum=checksum)


def _chunk(array: "zarr.Array[Any]", values: NDArray[Any], place: tuple[int, ...]) -> NDArray[Any]:
    """Return a chunk's values, contiguous; those beyond what there is are the fill value."""
    dtype = array.dtype.newbyteorder("<")
    corner = tuple(number * side for number, side in zip(place, array.chunks, strict=True))
    here = values[tuple(slice(start, start + side) for start, side in zip(corner, array.chunks, strict=True))]
    if here.shape == array.chunks:
        return np.ascontiguousarray(here, dtype)
    chunk = np.full(array.chunks, array.fill_value, dtype)
    chunk[tuple(slice(0, side) for side in here.shape)] = here
    return chunk
