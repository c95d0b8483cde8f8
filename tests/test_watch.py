"""What a long map over tasks leaves with the scheduler, and clusters that are large or have wrong clocks."""

import pytest
from clusters import in_process
from distributed import Client, LocalCluster

from pipeline.jobs import watch
from pipeline.jobs.tasks import map_bounded


def add(one: int, other: int) -> int:
    return one + other


def _kept(cluster: LocalCluster) -> tuple[int, int]:
    """Return how many spans, and notes of submissions in them, the scheduler keeps."""
    spans = cluster.scheduler.extensions["spans"].spans.values()
    return len(spans), sum(len(span._metadata["collections"]) for span in spans if span._metadata)


@pytest.mark.slow
def test_what_the_scheduler_keeps_does_not_grow_with_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("TIDY_EVERY", 100), ("KEPT_NOTES", 5), ("KEPT_SPANS", 5)):
        monkeypatch.setattr(watch, name, limit)
    kept = []
    with in_process(8) as cluster, Client(cluster, set_as_default=False) as client:
        for _ in range(50):
            assert sum(map_bounded(client, add, 1, range(200), key="notes")) == 20_100
            kept.append(_kept(cluster))
    assert max(spans for spans, _ in kept) <= 5 + 20, kept  # those of the last map are there
    assert max(notes for _, notes in kept) <= 5 * (5 + 20) + 100, kept  # a hundred tasks are a hundred notes at most
