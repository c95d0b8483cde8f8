"""Items of a STAC API: searched for with pystac-client, or the further pages of a search that was saved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from models.errors import SceneError
from models.redact import redact_url

from ..io.gdal import is_remote, printable
from ..io.places import reach, refuse_redirect

if TYPE_CHECKING:
    from pystac_client.stac_api_io import StacApiIO

TIMEOUT = (8, 30)  # seconds to connect, and to wait for an answer


@dataclass(frozen=True, slots=True)
class StacSearch:
    """What a STAC API is asked for.

    Parameters
    ----------
    url
        Of the API's first page.
    collections
        Ids of collections; empty: all.
    bbox
        West, south, east, north in degrees.
    datetime
        A moment, or two with `/` between, as `2024-05-01/2024-08-31`; `..` is open.
    query
        Conditions on properties, as `eo:cloud_cover<20`.
    """

    url: str
    collections: tuple[str, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    datetime: str | None = None
    query: tuple[str, ...] = ()

    def items(self) -> Iterator[dict[str, Any]]:
        """Return what the API has, page by page.

        Raises
        ------
        SceneError
            It does not answer, is no STAC API, refuses the search, or finds nothing.
        """
        from pystac_client import Client

        found = 0
        try:
            client = Client.open(self.url, stac_io=_stac_io())
            by_post = any(link.rel == "search" and link.extra_fields.get("method") == "POST" for link in client.links)
            search = client.search(
                method="POST" if by_post else "GET",  # of which each API has the latter
                collections=list(self.collections) or None,
                bbox=self.bbox,
                datetime=self.datetime,
                query=list(self.query) or None,
            )
            for item in search.items_as_dicts():
                found += 1
                yield item
        except Exception as error:  # of each kind of server, and of what is none
            raise self._refused(error) from error
        if not found:
            raise SceneError(f"the search in {redact_url(self.url)} found nothing")

    def _refused(self, error: Exception) -> SceneError:
        return SceneError(f"the STAC API {redact_url(self.url)} cannot be searched: {_reason(error, self.url)}")


def follow(content: Any, place: str) -> Iterator[list[Mapping[str, Any]]]:
    """Return the Items of JSON: of an Item, an ItemCollection, or a search, whose links to further pages are followed.

    Parameters
    ----------
    content
        The JSON.
    place
        Where it was found: links may be relative to it.

    Raises
    ------
    SceneError
        It is no STAC; a page cannot be read, or comes again.
    """
    shown, seen = redact_url(place) or "the ItemCollection", set[str]()
    while True:
        yield _features(content, shown)
        link = _next(content)
        if link is None:
            return
        asked = repr(sorted(link.items(), key=str))
        if asked in seen:
            raise SceneError(f"{shown} has pages that lead back to one before: nothing was indexed")
        seen.add(asked)
        content = _page(link, place, shown)


def _features(content: Any, shown: str) -> list[Mapping[str, Any]]:
    if isinstance(content, Mapping) and isinstance(content.get("features"), list):
        items = [one for one in content["features"] if isinstance(one, Mapping) and "assets" in one]
        if content["features"] and not items:
            raise SceneError(f"{shown} is JSON, but no STAC: its features have no assets")
        return items
    if isinstance(content, Mapping) and "assets" in content and content.get("type") == "Feature":
        return [content]
    if _next(content) is not None:
        return []
    raise SceneError(f"{shown} is JSON, but neither a STAC Item nor an ItemCollection")


def _next(content: Any) -> dict[str, Any] | None:
    """Return the link to a further page; of a file that holds a search's link alone, that."""
    if not isinstance(content, Mapping) or content.get("type") == "Feature":
        return None
    wanted = ("next",) if "features" in content else ("next", "items", "search")
    links = content.get("links") if isinstance(content.get("links"), list) else []
    for rel in wanted:
        for link in links or []:
            if isinstance(link, Mapping) and link.get("rel") == rel and isinstance(link.get("href"), str):
                return dict(link)
    return None


def _page(link: dict[str, Any], place: str, shown: str) -> Any:
    from pystac import Link

    href = urljoin(place, link["href"]) if is_remote(place) else link["href"]
    if not href.startswith(("http://", "https://")):
        raise SceneError(f"{shown} has a further page at {printable(href)[:100]}, which is no URL")
    reach(href, place)
    try:
        return _stac_io().read_json(Link.from_dict({**link, "href": href}))
    except Exception as error:  # each kind of server has its own errors
        raise SceneError(f"a further page of {shown} cannot be read: {_reason(error, href)}") from error


def _stac_io() -> "StacApiIO":
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    tries = Retry(total=3, connect=1, backoff_factor=0.5, status_forcelist=[429, 502, 503, 504], allowed_methods=None)
    made = StacApiIO(timeout=TIMEOUT, max_retries=tries)
    made.session.hooks["response"].append(_look_at_redirect)
    return made


def _look_at_redirect(response: Any, **_: Any) -> None:
    if response.is_redirect:
        refuse_redirect(response.url, urljoin(response.url, response.headers["location"]))


def _reason(error: Exception, url: str) -> str:
    """Return what went wrong in a line, without what may be secret in a URL."""
    status = getattr(error, "status_code", None)
    text = printable(str(error)).replace(url, redact_url(url))
    for secret in _secrets(url):
        text = text.replace(secret, "...")
    return f"{f'status {status}: ' if status else ''}{text[:200] or type(error).__name__}"


def _secrets(url: str) -> Sequence[str]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return [text for text in (parts.query, parts.password or "", parts.username or "") if text]
