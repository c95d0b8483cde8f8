"""A STAC Item as a scene: the bands of its assets, by name; files are opened for their facts, no pixels are read.

Items of STAC 1.0 and 1.1 (stacspec.org), with their `bands`, or the `eo:bands` of the extension for electro-optical
imagery. An Item may hold anything: what makes no sense is passed over, and what the files say counts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from models.errors import NotAllowedError, SceneError

from .band_names import common_names
from .gdal import printable
from .places import reach
from .raster import RasterBand, RasterSource
from .raster_files import LONGEST_NAME, join, open_rasters
from .stac_bands import BandFacts, band_facts, with_facts
from .stac_items import RASTERS, FoundItem, find_item

if TYPE_CHECKING:
    import pystac

MEDIA = ("image/tiff", "image/jp2", "image/png", "image/jpeg", "image/vnd.stac.geotiff")
# taken where nothing is measured
UNMEASURED = {"visual", "cloud", "cloud-shadow", "snow-ice", "water-mask", "saturation", "data-mask"}
LONGEST_HREF = 4096
MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Asset:
    """A raster that an Item names.

    Parameters
    ----------
    key
        Its name in the Item.
    hrefs
        Where it lies, in full; after the first, alternates.
    band_names
        What the Item calls each of its bands: common name, then own name. Empty: nothing.
    measured
        Whether it holds measured values, and not a picture of them.
    facts
        What the Item says of the values of each band.
    """

    key: str
    hrefs: tuple[str, ...]
    band_names: tuple[tuple[str, ...], ...]
    measured: bool
    facts: tuple[BandFacts, ...] = ()

    @property
    def href(self) -> str:
        """Where it lies, in full."""
        return self.hrefs[0]

    def all_names(self, bands: Sequence[RasterBand] = ()) -> list[tuple[str, ...]]:
        """Return all names of each band, the best first: the Item's, or else its file's, where known; then the key."""
        count = len(bands) or len(self.band_names) or 1
        listed = len(self.band_names)
        places = [band.index - 1 for band in bands] if listed > count else range(count)  # it may list alpha too
        names = [self.band_names[n] if n < listed else () for n in places]
        if count == 1:
            return [tuple(dict.fromkeys((*names[0], self.key)))]
        own = [band.names for band in bands] or [()] * count
        return [tuple(dict.fromkeys((*(names[n] or own[n]), f"{self.key}_{n + 1}"))) for n in range(count)]


def open_item(scene: Any, bands: Sequence[str] | None = None, *, alpha: bool | None = None) -> RasterSource:
    """Open a STAC Item.

    Parameters
    ----------
    scene
        Path or URL of its JSON, or as pystac has it; see `find_item`. Relative addresses in it are relative to it.
    bands
        Names of bands, whose files alone are opened then: a common name, a band's own name, or an asset's key. None:
        all that can be brought onto one grid; notes name the others. Copies of an asset in another format are left out.

    alpha
        See `open_rasters`.

    Raises
    ------
    SceneError
        No STAC Item, or several; no such bands; files that cannot be opened, or lie on different grids.
    """
    found = find_item(scene)
    platform = _platform(found.item)
    assets = _with_common_names(_assets(found), platform)
    if bands is None:
        source = _on_finest_grid(
            _without_copies([asset for asset in assets if asset.measured] or assets), _Opened(alpha, found.origin)
        )
        return replace(source, platform=platform)
    if not bands:
        raise SceneError("no bands asked for")
    opened = _Opened(alpha, found.origin)
    return replace(join([_find_band(assets, band, opened, found.name) for band in bands]), platform=platform)


def _platform(item: "pystac.Item") -> str:
    """Return what an Item says of the sensor; where it says nothing, its id may."""
    said = [item.properties.get(key) for key in ("platform", "constellation", "eo:platform", "eo:constellation")]
    return " ".join(dict.fromkeys(printable(text)[:LONGEST_NAME] for text in (*said, item.id) if isinstance(text, str)))


def _with_common_names(assets: Sequence[Asset], platform: str) -> list[Asset]:
    """Add the common names of bands that an Item calls by their sensor's codes alone."""
    roles = common_names([asset.all_names()[0] if len(asset.band_names) < 2 else () for asset in assets], [platform])
    named = []
    for asset, known in zip(assets, roles, strict=True):
        own = asset.all_names()[0] if known else ()
        added = ((*own, *sorted(known - set(own))),) if known - set(own) else asset.band_names
        named.append(replace(asset, band_names=added))
    return named


