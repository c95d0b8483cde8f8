"""Which workers of a cluster are fit for a run: looked at before any task is given to them."""

import asyncio
import pickle
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import cache
from inspect import getsource
from time import monotonic
from typing import Any

from distributed import Client, get_worker

from models.bundle import bundle_at, pack_bundle
from models.errors import ClusterError, SwatheError, UnfitWorkerError

from ..io.content_id import remote_url
from ..store.files import Files
from . import first_look
from .as_text import TextFunction
from .ask import ask_worker, known_workers
from .current import CURRENT
from .on_worker import BUNDLE, LACKS_BUNDLE, TOKEN, Requirements, Wanted, file_facts, gdal_version

LIMIT = 45  # seconds that a worker has to look: imports from a slow disk take many
SILENT = 50  # seconds after which a worker that says nothing is left out, until it does
NAMED = 3  # unfit workers in an error
LOOKED_AT = 16  # files of a scene, which may have a million
PACKAGES = ("dask", "distributed", "cloudpickle")  # what one sends, the other must understand
UNREGISTER = 5  # seconds that the scheduler has to forget a run
OWN = ("models", "pipeline", "swathe", "train")
INPROC = "inproc://"
NAMES = "swathe-check:"  # of what is registered with a scheduler; a client's id and the run's follow
DEAD = TextFunction(
    "lambda dask_scheduler: [name for name in dask_scheduler.worker_plugins"
    " if name.startswith(names) and name.split(':')[1] not in dask_scheduler.clients]",
    names=NAMES,
)


@cache
def _versions_here() -> Mapping[str, str]:
    return {package: first_look.version_here(package) for package in PACKAGES}


class WorkerCheck:
    """The workers of one cluster, as far as they were looked at for one run; see `checked_workers`."""

    def __init__(self, client: Client, wanted: Wanted, name: str) -> None:
        self.client = client
        self.run = uuid.uuid4().hex  # what it has found out is known by on workers
        self._wanted = wanted
        self._name = name
        self.unfit: dict[str, str] = {}  # the reason, by the worker's address
        self._fit: set[str] = set()
        self._asked: dict[str, tuple[float, Future[Any]]] = {}
        self._told: set[str] = set()
        self._again: set[str] = set()  # workers that were asked a second time
        self._shipped = False

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a worker is told before it is known what it understands."""
        return {
            "run": self.run,
            "limit": LIMIT,
            "python": ".".join(map(str, sys.version_info[:2])),
            "packages": _versions_here(),
            "swathe": first_look.version_here("swathe"),
            "requirements": pickle.dumps(self._wanted),
        }

    def look(self, workers: Iterable[str]) -> None:
        """Look at those of these workers that are new, and hear what those say that were asked before.

        It waits a moment where no worker is known to be fit.
        """
        there = set(workers)
        for known in (self._asked, self.unfit):
            for gone in known.keys() - there:
                del known[gone]
        self._fit &= there
        for address in there - self._fit - self.unfit.keys() - self._asked.keys():
            self._ask(address)
        self._hear()
        if not self._fit and self._asked:
            wait([future for _, future in self._asked.values()], timeout=1, return_when=FIRST_COMPLETED)
            self._hear()

    def look_at_all(self) -> None:
        """Look at the workers that are there, and wait until each is known to be fit or not."""
        workers = list(known_workers(self.client))
        self.look(workers)
        while open_ := [future for address, (_, future) in self._asked.items() if address not in self.unfit]:
            wait(open_, timeout=0.2)
            self._hear()

    def require_any(self) -> None:
        """Refuse to go on where every worker is unfit, with the reasons of some. Raises ClusterError."""
        if self.unfit and not self._fit and not self._asked.keys() - self.unfit.keys():
            said = [f"{address}: {reason}" for address, reason in sorted(self.unfit.items())]
            more = f"; and {len(said) - NAMED} more" if len(said) > NAMED else ""
            raise ClusterError(f"no worker of the cluster can do this run: {'; '.join(said[:NAMED])}{more}")

    def require(self, requirements: Requirements) -> None:
        """Ask more of all workers than before, of what has been found out since: `probe` and `memory` alone.

        Raises
        ------
        ClusterError
            None is fit any more.
        """
        self._wanted = replace(self._wanted, probe=requirements.probe, memory=requirements.memory)
        self.run = uuid.uuid4().hex
        self._fit.clear()
        self._again.clear()
        for address in list(self._asked):  # who is silent still has the question of before
            self._ask(address)
        self.register()
        self.look_at_all()
        self.require_any()

    @property
    def fit(self) -> list[str]:
        """Workers that were found fit."""
        return sorted(self._fit)

    def allowed(self) -> list[str] | None:
        """Return the workers that tasks may be given to; None: all there are."""
        return self.fit if self.unfit or self._asked else None

    def news(self) -> list[tuple[str, str]]:
        """Return the unfit workers, with their reasons, that it has not returned before."""
        found = [(address, reason) for address, reason in self.unfit.items() if address not in self._told]
        self._told.update(address for address, _ in found)
        return found

    def register(self) -> None:
        """Let the scheduler have each worker that comes looked at. Nothing waits for it: a worker may never answer."""
        asyncio.run_coroutine_threadsafe(_forget_dead(self.client), _loop(self.client))
        plugin = pickle.dumps(_made_there("Judge", self.facts))
        adding = self.client.scheduler.register_worker_plugin(plugin=plugin, name=self._name, idempotent=False)
        asyncio.run_coroutine_threadsafe(adding, _loop(self.client))

    def unregister(self) -> None:
        """Let scheduler and workers forget the run."""
        if self.client.status != "running":
            return
        removing = self.client.scheduler.unregister_worker_plugin(name=self._name)
        with suppress(Exception):  # whoever has lost the scheduler need not be told here
            asyncio.run_coroutine_threadsafe(removing, _loop(self.client)).result(timeout=UNREGISTER)

    def _ask(self, address: str, again: bool = False) -> None:
        if address.startswith(INPROC):  # this very process
            self._fit.add(address)
            return
        asking = ask_worker(self.client, address, _made_there("question", self.facts, again))
        self._asked[address] = (monotonic(), asyncio.run_coroutine_threadsafe(asking, _loop(self.client)))

    def _hear(self) -> None:
        """Take the answers that have come. Who is silent is unfit until it answers."""
        for address, (asked, future) in list(self._asked.items()):
            if future.done():
                del self._asked[address]
                self._answered(address, future)
            elif monotonic() - asked > SILENT:  # after the worker's own limit, which says more
                self.unfit.setdefault(address, f"it does not answer within {SILENT} s")

    def _answered(self, address: str, future: "Future[Any]") -> None:
        self.unfit.pop(address, None)
        answer = ClusterError("the scheduler was lost") if future.cancelled() else future.result()
        failed = isinstance(answer, Exception)  # as a connection that was lost on the way
        if address not in self._again and (failed or (answer == LACKS_BUNDLE and self._ship())):
            self._again.add(address)
            self._ask(address, again=True)
        elif answer:
            self.unfit[address] = f"{type(answer).__name__}: {answer}" if failed else str(answer)
        else:
            self._fit.add(address)

    def _ship(self) -> bool:
        """Put the bundle beside the output, whence workers that lack it take it; False: that cannot be done."""
        files, bundle = Files(self._wanted.folder), self._wanted.bundle
        if self._shipped or not self._wanted.folder or bundle is None:
            return self._shipped
        try:
            files.write(BUNDLE, pack_bundle(bundle_at(*bundle)))
        except (SwatheError, OSError):
            return False
        self._shipped = True
        return True


@contextmanager
def checked_workers(
    client: Client, requirements: Requirements, output: str = "", *, strict: bool = True
) -> Iterator[None]:
    """Look at the workers of a cluster, and at each that comes, for as long as a run lasts.

    Where tasks run in this process, there is nothing to look at. Beside the output a folder appears, `.NAME.check`, by
    which workers show that they write to the same disk. What is registered with the scheduler is named by the client,
    and each run lets it forget what is of clients that have gone, as of one that was killed.

    Raises
    ------
    ClusterError
        There are workers, and none is fit, unless this is not `strict`; or the folder cannot be written.
    """
    if client.scheduler.address.startswith(INPROC):  # nothing there is elsewhere
        yield
        return
    with ExitStack() as stack:
        token = uuid.uuid4().hex
        folder = stack.enter_context(_folder_beside(output, token.encode())) if output else ""
        name = f"{NAMES}{client.id}:{token}"
        check = WorkerCheck(client, _wanted(requirements, folder, token.encode()), name)
        stack.callback(check.unregister)
        check.register()
        check.look_at_all()
        if strict:
            check.require_any()
        stack.callback(CURRENT.reset, CURRENT.set(check))
        yield


def refuse_if_unfit(run: str) -> None:
    """Refuse a task on a worker that was found unfit for its run, as it may have come before anyone heard of it.

    Raises
    ------
    UnfitWorkerError
        It was.
    """
    verdict = vars(get_worker()).get(first_look.VERDICTS, {}).get(run)
    if verdict is not None and verdict.done() and (reason := verdict.result()):
        raise UnfitWorkerError(reason)


def is_of_unfit_worker(error: BaseException) -> bool:
    """Whether a task failed for its worker's sake: it would do elsewhere."""
    if isinstance(error, ModuleNotFoundError):  # the task itself could not be read
        return (error.name or "").partition(".")[0] in OWN
    return isinstance(error, UnfitWorkerError)


