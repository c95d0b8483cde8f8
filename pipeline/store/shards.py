"""A Zarr store's bytes, read strictly: a shard that is missing or empty is an error, where Zarr gives nodata.

Knows the names of Zarr's files, nothing of what we keep in them. (Later versions of Zarr have a setting for this.)
"""

import re
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import WrapperStore

SHARD = re.compile(r"(^|/)c(/\d+)+$")


class Strict(WrapperStore[Store]):
    """See `strict`."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Read a file, or a part of it; None where there is no such metadata."""
        found = await self._store.get(key, prototype, byte_range)
        if (found is None or len(found) == 0) and SHARD.search(key):
            # not a KeyError nor a FileNotFoundError: Zarr takes those for an empty place
            raise RuntimeError(f"the store is damaged: {key} is {'missing' if found is None else 'empty'}")
        return found


def strict(store: Any) -> Strict:
    """Give a store that raises RuntimeError where a shard is missing or empty."""
    return Strict(store)
