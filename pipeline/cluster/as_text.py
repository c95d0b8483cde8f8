"""Functions that travel as text: any Python can read them, with or without Swathe, and whatever its bytecode means."""

from typing import Any


class TextFunction:
    """What an expression makes, as `lambda x: x + 1`, where it is read; it uses builtins and these names alone."""

    def __init__(self, text: str, /, **names: Any) -> None:
        self._text, self._names = text, names

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Call it here."""
        return eval(self._text, dict(self._names))(*given, **named)

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (self._text, self._names)
