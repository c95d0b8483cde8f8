"""The verb `publish`. Imports nothing heavy before it runs, so that help is quick."""

from typing import Any

import click

from .options import note, opaque, pixels, running, store_argument, workers_option


@click.command(
    epilog="Example: swathe publish maps.zarr -o maps\n\n"
    "Example: swathe publish maps.zarr -o s3://bucket/maps --array class_map --array probability --side 4096"
)
@store_argument
@click.option(
    "-o", "--output", required=True, metavar="FOLDER", help="The folder to make, or its URL as s3://BUCKET/NAME."
)
@click.option("--array", type=click.Choice(["class_map", "probability"]), multiple=True, default=["class_map"],
              show_default=True, help="What is published; may be repeated.")  # fmt: skip
@click.option("--side", type=pixels, default=8192, show_default=True, metavar="N",
              help="Side of a file in pixels, a multiple of 512.")  # fmt: skip
@click.option("--dates", metavar="DATES",
              help="What the maps show: 2024-06-01T00:00:00Z, or two with / between.  [default: today]")  # fmt: skip
@opaque
@running
@workers_option
def publish(store: str, output: str, quiet: bool, client: Any, array: tuple[str, ...], **rest: Any) -> None:
    """Publish a finished STORE as a grid of COGs with a catalogue, which QGIS, GDAL and odc-stac open as one.

    FOLDER holds class_map_R0012_C0034.tif and so on, without those that would be all nodata; mosaic.vrt and its style
    mosaic.qml, mosaic.gti.gpkg, collection.json with items/ (STAC) and items.parquet (stac-geoparquet). Interrupted at
    any moment, the same command continues.
    """
    note(f"swathe: publishing {store}", quiet)
    from ..publishing.publish import publish as make
    from .commands import say_skipped
    from .describe import counted

    say_skipped(store)
    made = make(store, output, array=array, client=client, show=not quiet, **rest)
    size = f"{counted(made.files, 'file')}, {made.size / 1e6:,.1f} MB"
    if made.already_complete:
        click.echo(f"{output} is already complete: {size}")
        return
    before = f", {made.resumed:,} of them written before" if made.resumed else ""
    click.echo(f"published {output} in {made.seconds:.1f} s: {size}{before}; open {output.rstrip('/')}/mosaic.vrt")
