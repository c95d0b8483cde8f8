"""What goes on in a long step of work, told to whoever listens in this thread, as a command that shows it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[str, bool], object]  # the text, and whether it is said once and should not be left out
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def telling(listener: Listener) -> Iterator[None]:
    """Give what is told within to a function, one line of text at a time."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(text: str, *, always: bool = False) -> None:
    """Say what goes on; nobody may listen. `always`: it is said once, and should not be left out."""
    if (listener := _listener.get()) is not None:
        listener(text, always)
