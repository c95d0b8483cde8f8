"""Options of the command `swathe` for many scenes on one grid, and what they open."""

from typing import Any

import click

from .options import options

NAMES = ("crs", "resolution", "bounds", "like", "area", "composite", "mask", "harmonise")


def _several(count: tuple[int, ...]) -> Any:
    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = ()
        if len(numbers) not in count:
            wanted = " or ".join(str(number) for number in count)
            raise click.BadParameter(f"{value!r} is not {wanted} number{'s' * (count != (1,))} with commas between")
        return numbers

    return read


mosaic_options = options(
    click.option("--crs", metavar="CRS", help="Of a mosaic of scenes, as EPSG:32633.  [default: that of most scenes]"),
    click.option("--resolution", metavar="X[,Y]", callback=_several((1, 2)),
                 help="Side of a mosaic's pixel in units of its CRS.  [default: that of most scenes]"),
    click.option("--bounds", metavar="W,S,E,N", callback=_several((4,)),
                 help="What a mosaic covers, in its CRS.  [default: all scenes, or the area]"),
    click.option("--like", metavar="SCENE", help="Take the grid of this scene for a mosaic."),
    click.option("--area", metavar="FILE",
                 help="Polygons of any vector file: of a mosaic only what lies inside is computed."),
    click.option("--composite", type=click.Choice(["first", "latest", "least-cloudy", "median", "mean"]),
                 help="What a pixel of a mosaic is where several scenes observed it.  [default: first]"),
    click.option("--mask", multiple=True, metavar="BAND=VALUES",
                 help="Values of a band that a mosaic does not take, as SCL=3,8,9,10; or classes of a map that Swathe "
                      "made, as clouds.zarr=cloud, or clouds/{id}.zarr=cloud with a map for each scene."),
    click.option("--harmonise", type=click.Choice(["moments", "histogram"]),
                 help="Bring a mosaic's scenes to one radiometry by what they hold where they overlap."),
)  # fmt: skip


def open_scenes(scene: Any, keywords: dict[str, Any], *, show: bool = False) -> Any:
    """Return a mosaic where SCENE is an index of scenes; else the scene as it was. Takes the options out of keywords.

    Raises
    ------
    click.UsageError
        An option of a mosaic was given for what is no index.
    """
    given = {name: value for name in NAMES if (value := keywords.pop(name)) not in (None, ())}
    from ..catalog.index import is_index

    if isinstance(scene, str) and is_index(scene):
        from ..mosaic.open import open_mosaic

        if len(given.get("resolution", ())) == 1:
            (given["resolution"],) = given["resolution"]
        return open_mosaic(scene, resampling=keywords["resampling"], show=show, **given)
    if given:
        raise click.UsageError(
            f"--{next(iter(given))} is of a mosaic: give an index of scenes as SCENE, made by "
            "`swathe index SCENES... -o scenes.parquet`"
        )
    return scene
