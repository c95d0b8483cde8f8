"""The scene and the bundle of `benchmarks.chaos`, its output made by one process, and whether another one equals it."""

import json
from pathlib import Path
from typing import Any

from pipeline import run

from .networks import make_bundle
from .scenes import write_scene

SIZE, BLOCK = 640, 64
ROOT, SECONDS = Path("zarr.json"), Path("blocks/seconds/c")
TIMED = {ROOT, Path("manifest.npz"), Path("manifest.copy.npz")}  # files that say when, or hold digests of what does
OPTIONS = ("--block", BLOCK, "--engine", "openvino", "--threads", 1)


def make_reference(folder: Path, size: int = SIZE, block: int = BLOCK) -> None:
    """Make scene, bundle and output."""
    write_scene(folder / "scene.tif", size)
    bundle = make_bundle(folder, widths=(4, 8, 8))
    options: dict[str, Any] = {"block": block, "engine": "openvino", "threads": 1, "show": False}
    run(folder / "scene.tif", bundle.path, folder / "reference.zarr", overwrite=True, **options)


def bundle_path(folder: Path) -> Path:
    """Return where the bundle is."""
    return folder / "simple-unet"


def difference(reference: Path, output: Path) -> str:
    """Return where an output is not the reference; nothing, where all files hold the same bytes.

    The attributes of the root also say when it was made; of them, what it says of the pixels is compared.
    """
    mine, theirs = (files_of(store) for store in (output, reference))
    if mine.keys() != theirs.keys():
        return f"other files: {sorted(map(str, mine.keys() ^ theirs.keys()))[:3]}"
    changed = [str(path) for path in mine if mine[path] != theirs[path]]
    if facts_of(output) != facts_of(reference):
        changed.append("zarr.json")
    return f"other bytes: {changed[:3]}" if changed else ""


def files_of(store: Path) -> dict[Path, bytes]:
    """Return all files of a store but those that hold times, of the run or of its blocks, or digests of these."""
    paths = [path.relative_to(store) for path in store.rglob("*") if path.is_file()]
    return {
        path: (store / path).read_bytes() for path in paths if path not in TIMED and not path.is_relative_to(SECONDS)
    }


def facts_of(store: Path) -> Any:
    """Return the state, identity and results of a store."""
    said = json.loads((store / ROOT).read_text())["attributes"]["swathe"]
    return {name: said[name] for name in ("state", "identity", "results")}
