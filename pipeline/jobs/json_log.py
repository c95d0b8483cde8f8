"""The log of a command as JSON: one object a line on standard error, and nothing else there.

Whatever else is written there, by libraries, warnings or the worker processes of this machine, comes as the text of an
object too: standard error is a pipe to a thread of ours meanwhile.
"""

import json
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from typing import IO, Any

from models.redact import shown, shown_facts

END = "\0end of the log"
PATIENCE = 10.0  # seconds that the end waits, at most, for what was written last


def _shown(value: object) -> str:
    return shown(str(value))


class JsonLog:
    """Writes objects to a stream, from any thread."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._lock = stream, threading.Lock()
        self._ended = threading.Event()

    def write(self, event: str, **facts: Any) -> None:
        """Write one object: its time, what it tells of, and facts by name."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": now, "event": event, **shown_facts(facts)}, ensure_ascii=False, default=_shown)
        with self._lock, suppress(OSError):  # a full disk ends no run: nobody is told, that is all
            self._stream.write(line + "\n")
            self._stream.flush()

    def take_lines(self, lines: IO[str]) -> None:
        """Write what comes as lines, up to the one that ends it."""
        for line in lines:
            if line.rstrip("\n") == END:
                self._ended.set()
            elif text := line.rstrip():
                self.write("stderr", text=text)

    def end(self) -> None:
        """Wait a moment until what was written last has come through."""
        sys.stderr.flush()
        os.write(2, f"\n{END}\n".encode())  # whatever was written last may have ended no line
        self._ended.wait(PATIENCE)


_log: JsonLog | None = None


def json_log() -> JsonLog | None:
    """Return the log, if the command writes one."""
    return _log


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether a command line has `--log json`, be the rest of it right or wrong."""
    return "--log=json" in words or ("--log", "json") in pairwise(words)


def start_json_log() -> JsonLog:
    """Let all that this process and its children write on standard error be JSON from now on."""
    global _log
    sys.stderr.flush()
    own = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    hears, told = os.pipe()
    os.dup2(told, 2)
    os.close(told)
    _log = JsonLog(own)
    lines = os.fdopen(hears, encoding="utf-8", errors="replace")
    threading.Thread(target=_log.take_lines, args=(lines,), daemon=True, name="swathe-log").start()
    return _log
