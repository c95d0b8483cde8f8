"""The catalogue of a publication, written when all cells are done; `collection.json` last: it is whole or absent."""

import json
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pystac

from models.bundle import shipped_bundles

from ..store.files import Files
from ..store.placing import place
from ..store.store import store_errors
from .cells import Cell
from .items import Published, make_collection, make_item, to_dict
from .mosaics import style, vrt, write_gti
from .state import COLLECTION, STATE

AT_A_TIME = 16  # small files that are written at a time


def write_catalogue(files: Files, what: Published) -> None:
    """Write all that makes the cells of a publication one map.

    Raises
    ------
    StoreError
        The disk or the object store refuses.
    """
    cells = what.cells()
    with store_errors(files.root), _folder(files) as folder:
        for number, array in enumerate(what.arrays):
            name = f"mosaic_{array.name}" if number else "mosaic"
            own: dict[str, Cell] = {cell.file(array.name): cell for cell, there in cells.items() if array.name in there}
            if array.name == "class_map":
                files.write(f"{name}.qml", style(what))
            write_gti(folder / "gti.gpkg", what, array, own)
            _put(folder / "gti.gpkg", files, f"{name}.gti.gpkg")
            files.write(f"{name}.vrt", vrt(what, array, own))
        model = _write_model(files, str(what.metadata.bundle.get("digest", "")))
        title = files.root.rstrip("/").rsplit("/", 1)[-1] or "maps"
        items = {
            cell.name: make_item(what, cell, there, collection=title, model=model) for cell, there in cells.items()
        }
        texts = {f"items/{name}.json": _encode(to_dict(item)) for name, item in items.items()}
        with ThreadPoolExecutor(AT_A_TIME) as pool:
            list(pool.map(files.write, texts, texts.values()))
        _write_table(folder / "items.parquet", files, items.values())
        _put(folder / "items.parquet", files, "items.parquet")
        files.write(COLLECTION, _encode(make_collection(what, items, name=title, model=model)))


def _encode(content: Any) -> bytes:
    return json.dumps(content, allow_nan=False).encode()


@contextmanager
def _folder(files: Files) -> Iterator[Path]:
    """Yield a folder for files that are put in place when they are whole; on a disk, one on that disk."""
    with tempfile.TemporaryDirectory(dir=f"{files.root}/{STATE}" if files.local else None) as made:
        yield Path(made)


def _put(path: Path, files: Files, name: str) -> None:
    target = f"{files.root.rstrip('/')}/{name}"
    place(path, Path(target) if files.local else target)


def _write_model(files: Files, digest: str) -> bool:
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
