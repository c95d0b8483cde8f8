"""What a bundle needs to know of an ONNX file: how its pixels are given, what its answer is, how far an output sees.

The file is looked at, then run on a few small tiles in OpenVINO.
"""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import NetworkError
from .graph_form import ONNX, GraphForm, Layout, Output, OutputLayout
from .metadata import Activation, ReceptiveField
from .onnx_file import check_whole, names_said, read_model
from .onnx_footprint import carrying
from .onnx_graph import OnnxGraph, Shape, describe
from .onnx_openvino import AXES, Answers, plain_graph
from .receptive_field import measure_fixed, measure_on, unbounded

logger = logging.getLogger("swathe")

SIDES = (256, 480, 336)  # of a tile, in pixels: multiples of the usual strides
ROUNDING = 1e-3  # of a sum of probabilities
NO_SUM = 0.1  # how far from 1 it is where a softmax is over another axis, in whatever precision
TRIES, LOOKED_AT = 5, ((8, 8), (16, 16), (32, 64), (64, 64))  # compilations; rows and columns of what shows a bad one


@dataclass(frozen=True, slots=True)
class ReadOnnx:
    """An ONNX file, ready to be put into a bundle.

    Parameters
    ----------
    content
        The file, with the data that lay beside it.
    parameters
        Numbers in its constants.
    settings
        As they were given, with `options`, `activation` and `architecture` as the graph has them.
    receptive_field
        Measured on the graph.
    """

    content: bytes
    parameters: int
    settings: Mapping[str, Any]
    receptive_field: ReceptiveField


def read_onnx(path: str | os.PathLike[str], settings: Mapping[str, Any]) -> ReadOnnx:
    """Read an ONNX file and find out what settings do not say of it.

    Parameters
    ----------
    path
        Of the file.
    settings
        See `models.importing.import_onnx`.

    Raises
    ------
    NetworkError
        It is refused by `inspect`, does not run, or has other bands or classes than the settings.
    BundleError
        The settings' options make no sense.
    """
    name, given = os.fspath(path), dict(settings.get("options", {}))
    bands, classes = len(settings.get("bands", ())), len(settings.get("classes", ()))
    asked, model = GraphForm.of(given), read_model(path)
    graph = describe(model, name, asked.output_name, asked.layout if "layout" in given else None)
    graph = describe(model, name, asked.output_name, _layout_of(given, graph.shape, bands))
    _check_given(graph, name, bands, asked)
    check_whole(model, name)
    content = model.SerializeToString()
    form = replace(asked, layout=graph.layout or "NCHW", side=graph.side, batch=graph.batch or asked.batch)
    form = form if "output" in given else replace(form, output=graph.output)
    form, values = _with_output(form, *_answer(content, name, form, bands), given, name)
    channels = values.shape[1]
    if graph.activation == "softmax" and not _sum_to_one(values, NO_SUM):
        raise NetworkError(f"{name} ends in a softmax over another axis than that of its {channels} channels")
    activation = _activation(settings, graph, channels)
    _check_channels(name, form, channels, classes, activation)
    plain = _answers(content, name, form, bands)
    form = _with_batch(plain, form, graph.batch, (bands, *values.shape[2:]), name)
    fixed = {"patch": form.side} if form.side else {}
    told = {**fixed, **settings, "architecture": ONNX, "options": form.options, "activation": activation}
    return ReadOnnx(content, graph.parameters, told, _receptive_field(plain, model, name, form, bands))


def _layout_of(given: Mapping[str, Any], shape: Shape, bands: int) -> Layout | None:
    """Return the layout that is said, or that the number of bands decides; None: the shape of the input tells it."""
    if "layout" in given:
        return GraphForm.of(given).layout
    ends = [place for place in (1, 3) if shape[place] == bands]
    return ("NCHW" if ends == [1] else "NHWC") if len(ends) == 1 else None


def _check_given(graph: OnnxGraph, name: str, bands: int, asked: GraphForm) -> None:
    if len(graph.outputs) > 1 and not asked.output_name:
        raise NetworkError(
            f"{name} has the outputs {names_said(graph.outputs)}; say in options.output_name which is meant"
        )
    if graph.bands not in (None, bands):
        raise NetworkError(f"{name} takes {graph.bands} bands, and the settings name {bands}")
    for what, free in (("side", None), ("batch", asked.batch)):  # a graph of any batch can be given as many as is said
        if getattr(asked, what) not in (None, getattr(graph, what) or free):
            raise NetworkError(f"{name} has no fixed {what} of {getattr(asked, what)}: leave options.{what} out")


def _answers(content: bytes, name: str, form: GraphForm, bands: int) -> Answers:
    """Return a graph that can be run.

    OpenVINO (2026.4) was seen to compile a small graph, in a process that had done much else, so that it answered with
    NaN at some pixels; compiled anew, the same graph did not. So it is looked at, and compiled up to `TRIES` times.
    """
    for _ in range(TRIES):
        made = Answers(plain_graph(content, name, form, bands))
        if all(_is_finite(made, bands, shape) for shape in ([(form.side,) * 2] if form.side else LOOKED_AT)):
            break
    return made


def _is_finite(answers: Answers, bands: int, shape: tuple[int, int]) -> bool:
    """Whether a graph answers ordinary pixels with numbers, or takes no tile of such a shape."""
    with suppress(ValueError):
        return bool(
            np.isfinite(answers(np.random.default_rng(0).standard_normal((1, bands, *shape), np.float32))).all()
        )
    return True


