"""What happens during a run beside blocks that finish: waiting, workers that come and go, tries."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from models.redact import shown, shown_facts

EventKind = Literal[
    "dashboard", "waiting", "worker-joined", "worker-left", "worker-unfit", "worker-stuck", "retried", "nonfinite",
    "skipped", "load",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, in a line of words, with its facts by name: `worker`, `seconds`, `blocks`, `reason`.

    A `load` has no words; it comes about once a second, with the tasks `in_work`, and of the `workers`, by address, the
    tasks that each runs and its threads, as a pair.
    """

    kind: EventKind
    text: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind != "load":
            object.__setattr__(self, "text", shown(self.text))
            object.__setattr__(self, "facts", shown_facts(self.facts))


Tell: TypeAlias = Callable[[Event], object]
"""Called with each event, from the thread that runs the map."""


def tell_nobody(event: Event) -> None:
    """Keep it to oneself."""


def tell_all(*listeners: Tell) -> Tell:
    """Return what tells several."""

    def tell(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return tell
