"""Standard output and error of the command: no secret leaves by them, whoever writes; errors end no run."""

import io
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, TextIO, cast

from typing_extensions import override


class _ShownStream:
    """A stream that changes what is written to it; all else is that of the stream."""

    def __init__(self, stream: IO[str], show: Callable[[str], str]) -> None:
        self._stream, self._show = stream, show

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text as it may be shown."""
        if not isinstance(text, str):  # click tries bytes, to see which kind of stream it has
            raise TypeError(f"a text is written, not {type(text).__name__}")
        self._stream.write(self._show(text))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several."""
        for line in lines:
            self.write(line)


def shown_stream(stream: IO[str], show: Callable[[str], str]) -> IO[str]:
    """Return a stream that writes to another one what `show` makes of each text."""
    return cast(IO[str], _ShownStream(stream, show))


class Heedless(io.TextIOWrapper):
    """Standard error where a full disk, or a terminal that is gone, ends no run: nobody is told, that is all."""

    @override
    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    @override
    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def heedless_stream(stream: TextIO) -> TextIO:
    """Return a stream that writes where another one does, as far as that can be; one that is no file stays."""
    if not hasattr(stream, "buffer"):
        return stream
    return Heedless(stream.buffer, stream.encoding, stream.errors, line_buffering=True)
