"""What a publication keeps in its folder, so that the same call continues a killed one, and another does not mix in.

While it is made, `.swathe` in the folder has the run's name and a marker for each cell that is done. Once it is whole,
`collection.json` says which run it is of, and `.swathe` is gone.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NoReturn

from models.errors import StoreError
from models.files import refuse_existing
from models.limits import parse_json

from ..store.files import Files
from ..store.metadata import differences
from ..store.sealed import seal, unseal
from ..store.store import store_errors

STATE = ".swathe"
RUN = f"{STATE}/publish.json"
COLLECTION = "collection.json"  # the last file of the catalogue
SUMS = "_SHA256SUMS"  # digests of all files, as `sha256sum -c` reads them
PUBLICATION = "swathe:publication"  # in it: the run, and the files of the cells
OF_CELL = re.compile(r"\.?(class_map|probability)_R-?\d{4,}_C-?\d{4,}\.tif(\.aux\.xml|\.partial)?")
CATALOGUE = re.compile(
    r"mosaic(_class_map|_probability)?\.(vrt|gti\.gpkg|qml)|items\.parquet|items|model|collection\.json|_SHA256SUMS"
)


@dataclass(frozen=True, slots=True)
class CellFile:
    """A cell of one array that is done.

    Parameters
    ----------
    array, row, column
        Which.
    size
        Bytes of its file; 0: all of it is nodata, and there is none.
    pixels
        By class and `nodata`, of a class map.
    outline
        Where it lies, in longitude and latitude: WKB as hexadecimal digits.
    sha256
        Of its file; empty where it is not known, as in markers of before.
    """

    array: str
    row: int
    column: int
    size: int
    pixels: Mapping[str, int]
    outline: str
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A run that makes a publication: what decides its files, its own name, and when it began, in UTC."""

    identity: Mapping[str, Any]
    name: str
    began: str

    @property
    def folder(self) -> str:
        """Where its markers lie."""
        return f"{STATE}/{self.name}"


def find_finished(files: Files) -> dict[str, Any] | None:
    """Return what a finished publication says of itself: its `run`, and its `files` by cell; None: there is none."""
    with store_errors(files.root):
        try:
            found = parse_json(files.read(COLLECTION))[PUBLICATION]
        except (FileNotFoundError, NotADirectoryError, ValueError, LookupError, TypeError):
            return None
    return found if isinstance(found, dict) and {"run", "files"} <= found.keys() else None


def begin(files: Files, identity: Mapping[str, Any], *, overwrite: bool) -> Run:
    """Take a folder for a run, or go on where this very run was killed; what others have left there is taken down.

    Raises
    ------
    StoreError
        The folder holds what Swathe did not write, or another publication and it is not to be replaced.
    """
    with store_errors(files.root):
        begun, finished = _begun(files), find_finished(files)
        if begun is None and finished is None and (there := files.names("")):
            _refuse_foreign(files.root, there)
        theirs = finished["run"] if finished else begun.identity if begun else None
        mine = begun is not None and dict(begun.identity) == dict(identity)
        if theirs is not None and not mine and not overwrite:
            _refuse(files.root, identity, theirs)
        if begun is None or not mine or (finished is not None and finished["run"] == identity):
            begun = Run(dict(identity), uuid.uuid4().hex, datetime.now(UTC).isoformat(timespec="seconds"))
            files.write(RUN, json.dumps(asdict(begun)).encode())
        take_down(files)
        return begun


def take_down(files: Files) -> None:
    """Remove the catalogue, what says that it is whole first."""
    for name in sorted(filter(CATALOGUE.fullmatch, files.names("")), key=lambda name: name != COLLECTION):
        files.remove(name)


def _begun(files: Files) -> Run | None:
    try:
        return Run(**json.loads(files.read(RUN)))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def _refuse_foreign(folder: str, there: list[str]) -> NoReturn:
    raise StoreError(
        f"{folder} holds {', '.join(sorted(there)[:3])}, which `swathe publish` did not write; choose another output"
    )


def _refuse(folder: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> NoReturn:
    others = differences(mine, theirs)
    if not others:
        refuse_existing(folder)
    raise StoreError(
        f"{folder} holds another publication ({'; '.join(others)}); "
        "choose another output, or pass --overwrite to replace it"
    )


def mark(files: Files, run: Run, done: CellFile, name: str) -> None:
    """Mark a cell as done; its file must be there."""
    with store_errors(files.root):
        files.unsynced.write(f"{run.folder}/{name}.json", seal(json.dumps(asdict(done)).encode()))


def marked(files: Files, run: Run) -> dict[str, CellFile]:
    """Return the cells that are done by the names of their files; those whose files are gone or of other sizes are not.

    Of a marker that is damaged, or has no digest as those of before, the cell is done again.
    """
    with store_errors(files.root):
        names, (there,) = sorted(files.names(run.folder)), files.listed([""])
        texts = map(unseal, files.read_all([f"{run.folder}/{name}" for name in names]))
    done = {
        name.removesuffix(".json"): CellFile(**json.loads(text))
        for name, text in zip(names, texts, strict=True)
        if text is not None
    }
    return {name: cell for name, cell in done.items() if not cell.size or there.get(name) == cell.size}


def sweep(files: Files, kept: set[str]) -> None:
    """Remove cells that are of no use any more: of another run before, or what a killed one left unfinished."""
    with store_errors(files.root):
        for name in filter(OF_CELL.fullmatch, files.names("")):
            if name.removesuffix(".aux.xml") not in kept:
                files.remove(name)


def end(files: Files) -> None:
    """Remove the markers of a publication that is whole, and what killed writers left beside its files."""
    with store_errors(files.root):
        files.remove_partial()
        files.remove(STATE)