def _assets(item: FoundItem) -> list[Asset]:
    """Return the rasters of an Item, measured values first."""
    found = []
    for key, asset in item.item.assets.items():
        listed: Any = [asset.roles] if isinstance(asset.roles, str) else asset.roles
        roles = {role for role in listed if isinstance(role, str)} if isinstance(listed, list) else set()
        if not _is_raster(asset) or roles & {"thumbnail", "overview", "metadata"}:
            continue
        hrefs = tuple(item.address(href) for href in _hrefs(asset))
        if not hrefs:
            named = printable(str(key))[:LONGEST_NAME]
            raise SceneError(f"the asset {named} of the Item has no address that can be used")
        measured = bool(roles & {"data", "reflectance"}) or not roles & UNMEASURED
        names, facts = _names_of_bands(asset.extra_fields), band_facts(item.item.properties, asset.extra_fields)
        found.append(Asset(printable(str(key)), hrefs, names, measured, facts))
    if not found:
        keys = ", ".join(printable(str(key))[:LONGEST_NAME] for key in list(item.item.assets)[:MOST_SHOWN])
        raise SceneError(f"{item.name} has no asset that is a raster; it has: {keys or 'none'}")
    return sorted(found, key=lambda asset: not asset.measured)


def _hrefs(asset: "pystac.Asset") -> list[str]:
    """Return the addresses of an asset: its own, and those of the extension for alternate assets."""
    alternate = asset.extra_fields.get("alternate")
    others = (
        [one.get("href") for one in alternate.values() if isinstance(one, dict)] if isinstance(alternate, dict) else []
    )
    usable = [
        h for h in (asset.href, *others) if isinstance(h, str) and h and h.isprintable() and len(h) <= LONGEST_HREF
    ]
    return list(dict.fromkeys(usable))


def _is_raster(asset: "pystac.Asset") -> bool:
    if isinstance(asset.media_type, str) and asset.media_type:
        return asset.media_type.partition(";")[0].strip().lower() in MEDIA
    return isinstance(asset.href, str) and asset.href.partition("?")[0].lower().endswith(RASTERS)


