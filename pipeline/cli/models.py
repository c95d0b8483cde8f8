"""The verbs of the command `swathe` on bundles: bundles, quantise, export-model and package.

Each is one call of one public function of `models`. Imports nothing heavy before a verb runs.
"""

import click

from .options import allow_option, note, output, overwriting


@click.command(epilog="Example: swathe bundles")
@click.argument("bundle", required=False)
def bundles(bundle: str | None) -> None:
    """List bundles: shipped, your own, and published ones that import. Or show all of one BUNDLE."""
    from .describe_bundle import describe_bundle, list_bundles

    click.echo(describe_bundle(bundle) if bundle else list_bundles())


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


ENDINGS = (".onnx", ".pt2", ".dlpk")
PROGRAMS = {"deepness": (".onnx",), "smp": ("",)}  # what is written for them, by its ending; "": a folder


def _exported_name(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """Refuse a name whose ending is not that of what is to be written."""
    program = ctx.params.get("program")
    wanted = PROGRAMS.get(program or "", ENDINGS)
    if wanted == ("",) and value.lower().endswith(ENDINGS):
        raise click.BadParameter(f"{value} must be a folder, for {program}")
    if not value.lower().endswith(wanted):
        which = f", for {program}" if program else "; the ending decides what is written"
        raise click.BadParameter(f"{value} must end in {', '.join(wanted)}{which}")
    return value


@click.command(
    "export-model",
    epilog="Example: swathe export-model buildings -o buildings.onnx\n\n"
    "Example: swathe export-model buildings --for deepness -o qgis.onnx\n\n"
    "Example: swathe export-model bundle.zip --for smp -o folder",
)
@click.argument("bundle")
@click.option("--for", "program", type=click.Choice(tuple(PROGRAMS)), is_eager=True,
              help="deepness: the plugin of QGIS; smp: a folder of segmentation-models-pytorch.")  # fmt: skip
@click.option("-o", "--output", required=True, metavar="OUT", callback=_exported_name,
              help="OUT.onnx; OUT.pt2 for torch.export.load; OUT.dlpk for ArcGIS; or a folder, for smp.")  # fmt: skip
@overwriting
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def export_model(bundle: str, program: str | None, output: str, overwrite: bool, quiet: bool) -> None:
    """Write a BUNDLE's network for other programs: raw pixels in, probabilities out (for smp: its own network alone).

    Batch, height and width are free; sides are multiples of the network's stride. What is written is run and compared
    with the bundle before it gets its name. docs/imports.md says what each program does with it.
    """
    from models.bundle import load_bundle
    from models.exporting import export_onnx, export_program
    from models.exporting_arcgis import export_arcgis
    from models.exporting_deepness import export_deepness
    from models.exporting_smp import export_smp

    from .describe import outcome, stamp

    before, loaded = stamp(output), load_bundle(bundle)
    note(f"swathe: exporting {loaded.metadata.name}, then comparing", quiet)
    exports = {"deepness": export_deepness, "smp": export_smp, "onnx": export_onnx, "pt2": export_program,
               "dlpk": export_arcgis}  # fmt: skip
    made = exports[program or output.lower().rpartition(".")[2]](loaded, output, overwrite=overwrite)
    for text in made.notes:
        note(f"note: {text}", quiet)
    files = made.path.iterdir() if made.path.is_dir() else [made.path]
    size = sum(path.stat().st_size for path in files)
    click.echo(f"{outcome(output, before)}: {size:,} bytes, within {made.difference:.1e} of the bundle")


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
