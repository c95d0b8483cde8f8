"""STAC Items as scenes: of a JSON file or URL, a saved search with its further pages, stac-geoparquet, or pystac."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from models.errors import SceneError
from models.redact import redact_url

from ..io.gdal import is_remote, printable
from ..io.stac_items import FoundItem, read_json, split_id
from .found import FoundScene
from .search import follow

if TYPE_CHECKING:
    import pystac

BATCH = 1000


def items_of_path(path: str) -> Iterator[FoundScene]:
    """Return the Items of a JSON file or URL: an Item, an ItemCollection, or a search with further pages.

    Raises
    ------
    SceneError
        It cannot be read, is no STAC, or has none of the id behind `#`.
    """
    where, wanted = split_id(path)
    place = where if is_remote(where) else os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
    shown = redact_url(printable(where))
    content = read_json(place, shown)
    found = 0
    for page in follow(content, place):
        for one in page:
            if wanted in ("", one.get("id"), f"{one.get('collection')}/{one.get('id')}"):
                found += 1
                yield found_item(one, place, shown)
    if not found:
        raise SceneError(f"{shown} has no Item {printable(wanted)}" if wanted else f"{shown} has no STAC Item")


def items_of_object(scene: Any) -> Iterator[FoundScene]:
    """Return the Items that pystac or pystac-client hold."""
    if isinstance(scene, Mapping):
        for page in follow(scene, ""):
            yield from (found_item(one, "", "the ItemCollection") for one in page)
        return
    if hasattr(scene, "assets"):
        scene = [scene]
    found = getattr(scene, "items", scene)
    try:
        for item in found() if callable(found) else found:
            own = item.get_self_href() or ""
            yield found_item(item.to_dict(include_self_link=False, transform_hrefs=False), own, f"the Item {item.id}")
    except (OSError, ValueError, AttributeError) as error:
        raise SceneError(f"the Items cannot be read: {printable(str(error))[:200]}") from error


def items_of_parquet(path: str) -> Iterator[FoundScene]:
    """Return the Items of a stac-geoparquet file that others have written.

    Raises
    ------
    SceneError
        It is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    try:
        file = pq.ParquetFile(path)
        if not {"id", "assets", "geometry"} <= set(file.schema_arrow.names):
            raise SceneError(f"{path} is neither an index of scenes nor stac-geoparquet: it has no ids and assets")
        for batch in file.iter_batches(BATCH):
            for item in stac_table_to_items(pa.Table.from_batches([batch])):
                yield found_item(item, path, path)
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError) as error:
        raise SceneError(f"{path} cannot be read as stac-geoparquet: {printable(str(error))[:150]}") from error


def found_item(content: Mapping[str, Any], place: str, shown: str) -> FoundScene:
    """Return the scene that an Item is, with addresses in full and without what may be secret in them.

    Parameters
    ----------
    content
        The Item, as JSON has it.
    place
        Where it was found, which relative addresses are relative to.
    shown
        What messages call that.

    Raises
    ------
    SceneError
        It is no Item.
    """
    import pystac

    try:
        item = pystac.Item.from_dict(dict(content), preserve_dict=False)
    except Exception as error:  # of the wrong kind, or wrong anywhere inside
        raise SceneError(f"{shown} has what is no STAC Item ({printable(str(error))[:100]})") from error
    kept = {
        "type": "Feature",
        "stac_version": content.get("stac_version", "1.0.0"),
        "id": item.id,
        "collection": item.collection_id,
        "geometry": None,
        "properties": content.get("properties", {}),
        "assets": {key: _asset(asset, FoundItem(item, shown, place)) for key, asset in item.assets.items()},
        "links": [{"rel": "self", "href": redact_url(place)}] if place else [],
    }
    name = printable(str(item.id)) or "scene"
    key = f"{item.collection_id or os.path.dirname(redact_url(place))}/{name}"
    return FoundScene(key, name, "item", item=json.dumps(kept, default=str))


def _asset(asset: "pystac.Asset", found: FoundItem) -> dict[str, Any]:
    kept: dict[str, Any] = asset.to_dict()
    if isinstance(asset.href, str) and asset.href:
        kept["href"] = _in_full(asset.href, found)
    others = kept.get("alternate")
    if isinstance(others, dict):
        kept["alternate"] = {
            key: {**one, "href": _in_full(one["href"], found)}
            for key, one in others.items()
            if isinstance(one, dict) and isinstance(one.get("href"), str)
        }
    return kept


def _in_full(href: str, found: FoundItem) -> str:
    """Return an address in full; that of a local file in an Item of a server stays as it is, so that it is seen."""
    local = href.startswith("file://") and is_remote(found.origin)
    return href if local else redact_url(found.address(href))


def without_contradictions(scenes: Iterable[FoundScene]) -> Iterator[FoundScene]:
    """Return each scene once.

    Raises
    ------
    SceneError
        Two Items of one collection and id say different things.
    """
    seen: dict[str, FoundScene] = {}
    for scene in scenes:
        before = seen.setdefault(scene.key, scene)
        if before is scene:
            yield scene
        elif before.digest != scene.digest and scene.kind == "item":
            raise SceneError(f"two Items are {scene.key}, and differ: give one of them")