def _answer(content: bytes, name: str, form: GraphForm, bands: int) -> tuple[int, NDArray[np.float32]]:
    """Run a graph on one tile; return the tile's side, and what the graph gives back as it is."""
    answers = _answers(content, name, replace(form, output_layout="NCHW"), bands)
    random, why = np.random.default_rng(0), ""
    for side in (form.side,) if form.side else SIDES:
        try:
            return side, answers(random.standard_normal((1, bands, side, side), np.float32))
        except ValueError as error:
            why = str(error)
    raise NetworkError(f"{name} cannot run a tile of {form.side or SIDES[0]} pixels: {why}")


def _with_output(
    form: GraphForm, side: int, answer: NDArray[np.float32], given: Mapping[str, Any], name: str
) -> tuple[GraphForm, NDArray[np.float32]]:
    """Return a graph's form with what an answer of it shows, and that answer, NCHW."""
    if "output_layout" not in given:
        form = replace(form, output_layout=_output_layout(answer.shape, side, form, name))
    values = answer[:, None] if answer.ndim == 3 else answer.transpose(AXES[form.output_layout])
    if values.shape[2:] != (side, side):
        raise NetworkError(
            f"{name} answers with {values.shape[2]} x {values.shape[3]} pixels for a tile of {side} x {side}; "
            "Swathe runs networks that give back as many as they take"
        )
    if not np.isfinite(values).all():
        raise NetworkError(f"{name} answers with NaN or infinity for ordinary pixels")
    if "output" not in given and form.output == "logits":
        form = replace(form, output=_output(values, name))
    if form.output == "probabilities" and not ((values > -ROUNDING) & (values < 1 + ROUNDING)).all():
        raise NetworkError(f"{name} answers with {values.min():.3g} to {values.max():.3g}, which are no probabilities")
    return form, values


def _output_layout(shape: tuple[int, ...], side: int, form: GraphForm, name: str) -> OutputLayout:
    if len(shape) == 3 and form.output == "classes":
        return "NHW"
    if len(shape) != 4:
        raise NetworkError(f"{name} answers with {len(shape)} axes, {' x '.join(map(str, shape))}; a map has 4")
    return "NHWC" if shape[1:3] == (side, side) != shape[2:] else "NCHW"


def _output(values: NDArray[np.float32], name: str) -> Output:
    """Tell logits from probabilities that no operator shows."""
    if values.shape[1] > 1 and _sum_to_one(values, ROUNDING):
        return "probabilities"
    if values.min() >= 0 and values.max() <= 1:
        raise NetworkError(
            f"{name} answers with {values.min():.3g} to {values.max():.3g}, which may be probabilities: "
            'say options = { output = "probabilities" }, or "logits" if they are none'
        )
    return "logits"


def _sum_to_one(values: NDArray[np.float32], most: float) -> bool:
    return bool((values > -ROUNDING).all() and (abs(values.sum(axis=1) - 1) < most).all())


def _activation(settings: Mapping[str, Any], graph: OnnxGraph, channels: int) -> Activation:
    said: Activation = settings.get("activation") or graph.activation or ("sigmoid" if channels == 1 else "softmax")
    return said


def _check_channels(name: str, form: GraphForm, channels: int, classes: int, activation: Activation) -> None:
    """Refuse a graph that does not answer for the classes of the settings."""
    if form.output == "classes":
        if channels != 1:
            raise NetworkError(f"{name} answers with {channels} channels of class numbers; one is meant")
    elif channels == 1:
        if activation != "sigmoid" or classes != 2:
            raise NetworkError(
                f"{name} answers with one channel, of a sigmoid over two classes, and the settings have "
                f"{activation} over {classes}"
            )
    elif channels != classes:
        raise NetworkError(f"{name} answers for {channels} classes, and the settings name {classes}")


def _with_batch(answers: Answers, form: GraphForm, fixed: int | None, tile: tuple[int, ...], name: str) -> GraphForm:
    """Return a graph's form with a batch of one where it mixes the tiles that are given together.

    What a tile is given with depends on how a scene is cut and read, so that a batch that must be mixed is refused.
    """
    count = form.batch or 2
    if count == 1 or not _mixes_tiles(answers, (count, *tile)):
        return form
    if fixed:
        raise NetworkError(
            f"{name} takes {fixed} tiles at once, and its answer for one depends on the others given with it, "
            "or on its place among them: export it with a batch of 1, or of any size"
        )
    logger.info("%s is given one tile at a time: of several, its answer for one depends on the others", name)
    return replace(form, batch=1)


def _mixes_tiles(answers: Answers, shape: tuple[int, ...]) -> bool:
    """Whether a tile's answer differs with what is given with it: others, or (where it must be) copies of it."""
    tiles = np.random.default_rng(0).standard_normal(shape, np.float32)
    tiles[1::2] *= 10  # so that bounds of all tiles together show
    try:
        together = answers(tiles)
        for place in {0, len(tiles) // 2, len(tiles) - 1}:
            alone = answers(tiles[place : place + 1])[0]
            most = ROUNDING * np.nanmax(abs(alone), initial=0)
            if not np.isclose(together[place], alone, rtol=0, atol=most, equal_nan=True).all():
                return True
    except (ValueError, IndexError):  # it takes but one, or answers for but one
        return True
    return False


def _receptive_field(plain: Answers, model: Any, name: str, form: GraphForm, bands: int) -> ReceptiveField:
    """Measure a graph; where that cannot be done, there is no bound that could be relied on."""
    try:
        probe = _answers(carrying(model), name, form, bands)
        if form.side:
            return measure_fixed(plain, bands, form.side, probe)
        return measure_on(plain, bands, probe)
    except (NetworkError, ValueError) as error:
        logger.info("the receptive field of %s is not measured: %s", name, error)
        return unbounded(plain, bands, form.side)
