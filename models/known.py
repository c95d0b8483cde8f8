"""Bundles by name: the user's own folder of them, and published networks that are known to import."""

from dataclasses import dataclass
from pathlib import Path

from .bundle import ITEM, Bundle, load_bundle
from .errors import BundleError
from .system import bundles_folder


@dataclass(frozen=True)
class Known:
    """A published network that was imported, run and compared here; it is not part of Swathe and fetched by nobody.

    Parameters
    ----------
    name
        What its bundle is called.
    finds
        Its classes, and in which images.
    source
        Where it is published, with the version that was tried.
    licence
        Of the weights, as the SPDX calls it; whose they are.
    command
        How it becomes a bundle.
    """

    name: str
    finds: str
    source: str
    licence: str
    command: str


def _csmask(bands: str, level: str, values: str) -> Known:
    made = f"{bands[0]}b_{level}"
    return Known(
        f"csmask-{bands[0]}b-{level}",
        f"clouds and cloud shadows in Sentinel-2 and Landsat, {bands} bands, {values} reflectance, 10 to 30 m",
        "PyPI: ukis-csmask 1.0.0",
        "Apache-2.0, German Aerospace Center",
        f"swathe import ukis_csmask/model_{made}.onnx --config examples/csmask_{made}.toml -o csmask_{made}",
    )


KNOWN = (
    _csmask("4", "l1c", "top-of-atmosphere"),
    _csmask("4", "l2a", "surface"),
    _csmask("6", "l1c", "top-of-atmosphere"),
    _csmask("6", "l2a", "surface"),
)


def own_bundles() -> tuple[list[Bundle], list[str]]:
    """Load the bundles in the user's folder, in the order of their names; and say which of them cannot be used."""
    folder, bundles, unusable = bundles_folder(), [], []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _may_be_bundle(path):
            try:
                bundles.append(load_bundle(path))
            except BundleError as error:
                unusable.append(str(error))
    return bundles, unusable


def _may_be_bundle(path: Path) -> bool:
    return not path.name.startswith(".") and (path.suffix == ".zip" or (path / ITEM).exists())
