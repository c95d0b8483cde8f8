"""Which check of workers the run that this thread is in has made."""

from contextvars import ContextVar
from typing import TYPE_CHECKING

from distributed import Client

if TYPE_CHECKING:
    from .check import WorkerCheck

CURRENT: ContextVar["WorkerCheck | None"] = ContextVar("check", default=None)


def current_check(client: Client) -> "WorkerCheck | None":
    """Return the check that is made for a client; None: its workers need none."""
    check = CURRENT.get()
    return check if check is not None and check.client is client else None
