"""Whether a scene fits a bundle: bands, numeric type, resolution. What does not fit is refused with what to do."""

import re
from collections.abc import Sequence

from models.errors import BundleError, SceneError
from models.metadata import BundleMetadata

from ..io.scene import SceneLike, open_source, opens_by_name
from ..io.source import Source

RESOLUTION_FACTOR = 2.0  # finer or coarser than trained on by more than this is refused
UNNAMED = re.compile(r"band_\d+")


def fit_bands(source: Source, metadata: BundleMetadata, bands: Sequence[str | int] | None) -> Source:
    """Take the bands that the network needs, in its order.

    Parameters
    ----------
    source
        The scene, with all its bands.
    metadata
        Of the bundle.
    bands
        The user's choice, in the network's order. None: by the bundle's names; where the scene's bands have no names,
        all of them if their number is right.

    Raises
    ------
    BundleError
        They cannot be told apart, or are too few or too many.
    """
    wanted = metadata.band_names
    if bands is not None:
        if len(bands) != len(wanted):
            raise BundleError(
                f"{metadata.name} needs {len(wanted)} bands ({', '.join(wanted)}); --bands names {len(bands)}"
            )
        return source.select(bands)
    there = {name.lower() for name in source.bands}
    if all(name.lower() in there for name in wanted):
        return source.select(wanted)
    if len(source.bands) == len(wanted) and all(UNNAMED.fullmatch(name) for name in source.bands):
        return source
    shown = ", ".join(source.bands[:12]) + (", ..." if len(source.bands) > 12 else "")
    raise BundleError(
        f"{metadata.name} needs the bands {', '.join(wanted)}; the scene has {len(source.bands)}: {shown}. "
        f"Name them in that order, as --bands {','.join(str(n + 1) for n in range(len(wanted)))}"
    )


def open_matching(scene: SceneLike, metadata: BundleMetadata, bands: Sequence[str | int] | None) -> Source:
    """Open a scene with the bands that the network needs, in its order; see `fit_bands`.

    Raises
    ------
    SceneError, BundleError
        It cannot be opened, or its bands do not fit.
    """
    wanted = metadata.band_names if bands is None else bands
    if len(wanted) != len(metadata.band_names) or not opens_by_name(scene, wanted):
        return fit_bands(open_source(scene), metadata, bands)
    if bands is not None:
        return open_source(scene, bands)
    try:
        return open_source(scene, wanted)
    except SceneError as error:
        return _without_names(scene, metadata, error)


def _without_names(scene: SceneLike, metadata: BundleMetadata, why: SceneError) -> Source:
    """Take a scene's bands where they cannot be had by the network's names; where that fails too, say both."""
    try:
        return fit_bands(open_source(scene), metadata, None)
    except BundleError as error:
        raise BundleError(f"{error}\n({why})") from error


def check_fit(source: Source, metadata: BundleMetadata, *, allow_mismatch: bool = False) -> list[str]:
    """Check numeric type and resolution.

    Returns
    -------
    list of str
        What the user should know although the run goes on.

    Raises
    ------
    BundleError
        The scene is in other units or at another scale than the network was trained on, and `allow_mismatch` is False.
    """
    refusals = [text for text in (_dtype(source, metadata), _resolution(source, metadata)) if text]
    if refusals and not allow_mismatch:
        raise BundleError(f"{'; '.join(refusals)}. Convert the scene, or pass --allow-mismatch if you know better")
    notes = [*refusals, *source.notes]
    if source.geobox.crs is None:
        notes.append("the scene has no CRS: the map has none either, and its resolution is not checked")
    return notes


def _dtype(source: Source, metadata: BundleMetadata) -> str:
    if source.dtype.name == metadata.dtype:
        return ""
    return f"{metadata.name} was trained on {metadata.dtype} values; the scene has {source.dtype.name}"


def _resolution(source: Source, metadata: BundleMetadata) -> str:
    here = source.geobox.resolution()
    if here is None or metadata.resolution is None:
        return ""
    finest, coarsest = metadata.resolution
    if finest / RESOLUTION_FACTOR <= here <= coarsest * RESOLUTION_FACTOR:
        return ""
    trained = f"{finest:g}" if finest == coarsest else f"{finest:g} to {coarsest:g}"
    return f"{metadata.name} was trained at {trained} m per pixel; the scene has {here:.3g} m"
