"""Whether a scene's files are still what was indexed: sizes and times first, digests of content only on doubt."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from models.errors import SceneError

from ..io.content_id import remote_url, url_identity
from ..io.gdal import file_stamp, open_raster, run_with_env
from ..io.raster import RasterSource, part_identity, raster_identity


def content_digest(source: RasterSource) -> str:
    """Return a digest of what a source's pixels are: of local files size and pieces, of remote ones what servers say.

    Names of local files do not count: a scene that was moved or copied is the same one.
    """
    return digest_of(source, [identity_of(path) for path in source.paths])


def digest_of(source: RasterSource, files: Sequence[dict[str, Any]]) -> str:
    """Return the digest of a source of whose files the identities are known."""
    facts = {
        "files": list(files),
        "bands": [[source.paths.index(band.path), band.index] for band in source.raster_bands],
        "grid": source.geobox.describe(),
        **source.choices(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def identity_of(path: str) -> dict[str, Any]:
    """Identify one file by its size and a digest of pieces; a virtual raster with the files that it draws on."""
    return raster_identity(path) if _is_virtual(path) else part_identity(path)


@dataclass(frozen=True, slots=True)
class Stamps:
    """What tells without reading whether a scene is still what was indexed.

    Parameters
    ----------
    files
        See `stamps_of`.
    remote
        Identities of files on servers, as these say.
    found
        Digest of what the scene was found as.
    described
        What it was found as, so that it can be read again without being given; None of a STAC Item.
    """

    files: list[Any] = field(default_factory=list)
    remote: list[dict[str, Any]] = field(default_factory=list)
    found: str = ""
    described: dict[str, Any] | None = None

    def text(self) -> str:
        """Return it as JSON."""
        facts = {"files": self.files, "remote": self.remote, "found": self.found, "described": self.described}
        return json.dumps(facts, separators=(",", ":"))

    @staticmethod
    def read(text: str) -> "Stamps":
        """Return what `text` wrote down. Raises SceneError where it is something else."""
        try:
            return Stamps(**json.loads(text))
        except (ValueError, TypeError, RecursionError) as error:
            raise SceneError(
                "an index whose stamps are not as they were written; begin it anew with --overwrite"
            ) from error

    def changed(self) -> list[str]:
        """Return the local files whose size or time is another than then, and those that are gone."""
        return [name for name, *old in self.files if [stamp and list(stamp) for stamp in file_stamp(name)] != old]

    def vouch_for(self, path: str) -> bool:
        """Whether a local file, or the archive that it lies in, is among those whose sizes and times are known."""
        file = local_file(path)
        inside = path.startswith((f"/vsizip/{file}/", f"/vsitar/{file}/"))
        return (path == file or inside) and any(name == file and old[:1] != [None] for name, *old in self.files)

    def hold(self, found: str, named: str) -> bool:
        """Whether a scene, found with a digest, is the one that was indexed.

        Servers are asked for remote files, of which the addresses must be among what the scene names.
        """
        return (
            found == self.found
            and not self.changed()
            and all(str(one["url"]) in named and url_identity(one["url"]) == one for one in self.remote)
        )


def stamps_of(paths: Sequence[str]) -> list[Any]:
    """Return name, and sizes and times, of each local file that reading these paths takes; archives as one file."""
    found: dict[str, Any] = {}
    for path in paths:
        if (name := local_file(path)) is not None:
            drawn_on = _parts(path) if _is_virtual(path) else []
            found |= {one: file_stamp(one) for one in (name, *drawn_on)}
    return [[name, *(stamp and list(stamp) for stamp in stamps)] for name, stamps in found.items()]


def local_file(path: str) -> str | None:
    """Return the local file that a path or GDAL's name of one leads to, as the archive around it; None: it is remote.

    A name that leads nowhere is returned as it is.
    """
    if remote_url(path) or path.startswith(("/vsis3", "/vsigs", "/vsiaz", "/vsicurl")):
        return None
    name = path
    for prefix in ("/vsizip/", "/vsitar/"):
        name = name.removeprefix(prefix)
    inside = name
    while inside not in ("", "/") and not os.path.isfile(inside):
        inside = os.path.dirname(inside)
    return inside if os.path.isfile(inside) else name


def _is_virtual(path: str) -> bool:
    return path.lower().endswith(".vrt") and local_file(path) == path


def _parts(path: str) -> list[str]:
    files = run_with_env(path, lambda: list(open_raster(path).files))
    return [name for name in files if name != path and os.path.isfile(name)]
