"""Whether what Swathe has written is as it was written, to the byte; and what is damaged mended.

A store says what it holds in its manifest, a single file in NAME.sha256 beside it, a publication in `_SHA256SUMS`.
"""

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from models.errors import StoreError
from models.files import DIGEST, read_digests

from ..cluster.connect import check_client
from ..cluster.processes import ClusterLike, Workers, workers_of
from ..inference.plan import BundleLike
from ..io.scene import SceneLike
from ..jobs.verify import read_parts
from ..mosaic.open import MosaicLike
from ..store.check import Part, Problem, check_sizes, foreign, opened_by, parts_of, shard_places
from ..store.files import Files, full_path
from ..store.manifest import NO_MANIFEST, find_manifest
from ..store.store import COPY, MANIFEST, open_store, store_errors
from .repair import Repair

SUMS = "_SHA256SUMS"
TRIES = 3  # of a file that is replaced while it is read


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found.

    Parameters
    ----------
    output
        Path or URL.
    files
        How many files it should have.
    size
        Bytes of those whose size is known.
    problems
        What is missing or damaged, now; and `foreign` files in a store, which harm nothing unless they lie where a
        block should be that there is none of.
    repaired
        What was, and is as it was written again.
    notes
        Why something could not be repaired.
    is_store
        Whether it is a store, of which damaged parts can be made again.
    seconds
        Since the call.
    """

    output: str
    files: int
    size: int
    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    is_store: bool = False
    seconds: float = field(default=0.0, compare=False)

    @property
    def damaged(self) -> tuple[Problem, ...]:
        """The problems that change what is read."""
        return tuple(one for one in self.problems if is_damage(one))

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged

    def __repr__(self) -> str:
        state = "whole" if self.whole else f"{len(self.damaged):,} damaged"
        return f"<Verification {self.output}: {self.files:,} files, {state}, {len(self.repaired):,} repaired>"


def is_damage(problem: Problem) -> bool:
    """Whether a problem changes what is read: a foreign file does only in the place of a block."""
    return problem.what != "foreign" or shard_places(problem.name) is not None


def verify(
    output: str | os.PathLike[str],
    *,
    quick: bool = False,
    repair: bool = False,
    scene: SceneLike | MosaicLike | None = None,
    bundle: BundleLike | None = None,
    client: ClusterLike | None = None,
    workers: int | None = None,
    show: bool = True,
) -> Verification:
    """Read all that Swathe has written, and compare it with what it was. Interrupted, the same call continues.

    Parameters
    ----------
    output
        Path or URL of a finished store, or of a publication; or of a file with its digest beside it (NAME.sha256), as
        `export`, `vectorise`, `stats` and `index` write them, and bundles have.
    quick
        Compare names and sizes only; of what is no store, whether files are there and not empty.
    repair
        Do damaged blocks of a store again, and put all other files back from the manifest. A block of a segmentation is
        done again from the scene, of a cleaned store or of objects from the store they were made of; overviews from the
        level below. Only what comes out with the bytes of before is written.
    scene
        The scene or mosaic, or of a cleaned store or of objects the store they were made of, where it is not where it
        was; it must hold what it held.
    bundle
        The bundle, where it is not where it was.
    client
        A cluster: a Dask client, a scheduler's address, or a `Cluster`; None: this process.
    workers
        Processes of this machine to share the cores among. None: this one.
    show
        Show progress.

    Raises
    ------
    StoreError
        There is no such output, it is not finished, or nothing says what it should be.
    SwatheError
        The disk, the object store or the cluster fails.
    """
    started = time.monotonic()
    check_client(client)
    where, path = workers_of(client, workers), full_path(os.fspath(output).rstrip("/") or "/")
    files = Files(path)
    with store_errors(path):
        folder = files.exists("zarr.json") or files.exists(MANIFEST) or files.exists(COPY)
    if not folder:
        if repair:
            raise StoreError(f"{path}: a store is repaired; write other files anew by the command that made them")
        found = _verify_files(path, quick=quick, where=where, show=show)
        return replace(found, seconds=time.monotonic() - started)
    found = _verify_store(path, quick=quick, where=where, show=show)
    if repair and not found.whole:
        notes = Repair(path, scene, bundle, where, show).mend(found.damaged)
        again = _verify_store(path, quick=quick, where=where, show=show)
        repaired = tuple(one for one in found.damaged if one not in again.problems)
        found = replace(again, repaired=repaired, notes=() if again.whole else tuple(notes))
    return replace(found, seconds=time.monotonic() - started)


def _verify_store(path: str, *, quick: bool, where: Workers, show: bool) -> Verification:
    files = Files(path)
    manifest, lost = find_manifest(files)
    if manifest is None and not lost:
        _, metadata = open_store(path)  # says what is wrong, if it is no finished store
        if not metadata.manifest:
            raise StoreError(
                f"{path} has no manifest, as it was written before there were any: nothing says what it was"
            )
        lost = [MANIFEST, COPY]
    problems = [Problem(name, "damaged" if files.exists(name) else "missing") for name in lost]
    if manifest is None:
        return Verification(path, 2, 0, tuple(problems), notes=(NO_MANIFEST,))
    store, _ = opened_by(path, manifest)
    parts = list(parts_of(store, manifest))
    with store_errors(path):
        there = files.sizes("")
    if quick:
        problems += check_sizes(parts, there)
    else:
        digest = hashlib.sha256(files.read(COPY if MANIFEST in lost else MANIFEST)).hexdigest()
        problems += read_parts(files, parts, digest, client=where, show=show)
    problems += foreign((part.name for part in parts), there)
    size = sum(part.size or 0 for part in parts)
    return Verification(path, len(parts) + 2, size, tuple(problems), is_store=True)


def _verify_files(path: str, *, quick: bool, where: Workers, show: bool) -> Verification:
    """Verify a folder with sums in it, or a file or bundle with its digest beside it."""
    inside = Files(path).exists(SUMS)
    files, name = (Files(path), SUMS) if inside else _beside(path)
    for attempt in range(TRIES):
        text = _read_sums(files, name, path)
        try:
            parts = [Part(part, None, digest) for part, digest in sorted(read_digests(text).items())]
        except ValueError:
            return Verification(path, 1, 0, (Problem(name, "damaged"),))
        problems = _problems_of(files, parts, text, quick=quick, where=where, show=show)
        if not problems or attempt + 1 == TRIES or _read_sums(files, name, path) == text:
            break
    return Verification(path, len(parts), 0, tuple(problems))


def _beside(path: str) -> tuple[Files, str]:
    folder, _, name = path.rpartition("/")
    return Files(folder or "/"), f"{name}{DIGEST}"


def _read_sums(files: Files, name: str, path: str) -> bytes:
    with store_errors(path):
        try:
            return files.read(name)
        except FileNotFoundError:
            there = Files(path).exists()
    raise StoreError(f"{path} has no digest beside it ({name}): nothing says what it was" if there
                     else f"there is no {path}")  # fmt: skip


def _problems_of(
    files: Files, parts: Sequence[Part], text: bytes, *, quick: bool, where: Workers, show: bool
) -> list[Problem]:
    if quick:
        with store_errors(files.root):
            listed = {part.name: size for part in parts if (size := files.size(part.name)) is not None}
        return check_sizes(parts, listed)
    return read_parts(files, parts, hashlib.sha256(text).hexdigest(), client=where, show=show)
