"""A run that was killed, one of whose files is then torn as by a power cut or a bad disk; and the same call again."""

import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline import run as segment

from ..chaos_processes import Command, Place, end
from ..chaos_scene import OPTIONS, bundle_path, difference, make_reference
from .trial import Trial

PART, SIZE, BLOCK, DONE = "tears", 640, 64, 70
SECONDS = 120.0  # until some blocks are done
Tear = Callable[[Path, random.Random], None]


def empty(file: Path, drawn: random.Random) -> None:
    """Leave nothing."""
    file.write_bytes(b"")


def cut(file: Path, drawn: random.Random) -> None:
    """Leave its beginning."""
    content = file.read_bytes()
    file.write_bytes(content[: drawn.randrange(1, len(content))])


def zeros(file: Path, drawn: random.Random) -> None:
    """Leave as many bytes, all of them zero."""
    file.write_bytes(bytes(file.stat().st_size))


def flip(file: Path, drawn: random.Random) -> None:
    """Flip a bit."""
    content = bytearray(file.read_bytes())
    content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    file.write_bytes(content)


def lose(file: Path, drawn: random.Random) -> None:
    """Remove it."""
    file.unlink()


def as_text(text: str) -> Tear:
    """Return what puts this text in a file's place."""
    return lambda file, drawn: [file.write_text(text), None][1]


def of_another(file: Path, drawn: random.Random) -> None:
    """Put the mark of another block in its place."""
    others = sorted(path for path in file.parent.glob("0.*.json") if path != file)
    shutil.copy(drawn.choice(others), file)


def other_counts(file: Path, drawn: random.Random) -> None:
    """Say other numbers of pixels."""
    said = json.loads(file.read_text())
    said["pixels"][0] += 1
    file.write_text(json.dumps(said))


MARK, SHARD = ".swathe/0.*.json", "class_map/c/*/*"
TEARS: tuple[tuple[str, Tear], ...] = (
    *((MARK, tear) for tear in (empty, cut, zeros, flip, as_text("[]"), as_text("{}"), of_another, other_counts)),
    *((SHARD, tear) for tear in (empty, cut, zeros, flip, lose)),
    *(("probability/c/0/*/*", tear) for tear in (cut, flip)),
    *(("overviews/1/class_map/c/*/*", tear) for tear in (zeros, flip)),
    *(("zarr.json", tear) for tear in (empty, cut, zeros, lose)),
    *(("class_map/zarr.json", tear) for tear in (empty, cut, lose)),
    ("overviews/1/probability/zarr.json", zeros),
    ("x/c/0", cut),
    ("spatial_ref/zarr.json", empty),
    ("blocks/seconds/zarr.json", empty),
    *((".swathe/run", tear) for tear in (empty, zeros)),
    *((".swathe/begun.npz", tear) for tear in (empty, flip, lose)),
)


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try it."""
    drawn = random.Random(seed)
    make_reference(folder, SIZE, BLOCK)
    begun = _begin(folder)
    for number, (pattern, tear) in enumerate(drawn.sample(TEARS, 5) if quick else TEARS * 3):
        out = folder / f"out.{number}.zarr"
        shutil.copytree(begun, out)
        files = sorted(out.glob(pattern))
        file = drawn.choice(files)
        tear(file, drawn)
        name = getattr(tear, "__name__", "text").replace("<lambda>", "other text")
        what = f"{file.relative_to(out)}: {name}"
        try:
            segment(folder / "scene.tif", bundle_path(folder), out, block=BLOCK, engine="openvino", threads=1,
                    show=False)  # fmt: skip
            wrong = difference(folder / "reference.zarr", out)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        shutil.rmtree(out)
        yield Trial(PART, what, right=not wrong, detail=wrong)


def _begin(folder: Path) -> Path:
    """Leave a run killed when some of its blocks are done."""
    out = folder / "begun.zarr"
    command = Command(Place(), "segment", folder / "scene.tif", "-m", bundle_path(folder), "-o", out, *OPTIONS)
    until = time.monotonic() + SECONDS
    while len(list(out.glob(MARK))) < DONE or not list(out.glob(".swathe/1.*.json")):
        if not command.is_running() or time.monotonic() > until:
            raise RuntimeError(f"the run to be killed has ended: {command.lines[-3:]}")
        time.sleep(0.005)
    end(command.process)
    return out
