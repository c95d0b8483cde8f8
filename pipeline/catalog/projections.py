"""Map coordinates in longitude and latitude and back, by transformations that are made once for each CRS."""

import threading
from functools import lru_cache
from typing import Any

from models.errors import SceneError

_local = threading.local()


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
    made = _local.__dict__.setdefault("made", lru_cache(maxsize=256)(_transformer))  # pyproj's are of one thread
    x, y = made(crs).transform(x, y, direction="INVERSE" if inverse else "FORWARD")
    return x, y


def _transformer(crs: str) -> Any:
    from pyproj import CRS, Transformer
    from pyproj.exceptions import ProjError

    try:
        return Transformer.from_crs(CRS.from_wkt(crs), "EPSG:4326", always_xy=True)
    except ProjError as error:
        raise SceneError(f"its CRS has no place on the Earth: {str(error).splitlines()[0][:100]}") from error
