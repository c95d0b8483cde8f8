"""Options that verbs of the command `swathe` share, and what each reads. Imports nothing heavy."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import click

from models.redact import shown

from ..jobs.json_log import json_log

F = TypeVar("F", bound=Callable[..., Any])
TIFF = (".tif", ".tiff")


def note(text: str, quiet: bool) -> None:
    """Say on stderr what goes on; stdout is for results."""
    if quiet:
        return
    if (log := json_log()) is None:
        print(shown(text), file=sys.stderr, flush=True)
    else:
        log.write("note", text=text.removeprefix("swathe: "))


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Put several options on a verb, in reading order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def output(metavar: str, help: str, endings: Sequence[str], refusal: str) -> Callable[[F], F]:
    """Make the option `-o`, which refuses a path of another ending by "PATH must end in REFUSAL"."""

    def check(ctx: click.Context, param: click.Parameter, value: str) -> str:
        if value.rstrip("/").lower().endswith(tuple(endings)):
            return value
        raise click.BadParameter(f"{value} must end in {refusal}")

    return click.option("-o", "--output", required=True, metavar=metavar, help=help, callback=check)


def _bands(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Read band names or numbers with commas between them."""
    if value is None:
        return None
    names = tuple(name.strip() for name in value.split(","))
    if not all(names):
        raise click.BadParameter(f"{value!r} has an empty name; give names or numbers with commas between, as 4,3,2")
    return names


