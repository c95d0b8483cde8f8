"""The verb `swathe evaluate`: scores a bundle on a labelled scene or the samples of a config. Light to import."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.errors import TrainingError
from pipeline.cli.options import (
    allow_option,
    alpha_option,
    blending,
    layer_option,
    note,
    radiometry,
    running,
    threshold_option,
    width_option,
)

from ..config.schema import PARTS

if TYPE_CHECKING:
    from models.bundle import Bundle

    from ..data.samples import Sample
    from ..evaluation.baselines import BaselinePredictor

BASELINE = click.Choice(["brightness", "forest"])
OF_LABELS = ("bands", "alpha", "values", "ignore", "colors", "attribute", "burn", "layer", "width")


@click.command(
    epilog="Example: swathe evaluate buildings scene.tif labels.geojson -o scores\n\n"
    "Example: swathe evaluate clouds scene.tif labels.tif --values 255=cloud --ignore 128 -o scores\n\n"
    "Example: swathe evaluate mine.zip settings.toml --part test --baseline forest -o scores"
)
@click.argument("bundle")
@click.argument("data", nargs=-1, required=True, metavar="SCENE LABELS | CONFIG.toml")
@click.option("-o", "--output", required=True, metavar="FOLDER", help="For scores.json, scores.md and index.html.")
@click.option("--part", type=click.Choice(PARTS), help="Which samples of CONFIG.  [default: test]")
@click.option("--bands", metavar="LIST", help="The scene's bands in the network's order, as 4,3,2.")
@alpha_option
@allow_option
@click.option("--values", multiple=True, metavar="VALUE=CLASS", help="What label values mean.  [default: by number]")
@click.option("--ignore", multiple=True, metavar="VALUE", help="Label values that do not count.")
@click.option("--colors", type=click.Choice(["yes", "no"]),
              help="Whether masks hold the classes' colours.  [default: palettes that have these]")  # fmt: skip
@click.option("--attribute", default="", metavar="COLUMN", help="Column of vector labels that names the class.")
@click.option("--burn", default="", metavar="CLASS", help="Class of all vector labels.  [default: of two the other]")
@layer_option
@width_option
@radiometry
@threshold_option
@click.option("--baseline", "baselines", multiple=True, type=BASELINE, help="Score this beside it; may be repeated.")
@click.option("--reference", "more", multiple=True, type=BASELINE, hidden=True)  # the former name
@click.option("--train", metavar="CONFIG.toml", help="What baselines are fitted to.  [default: CONFIG's train samples]")
@click.option(
    "--distance", type=click.IntRange(min=1), default=2, show_default=True, help="Width of boundaries, pixels."
)
@click.option(
    "--engine", type=click.Choice(["auto", "torch", "openvino", "onnxruntime"]), default="auto", show_default=True
)
@blending
@click.option("--record", is_flag=True, help="Write the scores into the bundle too, as those of its test.")
@click.option("--allow-mismatch", is_flag=True, help="Run although type or resolution differ from the training's.")
@running
def evaluate(bundle: str, data: Sequence[str], output: str, client: Any, quiet: bool, **rest: Any) -> None:
    """Score BUNDLE on labelled scenes, whole, and print the scores.

    Labels are a raster, on the scene's grid or another, or vectors. Pixels that are ignored, or not observed, do not
    count. Interrupted at any moment, the same command continues; once it is complete, it says so.
    """
    config = data[0] if len(data) == 1 and data[0].lower().endswith(".toml") else None
    rest["baselines"] += rest.pop("more")
    _check(config, data, rest)
    note(f"swathe: scoring {bundle} on {' '.join(data)}", quiet)
    from models.bundle import add_metrics, load_bundle

    from ..evaluation.evaluation import evaluate as score
    from ..evaluation.evaluation import finish
    from ..evaluation.results import as_markdown, summary
    from ..evaluation.scorecard import MARKDOWN, check_folder, settings_in

    loaded = load_bundle(bundle)
    overwrite, fitted, before = rest.pop("overwrite"), rest.pop("train") or config, settings_in(output)
    check_folder(output, overwrite=overwrite or bool(before))
    samples = _of_config(config, rest["part"] or "test", loaded) if config else [_sample(data, loaded, rest)]
    how: dict[str, Any] = {name: rest[name] for name in ("threshold", "distance", "engine", "allow_mismatch")}
    how |= {name: rest[name] for name in ("overlap", "blend", "taper") if rest[name] not in (None, "crop", "linear")}
    how["settings"] = _settings(loaded, samples, how, rest["baselines"], fitted)
    if before == how["settings"] and not overwrite and not rest["record"]:
        finish(output)
        click.echo((Path(output) / MARKDOWN).read_text(encoding="utf-8"))
        click.echo(f"{output} is already complete")
        return
    overwrite = overwrite or before == how["settings"]  # to be recorded, scores are computed again
    check_folder(output, overwrite=overwrite)  # before baselines are fitted, which takes minutes
    baselines = _baselines(rest["baselines"], loaded, samples, fitted, client, quiet)
    try:
        found = score(loaded, samples, output, baselines=baselines, client=client, overwrite=overwrite,
                      show=not quiet, **how)  # fmt: skip
    except TrainingError as error:
        message, advice, _ = str(error).partition("Say in [[data]] ")
        flags = "Say what they are with --values VALUE=CLASS, or --ignore VALUE"
        raise TrainingError(message + flags if advice and config is None else str(error)) from error
    if rest["record"]:
        scores = {"test": summary(found.network.pooled), "tested on": [sample.name for sample in samples]}
        add_metrics(loaded.path, {**scores, "test thresholds": found.thresholds})
    click.echo(as_markdown(found))
    click.echo(f"wrote {Path(output) / 'index.html'}, scores.json and scores.md")


def _settings(
    bundle: "Bundle", samples: "Sequence[Sample]", how: dict[str, Any], baselines: Sequence[str], fitted: str | None
) -> str:
    """Return the digest of all that decides the scores."""
    from pipeline.store.metadata import fingerprint

    from ..evaluation.runner import sample_identity

    training = _of_config(fitted, "train", bundle) if fitted and baselines else []
    parts = [[sample_identity(sample) for sample in part] for part in (samples, training)]
    return fingerprint({"bundle": bundle.digest, "samples": parts, "how": repr(how), "baselines": list(baselines)})


def _check(config: str | None, data: Sequence[str], given: dict[str, Any]) -> None:
    """Refuse flags that do not go together."""
    if config is None and len(data) < 2:
        raise click.UsageError("give SCENE and LABELS, or a CONFIG that ends in .toml")
    if config is None and given["part"]:
        raise click.UsageError("--part is of a CONFIG; a scene with labels is one sample")
    if config and any(given[name] not in (None, "", ()) for name in OF_LABELS):
        shown = ", ".join(f"--{name}" for name in OF_LABELS)
        raise click.UsageError(f"{shown} are for SCENE LABELS; CONFIG says them")
    if config and (given["reflectance"] or not given["scale"] is given["offset"] is None):
        raise click.UsageError(
            "--scale, --offset and --reflectance are for SCENE LABELS; say data.radiometry in CONFIG"
        )
    if "forest" in given["baselines"] and not (config or given["train"]):
        raise click.UsageError("a forest is fitted to labelled samples: give --train CONFIG.toml")
    if given["train"] and not given["baselines"]:
        raise click.UsageError("--train is what baselines are fitted to: give --baseline too")


def _of_config(path: str, part: str, bundle: "Bundle") -> "list[Sample]":
    """Return the samples of one part of a config, whose classes are the bundle's."""
    from pipeline.inference.radiometry import bring_to_bundle

    from ..config import read_settings
    from ..data.datasets import gather

    settings = read_settings(path)
    wanted, there = (", ".join(names) for names in (bundle.metadata.class_names, settings.class_names))
    if wanted != there:
        raise TrainingError(f"{path} has the classes {there}, the bundle {wanted}: give the config of its kind")
    samples = list(gather(settings, only=part)[part])
    samples = [replace(sample, source=bring_to_bundle(sample.source, bundle.metadata)) for sample in samples]
    if not samples:
        raise TrainingError(f"{path} has no samples to {part}: name some in [[data]], or choose another --part")
    return samples


