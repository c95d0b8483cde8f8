"""The command `swathe` without its start: one process imports what verbs need, and forks for each command."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOADED = (
    "pipeline.cli.app", "pipeline.postprocess.clean", "pipeline.vector.vectorise",
    "pipeline.stats.stats", "pipeline.viz.report", "pipeline.grid.pixel_area", "pipeline.objects.regionprops",
    "geopandas", "pyarrow.parquet", "zarr.storage", "rasterio.features",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """What it says is wrong, as one line."""
        lines = self.err.splitlines()
        starts = [number for number, line in enumerate(lines) if line.lower().startswith(("error: ", "internal "))]
        return " ".join(lines[starts[-1] :]) if starts else ""


class Shell:
    """Runs commands in a folder, each in a process of its own, as `swathe.__main__` would."""

    def __init__(self, server: "subprocess.Popen[str]", folder: Path) -> None:
        self.server, self.folder = server, folder

    def __call__(self, *words: Any) -> Done:
        """Run `swathe` with these words; give how it ended."""
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps([str(self.folder), *map(str, words)]), file=self.server.stdin, flush=True)
        return Done(**json.loads(self.server.stdout.readline()))


@contextmanager
def shell(folder: Path) -> Iterator[Shell]:
    """Give a shell in a folder."""
    with subprocess.Popen([sys.executable, __file__], stdin=-1, stdout=-1, text=True) as server:
        yield Shell(server, folder)
        assert server.stdin
        server.stdin.close()


def serve() -> None:
    """Answer one line for each line that comes in."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    for name in LOADED:
        __import__(name)
    for line in sys.stdin:
        folder, *words = json.loads(line)
        print(json.dumps(run(folder, words)), flush=True)


def run(folder: str, words: list[str]) -> dict[str, Any]:
    """Run one command in a child."""
    streams = [os.memfd_create(name) for name in ("out", "err")]
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        for number, stream in zip((1, 2), streams, strict=True):
            os.dup2(stream, number)
        sys.argv = ["swathe", *words]
        sys.modules["pipeline.cli.app"].main()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = []
    for stream in streams:
        os.lseek(stream, 0, os.SEEK_SET)
        with open(stream, encoding="utf-8") as file:
            said.append(file.read())
    return {"code": code, "out": said[0], "err": said[1]}


if __name__ == "__main__":
    serve()
