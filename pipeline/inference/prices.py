"""What a cluster and an object store charge: a TOML file, checked."""

import os
from dataclasses import dataclass, fields
from math import isfinite

from models.errors import ArgumentError, PlanError
from models.limits import LARGEST_TOML, parse_toml, read_small
from models.tables import from_table

SKELETON = """\
# Prices for `swathe plan SCENE -m BUNDLE --cost PRICES.toml`. What is left out costs nothing.
currency = "EUR"
worker_hour = 0.0      # one worker for an hour; or by its cores or GPUs:
core_hour = 0.05
gpu_hour = 0.0
put_1000 = 0.005       # 1,000 requests that write to the object store of the output
get_1000 = 0.0004      # that read
list_1000 = 0.005
delete_1000 = 0.0
stored_gb_month = 0.023  # the output kept for a month, a GB
read_gb = 0.0          # pixels of the scene brought to the workers, a GB
"""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in one currency.

    Parameters
    ----------
    currency
        As it is shown.
    worker_hour, core_hour, gpu_hour
        Of an hour of each worker, of each thread of a worker, of each GPU; they add up.
    put_1000, get_1000, list_1000, delete_1000
        Of 1,000 requests to an object store.
    stored_gb_month
        Of keeping 1e9 bytes for a month; the first month counts.
    read_gb
        Of bringing 1e9 bytes of the scene to the workers.
    """

    currency: str
    worker_hour: float = 0.0
    core_hour: float = 0.0
    gpu_hour: float = 0.0
    put_1000: float = 0.0
    get_1000: float = 0.0
    list_1000: float = 0.0
    delete_1000: float = 0.0
    stored_gb_month: float = 0.0
    read_gb: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "currency" and not (isfinite(value) and value >= 0):
                raise ArgumentError(f"{field.name} is {value}; a price is 0 or more")


def read_prices(path: str | os.PathLike[str]) -> Prices:
    """Read a file of prices.

    Raises
    ------
    PlanError
        It cannot be read; or a key or value is wrong.
    """
    try:
        prices: Prices = from_table(Prices, parse_toml(read_small(path, LARGEST_TOML, PlanError)), "")
    except OSError as error:
        raise PlanError(f"{path}: {error.strerror}; `swathe cluster prices` prints such a file to fill in") from error
    except ValueError as error:
        raise PlanError(f"{path} is no TOML: {error}; `swathe cluster prices` prints such a file") from error
    except ArgumentError as error:
        raise PlanError(f"{path}: {error}") from error
    return prices