def _sample(data: Sequence[str], bundle: "Bundle", given: dict[str, Any]) -> "Sample":
    """Open a scene with its labels."""
    from pipeline.inference.options import SegmentOptions
    from pipeline.inference.plan import open_matching
    from pipeline.inference.radiometry import bring_to_bundle

    from ..data.classes import color_table, value_table
    from ..data.labels import open_labels
    from ..data.samples import Sample

    *scene, labels = data
    bands = [name.strip() for name in given["bands"].split(",")] if given["bands"] else None
    asked = {name: given[name] for name in ("scale", "offset", "reflectance", "allow_mismatch")}
    opened_scene = open_matching(scene, bundle.metadata, bands, alpha=given["alpha"])
    source = bring_to_bundle(opened_scene, bundle.metadata, SegmentOptions(**asked))
    classes, values, ignore = bundle.metadata.classes, _values(given["values"]), given["ignore"]
    if given["colors"] == "yes":
        table = color_table(classes, None, values, ignore)
    else:
        table = value_table(classes, values, ignore, palettes=given["colors"] is None)
    how = {name: given[name] for name in ("attribute", "burn", "layer", "width")}
    opened = open_labels(labels, source.geobox, table, background=bundle.metadata.background_value, **how)
    return Sample(Path(scene[0]).stem, source, opened, (source.geobox.whole,), tuple(data))


