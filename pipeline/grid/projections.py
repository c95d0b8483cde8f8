"""Map coordinates brought from one CRS into another, by transformations that are made once in a process."""

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from models.errors import SceneError

if TYPE_CHECKING:
    from pyproj import Transformer


@lru_cache(maxsize=256)
def transformer(crs: str, to: str) -> "Transformer":
    """Return what brings coordinates from one CRS into another, both as WKT or `EPSG:4326`; x is to the east.

    Threads may share it: it makes what is of one thread for each (pyproj 3.1 and later).
    """
    from pyproj import CRS, Transformer

    return Transformer.from_crs(CRS.from_user_input(crs), CRS.from_user_input(to), always_xy=True)


def to_degrees(crs: str, x: Any, y: Any, *, inverse: bool = False) -> tuple[Any, Any]:
    """Return longitudes and latitudes of map coordinates, numbers or arrays alike; or the `inverse`.

    Infinite where the CRS does not reach.

    Parameters
    ----------
    crs
        As WKT.

    Raises
    ------
    SceneError
        There is no way from the CRS to degrees, as from that of a local grid.
    """
    from pyproj.exceptions import ProjError

    try:
        made = transformer(crs, "EPSG:4326")
    except ProjError as error:
        raise SceneError(f"its CRS has no place on the Earth: {str(error).splitlines()[0][:100]}") from error
    x, y = made.transform(x, y, direction="INVERSE" if inverse else "FORWARD")
    return x, y
