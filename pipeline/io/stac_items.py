"""Which STAC Item a scene is: a file or URL of one, a saved search, an ItemCollection, or objects of pystac.

A search is a scene only where it found one Item; of several, one is named by its id. Objects are taken by what they
have, so that those of pystac-client need not be installed.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urljoin

import fsspec

from models.errors import SceneError, SeveralScenesError
from models.limits import LARGEST_JSON, parse_json, refuse_special

from .content_id import fsspec_options
from .gdal import is_remote, printable
from .places import FILE, file_of, raise_refusal

if TYPE_CHECKING:
    import pystac

RASTERS = (".tif", ".tiff", ".jp2", ".vrt", ".img", ".png", ".jpg", ".jpeg")
LONGEST_ID = 100
MOST_IDS = 8
_NAMED = re.compile(r"(.+\.(?:geo)?json(?:\?[^#]*)?|https?://.+/(?:search|items)(?:\?[^#]*)?)#(.+)", re.IGNORECASE)


class ItemLike(Protocol):
    """An Item of pystac."""

    @property
    def assets(self) -> Any:
        """Its Assets by key."""


class ItemsLike(Protocol):
    """An ItemCollection of pystac, or a search of pystac-client."""

    @property
    def items(self) -> Any:
        """Its Items, or a function that gives them."""


StacLike = ItemLike | ItemsLike | Sequence[ItemLike] | Mapping[str, Any]


@dataclass(frozen=True)
class FoundItem:
    """An Item; what messages call it; and where it was found, if relative addresses may be relative to that."""

    item: "pystac.Item"
    name: str
    place: str = ""

    @property
    def origin(self) -> str:
        """Where it was found, or says itself that it lies: what its addresses must lie beside."""
        return self.place or self.item.get_self_href() or ""

    def address(self, href: str) -> str:
        """Return an asset's address in full: a URL, or the path of a local file.

        A relative one is relative to where the Item was found; where nothing lies there, to where it says itself that
        it lies: searches are saved with Items' own words. A `file://` address that is not allowed stays as it is.
        """
        if href.startswith(FILE):
            return file_of(href)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", href) or href.startswith("/vsi"):
            return href.replace(" ", "%20") if href.startswith("http") else href
        own = self.item.get_self_href() or ""
        base = self.place or own
        if is_remote(base):
            return href if os.path.isabs(href) and "://" not in base else _beside(base, href)
        local = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(base)) if base else os.getcwd(), href))
        for path in (local, unquote(local)):
            if os.path.exists(path):
                return path
        return _beside(own, href) if is_remote(own) and not os.path.isabs(href) else local


def _beside(base: str, href: str) -> str:
    """Return a relative URL in full; `urljoin` joins http alone."""
    if base.startswith("http"):
        return urljoin(base, href).replace(" ", "%20")
    scheme, _, path = base.partition("://")
    return f"{scheme}://{os.path.normpath(os.path.join(os.path.dirname(path), href))}"


def is_item(path: str) -> bool:
    """Whether a path or URL may be a STAC Item's, or that of several: by its ending, or as STAC APIs address them."""
    place = path.partition("?")[0].lower()
    _, items, name = place.rpartition("/items/")
    by_api = bool(items) and "/" not in name and not name.endswith((*RASTERS, ".zarr"))
    listed = place.endswith(("/items", "/search"))
    return (
        place.endswith((".json", ".geojson"))
        or _NAMED.fullmatch(path) is not None
        or (place.startswith("http") and (by_api or listed))
    )


def is_stac(scene: Any) -> bool:
    """Whether a scene is one or several STAC Items: by its path, or objects as pystac has them."""
    if isinstance(scene, str | os.PathLike):
        return is_item(os.fspath(scene))
    if isinstance(scene, Mapping):
        return scene.get("type") in ("Feature", "FeatureCollection")
    if isinstance(scene, list | tuple):
        return bool(scene) and all(hasattr(one, "assets") for one in scene)
    return hasattr(scene, "assets") or (hasattr(scene, "items") and hasattr(scene, "to_dict")) or _is_search(scene)


def _is_search(scene: Any) -> bool:
    return callable(getattr(scene, "items", None)) and hasattr(scene, "item_collection")


def find_item(scene: Any) -> FoundItem:
    """Find the one Item that a scene is.

    Parameters
    ----------
    scene
        Path or URL of the JSON of an Item or of an ItemCollection, also with `#` and an Item's id behind; a dict of
        such; an Item or several as pystac has them, or a search of pystac-client.

    Raises
    ------
    SceneError
        No STAC; no Item, several, or none of that id.
    """
    if isinstance(scene, str | os.PathLike):
        return _of_path(os.fspath(scene))
    name = "the ItemCollection"
    if isinstance(scene, Mapping):
        return _chosen(scene, "", name, "")
    if hasattr(scene, "assets"):
        return FoundItem(_checked(scene), f"the Item {printable(str(getattr(scene, 'id', '')))[:LONGEST_ID]}")
    found = getattr(scene, "items", scene)
    name = "the list" if found is scene else "the search" if _is_search(scene) else name
    try:
        items = list(islice(found() if callable(found) else found, MOST_IDS + 1))
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{name} cannot be read: {printable(str(error))[:200]}") from error
    return FoundItem(_checked(_single(items, name, "", False)), name)


