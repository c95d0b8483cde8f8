"""The verbs of the command `swathe` that begin with a finished store: clean, objects, vectorise, stats, report.

Each is a few lines around one public function. Imports nothing heavy before a verb runs, so that help is quick.
"""

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
TIFF = (".tif", ".tiff")


def note(text: str, quiet: bool) -> None:
    """Tell what goes on, apart from results."""
    if not quiet:
        print(text, file=sys.stderr, flush=True)


def output_kind(output: str) -> str:
    """Give `.zarr` or `.tif`, by the ending. Raises BadParameter for others."""
    lower = output.rstrip("/").lower()
    if lower.endswith(".zarr"):
        return ".zarr"
    if lower.endswith(TIFF):
        return ".tif"
    raise click.BadParameter(f"{output} must end in .zarr or .tif; the ending decides what is written",
                             param_hint="--output")  # fmt: skip


def counted(count: int, noun: str) -> str:
    """Give a number of things in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Put several options on a verb, in reading order."""

    def decorate(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


running = options(
    click.option("--scheduler", metavar="ADDRESS", help="Address of a Dask cluster's scheduler.  [default: here]"),
    click.option("--overwrite", is_flag=True, help="Replace an output that is there."),
    click.option("-q", "--quiet", is_flag=True, help="Show no progress."),
)
connected_by = click.option(
    "--connectivity",
    type=click.Choice(["4", "8"]),
    default="4",
    show_default=True,
    help="Pixels touch at sides; or at corners too.",
)
radius = click.IntRange(min=0)


@click.command(
    epilog="Example: swathe clean maps.zarr -o clean.zarr --threshold 0.7 --min-object 200 --min-hole '20 m2'\n\n"
    "Example: swathe clean maps.zarr -o clean.tif --opening 2 --min-object '1 ha' --connectivity 8"
)
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.zarr or OUT.tif (COG).")
@click.option("--threshold", multiple=True, metavar="P", help="Least probability; or NAME=P, once for each class.")
@click.option(
    "--hysteresis", multiple=True, metavar="P", help="A lower one, for what touches pixels above --threshold."
)
@click.option(
    "--minimum", type=float, metavar="P", help="Likeliest class of all, where its probability is at least this."
)
@click.option(
    "--majority", type=radius, metavar="N", help="Side of the square whose most frequent class a pixel takes."
)
@click.option("--erosion", type=radius, metavar="N", help="Shrink classes by N pixels.")
@click.option("--dilation", type=radius, metavar="N", help="Grow classes by N pixels into the background.")
@click.option("--opening", type=radius, metavar="N", help="Remove what is thinner than 2 N + 1 pixels.")
@click.option("--closing", type=radius, metavar="N", help="Fill gaps thinner than 2 N + 1 pixels.")
@click.option("--element", type=click.Choice(["disk", "square"]), default="disk", show_default=True,
              help="Structuring element of these four.")  # fmt: skip
@click.option("--min-object", metavar="SIZE", help="Remove smaller objects; a bare number is pixels, or as '20 m2'.")
@click.option("--min-hole", metavar="SIZE", help="Fill smaller holes.")
@connected_by
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Clean this class only; may be repeated.")
@click.option("--removed", type=click.Choice(["background", "surrounding"]), default="background", show_default=True,
              help="What small objects become.")  # fmt: skip
@running
def clean(store: str, output: str, scheduler: str | None, overwrite: bool, quiet: bool, **rest: Any) -> None:
    """Clean the map of a finished STORE into OUT. STORE stays as it is.

    In this order: threshold, minimum or hysteresis; majority; erosion, dilation, opening, closing; small objects are
    removed; small holes are filled. Interrupted at any moment, the same command continues.
    """
    output_kind(output)
    note(f"swathe: cleaning {store}", quiet)
    from ..postprocess.clean import write_clean
    from ..postprocess.options import parse_thresholds

    for name in ("threshold", "hysteresis"):
        rest[name] = parse_thresholds(rest[name]) if rest[name] else None
    rest |= {"classes": rest["classes"] or None, "connectivity": int(rest["connectivity"])}
    result = write_clean(store, output, client=scheduler, overwrite=overwrite, show=not quiet, **rest)
    click.echo(describe_run(result, output))


def describe_run(result: Any, output: str) -> str:
    """Give what a run has done, for the terminal."""
    from .describe import class_table

    rate = sum(result.pixels.values()) / max(result.seconds, 1e-6) / 1e6
    resumed = f", {result.resumed} of them done before" if result.resumed else f", {rate:.2f} Mpx/s"
    head = f"wrote {output} in {result.seconds:.1f} s: {counted(result.blocks, 'block')}{resumed}"
    return "\n".join([head, class_table(result.pixels)])


@click.command(epilog="Example: swathe objects clean.zarr -o objects.zarr")
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT.zarr", help="The store to write.")
@connected_by
@click.option("--no-widths", is_flag=True, help="Do not measure mean widths, which takes half of the time.")
@running
def objects(
    store: str, output: str, connectivity: str, no_widths: bool, scheduler: str | None, overwrite: bool, quiet: bool
) -> None:
    """Find, number and measure the objects of a finished STORE.

    OUT.zarr holds their ids as the layer `objects`, and OUT.zarr/table.parquet one row for each: class, area,
    perimeter, centroid, box, axes, probability, mean width. Interrupted, the same command continues.
    """
    if not output.rstrip("/").lower().endswith(".zarr"):
        raise click.BadParameter(
            f"{output} must end in .zarr; for polygons see `swathe vectorise`", param_hint="--output"
        )
    note(f"swathe: finding the objects of {store}", quiet)
    from ..objects.objects import objects_count, write_objects

    report = write_objects(store, output, connectivity=4 if connectivity == "4" else 8, widths=not no_widths,
                           client=scheduler, overwrite=overwrite, show=not quiet)  # fmt: skip
    click.echo(f"wrote {output} in {report.seconds:.1f} s, its table is {output.rstrip('/')}/table.parquet")
    for name, count in objects_count(output).items():
        click.echo(f"  {name}: {counted(count, 'object')}")


@click.command(
    epilog="Example: swathe vectorise objects.zarr -o buildings.parquet\n\n"
    "Example: swathe vectorise clean.zarr -o buildings.gpkg --simplify 1.5 --class building"
)
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT", help="OUT.parquet (GeoParquet), .gpkg, .fgb or .geojson.")
@click.option(
    "--simplify", type=float, metavar="PIXELS", help="How much outlines may change; shared borders stay shared."
)
@click.option("--right-angles", is_flag=True, help="Give outlines right angles only, as buildings have.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Write this class only; may be repeated.")
@connected_by
@running
def vectorise(
    store: str, output: str, connectivity: str, scheduler: str | None, overwrite: bool, quiet: bool, **rest: Any
) -> None:
    """Write the objects of a finished STORE as polygons with their measures.

    STORE is what `swathe objects` has made, or any other; its objects are found first then. Objects that cross
    blocks come out whole, with their holes. Interrupted at any moment, the same command continues.
    """
    note(f"swathe: drawing the objects of {store}", quiet)
    from ..vector.vectorise import Outlines, write_vectors

    made = write_vectors(store, output, connectivity=4 if connectivity == "4" else 8, outlines=Outlines(**rest),
                         client=scheduler, overwrite=overwrite, show=not quiet)  # fmt: skip
    click.echo(f"wrote {output} in {made.seconds:.1f} s: {counted(made.features, 'feature')}")
    for text in made.notes:
        click.echo(f"note: {text}")


@click.command(
    epilog="Example: swathe stats objects.zarr\n\n"
    "Example: swathe stats objects.zarr --cell '500 m' -o cells.parquet\n\n"
    "Example: swathe stats clean.zarr --zones districts.gpkg -o districts.csv"
)
@click.argument("store")
@click.option("-o", "--output", metavar="OUT", help=".csv, .parquet, .gpkg, .fgb or .geojson.  [default: shown only]")
@click.option("--zones", metavar="FILE", help="Polygons, in any vector format and CRS: figures for each.")
@click.option("--layer", metavar="NAME", help="Which layer of the zones' file.")
@click.option("--cell", metavar="SIZE", help="Figures for each square cell: '500 m', or 256 for pixels.")
@running
def stats(store: str, output: str | None, scheduler: str | None, overwrite: bool, quiet: bool, **rest: Any) -> None:
    """Show areas and shares by class of a finished STORE, and of objects counts, sizes and widths.

    Areas are those on the ellipsoid. Figures of objects need what `swathe objects` has made.
    """
    note(f"swathe: adding up {store}", quiet)
    from ..stats.stats import compute_statistics, write_statistics
    from ..stats.table import describe_statistics

    running_on: dict[str, Any] = {"client": scheduler, "show": not quiet}
    if output is None:
        frame = compute_statistics(store, **rest, **running_on)
    else:
        frame = write_statistics(store, output, overwrite=overwrite, **rest, **running_on)
    click.echo(describe_statistics(frame))
    if output is not None:
        click.echo(f"wrote {output}: {counted(len(frame), 'row')}")


@click.command(epilog="Example: swathe report clean.zarr -o report.html --objects objects.zarr")
@click.argument("store")
@click.option("-o", "--output", required=True, metavar="OUT.html", help="The page to write.")
@click.option("--scene", metavar="SCENE", help="The image.  [default: where it was when it was segmented]")
@click.option("--objects", metavar="STORE", help="What `swathe objects` has made of the same maps.")
@click.option("--title", metavar="TEXT", help="The heading.")
@click.option("--overwrite", is_flag=True, help="Replace a page that is there.")
def report(store: str, output: str, **rest: Any) -> None:
    """Write one page about a finished STORE, with a map to look into, figures and where they come from.

    The page is one file; nothing is fetched when it is read.
    """
    if not output.lower().endswith((".html", ".htm")):
        raise click.BadParameter(f"{output} must end in .html: a report is a page", param_hint="--output")
    note(f"swathe: writing a report on {store}", False)
    from ..viz.report import write_report

    click.echo(f"wrote {write_report(store, output, **rest)}")


VERBS = (clean, objects, vectorise, stats, report)
