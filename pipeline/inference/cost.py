"""What a run will cost, from some of its blocks done on the very cluster: hours, bytes, requests, money.

Places are drawn that are spread over the planned blocks: these, in an order that keeps neighbours together, are cut
into as many parts as places may be done, and of each part one is taken by a seeded generator. A place is a square of 2
x 2 blocks with the overview above them, or a block where no overviews are written. Each is read, computed and written
by the function that a run uses, into a store that is removed again. Unless it is said how many, places are done until
time and bytes are known well enough: where half of a scene is sea, that takes more of them.

Totals are ratio estimates, per pixel of planned blocks, and intervals those of Student's t on the linearized residuals
(W. G. Cochran, Sampling Techniques, 3rd ed. 1977, sections 2.8, 6.3 and 6.4). Bytes are corrected for the places that
were looked at (section 2.6): where all were, nothing is uncertain; seconds are not, since no two runs take the same. A
drawn part by part sample varies less than the random one that the formula is for, so intervals are rather too wide.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice, pairwise, product
from tempfile import TemporaryDirectory

import numpy as np
from distributed import Client
from numpy.typing import NDArray
from scipy.stats import t as student

from models.errors import PlanError

from ..cluster.check import checked_workers
from ..cluster.connect import check_client, dask_client
from ..cluster.current import current_check
from ..cluster.launch import local_part
from ..cluster.processes import ClusterLike, Workers
from ..cluster.workers import gpu_resources, worker_facts
from ..jobs.block_order import BlockOrder
from ..jobs.job import Task, make_progress, run_block
from ..jobs.tasks import map_bounded, share_once
from ..store.files import full_path
from ..store.ledger import RECORD
from ..store.lifecycle import create_store, remove_store
from ..store.planned import BlockMask, by_level
from ..store.store import BlockIndex, Store, Summary
from .plan import SegmentPlan
from .prices import Prices, read_prices
from .run import Segmentation

SAMPLED, MOST, CONFIDENCE, SEED = 48, 384, 0.9, 0
PRECISION = 0.2  # of the value: how wide an interval may be to either side before more places are done
LISTED = 1000  # names that a LIST gives, and that a DELETE takes


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and the interval in which it lies with a confidence of 90 %; without bounds where one place was seen."""

    value: float
    low: float
    high: float

    @property
    def is_precise(self) -> bool:
        """Whether the interval is narrow enough."""
        return self.high - self.value <= PRECISION * self.value

    def times(self, factor: float, more: float = 0.0) -> "Estimate":
        """Return it in another unit, and with something added that is certain."""
        return Estimate(*(max(0.0, bound * factor + more) for bound in (self.value, self.low, self.high)))

    def describe(self, form: str = ",.2f") -> str:
        """Return it in words."""
        if math.isinf(self.high):
            return f"{self.value:{form}} (one place was seen: no interval)"
        return f"{self.value:{form}} ({self.low:{form}} to {self.high:{form}})"


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests to an object store, if the output lies in one; see `store.ledger`."""

    put: float
    get: float
    list: float
    delete: float

    def price(self, prices: Prices) -> float:
        """Return what they cost."""
        return (
            self.put * prices.put_1000
            + self.get * prices.get_1000
            + self.list * prices.list_1000
            + self.delete * prices.delete_1000
        ) / 1000


@dataclass(frozen=True, slots=True)
class Fleet:
    """Workers: how many, their threads and GPUs together, and how many blocks they have in work at a time."""

    workers: int
    threads: int
    gpus: float

    def of(self, workers: int) -> "Fleet":
        """Return so many of such workers."""
        share = workers / self.workers
        return Fleet(workers, max(1, round(self.threads * share)), self.gpus * share)

    def price(self, prices: Prices) -> float:
        """Return what an hour of them costs."""
        return self.workers * prices.worker_hour + self.threads * prices.core_hour + self.gpus * prices.gpu_hour


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run will cost.

    Parameters
    ----------
    blocks, sampled
        Planned blocks of all levels; those that were done.
    fleet
        The workers.
    hours
        From the start of the command to its end.
    read, written
        Bytes: decoded samples of the scene, halos included; encoded shards.
    requests
        Of the output, if it lies in an object store.
    money
        In `prices.currency`, with a month of keeping what is written.
    """

    blocks: int
    sampled: int
    fleet: Fleet
    hours: Estimate
    read: Estimate
    written: Estimate
    requests: Requests
    money: Estimate
    prices: Prices

    def __str__(self) -> str:
        fleet, requests = self.fleet, self.requests
        kind, units = ("GPU", fleet.gpus) if fleet.gpus else ("core", float(fleet.threads))
        return "\n".join(
            [
                f"cost     from {self.sampled:,} of {self.blocks:,} blocks, overviews' too; "
                f"in brackets the interval that holds with {CONFIDENCE:.0%}",
                f"time     {_duration(self.hours)} on {fleet.workers:,} worker{'s' * (fleet.workers != 1)} "
                f"of {fleet.threads:,} threads in all",
                f"{kind}-h   ".ljust(9) + self.hours.times(units).describe(",.3g"),
                f"read     {self.read.times(1e-9).describe(',.4g')} GB of decoded samples",
                f"written  {self.written.times(1e-9).describe(',.4g')} GB",
                f"requests {requests.put:,.0f} PUT, {requests.get:,.0f} GET, {requests.list:,.0f} LIST, "
                f"{requests.delete:,.0f} DELETE, if the output lies in an object store",
                f"money    {self.money.describe(',.4g')} {self.prices.currency}",
            ]
        )


