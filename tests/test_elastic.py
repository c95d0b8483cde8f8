"""Workers that come and go during a map: late ones are busy, those that leave hand back, none is blamed wrongly."""

import os
import signal
import time

import dask
import psutil
import pytest
from clusters import heard, in_process, nap, processes
from distributed import Client

from models.errors import ClusterError
from pipeline.cluster.check import WorkerCheck
from pipeline.cluster.connect import dask_client
from pipeline.cluster.on_worker import Wanted
from pipeline.cluster.options import Cluster
from pipeline.jobs import suspects, watch
from pipeline.jobs.tasks import map_bounded

pytestmark = pytest.mark.usefixtures("busy_machine")


def where(seconds, item):
    from distributed import get_worker

    time.sleep(seconds)
    return get_worker().address


def die_on(deadly, item):
    if item == deadly:
        time.sleep(0.3)  # while others are in work beside it
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.1)
    return item


def test_workers_that_join_late_are_all_busy(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.05)
    told: list[watch.Event] = []
    with in_process(1) as cluster, Client(cluster, set_as_default=False) as client:
        results = map_bounded(client, where, 0.05, range(120), key="late", tell=heard(told))
        found = [next(results)]
        cluster.scale(8)
        client.wait_for_workers(8, timeout=60)
        found += results
        assert len(found) == 120
        assert set(found) == set(client.scheduler_info()["workers"])
    assert [event.kind for event in told].count("worker-joined") == 7
    assert told[-1].facts["workers"] == 8


def test_workers_that_leave_hand_back_their_blocks(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.05)
    told: list[watch.Event] = []
    with in_process(3) as cluster, Client(cluster, set_as_default=False) as client:
        results = map_bounded(client, double, 0.02, range(60), key="leave", tell=heard(told))
        found = [next(results)]
        client.retire_workers(list(client.scheduler_info()["workers"])[:2])
        found += results
    assert sorted(found) == [2 * item for item in range(60)]
    assert [event.kind for event in told].count("worker-left") == 2


def double(seconds, item):
    time.sleep(seconds)
    return 2 * item


class Chosen(WorkerCheck):
    """Allows the first of the workers that are there."""

    def __init__(self, client, most=1):
        super().__init__(client, Wanted(), "chosen")
        self.most = most

    def look(self, workers):
        fit = sorted(workers)[: self.most]
        self._fit, self.unfit = set(fit), {worker: "it has no GDAL" for worker in workers if worker not in fit}

    def require_any(self):
        pass


def test_tasks_go_to_allowed_workers_and_elsewhere_when_these_have_gone(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.05)
    told: list[watch.Event] = []
    with in_process(2) as cluster, Client(cluster, set_as_default=False) as client:
        first, second = sorted(client.scheduler_info()["workers"])
        results = map_bounded(
            client,
            where,
            0.1,
            range(12),
            key="chosen",
            check=Chosen(client),
            tell=heard(told),
        )
        found = [next(results)]
        client.retire_workers([first])
        found += results
    assert len(found) == 12
    assert set(found) == {first, second}
    assert any(event.text == f"worker {second} is left out: it has no GDAL" for event in told)


def test_where_no_worker_is_allowed_nothing_is_sent_and_patience_ends(monkeypatch):
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(watch, "TELL_EVERY", 0.3)
    told: list[watch.Event] = []
    with in_process(1) as cluster, Client(cluster, set_as_default=False) as client:
        cluster.waiting_for = lambda: "2 Slurm jobs pending"
        with (
            dask_client(Cluster(client, patience=1), 1) as impatient,
            pytest.raises(ClusterError, match="no worker for 1 s; 2 Slurm jobs pending; start workers and run"),
        ):
            list(
                map_bounded(
                    impatient,
                    nap,
                    0,
                    [1],
                    key="none",
                    check=Chosen(impatient, 0),
                    tell=heard(told),
                )
            )
        assert not client.cluster.scheduler.tasks
    told = [event for event in told if event.kind != "load"]
    assert [event.kind for event in told[:2]] == ["worker-unfit", "waiting"]
    assert told[1].text == "no worker for 0 s; 2 Slurm jobs pending"


def test_a_task_that_a_worker_cannot_read_is_tried_elsewhere_a_few_times(client, tmp_path):
    def lacking(_, item):
        if not (tmp_path / "met").exists() or item == 7:
            (tmp_path / "met").touch()
            raise ModuleNotFoundError("No module named 'swathe'", name="swathe")
        return item

    assert list(map_bounded(client, lacking, None, [1], key="misfit")) == [1]
    with pytest.raises(ModuleNotFoundError, match="swathe"):
        list(map_bounded(client, lacking, None, [7], key="misfit"))


@pytest.mark.slow
def test_a_block_that_ends_workers_is_named_and_no_other_is_blamed():
    told: list[watch.Event] = []
    done: list[int] = []
    named = r"again and again on block 3, also while nothing else was in work \(tcp://\S+, tcp://\S+\), most often"
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        processes(2) as cluster,
        Client(cluster, set_as_default=False) as client,
        pytest.raises(ClusterError, match=named),
    ):
        done.extend(map_bounded(client, die_on, 3, range(24), key="poison", tell=heard(told)))
    aside = {event.facts["block"] for event in told if event.kind == "retried"}
    assert "block 3" in aside
    # one that two workers' ends met beside it waits behind it
    assert {f"block {item}" for item in set(range(24)) - set(done)} <= aside
    assert len(done) > 20


def test_blamed_tasks_run_one_after_the_other_once_nothing_else_is_left():
    some: suspects.Suspects[object] = suspects.Suspects()
    first, second = object(), object()
    some.set_aside(first)
    some.set_aside(second)
    assert not some.alone
    assert some.next() is first
    assert some.alone
    assert some.is_alone(first)
    assert not some.is_alone(second)
    some.ended(first)
    assert not some.alone
    assert some.next() is second
    some.ended(second)
    assert some.next() is None


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_that_are_preempted_one_after_the_other_lose_nothing(how, tmp_path):
    with processes(2) as cluster, Client(cluster, set_as_default=False) as client:
        found: list[int] = []
        for count, (pid, item) in enumerate(map_bounded(client, nap, 0.2, range(30), key="preempted")):
            found.append(item)
            if count in (4, 14):
                psutil.Process(pid).send_signal(how)
    assert sorted(found) == list(range(30))