def _names_of_bands(fields: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Return what an Item calls an asset's bands, by either of its two lists or both."""
    lists = [value if isinstance(value, list) else [] for value in (fields.get("bands"), fields.get("eo:bands"))]
    found = []
    for number in range(max(map(len, lists))):
        entries = [one[number] for one in lists if number < len(one) and isinstance(one[number], dict)]
        names = [entry.get(key) for key in ("eo:common_name", "common_name", "name") for entry in entries]
        found.append(tuple(dict.fromkeys(printable(name) for name in names if isinstance(name, str) and name)))
    return tuple(found) if any(found) else ()


def _without_copies(assets: Sequence[Asset]) -> list[Asset]:
    """Leave out what an asset before holds in another format: the same bands by name, or files of the same name."""
    kept: list[Asset] = []
    for asset in assets:
        if not any(_is_copy(asset, other) for other in kept):
            kept.append(asset)
    return kept


def _is_copy(asset: Asset, other: Asset) -> bool:
    one, two = (PurePosixPath(each.href.partition("?")[0]) for each in (asset, other))
    other_format = one.suffix.lower() != two.suffix.lower()
    if asset.band_names or other.band_names:
        return asset.band_names == other.band_names and (other_format or one.stem == two.stem)
    return other_format and one.stem == two.stem


@dataclass(frozen=True, slots=True)
class _Opened:
    """The files that were opened, by address; how alpha is taken, see `open_rasters`; where their names stand."""

    alpha: bool | None
    origin: str
    sources: dict[str, RasterSource] = field(default_factory=dict)


def _open_asset(asset: Asset, opened: _Opened) -> RasterSource:
    """Open an asset's file, once, and take of its bands what the Item says: their names, and what files do not say."""
    known = opened.sources.get(asset.href)
    source = opened.sources[asset.href] = known or _open_any(asset.hrefs, opened)
    names = asset.all_names(source.raster_bands)
    told = [
        with_facts(replace(band, names=own, codes=not asset.measured), asset.facts)
        for band, own in zip(source.raster_bands, names, strict=True)
    ]
    notes = dict.fromkeys((*source.file_notes, *(note for _, notes in told for note in notes)))
    return replace(source, raster_bands=tuple(band for band, _ in told), file_notes=tuple(notes))


def _open_any(hrefs: Sequence[str], opened: _Opened) -> RasterSource:
    """Open a file by the first of its addresses by which it can be. Raises SceneError, of the first, where none can."""
    refused: SceneError | None = None
    for href in hrefs:
        try:
            reach(href, opened.origin)
            return open_rasters([href], alpha=opened.alpha)
        except SceneError as error:
            refused = refused or error
    raise refused or SceneError("no address")


def _find_band(assets: Sequence[Asset], band: str, opened: _Opened, path: str) -> RasterSource:
    """Find one band, alone and under the name that was asked for; a picture's only where no measured one has it."""
    named = [asset for asset in assets if any(band.lower() in map(str.lower, names) for names in asset.all_names())]
    unnamed = [asset for asset in assets if not asset.band_names]  # only the files know what these hold
    for among in (named, unnamed):
        ranked = [
            (rank, found, source)
            for asset in _without_copies(among)
            for source in [_open_asset(asset, opened)]
            for found in source.raster_bands
            if (rank := _rank(band, asset, found)) is not None
        ]
        least = min((rank for rank, _, _ in ranked), default=None)
        best = [(found, source) for rank, found, source in ranked if rank == least]
        if len(best) == 1:
            found, source = best[0]
            names = tuple(dict.fromkeys((band, *found.names)))
            return replace(source, raster_bands=(replace(found, names=names),))
        if best:
            which = _listed([found.names[:2][-1] for found, _ in best])
            raise SceneError(f"{path} has several bands {band!r}; name one of {which}")
    shown = [names[0] for asset in _without_copies(assets) for names in asset.all_names()]
    raise SceneError(f"{path} has no band {band!r}; it has: {_listed(shown)}")


def _rank(band: str, asset: Asset, found: RasterBand) -> tuple[bool, bool, int] | None:
    """Rank how well a name fits a band, less is better: measured, in the same case, by a better name."""
    for folded, fold in ((False, str), (True, str.lower)):  # B8a and B8A may be two bands
        names = [fold(name) for name in found.names]
        if fold(band) in names:
            return not asset.measured, folded, names.index(fold(band))
    return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return ", ".join(name[:LONGEST_NAME] for name in names[:MOST_SHOWN]) + more


def _on_finest_grid(assets: Sequence[Asset], opened: _Opened) -> RasterSource:
    sources, closed = list[RasterSource](), list[tuple[str, SceneError]]()
    for asset in assets:
        try:
            sources.append(_open_asset(asset, opened))
        except NotAllowedError:
            raise
        except SceneError as error:
            closed.append((asset.key, error))
    if not sources:
        raise closed[0][1]
    joined, left = _joined(sources)
    notes = [f"left out, for {why}" for why in left]
    notes += [f"left out, for they cannot be read: {_listed([key for key, _ in closed])}"] if closed else []
    joined = _with_single_names(joined)
    return replace(joined, file_notes=(*joined.file_notes, *notes))


def _joined(sources: Sequence[RasterSource]) -> tuple[RasterSource, list[str]]:
    """Join what can be brought onto one grid with the largest; of the rest, say why not."""
    kept, left = [max(sources, key=lambda source: source.geobox.height * source.geobox.width)], list[str]()
    for source in sources:
        if source is not kept[0]:
            try:
                join([kept[0], source])
                kept.append(source)
            except SceneError as error:
                left.append(str(error).partition("\n")[0])
    return join([source for source in sources if source in kept]), left


def _with_single_names(source: RasterSource) -> RasterSource:
    """Call each band by the best of its names that no other band has; by its number, where it has none."""
    uses = Counter(name.lower() for band in source.raster_bands for name in band.names)
    bands = []
    for number, band in enumerate(source.raster_bands, 1):
        best = next((name for name in band.names if uses[name.lower()] == 1), f"band_{number}")
        bands.append(replace(band, names=tuple(dict.fromkeys((best, *band.names)))))
    return replace(source, raster_bands=tuple(bands))
