"""Segment a scene lazily: a Dataset backed by dask that computes only what is looked at.

The same function of blocks as in durable runs, so the same results. For notebooks and for scenes that fit a session.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from numpy.typing import NDArray

from models.encoding import Encoding, ProbabilityType, Thresholds
from models.engine import Device, EngineName, PrecisionOption
from models.options import chosen, documents

from ..cluster.workers import naming_worker
from ..grid.geobox import Window
from ..grid.tile_grid import Blend, Taper
from ..io.resample import Resampling
from ..io.scene import SceneLike
from ..io.source import Source
from ..mosaic.open import MosaicLike
from ..store.dataset import maps_dataset
from .each import predict_block
from .merge import Merge
from .nonfinite import OnNonfinite
from .options import Halo, Overlap, SegmentOptions
from .plan import BundleLike, plan_scene
from .predict import InferenceSpec


@documents(SegmentOptions)
def segment(
    scene: SceneLike | MosaicLike,
    bundle: BundleLike,
    *,
    bands: Sequence[str | int] | None = None,
    resampling: Resampling = "nearest",
    alpha: bool | None = None,
    scale: float | Sequence[float] | None = None,
    offset: float | Sequence[float] | None = None,
    reflectance: bool = False,
    tile: int | None = None,
    block: int | None = None,
    halo: Halo = "exact",
    overlap: Overlap | None = None,
    blend: Blend = "crop",
    taper: Taper = "linear",
    tolerance: float = 0.004,
    engine: EngineName = "auto",
    device: Device = "auto",
    precision: PrecisionOption = "fp32",
    threads: int | None = None,
    compile: bool = False,
    threshold: Thresholds | Literal["likeliest"] | None = None,
    probability: ProbabilityType | None = "uint8",
    probability_of: str | None = None,
    overviews: bool = True,
    allow_mismatch: bool = False,
    memory: str | int | None = None,
    each: Merge | None = None,
    untrusted: bool = False,
    on_nonfinite: OnNonfinite = "fail",
) -> xr.Dataset:
    """Segment a scene lazily.

    `probability` and `overviews` do not count: probabilities are float32 here.

    Parameters
    ----------
    scene
        See `open_scene`; a DataArray, also a part of one, is taken as a scene of its own.
    bundle
        A bundle, or the name or path of one.
    {SegmentOptions}

    Returns
    -------
    xarray.Dataset
        `class_map` uint8 (y, x), 255 = not observed; `probability` float32 (class, y, x), NaN = not observed. Both are
        backed by dask and nothing is computed; CRS and transform are the scene's.

    Raises
    ------
    SwatheError
        As `plan`; what cannot be read is found when it is computed.
    """
    options = chosen(SegmentOptions, locals())
    prepared = plan_scene(scene, bundle, replace(options, block=options.block or 1024))
    prepared.log_doubts()
    classes = tuple(range(len(prepared.inference.metadata.classes)))
    kept = options.encoding(prepared.inference.metadata).kept if options.probability_of else classes
    thresholds = prepared.inference.encoding.thresholds
    inference = replace(prepared.inference, encoding=Encoding(thresholds, "float32", kept))
    class_map, probability = _arrays(prepared.source, inference)
    arrays = {"class_map": class_map, "probability": probability}
    about = {"bundle": prepared.inference.metadata.name, "digest": prepared.inference.digest}
    about |= {"notes": told} if (told := "\n".join((*prepared.notes, *prepared.doubts))) else {}
    metadata = prepared.inference.metadata
    return maps_dataset(arrays, prepared.geobox, metadata.classes, metadata.background_value, kept, about)


def _arrays(source: Source, inference: InferenceSpec) -> tuple[da.Array, da.Array]:
    cut, kept = inference.plan, len(inference.encoding.kept)
    # one node that all tasks share holds source and settings, so that the graph grows by a few bytes a block
    shared = dask.delayed(
        (source, inference), name=f"swathe-inference-{tokenize(source.identity(), inference)}", traverse=False
    )
    maps, probabilities = [], []
    for row in range(cut.rows):
        results = [_delayed(shared, cut.block_at(row, column).window) for column in range(cut.columns)]
        maps.append([da.from_delayed(r[0], w.shape, np.uint8) for r, w in results])
        probabilities.append([da.from_delayed(r[1], (kept, *w.shape), np.float32) for r, w in results])
    return da.block(maps), da.block(probabilities)


def _delayed(shared: Any, window: Window) -> tuple[Any, Window]:
    token = f"predict-{shared.key}-{window.top}-{window.left}"
    return dask.delayed(_predict, nout=2, pure=True)(shared, window, dask_key_name=token), window


def _predict(shared: tuple[Source, InferenceSpec], window: Window) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    source, inference = shared
    with naming_worker():
        result = predict_block(source, window, inference)
    assert result.probability is not None  # `segment` asks for it
    return result.class_map, result.probability
