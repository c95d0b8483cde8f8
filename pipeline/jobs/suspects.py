"""Tasks that were on workers as these died: tried again alone, since a dying worker takes innocent ones with it."""

from collections import deque
from typing import Any, Generic, TypeVar

from distributed import Client

from models.errors import ClusterError
from models.metadata import some_of

Task = TypeVar("Task")


class Suspects(Generic[Task]):
    """Set aside until nothing else is in work, then run one after the other."""

    def __init__(self) -> None:
        self._aside: deque[Task] = deque()
        self._alone: Task | None = None

    @property
    def alone(self) -> bool:
        """Whether one of them runs, and nothing else may."""
        return self._alone is not None

    def set_aside(self, task: Task) -> None:
        """Keep a task for later."""
        self._aside.append(task)

    def next(self) -> Task | None:
        """Return the next to be run alone, if there is one."""
        self._alone = self._aside.popleft() if self._aside else None
        return self._alone

    def is_alone(self, task: Task) -> bool:
        """Whether it is this one that runs alone: if workers die then, it is to blame."""
        return task is self._alone

    def ended(self, task: Task) -> None:
        """Take note that a task has ended."""
        if task is self._alone:
            self._alone = None


def killer(client: Client, name: str, key: str) -> ClusterError:
    """Return the error that names a task on which workers died while nothing else was in work."""
    return ClusterError(
        f"workers died again and again on {name}, also while nothing else was in work "
        f"({some_of(died_with(client, key)) or 'all of them'}), most often for want of memory: "
        "give them more, or use a smaller --tile and --block"
    )


def died_with(client: Client, key: str) -> list[str]:
    """Return the workers that the scheduler lost while they had a task, in order."""
    try:
        events: list[tuple[float, Any]] = client.sync(client.scheduler.events, topic="all", callback_timeout=10)
    except (TimeoutError, OSError):
        return []
    lost = [event for _, event in events if isinstance(event, dict) and event.get("action") == "remove-worker"]
    return list(dict.fromkeys(event["worker"] for event in lost if key in event.get("processing-tasks", ())))
