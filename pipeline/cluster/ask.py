"""Ask a scheduler for its workers, and workers something beside their tasks: also those at work answer."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from distributed import Client

from models.errors import ClusterError

SILENT_SCHEDULER = 45  # seconds without an answer after which a scheduler counts as lost
PATIENCE = 60  # seconds that a worker has to answer: an import of torch from a slow disk takes many
Answer = TypeVar("Answer")


def known_workers(client: Client) -> Mapping[str, Any]:
    """Return what the scheduler knows of its workers now, by address.

    Raises
    ------
    ClusterError
        It does not answer, or has gone.
    """
    scheduler = f"the Dask scheduler at {client.scheduler.address}"
    try:
        identity = client.sync(client.scheduler.identity, n_workers=-1, callback_timeout=SILENT_SCHEDULER)
    except TimeoutError as error:
        raise ClusterError(f"{scheduler} does not answer within {SILENT_SCHEDULER} s") from error
    except OSError as error:
        raise ClusterError(f"{scheduler} was lost: {error}") from error
    workers: Mapping[str, Any] = identity["workers"]
    return workers


async def ask_worker(
    client: Client,
    address: str,
    function: Callable[..., Awaitable[Answer]],
    *given: Any,
    patience: float | None = None,
) -> Answer | BaseException:
    """Run a coroutine function in the event loop of a worker; return its answer, or an error as `ask_workers`."""
    try:
        said = await asyncio.wait_for(client.run(function, *given, workers=[address]), patience)
        return said[address]  # type: ignore[no-any-return]
    except Exception as error:
        return error


def ask_workers(
    client: Client,
    function: Callable[..., Awaitable[Answer]],
    *given: Any,
    workers: Collection[str],
    patience: float = PATIENCE,
) -> dict[str, Answer | BaseException]:
    """Run a coroutine function in the event loop of each of some workers; it must not keep that waiting.

    Returns
    -------
    dict
        By address what each has answered; or an error: what was raised there, TimeoutError where it does not answer,
        OSError where it has gone.
    """

    async def ask_all() -> dict[str, Answer | BaseException]:
        asking = (ask_worker(client, address, function, *given, patience=patience) for address in workers)
        return dict(zip(workers, await asyncio.gather(*asking), strict=True))

    answers: dict[str, Answer | BaseException] = client.sync(ask_all)
    return answers
