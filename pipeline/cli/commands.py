"""The verbs of the command `swathe` on scenes and stores.

Each verb is one call of one public function. Imports nothing heavy before a verb runs, so that help is quick.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .mosaic import mosaic_options, open_scenes
from .options import (
    TIFF,
    allow_option,
    alpha_option,
    connectivity,
    map_output,
    note,
    on_cluster,
    on_error_option,
    opaque,
    output,
    overwriting,
    pixels,
    planning,
    radius,
    running,
    store_argument,
    sync_option,
    untrusted_option,
    workers_option,
)

if TYPE_CHECKING:
    from ..jobs.job import RunResult
    from ..jobs.run_log import RunLog


def say_background(store: str, more: str = "") -> None:
    """Say of a store without a background what follows from it, in a line."""
    from ..store.store import open_store

    if said := open_store(store)[1].background_note:
        click.echo(f"note: {said}{more}", err=True)


def say_skipped(store: str) -> None:
    """Say of a store that blocks of it failed and were set aside, in a line."""
    from ..store.metadata import describe_skipped
    from ..store.store import open_store

    metadata = open_store(store)[1]
    if metadata.skipped:
        click.echo(f"warning: {store}: {describe_skipped(len(metadata.skipped), metadata.command)}", err=True)


def end_skipped(result: "RunResult", command: str) -> None:
    """End with 3 where blocks were set aside, and say which."""
    if not result.skipped:
        return
    from ..store.metadata import describe_skipped

    for one in result.skipped[:10]:
        click.echo(f"  {one.reason}", err=True)
    click.echo(f"warning: {describe_skipped(len(result.skipped), command)}", err=True)
    click.get_current_context().exit(3)


run_report_option = click.option(
    "--run-report", metavar="OUT", help="Write where the time went: OUT.html and OUT.json, or a folder."
)


def _scene(scene: tuple[str, ...]) -> str | Sequence[str]:
    return scene[0] if len(scene) == 1 else list(scene)


def _segment_keywords(rest: dict[str, Any], *, store: bool) -> dict[str, Any]:
    """Turn the flags of `planning` into the keywords of `run`, for a store or a GeoTIFF."""
    given, overviews = rest["probability"], not rest.pop("no_overviews")
    if not store and (given not in (None, "none") or rest["probability_of"]):
        raise click.UsageError(
            "a .tif holds the class map alone: write .zarr to keep probabilities, then `swathe export`"
        )
    kept = None if given == "none" or not store else given or "uint8"
    return {**rest, "overviews": overviews, "probability": kept}


@click.command(
    epilog="Example: swathe segment scene.tif -m buildings -o buildings.tif\n\n"
    "Example: swathe segment 'LC08_B[234].TIF' -m bundle.zip --bands B4,B3,B2 -o maps.zarr --scheduler tcp://host:8786"
)
@planning
@mosaic_options
@map_output
@opaque
@on_error_option
@sync_option
@running
@workers_option
@run_report_option
def segment(
    scene: tuple[str, ...],
    bundle: str,
    output: str,
    client: Any,
    workers: int | None,
    overwrite: bool,
    quiet: bool,
    run_report: str | None,
    **rest: Any,
) -> None:
    """Segment SCENE into OUT. Interrupted at any moment, the same command continues.

    SCENE is a raster, a Zarr group, a URL, or several files, a quoted pattern or a folder with one band each or with
    tiles side by side; or Sentinel-2 or Landsat as delivered: a .SAFE folder or its zip, a folder or tar of Landsat's
    files, the MTD or MTL file. Or an index of scenes, see `swathe index`: all of them as one mosaic.
    """
    keywords = _segment_keywords(rest, store=output.rstrip("/").lower().endswith(".zarr"))
    note(f"swathe: opening {' '.join(scene)}{_measuring(rest)}", quiet)
    from ..inference.run import run
    from .describe import describe_run

    opened = open_scenes(_scene(scene), keywords, show=not quiet)
    with _reported(run_report) as log:
        result = run(opened, bundle, output, client=client, workers=workers, overwrite=overwrite, show=not quiet,
                     note=None if quiet else lambda text: note(text, quiet), log=log, **keywords)  # fmt: skip
    click.echo(describe_run(result, result.output if result.skipped else output))
    end_skipped(result, "swathe segment")


@contextmanager
def _reported(output: str | None) -> "Iterator[RunLog]":
    """Write a report of what is run within, also where it fails, if it got as far as blocks."""
    from ..jobs.run_log import RunLog

    log = RunLog()
    try:
        yield log
    finally:
        if output is not None and log.block:
            from ..viz.run_report import write_run_report

            write_run_report(log, output)


@click.command(epilog="Example: swathe plan scene.tif -m buildings --calibrate\n\n"
                      "Example: swathe plan scene.tif -m buildings --cost prices.toml --scheduler local:4")  # fmt: skip
@planning
@mosaic_options
@click.option("--calibrate", is_flag=True, help="Compute a few tiles of SCENE, and say how long a run takes here.")
@click.option(
    "--cost",
    "prices",
    metavar="PRICES.toml",
    help="Do some blocks where --scheduler says, and print hours, bytes, requests and money of the run; "
    "`swathe cluster prices` prints a file to fill in.",
)
@click.option(
    "--blocks-sampled",
    type=pixels,
    metavar="N",
    help="How many blocks --cost does.  [default: 48, and up to 384 until it knows to 20 %]",
)
@click.option("--workers-wanted", type=pixels, metavar="N", help="Of --cost: for N workers, not those that are there.")
@click.option(
    "--area-km2",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Of --cost: for X square kilometres that are like SCENE.",
)
@click.option("--scratch", metavar="FOLDER", help="Of --cost: what the workers share, for what is removed again.")
@on_cluster
def plan(scene: tuple[str, ...], bundle: str, prices: str | None, client: Any, **rest: Any) -> None:
    """Show what a run would do and cost: blocks, memory, halo. Computes nothing but for --calibrate and --cost.

    Of a network without an exact halo a few tiles are computed once, to say what moving its tiles changes.
    """
    asked = {name: rest.pop(name) for name in ("blocks_sampled", "workers_wanted", "area_km2", "scratch")}
    if prices is None and (client or any(asked.values())):
        raise click.UsageError(
            "--scheduler, --blocks-sampled, --workers-wanted, --area-km2 and --scratch are of --cost"
        )
    if (measuring := _measuring(rest)) or prices:
        note(f"swathe: opening {' '.join(scene)}{measuring}", quiet=False)
    if prices is not None:
        from ..inference.prices import read_prices

        read_prices(prices)
    from ..inference.plan import plan as make_plan

    keywords = _segment_keywords(rest, store=True)
    made = make_plan(open_scenes(_scene(scene), keywords, show=True), bundle, **keywords)
    click.echo(str(made))
    if prices is not None:
        from ..inference.cost import estimate_cost

        note("swathe: doing some blocks to see what they cost", quiet=False)
        click.echo(str(estimate_cost(made, prices, client=client, sampled=asked["blocks_sampled"],
                                     workers=asked["workers_wanted"], area_km2=asked["area_km2"],
                                     scratch=asked["scratch"])))  # fmt: skip


def _measuring(options: Mapping[str, Any]) -> str:
    """Say what is measured on the scene before a plan is ready, which takes a while."""
    asked = {
        "precisions": options["precision"] in ("auto", "int8"),
        "the halo": options["halo"] == "auto",
        "the overlap": options["overlap"] == "auto",
        "the time": bool(options.get("calibrate")),
    }
    what = " and ".join(name for name, there in asked.items() if there)
    return f", and measuring {what} on it: seconds to a minute, most of it once" if what else ""


@click.command(epilog="Example: swathe info scene.tif\n\nExample: swathe info buildings.zarr\n\n"
                      "Example: swathe info buildings")  # fmt: skip
@click.argument("scene", nargs=-1, required=True)
@alpha_option
@allow_option
@untrusted_option
def info(scene: tuple[str, ...], alpha: bool | None, untrusted: bool) -> None:
    """Show what a scene, a store or a bundle holds. No pixels are read, but for a look at a band tagged as alpha."""
    from .describe import describe

    click.echo(describe(_scene(scene), alpha=alpha, untrusted=untrusted))


@click.command(epilog="Example: swathe export buildings.zarr -o buildings.tif\n\n"
                      "Example: swathe export buildings.zarr --array probability -o probability.tif")  # fmt: skip
@store_argument
@output("OUT.tif", "The file to write.", TIFF, ".tif")
@click.option("--array", type=click.Choice(["class_map", "probability"]), default="class_map", show_default=True)
@opaque
@overwriting
def export(store: str, output: str, array: str, opaque_background: bool, overwrite: bool) -> None:
    """Write an array of a finished STORE as a Cloud-Optimized GeoTIFF with overviews, colours and class names."""
    from ..store.cog import write_cog
    from .describe import outcome, stamp, with_place

    before = stamp(output)
    write_cog(store, output, array=array, opaque_background=opaque_background, overwrite=overwrite)
    click.echo(with_place(outcome(output, before), store))
    say_skipped(store)


@click.command(
    epilog="Example: swathe clean maps.zarr -o clean.zarr --threshold 0.7 --min-object 200 --min-hole '20 m2'\n\n"
    "Example: swathe clean maps.zarr -o clean.tif --opening 2 --min-object '1 ha' --connectivity 8"
)
@store_argument
@map_output
@click.option("--threshold", multiple=True, metavar="P", help="Least probability; or NAME=P, once for each class.")
@click.option("--hysteresis", multiple=True, metavar="P", help="A lower one, for what touches those above --threshold.")
@click.option("--minimum", type=float, metavar="P", help="Likeliest class, where its probability is at least this.")
@click.option("--majority", type=radius, metavar="N", help="Side of a square whose most frequent class a pixel takes.")
@click.option("--erosion", type=radius, metavar="N", help="Shrink classes by N pixels.")
@click.option("--dilation", type=radius, metavar="N", help="Grow classes by N pixels into the background.")
@click.option("--opening", type=radius, metavar="N", help="Remove what is thinner than 2 N + 1 pixels.")
@click.option("--closing", type=radius, metavar="N", help="Fill gaps thinner than 2 N + 1 pixels.")
@click.option("--element", type=click.Choice(["disk", "square"]), default="disk", show_default=True,
              help="Structuring element of these four.")  # fmt: skip
@click.option("--min-object", metavar="SIZE", help="Remove smaller objects; a bare number is pixels, or as '20 m2'.")
@click.option("--min-hole", metavar="SIZE", help="Fill smaller holes.")
@connectivity
@click.option(
    "--class",
    "classes",
    multiple=True,
    metavar="NAME",
    help="Clean this class only, others stay as they are; may be repeated.",
)
@click.option("--removed", type=click.Choice(["background", "surrounding"]),
              help="What small objects become.  [default: background, or surrounding where there is none]")  # fmt: skip
@click.option("--background", metavar="NAME|none", help="Which class is the background.  [default: as STORE has it]")
@opaque
@on_error_option
@sync_option
@running
@run_report_option
def clean(
    store: str, output: str, client: Any, overwrite: bool, quiet: bool, run_report: str | None, **rest: Any
) -> None:
    """Clean the map of a finished STORE into OUT. STORE stays as it is.

    In this order: threshold, minimum or hysteresis; majority; erosion, dilation, opening, closing; small objects are
    removed; small holes are filled. Interrupted at any moment, the same command continues.
    """
    note(f"swathe: cleaning {store}", quiet)
    from ..postprocess.clean import write_clean
    from ..postprocess.options import parse_thresholds
    from .describe import describe_run, with_place

    for name in ("threshold", "hysteresis"):
        rest[name] = parse_thresholds(rest[name]) if rest[name] else None
    rest["classes"] = rest["classes"] or None
    if rest["background"] is None:
        say_background(store, "; removed pixels become the class around them (--background NAME: that class)")
    with _reported(run_report) as log:
        result = write_clean(store, output, client=client, overwrite=overwrite, show=not quiet, log=log, **rest)
    click.echo(with_place(describe_run(result, result.output if result.skipped else output), store))
    say_skipped(store)
    end_skipped(result, "swathe clean")


@click.command(epilog="Example: swathe objects clean.zarr -o objects.zarr")
@store_argument
@output("OUT.zarr", "The store to write.", [".zarr"], ".zarr; for polygons see `swathe vectorise`")
@connectivity
@click.option("--no-widths", is_flag=True, help="Do not measure mean widths, which takes half of the time.")
@on_error_option
@sync_option
@running
@run_report_option
def objects(
    store: str, output: str, no_widths: bool, client: Any, quiet: bool, run_report: str | None, **rest: Any
) -> None:
    """Find, number and measure the objects of a finished STORE.

    OUT.zarr holds their ids as the array `objects`, and OUT.zarr/table.parquet one row for each: class, area,
    perimeter, centroid, box, axes, probability, mean width. Interrupted, the same command continues.
    """
    note(f"swathe: finding the objects of {store}", quiet)
    from ..objects.objects import objects_count, write_objects
    from .describe import counted, with_place

    say_background(store)
    with _reported(run_report) as log:
        result = write_objects(store, output, widths=not no_widths, client=client, show=not quiet, log=log, **rest)
    wrote = f"wrote {output} in {result.seconds:.1f} s, its table is {output.rstrip('/')}/table.parquet"
    click.echo(with_place(wrote, store))
    say_skipped(store)
    for name, count in objects_count(output).items():
        click.echo(f"  {name}: {counted(count, 'object')}")


@click.command(
    epilog="Example: swathe vectorise objects.zarr -o buildings.parquet\n\n"
    "Example: swathe vectorise clean.zarr -o buildings.gpkg --simplify 1.5 --class building"
)
@store_argument
@click.option("-o", "--output", required=True, metavar="OUT",
              help="OUT.parquet (GeoParquet), .gpkg, .fgb, .geojson; or OUT/, a folder of parts.")  # fmt: skip
@click.option("--simplify", type=float, metavar="PIXELS",
              help="How much outlines may change; shared borders stay shared.")  # fmt: skip
@click.option("--right-angles", is_flag=True, help="Make all angles right angles, as buildings have.")
@click.option("--class", "classes", multiple=True, metavar="NAME", help="Write this class only; may be repeated.")
@connectivity
@running
def vectorise(store: str, output: str, client: Any, quiet: bool, **rest: Any) -> None:
    """Write the objects of a finished STORE as polygons with their measures.

    A name that ends in / is a folder of GeoParquet files, which readers take for one layer: for any number of objects.
    Into a GeoPackage that is there, they go as a layer named as the file; its other layers stay.
    STORE is what `swathe objects` has made, or any other; its objects are found first then. Objects that cross
    blocks come out whole, with their holes. Interrupted at any moment, the same command continues.
    """
    note(f"swathe: drawing the objects of {store}", quiet)
    say_skipped(store)
    from ..vector.vectorise import Outlines, write_vectors
    from .describe import counted, outcome, stamp

    before = stamp(output)
    outlines = Outlines(**{name: rest.pop(name) for name in ("simplify", "right_angles", "classes")})
    made = write_vectors(store, output, outlines=outlines, client=client, show=not quiet, **rest)
    click.echo(f"{outcome(output, before, f' in {made.seconds:.1f} s')}: {counted(made.features, 'feature')}")
    for text in made.notes:
        click.echo(f"note: {text}")


@click.command(
    epilog="Example: swathe stats objects.zarr\n\n"
    "Example: swathe stats objects.zarr --cell '500 m' -o cells.parquet\n\n"
    "Example: swathe stats clean.zarr --zones districts.gpkg -o districts.csv"
)
@store_argument
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help=".csv, .parquet, .gpkg, .fgb, .geojson; of cells OUT/ too.  [default: shown only]",
)
@click.option("--zones", metavar="FILE", help="Polygons, in any vector format and CRS: statistics for each.")
@click.option("--layer", metavar="NAME", help="Which layer of the zones' file.")
@click.option("--cell", metavar="SIZE", help="Statistics for each square cell: '500 m', or 256 for pixels.")
@running
def stats(store: str, output: str | None, client: Any, overwrite: bool, quiet: bool, **rest: Any) -> None:
    """Show areas and shares by class of a finished STORE, and of objects counts, sizes and widths.

    Cells may be of any number: a name that ends in / is a folder of GeoParquet files, which readers take for one layer.
    Interrupted, the same command continues those of cells.
    Areas are those on the ellipsoid. Those of objects need what `swathe objects` has made.
    """
    note(f"swathe: adding up {store}", quiet)
    say_skipped(store)
    from ..stats.stats import compute_statistics, write_statistics
    from ..stats.table import describe_statistics
    from .describe import counted, outcome, stamp

    before = stamp(output)
    rest |= {"client": client, "show": not quiet}
    if output is None:
        click.echo(describe_statistics(compute_statistics(store, **rest)))
        return
    if rest["cell"] is not None and rest["zones"] is None and rest["layer"] is None:
        from ..stats.cell_parts import write_cells

        how = {name: rest[name] for name in ("client", "show")}
        made = write_cells(store, output, rest["cell"], overwrite=overwrite, **how)
        click.echo(f"{describe_statistics(made.summary)}\n{outcome(output, before)}: {counted(made.rows, 'row')}")
        return
    frame = write_statistics(store, output, overwrite=overwrite, **rest)
    click.echo(f"{describe_statistics(frame)}\n{outcome(output, before)}: {counted(len(frame), 'row')}")


@click.command(epilog="Example: swathe report clean.zarr -o report.html --objects objects.zarr")
@store_argument
@output("OUT.html", "The page to write.", (".html", ".htm"), ".html: a report is a page")
@click.option("--scene", metavar="SCENE", help="The image.  [default: where it was when it was segmented]")
@click.option("--objects", metavar="STORE", help="What `swathe objects` has made of the same maps.")
@click.option("--title", metavar="TEXT", help="The heading.")
@allow_option
@overwriting
def report(store: str, output: str, **rest: Any) -> None:
    """Write one page about a finished STORE, with a map to look into, statistics and where they come from.

    The page is one file; nothing is fetched when it is read.
    """
    note(f"swathe: writing a report on {store}", False)
    from ..viz.report import write_report
    from .describe import outcome, stamp, with_place

    say_background(store)
    before = stamp(output)
    write_report(store, output, **rest)
    click.echo(with_place(outcome(output, before), store))
    say_skipped(store)


VERBS = (segment, plan, info, export, clean, objects, vectorise, stats, report)
