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
@blending