@contextmanager
def _folder_beside(output: str, token: bytes) -> Iterator[str]:
    """Yield the folder in which workers show that they see the same disk; "" where there can be none."""
    parent, name = output.rstrip("/").rsplit("/", 1)
    folder = f"{parent}/.{name}.check"
    files = Files(folder)
    try:
        files.remove("")  # of a run that was killed
        files.write(TOKEN, token)
    except OSError:  # as of an output with a mount of its own; if that cannot be written to, it is said there
        folder = ""
    try:
        yield folder
    finally:
        with suppress(OSError):
            files.remove("")


def _wanted(requirements: Requirements, folder: str, token: bytes) -> Wanted:
    remote = [path for path in requirements.reads if remote_url(path) is not None]
    local = [path for path in requirements.reads if remote_url(path) is None]
    some = local[:: -(-len(local) // LOOKED_AT) or 1] + remote[:1]  # a server takes seconds to say that it is not there
    files = tuple((path, facts) for path in some if (facts := file_facts(path)))
    return Wanted(gdal_version(), folder, token, files, requirements.bundle, requirements.probe, requirements.memory)


async def _forget_dead(client: Client) -> None:
    """Let scheduler and workers forget runs whose clients have gone without a word."""
    with suppress(Exception):  # it is tidying up; whoever has lost the scheduler need not be told here
        for name in await client.run_on_scheduler(DEAD):
            await client.scheduler.unregister_worker_plugin(name=name)


def _loop(client: Client) -> asyncio.AbstractEventLoop:
    return client.loop.asyncio_loop  # type: ignore[no-any-return]


def _made_there(name: str, *arguments: Any) -> TextFunction:
    """Return something of `first_look`, which is made on the worker of the text of that file."""
    make = f"exec(text, globals()) or {name}(*arguments)"
    return TextFunction(make, __name__="swathe_first_look", text=_text(), arguments=arguments)


@cache
def _text() -> str:
    return getsource(first_look)
