"""The verb `index`: an index of many scenes, which other verbs take as one."""

from typing import Any

import click

from .options import allow_option, alpha_option, note, output, running, workers_option


def _bbox(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.replace(",", " ").split())
    except ValueError:
        numbers = ()
    if len(numbers) != 4 or numbers[1] > numbers[3]:
        raise click.BadParameter(f"{value!r} is not WEST,SOUTH,EAST,NORTH in degrees")
    return numbers


@click.command(
    epilog="Example: swathe index '2024/*.tif' more/ -o scenes.parquet\n\n"
    "Example: swathe index --stac https://earth-search.aws.element84.com/v1 --collection sentinel-2-l2a "
    "--bbox 39.1,-6.5,39.7,-5.7 --datetime 2024-06-01/2024-08-31 --query 'eo:cloud_cover<20' -o scenes.parquet\n\n"
    "Example: swathe index -o scenes.parquet"
)
@click.argument("scenes", nargs=-1)
@output("OUT.parquet", "The index to write, or to add to.", [".parquet"], ".parquet")
@click.option("--stac", "url", metavar="URL", help="A STAC API to search for scenes.")
@click.option("--collection", "collections", multiple=True, metavar="ID", help="To search in; may be repeated.")
@click.option("--bbox", callback=_bbox, metavar="W,S,E,N", help="To search in, in degrees.")
@click.option("--datetime", "moment", metavar="WHEN", help="To search for, as 2024-06-01/2024-08-31.")
@click.option("--query", multiple=True, metavar="TERM", help="To search for, as 'eo:cloud_cover<20'; may be repeated.")
@click.option("--priority", type=int, default=0, show_default=True, metavar="N",
              help="Of these scenes: in a mosaic, those of higher priority are taken first.")  # fmt: skip
@click.option("--skip-broken", is_flag=True, help="Leave out scenes that cannot be read, and name them.")
@click.option("--drop-missing", is_flag=True, help="Take scenes out of the index whose files are gone.")
@alpha_option
@allow_option
@running
@workers_option
def index(
    scenes: tuple[str, ...],
    output: str,
    url: str | None,
    collections: tuple[str, ...],
    bbox: tuple[float, float, float, float] | None,
    moment: str | None,
    query: tuple[str, ...],
    client: Any,
    quiet: bool,
    **rest: Any,
) -> None:
    """Write an index of many SCENES, or add them to one that is there. `segment` and `plan` take it as a scene.

    SCENES are files, quoted patterns, folders with all below them, Sentinel-2 and Landsat as delivered, VRT and tile
    indexes (their files), STAC Items, ItemCollections, saved searches, stac-geoparquet, URLs of these. Without SCENES,
    those of the index are looked at again. No pixels are read, and what has not changed is not opened again.
    """
    if url is None and (collections or bbox or moment or query):
        raise click.UsageError("--collection, --bbox, --datetime and --query are what is searched for in --stac URL")
    note(f"swathe: looking for scenes{f' in {_shown(url)}' if url else ''}", quiet)
    from ..catalog.build import build_index
    from ..catalog.search import StacSearch
    from .describe_index import describe_result

    search = None if url is None else StacSearch(url, collections, bbox, moment, query)
    result = build_index(list(scenes), output, search=search, client=client, show=not quiet, **rest)
    for text in (*result.notes, *(f"left out: {why}" for why in result.skipped)):
        note(f"note: {text}", quiet)
    click.echo(describe_result(result))


def _shown(url: str) -> str:
    from models.redact import redact_url

    return redact_url(url)
