"""Full disks: the output's, the temporary folder's and the cache's, small ones of memory (tmpfs), under every verb.

A verb that finds no room ends in a clear line, or does without where it can. Then there is room, and the same command
ends right. Which disk is too small, and by how much, is drawn.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ..chaos_scene import OPTIONS, bundle_path, make_reference
from .content import difference
from .trial import Skipped, Trial, swathe

PART, PAGE = "disks", 4096
PLACES = ("output", "temporary", "cache")
ROOM = 2**28  # bytes of a disk with room
DATES = "2026-01-01T00:00:00Z"


@dataclass(frozen=True)
class Verb:
    """A verb that writes: its words without `-o`, and the name of what it writes."""

    name: str
    words: tuple[object, ...]
    output: str

    def line(self, folder: Path) -> tuple[object, ...]:
        """Return its words, with an output in a folder."""
        return (*self.words, "-o", f"{folder}/{self.output}")  # with its slash, if it is a folder


def verbs(inputs: Path) -> list[Verb]:
    """Return every verb that writes, on the store, objects, scene and bundle of a folder."""
    store, objects, bundle = inputs / "reference.zarr", inputs / "objects.zarr", bundle_path(inputs)
    segment = ("segment", inputs / "scene.tif", "-m", bundle, *OPTIONS, "-q")
    return [
        Verb("segment", segment, "maps.zarr"),
        Verb("segment a GeoTIFF", segment, "map.tif"),
        Verb("clean", ("clean", store, "--min-object", 9, "-q"), "clean.zarr"),
        Verb("objects", ("objects", store, "-q"), "objects.zarr"),
        Verb("vectorise GeoPackage", ("vectorise", objects, "-q"), "v.gpkg"),
        Verb("vectorise GeoParquet", ("vectorise", objects, "-q"), "v.parquet"),
        Verb("vectorise a folder", ("vectorise", objects, "-q"), "v/"),
        Verb("stats CSV", ("stats", objects, "--cell", "20 px", "-q"), "s.csv"),
        Verb("stats GeoParquet", ("stats", objects, "-q"), "s.parquet"),
        Verb("report", ("report", store), "page.html"),
        Verb("export", ("export", store), "e.tif"),
        Verb("publish", ("publish", store, "--side", 512, "--dates", DATES, "-q"), "grid"),
        Verb("index", ("index", inputs / "scene.tif", "-q"), "index.parquet"),
        Verb("export-model", ("export-model", bundle, "-q"), "b.pt2"),
        Verb("package", ("package", bundle), "item.json"),
    ]


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Fill disks under verbs; see `trial.Trial`. Raises Skipped where disks cannot be mounted."""
    if os.getuid() != 0:
        raise Skipped("only root can mount disks of memory")
    random = Random(seed)
    inputs, right = folder / "inputs", folder / "right"
    for made in (inputs, right):
        made.mkdir()
    make_reference(inputs, 320 if quick else 640)
    first = swathe("objects", inputs / "reference.zarr", "-o", inputs / "objects.zarr", "-q")
    if first.code:
        raise RuntimeError(first.said)
    known = verbs(inputs)
    for verb in random.sample(known, 2) if quick else known * 3:
        if not (right / verb.output).exists():
            done = swathe(*verb.line(right))
            yield Trial(PART, f"{verb.name} with room", done.code == 0, done.last)
        place = "output" if quick else random.choice((*PLACES, "output"))
        yield fill(verb, right, folder / "disk", place, random.uniform(0.02, 0.98))


def fill(verb: Verb, right: Path, disk: Path, place: str, part: float) -> Trial:
    """Let a verb find less room than it needs, then enough."""
    what = f"{verb.name} with a disk of {part:.0%} for its {place}"
    need = used(right / verb.output.rstrip("/")) if place == "output" else 2**21
    other = disk.with_name("beside")
    other.mkdir(exist_ok=True)
    with mounted(disk, max(PAGE, int(need * part))), mounted(other, ROOM):
        output = disk if place == "output" else other
        environment = {name: str(other) for name in ("TMPDIR", "SWATHE_CACHE")}
        if place != "output":
            environment["TMPDIR" if place == "temporary" else "SWATHE_CACHE"] = str(disk)
        done = swathe(*verb.line(output), environment=environment)
        if not done.is_clear or "internal error" in done.said:
            return Trial(PART, what, False, f"ended with {done.code}: {done.said[-300:]}")
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", disk], check=True)
        again = swathe(*verb.line(output), environment=environment)
        other_than = difference(*(path / verb.output.rstrip("/") for path in (right, output)))
        return Trial(PART, what, again.code == 0 and not other_than, f"{again.last} {other_than} (first {done.last})")


def used(path: Path) -> int:
    """Return the bytes that a file or folder takes on a disk."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(-(-file.stat().st_size // PAGE) * PAGE for file in files)


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """Mount an empty disk of memory at a folder, and take it away again."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
