"""Options in Python: what help and completion show of them, and that they are declared once."""

import inspect
import re
from dataclasses import fields, replace
from types import ModuleType

import jedi
import pytest
from helpers import metadata, pixels, save, write_raster

import models
import pipeline
import train
from models import ClassInfo
from models.options import documents, typed
from pipeline.inference.options import SegmentOptions
from pipeline.io.scene import open_source
from pipeline.jobs.job import RunResult
from pipeline.postprocess.options import CleanOptions

WHOLE = [
    (pipeline.plan, SegmentOptions),
    (pipeline.segment, SegmentOptions),
    (pipeline.run, SegmentOptions),
    (pipeline.clean, CleanOptions),
    (pipeline.write_clean, CleanOptions),
]
FUNCTIONS = [
    getattr(package, name)
    for package in (models, pipeline, train)
    for name in package.__all__
    if inspect.isfunction(getattr(package, name))
]


def explained(function) -> dict[str, str]:
    """The entries of a numpy docstring's parameters: name, and the line that begins it."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n[A-Z]\w+\n-+\n|\Z)", inspect.getdoc(function), re.DOTALL)
    heads = re.findall(r"^\S.*$", section[1], re.MULTILINE) if section else []
    return {name.strip(): head for head in heads for name in head.partition(" : ")[0].split(",")}


@pytest.mark.parametrize(("function", "options"), WHOLE, ids=lambda value: value.__name__)
def test_signature_docstring_and_dataclass_agree(function, options):
    parameters, told = inspect.signature(function).parameters, explained(function)
    for field in fields(options):
        parameter = parameters[field.name]
        assert (parameter.annotation, parameter.default) == (field.type, field.default), field.name
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert told[field.name] == f"{field.name} : {typed(field.type)}, default {field.default!r}"


def test_evaluate_takes_the_options_that_mean_something_for_it():
    parameters, told = inspect.signature(train.evaluate).parameters, explained(train.evaluate)
    for field in fields(SegmentOptions):
        if field.name in parameters and field.name != "threshold":  # which is of samples here
            assert (parameters[field.name].annotation, parameters[field.name].default) == (field.type, field.default)
            assert told[field.name].endswith(f"default {field.default!r}")


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_public_functions_explain_every_parameter_by_name(function):
    parameters = inspect.signature(function).parameters
    assert {p.kind for p in parameters.values()} <= {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    assert all(p.annotation is not inspect.Parameter.empty for p in parameters.values())
    assert explained(function).keys() == parameters.keys()


@pytest.mark.parametrize(
    "name", ["segment", *(pytest.param(one, marks=pytest.mark.slow) for one in ("run", "plan", "write_clean"))]
)
def test_editors_complete_options_without_running_anything(name):
    options = CleanOptions if "clean" in name else SegmentOptions
    code = f"import pipeline\npipeline.{name}(1, 2, "
    offered = {found.name for found in jedi.Script(code).complete()}
    assert {f"{field.name}=" for field in fields(options)} <= offered


def test_types_are_shown_in_words():
    assert typed(SegmentOptions.__dataclass_fields__["halo"].type) == "Literal['exact', 'auto'] | int"
    assert typed(CleanOptions.__dataclass_fields__["threshold"].type) == "float | Mapping[str, float] | None"


def test_a_function_that_does_not_say_where_is_refused():
    def silent(bands: None = None) -> None:
        """Take options."""

    with pytest.raises(AssertionError, match="where SegmentOptions are explained"):
        documents(SegmentOptions)(silent)


def test_packages_are_modules():  # `train.train` is a function of the package, not one of its folders
    assert all(isinstance(package, ModuleType) for package in (models, pipeline, train))


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "s.tif", pixels((3, 64, 64)), descriptions=("red", "green", "blue"))


def short(thing: object, *words: str) -> None:
    """What Python shows of a result is a few words, though it may hold much."""
    assert repr(thing).startswith("<")
    assert len(repr(thing)) < 350
    assert all(word in repr(thing) for word in words), repr(thing)


def test_results_say_what_they_are_in_a_line(scene, tmp_path):
    bundle = save(tmp_path / "b", metadata(provenance={"trained on": [f"scene {n}" for n in range(500)]}))
    short(bundle, "tiny-simple-unet", bundle.digest[:12], "red, green, blue (uint16) to class_0, class_1", "/b")
    short(bundle.metadata, "tiny-simple-unet", "simple-unet")
    planned = pipeline.plan(scene, bundle)
    short(planned, "SegmentPlan of tiny-simple-unet on 64 x 64 pixels, EPSG:32736", "1 block,")
    short(planned.source, "RasterSource 64 x 64 pixels", "uint16 red, green, blue", "s.tif")
    short(planned.geobox, "EPSG:32736")
    short(open_source(pipeline.open_scene(scene)), "ArraySource 64 x 64 pixels")
    short(pipeline.run(scene, bundle, tmp_path / "o.zarr", show=False), "o.zarr: 1 block,", "nodata 0")
    many = tuple(ClassInfo(f"class {n}", "000000") for n in range(250))
    short(replace(metadata(), classes=many, background=None), "class 7 and 242 more")
    short(RunResult("o", 1, 0, {f"class {n}": n for n in range(250)}, 1 / 3), "0.3 s", "and 242 more")


def test_lazy_scenes_of_other_pixels_have_other_names(scene, tmp_path):
    other = write_raster(tmp_path / "t.tif", pixels((3, 64, 64), seed=1), descriptions=("red", "green", "blue"))
    first, again, second = (pipeline.open_scene(path) for path in (scene, scene, other))
    assert first.data.name == again.data.name != second.data.name
    assert pipeline.open_scene(scene, bands=["blue"]).data.name != pipeline.open_scene(scene, bands=["red"]).data.name
