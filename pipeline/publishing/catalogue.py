"""The catalogue of a publication, written when all cells are done; `collection.json` last: it is whole or absent.

Just before, `_SHA256SUMS` gets the digests of all files.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pystac

from models.bundle import shipped_bundles
from models.files import digest_text, sha256_of

from ..store.files import Files
from ..store.manifest import file_digest
from ..store.pam import auxiliary
from ..store.placing import place
from ..store.store import store_errors
from .cells import Cell
from .items import Published, make_collection, make_item, to_dict
from .mosaics import style, vrt, write_gti
from .state import COLLECTION, STATE, SUMS

AT_A_TIME = 16  # small files that are written at a time


def write_catalogue(files: Files, what: Published) -> None:
    """Write all that makes the cells of a publication one map.

    Raises
    ------
    StoreError
        The disk or the object store refuses.
    """
    cells, made = what.cells(), _Written(files, _cell_digests(files, what))
    with store_errors(files.root), _folder(files) as folder:
        for number, array in enumerate(what.arrays):
            name = f"mosaic_{array.name}" if number else "mosaic"
            own: dict[str, Cell] = {cell.file(array.name): cell for cell, there in cells.items() if array.name in there}
            if array.name == "class_map":
                made.write(f"{name}.qml", style(what))
            write_gti(folder / "gti.gpkg", what, array, own)
            made.put(folder / "gti.gpkg", f"{name}.gti.gpkg")
            made.write(f"{name}.vrt", vrt(what, array, own))
        model = _write_model(made, str(what.metadata.bundle.get("digest", "")))
        title = files.root.rstrip("/").rsplit("/", 1)[-1] or "maps"
        items = {
            cell.name: make_item(what, cell, there, collection=title, model=model) for cell, there in cells.items()
        }
        texts = {f"items/{name}.json": _encode(to_dict(item)) for name, item in items.items()}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(made.write, texts, texts.values()))
        _write_table(folder / "items.parquet", files, items.values())
        made.put(folder / "items.parquet", "items.parquet")
        collection = _encode(make_collection(what, items, name=title, model=model))
        made.digests[COLLECTION] = hashlib.sha256(collection).hexdigest()
        files.write(SUMS, digest_text(dict(sorted(made.digests.items()))))
        files.write(COLLECTION, collection)


@dataclass(frozen=True, slots=True)
class _Written:
    """The files of a publication, and the digests of those that are there, by name."""

    files: Files
    digests: dict[str, str]

    def write(self, name: str, content: bytes) -> None:
        self.digests[name] = hashlib.sha256(content).hexdigest()
        self.files.write(name, content)

    def put(self, path: Path, name: str) -> None:
        """Give a local file its place."""
        self.digests[name] = sha256_of(path)
        target = f"{self.files.root.rstrip('/')}/{name}"
        place(path, Path(target) if self.files.local else target)


def _cell_digests(files: Files, what: Published) -> dict[str, str]:
    """Return the digests of the cells' files, and of what lies beside them."""
    beside = hashlib.sha256(auxiliary(what.metadata.classes, what.transparent)).hexdigest()
    maps = [f"{name}.aux.xml" for name, file in what.files.items() if file.array == "class_map"]
    own = {name: file.sha256 or file_digest(files, name)[1] for name, file in what.files.items()}
    return own | dict.fromkeys(maps, beside)


def _encode(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


@contextmanager
def _folder(files: Files) -> Iterator[Path]:
    """Yield a folder for files that are put in place when they are whole; on a disk, one on that disk."""
    with tempfile.TemporaryDirectory(dir=f"{files.root}/{STATE}" if files.local else None) as made:
        yield Path(made)


def _write_model(files: _Written, digest: str) -> bool:
    """Put the bundle beside the maps, if it is one that comes with Swathe; return whether it is."""
    known = next((one.path for one in shipped_bundles() if one.digest == digest), None)
    for path in () if known is None else sorted(known.iterdir()):
        files.write(f"model/{path.name}", path.read_bytes())
    return known is not None


def _write_table(path: Path, files: Files, items: Iterable[pystac.Item]) -> None:
    """Write Items as stac-geoparquet; files are named from there, or by their URLs in an object store."""
    from stac_geoparquet.arrow import parse_stac_items_to_arrow, to_parquet

    base = "" if files.local else f"{files.root.rstrip('/')}/"
    rows = [_row(item, base) for item in items]
    around = any(row["bbox"][0] > row["bbox"][2] for row in rows)  # readers would filter by boxes of the wrong side
    to_parquet(parse_stac_items_to_arrow(rows), path, schema_version="1.0.0" if around else "1.1.0", compression="zstd")


def _row(item: pystac.Item, base: str) -> dict[str, Any]:
    row = to_dict(item)
    for part in (*row["assets"].values(), *row["links"]):
        part["href"] = base + part["href"].removeprefix("../")
    return row
