"""What a process does that decodes untrusted scenes and bundles: it shuts itself in, then answers requests on pipes.

Requests are lines of JSON from a process that is trusted. Answers are frames of a fixed form, see `frames`, which the
other side believes nothing of.
"""

import json
import os
import sys
from functools import lru_cache
from typing import IO, Any

from .confine import confine
from .frames import ANSWER, FAILED, PIXELS, REFUSED, frame


def main() -> None:
    """Answer until the other side closes the pipe."""
    settings = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    left = confine(settings["folders"], settings["memory"])
    answers.write(frame(ANSWER, json.dumps(left).encode()))
    from .places import allowing

    with allowing(settings["folders"]):
        for line in sys.stdin.buffer:
            _answer(json.loads(line), answers)


def _answer(request: dict[str, Any], answers: IO[bytes]) -> None:
    from models.errors import SwatheError

    try:
        parts = _done(**request)
    except SwatheError as error:
        parts = [frame(REFUSED, str(error).encode())]
    except MemoryError:
        parts = [frame(FAILED, b"it needs more memory than a scene or bundle may take that is not trusted")]
    except Exception as error:  # whatever a hostile file brings a library to
        parts = [frame(FAILED, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))]
    for part in parts:
        view = memoryview(part).cast("B")
        while view:  # a pipe takes what fits
            view = view[answers.write(view) :]


def _done(verb: str, what: str, window: list[int] | None = None) -> list[Any]:
    import numpy as np

    from ..grid.geobox import Window

    if verb == "bundle":
        return [frame(ANSWER, json.dumps(_check_bundle(what)).encode())]
    source = _opened(what)
    if verb == "facts":
        return [frame(ANSWER, json.dumps(_facts(source)).encode())]
    if verb == "identity":
        return [frame(ANSWER, json.dumps(source.identity()).encode())]
    part = Window(*window or ())
    if verb == "masks":
        valid = np.ascontiguousarray(source.read_masks(part), np.uint8)
        return [frame(PIXELS, length=valid.nbytes), valid]
    pixels = source.read(part)
    data, valid = np.ascontiguousarray(pixels.data, source.dtype), np.ascontiguousarray(pixels.valid, np.uint8)
    return [frame(PIXELS, length=data.nbytes + valid.nbytes), data, valid]


@lru_cache(maxsize=64)
def _opened(recipe: str) -> Any:
    from .scene import open_source, take_bands

    told = json.loads(recipe)
    source: Any = open_source(told["scene"], told["bands"], told["resampling"], told["alpha"])
    for bands in told["taken"]:
        source = take_bands(source, bands)
    return source


def _facts(source: Any) -> dict[str, Any]:
    grid = source.geobox
    radiometry = [one and [one.scale, one.offset, one.unit] for one in source.radiometry]
    return {
        "height": grid.height,
        "width": grid.width,
        "transform": grid.transform and list(grid.transform)[:6],
        "crs": grid.crs,
        "bands": list(source.bands),
        "dtype": str(source.dtype),
        "nodata": list(source.nodata),
        "radiometry": radiometry,
        "file_notes": list(source.notes),
        "paths": list(source.paths),
        "all_names": [list(names) for names in source.all_names],
        "numbers": list(source.numbers),
        "hints": list(source.hints),
        "expensive_reads": bool(source.expensive_reads),
        "masks": bool(getattr(source, "masks", ())),
    }


def _check_bundle(path: str) -> str:
    """Read all that a bundle holds, as it is read when it is used, and return its digest."""
    from models.bundle import check_content, load_bundle

    bundle = load_bundle(path)
    check_content(bundle)
    return bundle.digest
