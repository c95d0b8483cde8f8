"""The verb `import` of the command `swathe`: a network that someone else has published becomes a bundle."""

import time

import click

from .options import note, overwriting

EVERY = 5.0  # seconds between lines of what goes on, at least


@click.command(
    "import",
    epilog="Example: swathe import model.onnx --describe > network.toml\n\n"
    "Example: swathe import model.onnx --config network.toml -o bundle.zip",
)
@click.argument("model")
@click.option("-o", "--output", metavar="BUNDLE", help="Folder or .zip to write.  [default: your folder of bundles]")
@click.option("--config", metavar="FILE", help="TOML or JSON of what the file does not tell: bands, scaling, classes.")
@click.option("--describe", "describing", is_flag=True, help="Write such a TOML, with what the file tells filled in.")
@click.option("--trust", is_flag=True, help="Load a program of torch.export (.pt2), which can run code in it.")
@click.option("--factory", default="", metavar="MODULE:FUNCTION",
              help="Your own function, as package.module:function, that makes the network.")  # fmt: skip
@overwriting
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def import_model(
    model: str,
    output: str | None,
    config: str | None,
    describing: bool,
    trust: bool,
    factory: str,
    overwrite: bool,
    quiet: bool,
) -> None:
    """Make a bundle of a network that someone else has published.

    MODEL is a file, a folder, or hf:owner/name on the Hugging Face Hub: ONNX, weights of torch, what libraries save.
    The content tells what it is. No code in it is run, but for .pt2 with --trust.
    """
    from models import importing

    if describing:
        click.echo(importing.describe_model(model, config=config, factory=factory), nl=False)
        return
    from models.system import bundles_folder
    from models.telling import telling

    from .describe import outcome, stamp

    places = [output] if output is not None else [str(path) for path in bundles_folder().glob("*")]
    before = {place: stamp(place) for place in places}
    note(f"swathe: importing {model}", quiet)
    with telling(_Spaced(quiet)):
        made = importing.import_model(model, output, config=config, trust=trust, factory=factory, overwrite=overwrite)
    place = str(made.path) if output is None else output
    done = outcome(place, before.get(place))
    click.echo(f"{done}  {made.metadata.name} {made.digest[:12]}  {made.parameters:,} parameters")
    halo = made.metadata.receptive_field.halo
    click.echo("no exact halo: every output sees its whole tile" if halo is None else f"exact halo {halo} pixels")


class _Spaced:
    """Shows what is told, after a while and not too often."""

    def __init__(self, quiet: bool) -> None:
        self.quiet, self.said = quiet, time.monotonic()

    def __call__(self, text: str, always: bool) -> None:
        if always or time.monotonic() - self.said >= EVERY:
            self.said = time.monotonic()
            note(f"swathe: {text}", self.quiet)
