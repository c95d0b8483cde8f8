"""The smallest halo that is good enough, measured on the scene's own pixels against the exact one."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.encoding import Encoding
from models.errors import PlanError

from ..grid.geobox import Window
from ..grid.tiling import TilingPlan
from ..io.source import Source
from .predict import InferenceSpec, predict

SAMPLES = 4  # windows looked at
CORE = 256  # side of the part of each that is compared, in pixels


def smallest_halo(source: Source, inference: InferenceSpec, tolerance: float) -> tuple[int, float]:
    """Find the smallest halo whose answer differs from the exact one's by at most `tolerance`.

    Parameters
    ----------
    source
        The scene; some windows with observed pixels, spread over it, are read.
    inference
        With a plan whose halo is exact.
    tolerance
        Largest change of any probability.

    Returns
    -------
    halo, error
        Pixels per side, a multiple of the stride, and the largest change seen with it. What was not looked at may
        change more.

    Raises
    ------
    PlanError
        No observed pixels were found to measure on.
    """
    whole = replace(inference, encoding=Encoding(None, "float32", tuple(range(len(inference.metadata.classes)))))
    windows = _windows(source, inference.plan)
    truth = [_probability(source, whole, window) for window in windows]
    stride, low, high = inference.plan.stride, 0, inference.plan.halo // inference.plan.stride
    best = (inference.plan.halo, 0.0)
    while low < high:  # the error falls with the halo, so that halving finds the edge
        middle = (low + high) // 2
        plan = replace(inference.plan, halo=middle * stride, exact=False)
        error = max(
            float(np.nanmax(np.abs(_probability(source, replace(whole, plan=plan), window) - right), initial=0.0))
            for window, right in zip(windows, truth, strict=True)
        )
        if error <= tolerance:
            high, best = middle, (middle * stride, error)
        else:
            low = middle + 1
    return best


def _windows(source: Source, plan: TilingPlan) -> list[Window]:
    """Return a few windows with observed pixels, the same ones each time: halo tile borders fall inside them."""
    side = -(-CORE // plan.stride) * plan.stride
    rows, columns = (range(0, max(1, size - side), plan.stride) for size in (plan.height, plan.width))
    random = np.random.default_rng(0)
    found: list[Window] = []
    for _ in range(SAMPLES * 8):
        top, left = int(random.choice(rows)), int(random.choice(columns))
        window = Window.square(top, left, side).clip((plan.height, plan.width))
        if source.read(window).valid.any():
            found.append(window)
        if len(found) == SAMPLES:
            break
    if not found:
        raise PlanError("halo auto: no observed pixels were found to measure on; use --halo exact or a number")
    return found


def _probability(source: Source, inference: InferenceSpec, window: Window) -> NDArray[np.float32]:
    probability = predict(source, window, inference).probability
    assert probability is not None  # asked for in `smallest_halo`
    return probability