def _values(given: Sequence[str]) -> dict[str, str]:
    """Read VALUE=CLASS, once for each value."""
    pairs = [text.partition("=") for text in given]
    for value, equals, name in pairs:
        if not (value.strip() and equals and name.strip()):
            wrong = value + equals + name
            raise click.BadParameter(f"{wrong!r} is not VALUE=CLASS, as 255=cloud", param_hint="--values")
    twice = sorted(value for value, times in Counter(value for value, _, _ in pairs).items() if times > 1)
    if twice:
        raise click.BadParameter(f"{', '.join(twice)} is given twice; give each value once", param_hint="--values")
    return {value.strip(): name.strip() for value, _, name in pairs}


def _baselines(
    names: Sequence[str],
    bundle: "Bundle",
    samples: "Sequence[Sample]",
    fitted: str | None,
    client: Any,
    quiet: bool,
) -> "list[BaselinePredictor]":
    """Fit the baselines of these names, to the training samples of a config; brightness to the scored ones too."""
    if not names:
        return []
    from pipeline.cluster.connect import dask_client

    from ..evaluation.baselines import fit_brightness

    background = bundle.metadata.background_value
    bright = 1 if background is None else 1 - background  # of two classes
    classes, made = len(bundle.metadata.classes), list["BaselinePredictor"]()
    if "brightness" in names and classes != 2:
        raise TrainingError(f"a brightness threshold tells two classes apart; the bundle has {classes}")
    training = _of_config(fitted, "train", bundle) if fitted else []
    with dask_client(client, 2) as client:
        if "brightness" in names:
            note("swathe: looking for the best brightness thresholds", quiet)
            made += [fit_brightness(training, client, "chosen on the training samples", bright)] if training else []
            made += [fit_brightness(samples, client, "the best for these very samples", bright)]
        if "forest" in names:
            from ..evaluation.random_forest import fit_forest

            note("swathe: fitting a random forest", quiet)
            made += [fit_forest(training, client, classes)]
    return made
