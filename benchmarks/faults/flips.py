"""Single bits of stores are flipped, in any file: each flip is found by `verify`, and mended to the bytes before.

A flip in bytes that no reader interprets would be found, too, since whole files are compared with their digests.
"""

import random
from collections.abc import Iterator
from pathlib import Path

from pipeline import verify, write_clean, write_objects
from pipeline.postprocess.verify import Verification

from ..chaos_scene import bundle_path, make_reference
from .trial import Trial

ALL, SOME, TOGETHER = 1_000, 90, 30  # flips; of them at a time, each in another file
Bits = dict[str, bytes]


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Flip bits of a segmentation, a cleaned store and one of objects, by turns."""
    chance = random.Random(seed)
    make_reference(folder, 192 if quick else 384, 64)
    stores = [folder / name for name in ("reference.zarr", "clean.zarr", "objects.zarr")]
    write_clean(stores[0], stores[1], min_object=30, show=False)
    write_objects(stores[1], stores[2], show=False)
    left, turn = SOME if quick else ALL, 0
    while left:
        count = min(left, TOGETHER)
        yield from _flip(stores[turn % len(stores)], count, chance, bundle_path(folder))
        left, turn = left - count, turn + 1


def _flip(store: Path, count: int, chance: random.Random, bundle: Path) -> Iterator[Trial]:
    before = _content(store)
    one_copy = chance.choice(("manifest.npz", "manifest.copy.npz"))  # of both at once, nothing is known any more
    names = [name for name in before if name != one_copy]
    chosen = [chance.choice(names) for _ in range(count)]
    flips = {name: chance.randrange(8 * len(before[name])) for name in chosen if before[name]}
    for _ in range(count - len(flips)):  # as many as were asked for: others in files that are left
        name = chance.choice([name for name in names if name not in flips and before[name]] or chosen)
        flips[name] = chance.randrange(8 * len(before[name]))
    for name, bit in flips.items():
        damaged = bytearray(before[name])
        damaged[bit // 8] ^= 1 << bit % 8
        (store / name).write_bytes(damaged)
    found = {problem.name for problem in verify(store, show=False).damaged}
    mended: Verification = verify(store, repair=True, bundle=bundle if "reference" in store.name else None, show=False)
    after = _content(store)
    for name, bit in flips.items():
        right = name in found and after.get(name) == before[name]
        said = "" if right else f"{'found' if name in found else 'not found'}; {'; '.join(mended.notes)}"
        yield Trial("flips", f"bit {bit} of {store.name}/{name}", right, said)
    other = sorted(name for name in after.keys() | before.keys() if after.get(name) != before.get(name))
    if set(other) - set(flips):
        yield Trial("flips", f"other files of {store.name}", False, f"changed: {other[:3]}")
    for name, content in before.items():  # so that what went wrong is counted once
        if after.get(name) != content:
            (store / name).write_bytes(content)


def _content(store: Path) -> Bits:
    return {
        path.relative_to(store).as_posix(): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()
    }
