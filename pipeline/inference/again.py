"""The run that made a store, once more: its settings are kept in the store, its scene and bundle are found or given."""

from dataclasses import fields

from models.bundle import Bundle, kept_bundle, load_bundle
from models.errors import BundleError, StoreError

from ..io.scene import SceneLike
from ..mosaic.open import MosaicLike
from ..store.metadata import StoreMetadata
from .options import OPTIONS, SegmentOptions
from .plan import BundleLike, plan_scene
from .run import Segmentation


def segmentation_again(
    metadata: StoreMetadata,
    scene: SceneLike | MosaicLike | None,
    bundle: BundleLike | None,
    *,
    elsewhere: bool,
) -> Segmentation:
    """Plan the run that made a store. It need not be that run: its identity says whether scene and bundle are the same.

    Parameters
    ----------
    metadata
        Of the store.
    scene, bundle
        Where they are not where they were.
    elsewhere
        Other processes run it.

    Raises
    ------
    SwatheError
        The scene or the bundle is not found.
    """
    recorded = metadata.source.get("path")
    if scene is None:
        if not recorded or OPTIONS not in metadata.source:
            raise StoreError("the store does not say of which scene its blocks are; give it with --scene")
        scene = recorded[0] if len(recorded) == 1 else recorded
    found = bundle if isinstance(bundle, Bundle) else _find(metadata, bundle)
    prepared = plan_scene(scene, found, _options(metadata), elsewhere=elsewhere)
    return Segmentation(prepared, metadata.identity if elsewhere else None)


def _find(metadata: StoreMetadata, given: BundleLike | None) -> Bundle:
    name, digest = str(metadata.bundle.get("name", "")), str(metadata.identity["bundle"])
    if given is not None:
        return given if isinstance(given, Bundle) else load_bundle(given)
    for place in (metadata.source.get("bundle"), name):
        try:
            found = load_bundle(place) if place else None
        except BundleError:
            continue
        if found is not None and found.digest == digest:
            return found
    if (kept := kept_bundle(digest)) is not None:
        return kept
    raise StoreError(f"the bundle {name} {digest[:12]} is not where it was; give it with --model")


def _options(metadata: StoreMetadata) -> SegmentOptions:
    """Return the settings of a run, with what it chose by measuring."""
    known = {field.name for field in fields(SegmentOptions)}
    given = {name: value for name, value in metadata.source.get(OPTIONS, {}).items() if name in known}
    identity, plan = metadata.identity, metadata.plan
    if given.get("precision") == "auto":
        given["precision"] = identity["precision"]
    if given.get("halo") == "auto":
        given["halo"] = identity["halo"]
    if plan.grid is not None and not plan.exact:
        given |= {"tile": plan.grid.side, "halo": "exact", "overlap": plan.grid.overlap}
    elif not plan.exact:
        given |= {"tile": plan.tile, "block": plan.block}
    return SegmentOptions(**given)
