"""The verbs of the command `swathe` on bundles: bundles, import-weights, quantise, export-model and package.

Each is one call of one public function of `models`. Imports nothing heavy before a verb runs.
"""

import click

from .options import allow_option, note, output, overwriting


@click.command(epilog="Example: swathe bundles")
@click.argument("bundle", required=False)
def bundles(bundle: str | None) -> None:
    """List the bundles that come with Swathe, or show all of one BUNDLE."""
    from .describe import describe_bundle, list_bundles

    click.echo(describe_bundle(bundle) if bundle else list_bundles())


@click.command(
    "import-weights",
    epilog="Example: swathe import-weights checkpoint.pth --config network.toml -o bundle.zip",
)
@click.argument("checkpoint")
@click.option("--config", required=True, metavar="FILE", help="TOML or JSON that describes network, bands and classes.")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder or .zip to write.")
@overwriting
def import_weights(checkpoint: str, config: str, output: str, overwrite: bool) -> None:
    """Make a bundle of foreign weights: a torch state dict or safetensors. No code in the file is run."""
    from models.importing import import_bundle

    from .describe import outcome, stamp

    before = stamp(output)
    made = import_bundle(checkpoint, config, output, overwrite=overwrite)
    click.echo(f"{outcome(output, before)}  {made.metadata.name} {made.digest[:12]}  {made.parameters:,} parameters")


@click.command(epilog="Example: swathe quantise buildings --scenes a.tif b.tif -o buildings-int8.zip")
@click.argument("bundle")
@click.option(
    "--scenes",
    "scenes",
    multiple=True,
    required=True,
    metavar="SCENE",
    help="A scene like those it will be used on; more may follow, with or without --scenes before each.",
)
@click.argument("more", nargs=-1, metavar="")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder or .zip to write.")
@click.option("--tolerance", type=float, default=0.004, show_default=True, help="Error that the plain graph may make.")
@click.option("--allow-mismatch", is_flag=True, help="Run although type or resolution differ from the training's.")
@allow_option
@overwriting
def quantise(
    bundle: str,
    scenes: tuple[str, ...],
    more: tuple[str, ...],
    output: str,
    tolerance: float,
    allow_mismatch: bool,
    overwrite: bool,
) -> None:
    """Write a BUNDLE that carries its graph in int8, so that runs in int8 need no calibration."""
    from ..inference.quantise import quantise as write_quantised
    from .describe import outcome, stamp

    before = stamp(output)
    made = write_quantised(bundle, (*scenes, *more), output, tolerance=tolerance, allow_mismatch=allow_mismatch,
                           overwrite=overwrite)  # fmt: skip
    click.echo(f"{outcome(output, before)}  {made.metadata.name} {made.digest[:12]}")
    for name, found in made.int8_scores.items():
        click.echo(f"{name}: error {found['error']:.4f}, {found['agreement']:.2%} of pixels keep their class, "
                   f"{found['speed']:.1f} times as fast as fp32")  # fmt: skip


@click.command(
    "export-model",
    epilog="Example: swathe export-model buildings -o buildings.onnx\n\n"
    "Example: swathe export-model bundle.zip -o bundle.pt2",
)
@click.argument("bundle")
@output("OUT", "OUT.onnx, or OUT.pt2 for torch.export.load.", (".onnx", ".pt2"),
        ".onnx or .pt2; the ending decides what is written")  # fmt: skip
@overwriting
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def export_model(bundle: str, output: str, overwrite: bool, quiet: bool) -> None:
    """Write a BUNDLE's whole graph for other programs: raw pixels in, probabilities out.

    Batch, height and width are free; sides are multiples of the network's stride. The file is run and compared with
    the bundle before it gets its name.
    """
    from models.bundle import load_bundle
    from models.exporting import export_onnx, export_program

    from .describe import outcome, stamp

    before, loaded = stamp(output), load_bundle(bundle)
    note(f"swathe: exporting {loaded.metadata.name}, then comparing", quiet)
    made = (export_onnx if output.lower().endswith(".onnx") else export_program)(loaded, output, overwrite=overwrite)
    size = f"{made.path.stat().st_size:,} bytes, within {made.difference:.1e} of the bundle"
    click.echo(f"{outcome(output, before)}: {size}")


@click.command(
    epilog="Example: swathe package buildings -o buildings.json\n\n"
    "Example: swathe package bundle.zip -o item.json --with bundle.onnx --href https://example.org/bundle.zip"
)
@click.argument("bundle")
@output("ITEM.json", "The STAC Item to write.", [".json"], ".json: it is a STAC Item")
@click.option("--with", "exported", multiple=True, metavar="FILE", help="What `export-model` has made of it; repeat.")
@click.option("--href", default="", metavar="URL", help="Where others find the weights.  [default: where they are]")
@overwriting
def package(bundle: str, output: str, exported: tuple[str, ...], href: str, overwrite: bool) -> None:
    """Describe a BUNDLE for catalogues: a STAC Item with the Machine Learning Model extension, sizes and checksums."""
    from models.bundle import load_bundle, split_pin
    from models.exporting import write_item

    from .describe import outcome, stamp

    where = href or (split_pin(bundle)[0] if "://" in bundle else "")
    before = stamp(output)
    write_item(load_bundle(bundle), output, exported, href=where, overwrite=overwrite)
    click.echo(outcome(output, before))


MODEL_VERBS = (export_model, package)