def split_id(path: str) -> tuple[str, str]:
    """Return a path or URL of Items, and the id that is named behind `#`; empty: none."""
    named = None if os.path.exists(path) else _NAMED.fullmatch(path)
    return (named[1], named[2]) if named else (path, "")


def _of_path(path: str) -> FoundItem:
    where, wanted = split_id(path)
    place = where if is_remote(where) else os.path.abspath(os.path.expanduser(where.removeprefix("file://")))
    return _chosen(read_json(place, where), place, printable(where), wanted)


def read_json(place: str, shown: str) -> Any:
    """Read JSON from a path or URL, which messages call `shown`. Raises SceneError if it cannot be read, or is none."""
    refuse_special(place, SceneError)
    try:
        with fsspec.open(place, "rb", **fsspec_options(place)) as file:
            return parse_json(file.read(LARGEST_JSON + 1))
    except FileNotFoundError as error:
        raise_refusal(error)
        raise SceneError(f"no such file: {printable(shown)}") from error
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{printable(shown)} is not JSON: {printable(str(error))[:100]}") from error
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"{printable(shown)} cannot be read: {printable(str(error))[:200]}") from error


def _chosen(content: Any, place: str, name: str, wanted: str) -> FoundItem:
    """Take the one Item of JSON, or the one of a collection that has an id."""
    if not (isinstance(content, Mapping) and isinstance(content.get("features"), list)):
        item = _parsed(content, name)
        if wanted not in ("", item.id):
            raise SceneError(f"{name} is the Item {printable(str(item.id))[:LONGEST_ID]}, not {printable(wanted)}")
        return FoundItem(item, name, place)
    features = [one for one in content["features"] if isinstance(one, Mapping) and "assets" in one]
    if content["features"] and not features:
        raise SceneError(f"{name} is JSON, but no STAC Item: its features have no assets; give an Item, or files")
    if wanted:
        matching = [f for f in features if wanted in (f.get("id"), f"{f.get('collection')}/{f.get('id')}")]
        return FoundItem(_parsed(_single(matching, name, wanted, False, features), name), f"{name}#{wanted}", place)
    links = content["links"] if isinstance(content.get("links"), list) else []
    more = any(isinstance(link, Mapping) and link.get("rel") == "next" for link in links)
    return FoundItem(_parsed(_single(features, name, "", more), name), name, place)


def _single(items: Sequence[Any], name: str, wanted: str, more: bool, others: Sequence[Any] = ()) -> Any:
    """Take the only Item. Raises SceneError where there are several or none, with what to do."""
    if len(items) == 1 and not more:
        return items[0]
    if wanted and not items:
        raise SceneError(f"{name} has no Item {printable(wanted)}; it has {_ids(others)}")
    if not items:
        raise SceneError(f"{name} has no STAC Item: the search found nothing")
    count = f"{len(items)}{' or more' if more or len(items) > MOST_IDS else ''}"
    how = "name one by its id, as collection.json#ID" if not name.startswith("the ") else "give one of them"
    raise SeveralScenesError(f"{name} has {count} Items, {_ids(items)}; a scene is one.\n{how[0].upper()}{how[1:]}")


def _ids(items: Iterable[Any]) -> str:
    ids = [str(item.get("id") if isinstance(item, Mapping) else getattr(item, "id", "?")) for item in items]
    shown = ", ".join(printable(one)[:LONGEST_ID] for one in ids[:MOST_IDS]) or "none"
    return shown + (", ..." if len(ids) > MOST_IDS else "")


def _parsed(content: Any, name: str) -> "pystac.Item":
    import pystac  # here, for the tenth of a second that it takes

    try:
        return pystac.Item.from_dict(content)
    except Exception as error:  # of the wrong kind, or wrong anywhere inside
        raise SceneError(
            f"{name} is JSON, but no STAC Item ({printable(str(error))[:100]}); give an Item, or files"
        ) from error


def _checked(item: Any) -> "pystac.Item":
    if not all(
        hasattr(item, name) for name in ("assets", "properties", "get_self_href")
    ):  # a Collection has assets too
        raise SceneError(f"a scene is a STAC Item, as pystac has them; received {type(item).__name__}")
    return item  # type: ignore[no-any-return]
