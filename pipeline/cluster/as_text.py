"""Functions that travel as text: any Python can read them, with or without Swathe, and whatever its bytecode means."""

from typing import Any


class TextFunction:
    """A function of the text of an expression, as `lambda x: x + 1`, that uses builtins alone."""

    def __init__(self, text: str) -> None:
        self._text, self._function = text, eval(text)

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it here."""
        return self._function(*given, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._text,)
