"""The verbs of the command `swathe` that give a bundle to others: export-model and package.

Each is a few lines around public functions of `models`. Imports nothing heavy before a verb runs.
"""

import click

from .commands import note

BUNDLE = "Shipped bundle, path or URL."


@click.command(
    "export-model",
    epilog="Example: swathe export-model buildings -o buildings.onnx\n\n"
    "Example: swathe export-model bundle.zip -o bundle.pt2",
)
@click.argument("bundle")
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.onnx, or OUT.pt2 for torch.export.load.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def export_model(bundle: str, output: str, overwrite: bool, quiet: bool) -> None:
    """Write a BUNDLE's whole graph for other programs: raw pixels in, probabilities out.

    Batch, height and width are free; sides are multiples of the network's stride. The file is run and compared with
    the bundle before it gets its name.
    """
    ending = output.lower().rpartition(".")[2]
    if ending not in ("onnx", "pt2"):
        raise click.BadParameter(f"{output} must end in .onnx or .pt2; the ending decides what is written",
                                 param_hint="--output")  # fmt: skip
    from models.bundle import load_bundle
    from models.exporting import export_onnx, export_program

    loaded = load_bundle(bundle)
    note(f"swathe: exporting {loaded.metadata.name}, then comparing", quiet)
    made = (export_onnx if ending == "onnx" else export_program)(loaded, output, overwrite=overwrite)
    click.echo(f"wrote {made.path}: {made.path.stat().st_size:,} bytes, within {made.difference:.1e} of the bundle")


@click.command(
    epilog="Example: swathe package buildings -o buildings.json\n\n"
    "Example: swathe package bundle.zip -o item.json --with bundle.onnx --href https://example.org/bundle.zip"
)
@click.argument("bundle")
@click.option("-o", "--output", required=True, metavar="ITEM.json", help="The STAC item to write.")
@click.option("--with", "exported", multiple=True, metavar="FILE", help="What `export-model` has made of it; repeat.")
@click.option("--href", default="", metavar="URL", help="Where others find the weights.  [default: where they are]")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def package(bundle: str, output: str, exported: tuple[str, ...], href: str, overwrite: bool) -> None:
    """Describe a BUNDLE for catalogues: a STAC item with the Machine Learning Model extension, sizes and checksums."""
    if not output.lower().endswith(".json"):
        raise click.BadParameter(f"{output} must end in .json: it is a STAC item", param_hint="--output")
    from models.bundle import load_bundle
    from models.exporting import write_item

    where = href or (bundle if "://" in bundle else "")
    made = write_item(load_bundle(bundle), output, exported, href=where, overwrite=overwrite)
    click.echo(f"wrote {made}")


MODEL_VERBS = (export_model, package)
