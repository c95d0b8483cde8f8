"""How much memory an engine takes for a bundle: measured once, in a process of its own, and kept in the user's cache.

A fresh process runs a tiny tile, for which libraries are loaded and the network is compiled, and then a large one; what
its peak grows by is the large one's. Of two large ones, the first's memory would still be there when the second comes.
"""

import json
import logging
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .encoding import Encoding
from .engine import EngineSpec, Precision, make_engine, slots_of
from .files import keep_file
from .graph_form import fixed_shape
from .system import cache_folder, forget_peak, package_version, peak_bytes

if TYPE_CHECKING:
    from .bundle import Bundle

logger = logging.getLogger("swathe")

TINY, LARGE = 64, 1024  # sides of the two tiles, in pixels
STEP, FIXED_STEP = 16, 1 << 26  # bytes that are rounded up to, so that a little noise changes no plan
TIMEOUT = 120  # seconds
PACKAGE = Path(__file__).resolve().parents[1]
CHILD = "import sys; sys.path.insert(0, sys.argv.pop(1)); from models.engine_memory import child; child(*sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """What an engine takes.

    Parameters
    ----------
    fixed
        Bytes of a process that has it ready: interpreter, libraries, weights.
    per_pixel
        Bytes for each pixel, halo included, of a tile in work.
    measured
        Whether it was measured; else it is more than most networks take.
    """

    fixed: int
    per_pixel: int
    measured: bool = True


LIKE: dict[str, Precision] = {"int8": "fp32"}  # which take no less, where a graph must be made before it can be run
KEPT = 3  # counts up when engines change, so that nothing older is taken from the cache
UNKNOWN = EngineMemory(3 << 29, 2048, measured=False)
FRUGAL = EngineMemory(1 << 28, 96, measured=False)  # less than any network of use
ON_GPU = EngineMemory(3 << 30, 0)  # of a process that drives one: pixels lie in the GPU's own memory


def kept_memory(digest: str, spec: EngineSpec) -> EngineMemory | None:
    """Return what was measured of a bundle before; None where it was not."""
    if spec.device == "cuda":
        return ON_GPU
    spec = _measured_as(spec)
    try:
        return EngineMemory(**json.loads(_kept_at(digest, spec).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def measure_memory(bundle: "Bundle", spec: EngineSpec) -> EngineMemory:
    """Return what an engine takes of a CPU's memory, and keep it in the user's cache; a second or two.

    Parameters
    ----------
    bundle
        Of the network.
    spec
        The engine, resolved.

    Returns
    -------
    EngineMemory
        Where it cannot be measured, more than most networks take.
    """
    spec = _measured_as(spec)
    # -P: no module of the user's working directory takes the place of one of ours
    command = [sys.executable, "-P", "-W", "ignore", "-c", CHILD, PACKAGE, bundle.path, json.dumps(asdict(spec))]
    try:
        for _ in range(2):  # a network that must be converted first brings torch; the second process reads it
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=True, timeout=TIMEOUT)
            if sizes := json.loads(done.stdout.splitlines()[-1]):
                break
        before, peak = sizes
    except (OSError, ValueError, IndexError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        logger.info("the memory that %s takes is not measured: %s", bundle.metadata.name, said[-1] if said else error)
        return UNKNOWN
    found = EngineMemory(_up(before, FIXED_STEP), _up((peak - before) / _side(LARGE, bundle) ** 2, STEP))
    text = json.dumps(asdict(found))
    keep_file(_kept_at(bundle.digest, spec), "the measured memory", lambda part: part.write_text(text))
    return found


def child(path: str, settings: str) -> None:
    """Run both tiles, and print the memory before the large one and its peak; nothing where it held too much before."""
    from .bundle import load_bundle

    bundle, spec = load_bundle(Path(path)), EngineSpec(**json.loads(settings))
    metadata, engine = bundle.metadata, make_engine(bundle, spec)
    if spec.name == "openvino" and "torch" in sys.modules:
        print("[]")
        return
    encoding = Encoding(None, "uint8", tuple(range(len(metadata.classes))))
    # a graph of a fixed batch is given whole ones: what is made of each answer counts, too
    fixed_side, batch = fixed_shape(metadata)
    tiny, large = (
        np.ones((batch or 1, len(metadata.bands), side, side), metadata.dtype)
        for side in (_side(TINY, bundle), _side(LARGE, bundle))
    )
    if fixed_side is None:  # of a graph of one size, compiling counts as a tile's: more than it takes
        engine.segment(tiny, encoding)
    before = forget_peak()
    engine.segment(large, encoding)
    print(json.dumps([before, peak_bytes()]))


def _side(side: int, bundle: "Bundle") -> int:
    fixed = fixed_shape(bundle.metadata)[0]
    return fixed or int(_up(side, bundle.metadata.receptive_field.stride))


def _up(value: float, step: int) -> int:
    return max(1, -int(-value // step)) * step


def _measured_as(spec: EngineSpec) -> EngineSpec:
    """Return the settings whose memory is measured for others too: compiling, and int8, take long to make ready."""
    return replace(spec, precision=LIKE.get(spec.precision, spec.precision), compile=False)


def _kept_at(digest: str, spec: EngineSpec) -> Path:
    settings = f"{spec.name}-{package_version(spec.name)}-{spec.precision}-{slots_of(spec)}"
    # a home folder may be that of several machines, and processors take more or less
    return cache_folder("memory") / f"{digest[:32]}-{settings}-{platform.node()}-{KEPT}.json"
