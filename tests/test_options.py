"""Options in Python: what help and completion show of them, and that they are declared once."""

import inspect
import re
from dataclasses import fields
from types import ModuleType

import jedi
import pytest

import models
import pipeline
import train
from models.options import documents, typed
from pipeline.inference.options import SegmentOptions
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


@pytest.mark.parametrize("name", ["segment", "run", "plan", "write_clean"])
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
