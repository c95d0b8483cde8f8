"""Write a bundle that carries its int8 graph, quantised on scenes, and what it was measured to change there."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from models.bundle import Bundle, add_int8, check_replaced, finish_bundle, load_bundle
from models.engine import resolve
from models.errors import BundleError, PlanError
from models.files import local_path, refuse_existing
from models.quantise import quantise_network

from ..io.scene import SceneLike
from ..store.metadata import fingerprint
from .options import SegmentOptions
from .plan import BundleLike, SegmentPlan, plan_scene
from .precision import LEAST, SIDE, SPARED, WINDOWS, Comparison, Measured, calibration_tiles
from .samples import observed_windows, read_samples


def quantise(
    bundle: BundleLike,
    scenes: Sequence[SceneLike],
    output: str | os.PathLike[str],
    *,
    tolerance: float = 0.004,
    allow_mismatch: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Write a bundle with an int8 graph, so that runs in int8 need neither calibration nor NNCF.

    The weights stay in it. Where the plain graph changes more than the tolerance on any scene, the convolutions at the
    ends of the network stay float32.

    Parameters
    ----------
    bundle
        A bundle, or the name or path of one.
    scenes
        Like those on which it will be used; see `open_scene`. Windows of all of them set the ranges of the layers.
    output
        Folder or `.zip` to write. One that was made of the same bundle, scenes and tolerance is returned as it is.
    tolerance
        See `SegmentOptions`.
    allow_mismatch
        Take scenes although their type or resolution is not what the bundle was trained on.
    overwrite
        Replace a bundle that is there.

    Returns
    -------
    Bundle
        Its `int8_scores` say by scene: `error`, `mean`, `agreement`, `speed`.

    Raises
    ------
    SwatheError
        int8 does not run here, or NNCF is missing; a scene does not fit or has too few observed pixels; the output
        exists.
    """
    target = local_path(output, error=BundleError)
    check_replaced(target)
    if not scenes:
        raise PlanError("quantise needs at least one scene, whose pixels set the ranges of int8")
    options = SegmentOptions(engine="openvino", device="cpu", allow_mismatch=allow_mismatch)
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    resolve(replace(options.spec(loaded.metadata), precision="int8"))
    planned = [plan_scene(scene, loaded, options) for scene in scenes]
    made_of = _asked(loaded, planned, tolerance)
    if target.exists() and not overwrite:
        if not _is_made_of(target, made_of):
            refuse_existing(target, error=BundleError)
        return finish_bundle(target)
    compared = {_name(prepared, place): _compared(prepared) for place, prepared in enumerate(planned, 1)}
    tiles = [tile for prepared in planned for tile in calibration_tiles(prepared.source, prepared.inference)]
    for spared in SPARED:
        graph = quantise_network(loaded, tiles, spared)
        scores = {name: one.measure_graph(graph) for name, one in compared.items()}
        if max(score.error for score in scores.values()) <= tolerance:
            break
    return add_int8(loaded, target, graph, {name: _score(score) for name, score in scores.items()}, made_of)


def _asked(bundle: Bundle, planned: Sequence[SegmentPlan], tolerance: float) -> str:
    """Return a digest of all that decides a graph, so that the same command given again finds it made."""
    scenes = [prepared.scene_identity for prepared in planned]
    return fingerprint({"bundle": bundle.digest, "tolerance": tolerance, "scenes": scenes})


def _is_made_of(target: Path, made_of: str) -> bool:
    try:
        return load_bundle(target).int8_of == made_of
    except BundleError:
        return False


def _compared(prepared: SegmentPlan) -> Comparison:
    """Run fp32 over windows of a scene."""
    samples = read_samples(prepared.source, prepared.inference, observed_windows(
        prepared.source, prepared.plan, WINDOWS, SIDE))  # fmt: skip
    observed = sum(int(sample.valid.sum()) for sample in samples)
    if observed < LEAST:
        raise PlanError(f"{prepared.geobox.describe()}: {observed:,} observed pixels were found to quantise on, fewer "
                        f"than {LEAST:,}; leave this scene out")  # fmt: skip
    return Comparison.of(prepared.inference, samples)


def _name(prepared: SegmentPlan, place: int) -> str:
    paths = prepared.source.paths
    return Path(paths[0]).name if len(paths) == 1 else f"scene {place}"


def _score(found: Measured) -> dict[str, float]:
    values = {"error": found.error, "mean": found.mean, "agreement": 1 - found.changed, "speed": found.speed}
    return {name: round(value, 5) for name, value in values.items()}