def _duration(hours: Estimate) -> str:
    for unit, per_hour in (("h", 1), ("min", 60), ("s", 3600)):
        if hours.value * per_hour >= 1 or unit == "s":
            return hours.times(per_hour).describe(",.1f") + f" {unit}"
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found by doing some blocks.

    Parameters
    ----------
    places
        float64 (place, 4): pixels, seconds of a slot, bytes read, bytes written.
    pixels, count
        Of all planned blocks, and how many places these make.
    levels
        Planned blocks by level.
    rows, columns
        Rows of blocks with any that is planned, and columns, by level: for LISTs.
    arrays
        Arrays that each block writes.
    start
        Seconds before all slots are at work.
    sampled
        Blocks that were done.
    fleet
        The workers there were.
    pixel_area
        Square metres; None: not known.
    """

    places: NDArray[np.float64]
    pixels: float
    count: int
    levels: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    arrays: int
    start: float
    sampled: int
    fleet: Fleet
    pixel_area: float | None

    def cost(self, prices: Prices, *, workers: int | None = None, area_km2: float | None = None) -> Cost:
        """Return what a run costs.

        Parameters
        ----------
        prices
            Of all that is counted.
        workers
            So many workers as those that were measured. None: as many as there were.
        area_km2
            An area of such pixels. None: the scene.

        Raises
        ------
        PlanError
            The size of pixels is not known.
        """
        fleet, factor = self.fleet if workers is None else self.fleet.of(workers), 1.0
        if area_km2 is not None:
            if self.pixel_area is None:
                raise PlanError("the scene does not say how large its pixels are; leave the area out")
            factor = area_km2 * 1e6 / self.pixel_area / self.pixels
        requests = self._requests(factor, fleet.workers)
        pixels, whole = self.pixels * factor, self.count if area_km2 is None else None
        seconds, read, written = self.places.T[1:]
        tail = 0.5 * seconds.sum() / self.sampled * (1 - 1 / fleet.threads)
        per_second = fleet.price(prices) / 3600 / fleet.threads
        bytes_price = read * prices.read_gb / 1e9 + written * prices.stored_gb_month / 1e9
        fixed = (self.start + tail) / 3600
        return Cost(
            round(sum(self.levels) * factor),
            self.sampled,
            fleet,
            self._total(seconds, pixels).times(1 / 3600 / fleet.threads, fixed),
            self._total(read, pixels, whole),
            self._total(written, pixels, whole),
            requests,
            self._total(seconds * per_second + bytes_price, pixels).times(
                1.0, requests.price(prices) + fixed * fleet.price(prices)
            ),
            prices,
        )

    def is_precise(self) -> bool:
        """Whether time and bytes are known well enough."""
        seconds, _, written = self.places.T[1:]
        return self._total(seconds, self.pixels).is_precise and self._total(written, self.pixels, self.count).is_precise

    def _total(self, values: NDArray[np.float64], pixels: float, whole: int | None = None) -> Estimate:
        """Estimate a total by ratio; `whole`: places there are, where what was seen is certain."""
        sizes = self.places[:, 0]
        count, ratio = len(sizes), values.sum() / sizes.sum()
        value = float(ratio * pixels)
        left = 1.0 if whole is None else max(0.0, 1 - count / whole)
        if left == 0.0:
            return Estimate(value, value, value)
        if count == 1:
            return Estimate(value, 0.0, math.inf)
        residual = values - ratio * sizes
        error = math.sqrt(left * (residual**2).sum() / (count - 1) / count) / sizes.mean() * pixels
        width = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
        return Estimate(value, max(0.0, value - width), value + width)

    def _requests(self, factor: float, workers: int) -> Requests:
        levels = [count * factor for count in self.levels]
        blocks, below, side = sum(levels), sum(levels[:-1]), math.sqrt(factor)
        records = blocks // RECORD
        other = below * self.arrays * (1 - 1 / workers)  # of blocks below, what another worker wrote
        sides = zip(self.rows, self.columns, strict=True)
        lists = sum(math.ceil(rows * side) * math.ceil(columns * side / LISTED) for rows, columns in sides)
        deletes = records * math.ceil(RECORD / LISTED) + math.ceil((blocks - records * RECORD) / LISTED)
        return Requests(
            blocks * (self.arrays + 1) + records, blocks + other + records, lists * self.arrays + 1, deletes
        )


def estimate_cost(
    prepared: SegmentPlan,
    prices: Prices | str | os.PathLike[str],
    *,
    client: ClusterLike | None = None,
    sampled: int | None = None,
    workers: int | None = None,
    area_km2: float | None = None,
    scratch: str | None = None,
    show: bool = True,
) -> Cost:
    """Estimate what a run costs, from some of its blocks done where it would be done. `print` what it returns.

    Parameters
    ----------
    prepared
        What `plan` returns.
    prices
        Prices, or the path of a TOML file of them; `swathe cluster prices` prints one to fill in.
    client
        A cluster, see `run`. None: this process.
    sampled
        Blocks of the full resolution that are done, about. Fewer where the scene has fewer. None: 48, and up to 384 as
        long as time or bytes are not known to 20 %.
    workers
        For so many workers as those that are there. None: for those.
    area_km2
        For an area of so many square kilometres that is like this scene. None: for the scene.
    scratch
        Folder or URL that the workers share, for what is written and removed again. None: a temporary folder here.
    show
        Show progress.

    Raises
    ------
    PlanError
        The prices are wrong; numbers are not above 0; no blocks are planned.
    SwatheError
        What a run would meet, too.
    """
    known = prices if isinstance(prices, Prices) else read_prices(prices)
    for name, number in (("sampled", sampled), ("workers", workers), ("area_km2", area_km2)):
        if number is not None and not number > 0:
            raise PlanError(f"{name} is a number above 0; received {number}")
    check_client(client)
    return measure_cost(prepared, client, sampled=sampled, scratch=scratch, show=show).cost(
        known, workers=workers, area_km2=area_km2
    )


def measure_cost(
    prepared: SegmentPlan,
    client: Workers = None,
    *,
    sampled: int | None = None,
    scratch: str | None = None,
    show: bool = True,
) -> Measured:
    """Do some blocks of a plan where the run would be done.

    Parameters
    ----------
    prepared
        The plan.
    client
        The cluster. None: this process.
    sampled
        Blocks of the full resolution, about; see `estimate_cost`.
    scratch
        Folder or URL that the workers share, for a store that is removed again. None: a temporary folder here.
    show
        Show progress.

    Raises
    ------
    PlanError
        No blocks are planned.
    SwatheError
        What a run would meet, too.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        folder = scratch or stack.enter_context(TemporaryDirectory(prefix="swathe-cost-"))
        path = full_path(f"{folder.rstrip('/')}/swathe-cost-{time.time_ns():x}.zarr")
        job, connection = stack.enter_context(_at_work(Segmentation(prepared), client, path))
        metadata = job.new_metadata()
        plan, overviews = metadata.plan, metadata.levels > 0
        asked = job.planned_blocks(plan.block)
        planned = np.ones((plan.rows, plan.columns), bool) if asked is None else asked
        side = 2 if overviews else 1
        places, count = draw(planned, side, sampled or MOST)
        stack.callback(remove_store, path)
        drawn = _blocks_of(places, side, planned)
        store = create_store(path, job.geobox, replace(metadata, levels=min(1, metadata.levels)), {}, drawn)
        task = Task(job.block_function(store), store, len(metadata.classes))
        before = time.monotonic() - began
        facts = worker_facts(connection)
        fleet = Fleet(len(facts), sum(fact.nthreads for fact in facts), sum(fact.gpus for fact in facts))
        masks = by_level(planned, metadata.levels)
        levels = tuple(int(mask.sum()) for mask in masks)
        upper = sum(levels[1:]) / levels[1] if overviews else 0.0  # overviews of all levels for each of the first

        def measured(warm: float, summaries: Sequence[Summary]) -> Measured:
            return Measured(
                _by_place(store, summaries, upper),
                float(sum(store.window(0, row, column).size for row, column in np.argwhere(planned).tolist())),
                count,
                levels,
                tuple(int(mask.any(axis=1).sum()) for mask in masks),
                tuple(mask.shape[1] for mask in masks),
                len(store.array_names),
                before + warm,
                len(summaries),
                fleet,
                None if (pixel := job.geobox.resolution()) is None else pixel**2,
            )

        doing = _Doing(connection, task, show)
        first = doing.warm_up(_blocks_of(places[:1], side, planned), fleet.threads)
        summaries, done, wanted = list[Summary](), 0, len(places) if sampled else -(-SAMPLED // side**2)
        while done < len(places):
            summaries += doing.blocks(_blocks_of(places[done:wanted], side, planned))
            usual = float(np.mean([one.seconds for one in summaries if one.level == 0]))
            found, done, wanted = measured(max(0.0, first - usual), summaries), min(wanted, len(places)), 2 * wanted
            if found.is_precise():
                break
        return found


@contextmanager
def _at_work(job: Segmentation, client: Workers, path: str) -> Iterator[tuple[Segmentation, Client]]:
    """Yield the job as it would be done there, and the client; as `run_job` does."""
    with ExitStack() as stack:
        if (processes := local_part(client)) is not None:
            job = job.share_among(processes)
            connection = stack.enter_context(dask_client(client, threads=job.threads))
        else:
            connection = stack.enter_context(dask_client(client, threads=job.threads))
            if client is not None:
                stack.enter_context(checked_workers(connection, job.requirements(), path))
                job = job.bind_to_cluster(connection)
                if (check := current_check(connection)) is not None:
                    check.require(job.requirements())
        yield job, connection


def draw(planned: BlockMask, side: int, sampled: int) -> tuple[NDArray[np.int64], int]:
    """Draw places of `side` x `side` blocks, spread over those planned; the same each time.

    Returns
    -------
    ndarray, int
        Rows and columns of these places `(place, 2)`, the first few of which are spread as all are; and how many places
        there are.

    Raises
    ------
    PlanError
        No blocks are planned.
    """
    places = np.unique(np.argwhere(planned) // side, axis=0)
    if not len(places):
        raise PlanError("no blocks are planned: no scene touches the area")
    bits = max(1, int(places.max()).bit_length())
    order = sum(((places[:, axis] >> bit) & 1) << (2 * bit + 1 - axis) for bit, axis in product(range(bits), (0, 1)))
    places = places[np.argsort(order)]  # along Morton's curve, neighbours are near each other
    wanted = min(len(places), max(2, -(-sampled // side**2)))
    edges = np.linspace(0, len(places), wanted + 1).astype(int)
    random = np.random.default_rng(SEED)
    drawn = np.array([random.integers(start, stop) for start, stop in pairwise(edges)])
    digits = max(1, (wanted - 1).bit_length())
    spread = sorted(range(wanted), key=lambda number: f"{number:0{digits}b}"[::-1])  # van der Corput's order
    return places[drawn[spread]], len(places)


def _blocks_of(places: NDArray[np.int64], side: int, planned: BlockMask) -> BlockMask:
    """Return which planned blocks lie in places."""
    mask = np.zeros_like(planned)
    for row, column in (places * side).tolist():
        mask[row : row + side, column : column + side] = True
    return mask & planned


@dataclass(frozen=True, slots=True)
class _Doing:
    """Does blocks where a run would."""

    client: Client
    task: Task
    show: bool

    def _map(self, items: Iterable[BlockIndex]) -> Iterator[Summary]:
        function = self.task.block_function
        shared = share_once(self.client, self.task) if function.scatter_once else self.task
        resources = gpu_resources(self.client) if function.on_gpu else None
        return map_bounded(self.client, _time_block, shared, items, key="swathe-cost", resources=resources)

    def warm_up(self, some: BlockMask, slots: int) -> float:
        """Have each slot do a block, not counted: workers import, and networks are compiled. Return the seconds."""
        began = time.monotonic()
        blocks: list[BlockIndex] = [(0, row, column) for row, column in np.argwhere(some).tolist()]
        list(self._map(islice(cycle(blocks), slots)))
        return time.monotonic() - began

    def blocks(self, wanted: BlockMask) -> list[Summary]:
        """Do blocks, and the overviews above them; return what they say of themselves."""
        store, found = self.task.store, list[Summary]()
        order = BlockOrder(list(by_level(wanted, store.levels)), self.task.block_function.across(store))
        with make_progress(self.show)("doing some blocks", int(wanted.sum()), 0) as advance:
            for summary in self._map(order):
                order.finish((summary.level, summary.row, summary.column))
                found.append(summary)
                if summary.level == 0:
                    advance(1, sum(summary.pixels))
        return found


def _time_block(task: Task, index: BlockIndex) -> Summary:
    """Do a block; its seconds are all that its slot was taken for."""
    began = time.perf_counter()
    summary = run_block(task, index)
    return replace(summary, seconds=time.perf_counter() - began)


def _by_place(store: Store, summaries: Sequence[Summary], upper: float) -> NDArray[np.float64]:
    """Sum up by place; an overview counts for those above it, too."""
    sums: dict[tuple[int, int], NDArray[np.float64]] = {}
    side = 2 if store.levels else 1
    for one in summaries:
        place = (one.row, one.column) if one.level else (one.row // side, one.column // side)
        of_scene = (sum(one.pixels), one.spent.bytes_read) if one.level == 0 else (0, 0)
        row = np.array([of_scene[0], one.seconds, of_scene[1], one.spent.bytes_written], np.float64)
        sums[place] = sums.get(place, np.zeros(4)) + row * (upper if one.level else 1.0)
    return np.stack(list(sums.values()))
