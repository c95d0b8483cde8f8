"""The verb `swathe train`: fits a network, checks data, or searches for a learning rate. Light to import."""

import glob
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import allow_option, layer_option, note, width_option

if TYPE_CHECKING:
    from ..config import Settings

Pair = tuple[str, str]
COLORS = ("000000", "E4572E", "17BEBB", "FFC914", "76B041", "8A4FFF", "2E86AB", "F18F01")


@click.command(
    epilog="Example: swathe train train/configs/buildings.toml -o buildings\n\n"
    "Example: swathe train --train a.tif a.geojson --val b.tif b.geojson --classes ground,building -o mine"
)
@click.argument("config", required=False)
@click.option(
    "-o", "--output", metavar="OUT", help="The bundle: a folder, or .zip. With --check or --find-rate: a .png."
)
@click.option("--train", "training", nargs=2, multiple=True, metavar="IMAGE LABELS",
              help="Instead of CONFIG: an image to train on; may be repeated.")  # fmt: skip
@click.option("--val", "validation", nargs=2, multiple=True, metavar="IMAGE LABELS",
              help="Instead of CONFIG: an image to validate on; may be repeated.")  # fmt: skip
@click.option("--classes", metavar="LIST", help="Instead of CONFIG: names of the classes.")
@click.option("--background", metavar="NAME|none",
              help="Which class is the background.  [default: CONFIG's; of two the first]")  # fmt: skip
@click.option("--bands", metavar="LIST", help="Instead of CONFIG: the images' bands, as 4,3,2 or red,green,blue.")
@layer_option
@width_option
@click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting, as loop.steps=500.")
@click.option(
    "--check",
    is_flag=True,
    help="Train nothing: draw some chips, say what is wrong with the data; exits with 1 on errors.",
)
@click.option("--find-rate", is_flag=True, help="Train nothing: search for a learning rate, and draw the losses.")
@click.option("--restart", is_flag=True, help="Begin anew what was begun before.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@allow_option
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def train(config: str | None, output: str | None, check: bool, find_rate: bool, quiet: bool, **rest: Any) -> None:
    """Train a network from CONFIG (TOML) into a bundle. Interrupted at any moment, the same command continues."""
    changes, restart, overwrite = (rest.pop(name) for name in ("changes", "restart", "overwrite"))
    if (background := rest.pop("background")) is not None:
        changes = (*changes, f"background={json.dumps(background)}")
    settings = _settings(config, changes, **rest)
    plural = "s" * (len(settings.data) != 1)
    note(f"swathe: {settings.name}: looking for {len(settings.data)} set{plural} of data", quiet)
    if (check or find_rate) and output and not output.lower().endswith(".png"):
        raise click.BadParameter(f"{output} must end in .png: a picture is what is written", param_hint="--output")
    if check:
        from ..data_qa.inspection import inspect

        found = inspect(settings, output or f"{settings.name}-check.png", overwrite=overwrite, show=not quiet)
        click.echo(found.text)
        if found.errors:
            raise SystemExit(1)  # for scripts: a training on these data fails, or learns what is wrong
    elif find_rate:
        click.echo(_find_rate(settings, output or f"{settings.name}-rates.png", overwrite=overwrite, show=not quiet))
    elif output is None:
        raise click.UsageError("give -o/--output, where the bundle goes")
    else:
        _train(settings, output, restart=restart, overwrite=overwrite, show=not quiet)


def _train(settings: "Settings", output: str, **how: bool) -> None:
    from pipeline.cli.describe import outcome, stamp

    from ..fitting.fit import train as fit

    before = stamp(output)
    made = fit(settings, output, command=shlex.join(["swathe", *sys.argv[1:]]), **how)
    scores = made.metadata.metrics.get("validation", {})
    listed = ", ".join(f"{name} {value:.3f}" for name, value in scores.items() if isinstance(value, float))
    click.echo(
        f"{outcome(output, before)}  {made.parameters:,} parameters" + (f"  validation: {listed}" if listed else "")
    )
    use = f"swathe segment SCENE -m {shlex.quote(output)} -o map.tif"
    click.echo(f"{use}   uses it; {output.rstrip('/')}.training has checkpoints, logs and curve")


def _find_rate(settings: "Settings", picture: str, *, overwrite: bool, show: bool) -> str:
    from models.files import check_output

    from ..fitting.learning_rate import draw_rates, find_rate
    from ..fitting.training import prepare

    check_output(picture, overwrite=overwrite)
    rates = find_rate(prepare(settings, show=show), show=show)
    drawn = draw_rates(rates, picture)
    if rates.suggested is None:
        return f"the loss fell at no learning rate that was tried; wrote {drawn}"
    return f"suggested: --set loop.learning_rate={rates.suggested:.2g}  (where the loss falls fastest); wrote {drawn}"


def _settings(config: str | None, changes: Sequence[str], training: Sequence[Pair], validation: Sequence[Pair],
              classes: str | None, bands: str | None, layer: str, width: str | None) -> "Settings":  # fmt: skip
    from ..config import read_settings, settings_of

    if config and (training or validation or classes or bands or layer or width):
        raise click.UsageError("give CONFIG, or --train, --val, --classes, --bands, --layer and --width; not both")
    if config:
        return read_settings(config, changes)
    if not training or not classes:
        raise click.UsageError("give CONFIG, or at least --train IMAGE LABELS and --classes LIST")
    names, chosen = _listed(classes), _listed(bands or "")
    sets = [_set(pair, "train", chosen) for pair in training] + [_set(pair, "validate", chosen) for pair in validation]
    vectors: dict[str, Any] = {"layer": layer, "width": width}
    sets = [{**one, **{key: value for key, value in vectors.items() if value}} for one in sets]
    if not validation:  # a fifth of the images' blocks
        sets = [{**one, "split": {"by": "blocks", "validate": 0.2}} for one in sets]
    colors = [COLORS[n] if n < len(COLORS) else f"{n * 2654435761 % 2**24:06X}" for n in range(len(names))]
    described = [{"name": name, "color": color} for name, color in zip(names, colors, strict=True)]
    bands_of = [f"band{n}" if n.isdecimal() else n for n in chosen or _bands_of(training[0][0])]
    network = {"architecture": "unet", "options": {"widths": [16, 32, 64, 128]}}
    raw = {"name": "trained", "bands": bands_of, "classes": described, "data": sets, "network": network}
    return settings_of(raw, changes=changes)


def _bands_of(image: str) -> Sequence[str]:
    """Return the names of an image's bands; of a palette, its colours."""
    from pipeline.io.scene import open_source

    source = open_source(image)
    return [one[0] for one in source.all_names[len(source.bands) :]] or source.bands


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _set(pair: Pair, part: str, bands: list[str]) -> dict[str, Any]:
    image = Path(pair[0])
    chosen = {"bands": [int(band) if band.isdecimal() else band for band in bands]} if bands else {}
    ending = image.suffix or ("/" if image.is_dir() else "")
    return {"root": str(image.parent), "image": f"{{name}}{ending}", "label": str(Path(pair[1]).absolute()),
            part: [glob.escape(image.stem)], **chosen}  # fmt: skip
