"""What a store takes over from the one that it is made of: its blocks, and where its pixels come from."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .store import Store


def cut_as(store: Store, maps: Store) -> Store:
    """Give maps in the blocks of the store that is filled: made anew meanwhile, the same maps may have others."""
    return replace(maps, plan=store.plan)


def provenance(maps: Store, own: Mapping[str, Any]) -> dict[str, Any]:
    """Give what a store that is made from another one says of where it comes from."""
    kept = {key: own[key] for key in ("bundle", "source", "segmented", "cleaned", "cleaned_from") if key in own}
    return {"segmented": own["identity"], **kept, "made_from": maps.path}
