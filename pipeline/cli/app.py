"""The command `swathe`: each verb a few lines around one public function.

Imports nothing heavy before a verb runs, so that help is quick. A user's error ends as one or two lines with exit
code 1, wrong usage with 2.
"""

import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from models.errors import SwatheError

from .commands import TIFF, VERBS, describe_run, note, options, output_kind

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
GRACE = 1.5  # seconds to unwind after a signal


def main() -> None:
    """Run the command; the process ends here."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; the next file that is opened would be taken for it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    stopping = Stopping()
    try:
        code = cli.main(prog_name="swathe", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        stopping.leave()
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SwatheError as error:
        code = _say(f"error: {error}", 1)
    except MemoryError:
        code = _say("error: memory is exhausted; use a smaller --tile and --block", 1)
    except BrokenPipeError:
        code = 1
    except SystemExit as end:  # what click makes of a broken pipe
        code = end.code
    except Exception as error:
        code = _say(
            f"internal error: {type(error).__name__}: {error}\nThis is a defect of Swathe: --debug shows where", 1
        )
    _leave(code if isinstance(code, int) else 0)


class Stopping:
    """Ctrl-C and SIGTERM: the main thread unwinds; where that takes too long, or at a second signal, we leave at once.

    GDAL may be writing a large file, and Python tells the main thread of a signal only after that. A thread of our own
    hears of it at once, by the file descriptor that the interpreter writes signals to.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self.lock = threading.Lock()
        hears, told = os.pipe()
        os.set_blocking(told, False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._unwind)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(hears,), daemon=True).start()

    def _unwind(self, number: int, _: object) -> None:
        self.number = signal.Signals(number)
        for other in (signal.SIGINT, signal.SIGTERM):
            signal.signal(other, lambda *_: None)
        raise KeyboardInterrupt

    def _watch(self, hears: int) -> None:
        while (number := os.read(hears, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
            continue
        self.number = signal.Signals(number)
        select.select([hears], [], [], GRACE)
        self.leave()

    def leave(self) -> NoReturn:
        """Say how to go on, once, and end."""
        with self.lock:  # never released: the other thread waits for the end
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the cursor, which a progress bar hides
            again = "; what is finished is kept, run the same command again to continue" if _resumes() else ""
            _leave(_say(f"stopped{again}", 128 + self.number))


def _resumes() -> bool:
    verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    return verb in ("segment", "clean", "objects", "vectorise", "train", "evaluate")


def _say(text: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    print(text, file=sys.stderr)
    return code


def _leave(code: int) -> NoReturn:
    """End at once: a worker in this process may still compute a block, which nobody waits for any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            continue
    os._exit(code)


class Verbs(click.Group):
    """The verbs in the order of a first use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order in which they are defined below."""
        return list(self.commands)


@click.group(
    cls=Verbs,
    context_settings=CONTEXT,
    epilog="\b\nBegin with:\n  swathe demo\n  swathe segment scene.tif -m buildings -o buildings.tif",
)
@click.version_option(package_name="swathe")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def cli(debug: bool) -> None:
    """Segment whole satellite scenes with U-Nets."""


def _bands(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read band names or numbers with commas between them."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; give names or numbers with commas between, as 4,3,2")
    return names


def _halo(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    """Read `exact`, `auto` or pixels."""
    if value in ("exact", "auto"):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is not 'exact', 'auto' or a number of pixels")


pixels = click.IntRange(min=1)
planning = options(
    click.argument("scene", nargs=-1, required=True),
    click.option("-m", "--model", "bundle", required=True, metavar="BUNDLE", help="Shipped bundle, path or URL."),
    click.option(
        "--bands",
        callback=_bands,
        metavar="LIST",
        help="The scene's bands in the network's order, as 4,3,2 or red,green,blue.",
    ),
    click.option(
        "--tile",
        type=pixels,
        help="Side of what the network answers at once, in pixels.  [default: 1024, or twice as tall]",
    ),
    click.option("--block", type=pixels, help="Side of what one task does, in pixels.  [default: 2048]"),
    click.option(
        "--halo",
        callback=_halo,
        metavar="exact|auto|N",
        default="exact",
        show_default=True,
        help="Context around each tile, in pixels.",
    ),
    click.option("--tolerance", type=float, default=0.004, show_default=True, help="Error that --halo auto accepts."),
    click.option("--engine", type=click.Choice(["auto", "torch", "openvino"]), default="auto", show_default=True),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option("--precision", type=click.Choice(["fp32", "bf16", "fp16"]), default="fp32", show_default=True),
    click.option("--threads", type=pixels, help="CPU threads of the engine.  [default: all]"),
    click.option("--compile", is_flag=True, help="Optimise the network with torch.compile."),
    click.option("--threshold", type=click.FloatRange(0, 1), help="Least probability of a class but the first."),
    click.option(
        "--probability",
        type=click.Choice(["uint8", "float16", "float32", "none"]),
        help="How probabilities are kept.  [default: uint8 in .zarr, none for .tif]",
    ),
    click.option("--probability-of", metavar="CLASS", help="Keep those of one class, or of 'all'."),
    click.option("--no-pyramid", is_flag=True, help="Write no overviews into the store."),
    click.option("--allow-mismatch", is_flag=True, help="Run although type or resolution differ from the training's."),
)


@cli.command(
    epilog="Example: swathe segment scene.tif -m buildings -o buildings.tif\n\n"
    "Example: swathe segment 'LC08_B[234].TIF' -m bundle.zip --bands B4,B3,B2 -o maps.zarr --scheduler tcp://host:8786"
)
@planning
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="OUT.zarr (maps and probabilities) or OUT.tif (COG)."
)
@click.option("--scheduler", metavar="ADDRESS", help="Address of a Dask cluster's scheduler.  [default: this process]")
@click.option("--overwrite", is_flag=True, help="Replace an output that is there.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
def segment(scene: tuple[str, ...], bundle: str, output: str, scheduler: str | None, **rest: Any) -> None:
    """Segment SCENE into OUT. Interrupted at any moment, the same command continues.

    SCENE is a raster, a Zarr group, a URL, or several files or a quoted pattern with one band each.
    """
    overwrite, quiet = rest.pop("overwrite"), rest.pop("quiet")
    keywords = _wishes(rest, keep=output_kind(output) == ".zarr")
    note(f"swathe: opening {' '.join(scene)}", quiet)
    from ..inference.run import run

    result = run(_scene(scene), bundle, output, client=scheduler, overwrite=overwrite, show=not quiet,
                 note=lambda text: note(text, quiet), **keywords)  # fmt: skip
    click.echo(describe_run(result, output))


@cli.command(epilog="Example: swathe plan scene.tif -m buildings --tile 512")
@planning
def plan(scene: tuple[str, ...], bundle: str, **rest: Any) -> None:
    """Show what a run would do and cost: blocks, memory, halo. Nothing is computed."""
    from ..inference.plan import plan as prepare

    click.echo(str(prepare(_scene(scene), bundle, **_wishes(rest, keep=True))))


@cli.command(epilog="Example: swathe info scene.tif\n\nExample: swathe info buildings.zarr")
@click.argument("scene", nargs=-1, required=True)
def info(scene: tuple[str, ...]) -> None:
    """Show what a scene or a store holds. No pixels are read."""
    from .describe import describe

    click.echo(describe(_scene(scene)))


@cli.command(epilog="Example: swathe export buildings.zarr -o buildings.tif\n\n"
                    "Example: swathe export buildings.zarr --layer probability -o probability.tif")  # fmt: skip
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT.tif", help="The file to write.")
@click.option("--layer", type=click.Choice(["class_map", "probability"]), default="class_map", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def export(store: str, output: str, layer: str, overwrite: bool) -> None:
    """Write a layer of a finished STORE as a Cloud-Optimized GeoTIFF with overviews, colours and class names."""
    if not output.lower().endswith(TIFF):
        raise click.BadParameter(f"{output} must end in .tif", param_hint="--output")
    from ..store.cog import write_cog

    click.echo(f"wrote {write_cog(store, output, layer=layer, overwrite=overwrite)}")


for verb in VERBS:
    cli.add_command(verb)


@cli.command(epilog="Example: swathe demo -o demo-output")
@click.option("-o", "--output", default="demo-output", show_default=True, metavar="FOLDER", help="Where results go.")
def demo(output: str) -> None:
    """Segment a real scene that comes with Swathe, find its buildings, and make a report. Takes seconds."""
    from .demo import run_demo

    note("swathe: segmenting buildings of Zanzibar in the scene that comes with Swathe", False)
    for line in run_demo(output):
        click.echo(line)


@cli.command(epilog="Example: swathe bundles")
@click.argument("bundle", required=False)
def bundles(bundle: str | None) -> None:
    """List the bundles that come with Swathe, or show all of one BUNDLE."""
    from .describe import describe_bundle, list_bundles

    click.echo(describe_bundle(bundle) if bundle else list_bundles())


@cli.command(
    "import-weights",
    epilog="Example: swathe import-weights checkpoint.pth --config network.toml -o bundle.zip",
)
@click.argument("checkpoint")
@click.option("--config", required=True, metavar="FILE", help="TOML or JSON that describes network, bands and classes.")
@click.option("-o", "--output", required=True, metavar="BUNDLE", help="Folder or .zip to write.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
def import_weights(checkpoint: str, config: str, output: str, overwrite: bool) -> None:
    """Make a bundle of foreign weights: a torch state dict or safetensors. No code in the file is run."""
    from models.importing import import_bundle

    made = import_bundle(checkpoint, config, output, overwrite=overwrite)
    click.echo(f"wrote {made.path}  {made.metadata.name} {made.digest[:12]}  {made.parameters:,} parameters")


def _scene(scene: tuple[str, ...]) -> str | Sequence[str]:
    return scene[0] if len(scene) == 1 else list(scene)


def _wishes(rest: dict[str, Any], *, keep: bool) -> dict[str, Any]:
    """Turn flags into the keywords of `Options`."""
    keywords = dict(rest)
    keywords["pyramid"] = not keywords.pop("no_pyramid")
    asked = keywords.pop("probability")
    if not keep and (asked not in (None, "none") or keywords["probability_of"]):
        raise click.UsageError(
            "a .tif holds the class map alone: write .zarr to keep probabilities, then `swathe export`"
        )
    keywords["probability"] = None if asked == "none" or not keep else asked or "uint8"
    return keywords
