"""A baseline: a random forest that classifies each pixel by its bands and the texture around it.

Breiman (2001), "Random Forests"; the features are those of `skimage.feature.multiscale_basic_features`: the bands
smoothed at several scales, their gradients, and the eigenvalues of their Hessian matrices.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from typing_extensions import override

from models.errors import TrainingError, require_extra
from models.metadata import ReceptiveField
from models.system import usable_cpus
from pipeline.grid.tiling import make_plan
from pipeline.inference.predict import fill_missing, read_buffered
from pipeline.jobs.tasks import map_bounded

from ..config.schema import IGNORE
from ..data.samples import Sample
from .baselines import BaselinePredictor, Place, complete, windows

FINEST, COARSEST = 1.0, 8.0  # scales of texture: the sigmas of Gaussians, in pixels, each twice the one before
HALO = 36  # skimage cuts a Gaussian at 4 sigma; three differences of neighbours follow at most
PIXELS = 200_000
MOST_WINDOWS = 96  # to fit to: more make it later, hardly better
TREES, LEAF = 60, 20


@dataclass(frozen=True, slots=True)
class Forest(BaselinePredictor):
    """A random forest, fitted.

    Parameters
    ----------
    name
        For reports.
    model
        A fitted `sklearn.ensemble.RandomForestClassifier`.
    classes
        How many there are; those that it was not fitted to have the probability 0.
    means
        Per band, what stands in for missing samples.
    fitted_to
        Digest of what it was fitted to.
    """

    name: str = field()  # without `field`, the base's property would pass for a default
    model: Any
    classes: int
    means: tuple[float, ...]
    fitted_to: str
    halo = HALO
    scatter_once = True
    graded = True

    @override
    def metadata(self) -> dict[str, Any]:
        return {"forest": TREES, "leaf": LEAF, "learnt from": self.fitted_to}

    @override
    def probabilities(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        described = features(pixels)
        flat = np.ascontiguousarray(described.reshape(-1, described.shape[-1]))
        total = np.zeros((len(flat), len(self.model.classes_)))
        for tree in self.model.estimators_:  # scikit-learn's own loop changes the warning filters of all threads
            total += tree.predict_proba(flat, check_input=False)
        shares = (total / len(self.model.estimators_)).T.reshape(-1, *described.shape[:2])
        probabilities = np.zeros((self.classes, *described.shape[:2]), np.float32)
        probabilities[self.model.classes_] = shares
        return probabilities


def features(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """Describe each pixel but those of the halo.

    Parameters
    ----------
    pixels
        `(band, y, x)`, with `HALO` pixels more on every side than are described.

    Returns
    -------
    numpy.ndarray
        `(y, x, feature)`: the bands, and 4 features of each band at each of 4 scales.
    """
    from skimage.feature import multiscale_basic_features

    values = np.ascontiguousarray(np.moveaxis(pixels.astype(np.float32), 0, -1))
    texture = multiscale_basic_features(values, channel_axis=-1, sigma_min=FINEST, sigma_max=COARSEST)
    core = np.s_[HALO : values.shape[0] - HALO, HALO : values.shape[1] - HALO]
    return np.concatenate([values[core], texture[core]], axis=-1)


def fit_forest(
    samples: Sequence[Sample], client: Client, classes: int, *, pixels: int | None = None, seed: int = 0
) -> Forest:
    """Fit a forest to labelled pixels drawn at random.

    Parameters
    ----------
    samples
        Their labelled pixels count, inside their areas.
    client
        Where windows are read.
    classes
        How many there are.
    pixels
        How many are drawn, from at most `MOST_WINDOWS` windows of the samples. None: 200,000.
    seed
        Decides windows, pixels and trees.

    Raises
    ------
    TrainingError
        Fewer than two classes are labelled there.
    """
    require_extra("train", "a random forest", "sklearn")
    from sklearn.ensemble import RandomForestClassifier

    random, where = np.random.default_rng(seed), windows(samples)
    chosen = [where[place] for place in sorted(random.permutation(len(where))[:MOST_WINDOWS])]
    counted = map_bounded(client, _count, samples, list(enumerate(chosen)), key="swathe-forest-count")
    counts = np.array([count for _, count in sorted(counted)])
    if not counts.sum():
        raise TrainingError(f"{samples[0].name}: no labelled pixel to learn from")
    wanted = np.minimum(random.multinomial(pixels or PIXELS, counts / counts.sum()), counts).tolist()
    todo = [(number, place) for number, place in enumerate(chosen) if wanted[number]]
    found = {one[0]: one[1:] for one in map_bounded(client, _draw, (samples, wanted, seed), todo, key="swathe-forest")}
    drawn = [found[number] for number in sorted(found)]  # in order of place: windows are read in any order
    values, labels = (np.concatenate(part) for part in zip(*drawn, strict=True))
    if len(np.unique(labels)) < 2:
        raise TrainingError(f"{samples[0].name}: a forest needs labelled pixels of two classes or more to learn from")
    model = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed, n_jobs=usable_cpus())
    with warnings.catch_warnings():  # its threads change the filters of all, and may not put them back
        model.fit(values, labels)
    digest = sha256(values.tobytes() + labels.tobytes() + bytes([seed % 256])).hexdigest()[:16]
    means = tuple(values[:, : len(samples[0].source.bands)].mean(axis=0, dtype=np.float64).tolist())
    return Forest("random forest", model, classes, means, digest)


def _count(samples: Sequence[Sample], item: tuple[int, Place]) -> tuple[int, int]:
    number, (sample, window) = item
    return number, int((samples[sample].read(window).labels != IGNORE).sum())


def _draw(
    task: tuple[Sequence[Sample], list[int], int], item: tuple[int, Place]
) -> tuple[int, NDArray[np.float32], NDArray[np.uint8]]:
    """Draw pixels `(n, feature)` of one window, with their labels `(n,)`.

    `task`: the samples, how many pixels of each window are drawn, and the seed.
    """
    (samples, wanted, seed), (number, (sample, window)) = task, item
    source, labels = samples[sample].source, samples[sample].read(window).labels.ravel()
    read = read_buffered(source, make_plan(source.geobox.shape, ReceptiveField(1, HALO)), window)
    whole = complete(read.data, source.nodata) & read.valid
    means = tuple(float(band[whole].mean(dtype=np.float64)) if whole.any() else 0.0 for band in read.data)
    random = np.random.default_rng((seed, number))
    chosen = np.sort(random.choice(np.flatnonzero(labels != IGNORE), wanted[number], replace=False))
    described = features(fill_missing(read, source.nodata, means))
    return number, described.reshape(len(labels), -1)[chosen], labels[chosen]