def _threshold(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:
    """Read a probability, one for each class by name, or `likeliest`."""
    if value in ((), ("likeliest",)):
        return value[0] if value else None
    from models.errors import PlanError

    from ..postprocess.options import CleanOptions, parse_thresholds

    try:
        return CleanOptions(threshold=parse_thresholds(value)).threshold
    except PlanError as error:
        raise click.BadParameter(str(error)) from None


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> float | list[float] | None:
    """Read a number, or one per band with commas between them."""
    if value is None:
        return None
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number, and no list of numbers with commas between") from None
    return numbers if len(numbers) > 1 else numbers[0]


def _halo(ctx: click.Context, param: click.Parameter, value: str) -> str | int:
    if value in ("exact", "auto"):
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is not 'exact', 'auto' or a number of pixels")


def _overlap(ctx: click.Context, param: click.Parameter, value: str | None) -> str | int | None:
    if value is None or value == "auto":
        return value
    if value.isdecimal():
        return int(value)
    raise click.BadParameter(f"{value!r} is not 'auto' or a number of pixels")


def _alpha(ctx: click.Context, param: click.Parameter, value: str | None) -> bool | None:
    return None if value is None else value == "yes"


alpha_option = click.option("--alpha", type=click.Choice(["yes", "no"]), callback=_alpha,
                            help="Whether a band tagged as alpha is a mask.  [default: by its values]")  # fmt: skip


def _allowing(function: F) -> F:
    """Let what a verb opens lead to the places that `--allow` names."""

    @wraps(function)
    def verb(*given: Any, allow: tuple[str, ...], **rest: Any) -> Any:
        if not allow:
            return function(*given, **rest)
        from ..io.places import allowing

        with allowing(allow):
            return function(*given, **rest)

    return cast(F, verb)


allow_option = options(
    click.option("--allow", multiple=True, metavar="PATH|HOST",
                 help="Where files that name others, as VRT and STAC, may lead beside their own folder or host; may be "
                      "repeated."),
    _allowing,
)  # fmt: skip
untrusted_option = click.option("--untrusted", is_flag=True,
                                help="Decode what is given in a process without network.")  # fmt: skip
pixels, radius = click.IntRange(min=1), click.IntRange(min=0)
store_argument = click.argument("store")
overwriting = click.option("--overwrite", is_flag=True, help="Replace an output that is there.")


def _patience(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    from models.errors import ClusterError

    from ..cluster.options import seconds_of

    try:
        return seconds_of(value)
    except ClusterError as error:
        raise click.BadParameter(str(error)) from None


def _as_client(function: F) -> F:
    """Give a verb one `client`, a `Cluster` or None, in place of the options that say what it is."""

    @wraps(function)
    def verb(*given: Any, scheduler: str | None, **rest: Any) -> Any:
        how = {name: rest.pop(name) for name in ("tls", "insecure", "patience")}
        how = {name: value for name, value in how.items() if value not in (None, False)}
        if scheduler is None and how:
            raise click.UsageError(f"--{next(iter(how))} is of a cluster: give --scheduler, see `swathe cluster`")
        if scheduler is None:
            return function(*given, client=None, **rest)
        from ..cluster.options import Cluster

        return function(*given, client=Cluster(scheduler, **how), **rest)

    return cast(F, verb)


on_cluster = options(
    click.option("--scheduler", metavar="CLUSTER",
                 help="Where tasks run: tcp://HOST:8786 or tls://HOST:8786, local:4 or local:4x2, slurm:FILE, "
                      "ssh:HOST,HOST and others, see `swathe cluster`.  [default: this process]"),
    click.option("--tls", metavar="FOLDER", help="Certificates of the cluster; or 'new', for one that is started."),
    click.option("--insecure", is_flag=True, help="Start a cluster that other machines can speak to without TLS."),
    click.option("--patience", metavar="TIME", callback=_patience,
                 help="How long no worker may be there, as 90s, 10m, 2h.  [default: 10m]"),
    _as_client,
)  # fmt: skip
quieting = options(
    click.option("-q", "--quiet", is_flag=True, help="Show nothing but errors."),
    click.option("--log", type=click.Choice(["text", "json"]), default="text", show_default=True, expose_value=False,
                 help="What progress and errors look like; json: an object a line."),
)  # fmt: skip
running = options(on_cluster, overwriting, quieting)
workers_option = click.option("--workers", type=pixels, metavar="N",
                              help="Share the cores among N processes.  [default: one]")  # fmt: skip
connectivity = click.option("--connectivity", type=click.Choice(["4", "8"]), default="4", show_default=True,
                            callback=lambda ctx, param, value: int(value),
                            help="Pixels touch at sides; or at corners too.")  # fmt: skip
map_output = output("OUT", "OUT.zarr (maps and probabilities) or OUT.tif (COG of the map).", (".zarr", *TIFF),
                    ".zarr or .tif; the ending decides what is written")  # fmt: skip
threshold_option = click.option(
    "--threshold", multiple=True, metavar="P", callback=_threshold,
    help="Least probability of classes but the background; NAME=P, once for each; or 'likeliest': none.  "
         "[default: the bundle's]",
)  # fmt: skip
radiometry = options(
    click.option("--scale", metavar="X", callback=_numbers,
                 help="The scene's value * X + offset is in the bundle's unit, as reflectance; one, or one per band by "
                      "commas.  [default: as the scene says]"),
    click.option("--offset", metavar="Y", callback=_numbers, help="See --scale.  [default: as the scene says, else 0]"),
    click.option("--reflectance", is_flag=True, help="The scene's values are reflectance, from 0 to 1."),
)  # fmt: skip
layer_option = click.option("--layer", default="", metavar="NAME", help="Which layer of vector labels' files.")
width_option = click.option("--width", metavar="WIDTH",
                            help="How wide lines and points of labels are, in metres as 6, or as '3 px'.")  # fmt: skip
sync_option = click.option("--sync/--no-sync", default=True, show_default=True,
                           help="Whether what is written is on the disk before it counts as done: a power cut "
                                "then loses nothing. Without: for scratch disks.")  # fmt: skip
on_error_option = click.option("--on-error", type=click.Choice(["fail", "skip"]), default="fail", show_default=True,
                               help="A block that fails after its retries ends the run; or it is set aside as nodata, "
                                    "and the same command tries it again. Ends with 3 then.")  # fmt: skip
opaque = click.option("--opaque-background", is_flag=True,
                      help="Of a .tif: show the background in its colour.  [default: transparent]")  # fmt: skip
blending = options(
    click.option("--overlap", callback=_overlap, metavar="N|auto",
                 help="Pixels that tiles share, of networks without an exact halo.  [default: a quarter of the tile]"),
    click.option("--blend", type=click.Choice(["crop", "feather"]), default="crop", show_default=True,
                 help="Where tiles overlap: of one of them each pixel; or of all, weighted."),
    click.option("--taper", type=click.Choice(["linear", "cosine", "gaussian"]), default="linear", show_default=True,
                 help="How the weights of --blend feather fall towards a tile's edges."),
)  # fmt: skip
planning = options(
    click.argument("scene", nargs=-1, required=True),
    click.option("-m", "--model", "bundle", required=True, metavar="BUNDLE", help="Shipped bundle, path or URL."),
    click.option("--bands", callback=_bands, metavar="LIST",
                 help="The scene's bands in the network's order, as 4,3,2 or red,green,blue."),
    click.option("--resampling", type=click.Choice(["nearest", "bilinear", "cubic"]), default="nearest",
                 show_default=True, help="How bands of coarser pixels are brought onto the finest grid."),
    alpha_option,
    allow_option,
    radiometry,
    click.option("--each", type=click.Choice(["inner", "mean", "max", "feather"]),
                 help="Of a mosaic: segment each scene, then merge.  [default: merge, then segment]"),
    click.option("--tile", type=pixels,
                 help="Side of what the network computes at once, in pixels.  [default: as --memory allows]"),
    click.option("--block", type=pixels, help="Side of what one task does, in pixels.  [default: as --memory allows]"),
    click.option("--memory", metavar="SIZE",
                 help="What one process may take, as '6 GB'.  [default: at most 0.6 of what there is]"),
    click.option("--halo", callback=_halo, metavar="exact|auto|N", default="exact", show_default=True,
                 help="Context around each tile, in pixels."),
    blending,
    click.option("--tolerance", type=float, default=0.004, show_default=True,
                 help="Error that --precision auto and --halo auto or --overlap auto may make together."),
    click.option("--engine", type=click.Choice(["auto", "torch", "openvino", "onnxruntime"]), default="auto",
                 show_default=True),
    click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True),
    click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16", "int8"]), default="fp32",
                 show_default=True, help="auto: the fastest whose error on the scene is within --tolerance."),
    click.option("--threads", type=pixels, help="CPU threads of the engine.  [default: all]"),
    click.option("--compile", is_flag=True, help="Optimise the network with torch.compile."),
    threshold_option,
    click.option("--probability", type=click.Choice(["uint8", "float16", "float32", "none"]),
                 help="How probabilities are kept.  [default: uint8 in .zarr, none for .tif]"),
    click.option("--probability-of", metavar="CLASS", help="Keep those of one class, or of 'all'."),
    click.option("--no-overviews", is_flag=True, help="Write no overviews into the store."),
    click.option("--on-nonfinite", type=click.Choice(["fail", "nodata"]), default="fail", show_default=True,
                 help="Where the network's answer is NaN or infinite: the block fails, or pixels are nodata."),
    click.option("--allow-mismatch", is_flag=True, help="Run although type or resolution differ from the training's."),
    untrusted_option,
)  # fmt: skip
