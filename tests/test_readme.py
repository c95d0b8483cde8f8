"""The README can be typed from top to bottom: its blocks run in their order, in one folder, as they stand.

`make test` is left out, and the environment that `make` would make is the one of these tests.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
LEFT_OUT = re.compile(r"^make test\b.*\n", re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PYTHON = """
import json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "README.md", "exec"), names)
        told = ""
    except BaseException:
        told = traceback.format_exc()
    print("\\0" + json.dumps(told), flush=True)
"""


def blocks() -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return [(language, text) for language, text in BLOCK.findall((ROOT / "README.md").read_text())]


class Reader:
    """Who types what the README says: one shell, one Python, one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state, self.python = folder, folder.parent / "state.sh", None
        environment = folder / ".venv/bin"
        environment.mkdir(parents=True)
        shutil.copy(ROOT / "Makefile", folder)
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / ".venv/.made").touch()  # newer than pyproject.toml: `make` has nothing to install
        (environment / "swathe").write_text(f'#!/bin/sh\nexec {sys.executable} -m swathe "$@"\n')
        (environment / "swathe").chmod(0o755)
        (environment / "activate").write_text(f'export PATH="{environment}:{BIN}:$PATH"\n')
        more = {"MPLBACKEND": "Agg", "SWATHE_CACHE": str(folder.parent / "cache"), "TQDM_DISABLE": "1"}
        self.environment = (
            os.environ | more | {"PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)]))}
        )
        self.state.write_text(f"cd {folder}\n")

    def sh(self, text: str) -> None:
        """Type a block into the shell, which stops at the first error; the next one begins where it ended."""
        script = f"set -euo pipefail\n. {self.state}\n{LEFT_OUT.sub('', text)}\n"
        script += f"{{ export -p; echo \"cd '$PWD'\"; }} > {self.state}"
        done = subprocess.run(["bash", "-xc", script], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "Warning" not in done.stderr
        self.folder = Path(self.state.read_text().rsplit("cd '", 1)[1].strip().rstrip("'"))

    def toml(self, text: str) -> None:
        """Save the settings."""
        (self.folder / "settings.toml").write_text(text)

    def py(self, text: str) -> None:
        """Run a block in the one Python, as it stands."""
        if self.python is None:
            command, how = [sys.executable, "-c", PYTHON], {"cwd": self.folder, "env": self.environment}
            self.python = subprocess.Popen(command, stdin=-1, stdout=-1, text=True, **how)
        print(json.dumps(text), file=self.python.stdin, flush=True)
        while not (line := self.python.stdout.readline()).startswith("\0"):
            assert line, "Python ended"
        assert json.loads(line[1:]) == ""


@pytest.fixture
def reader(tmp_path) -> Iterator[Reader]:
    one = Reader(tmp_path / "readme")
    yield one
    if one.python is not None:
        one.python.stdin.close()
        one.python.stdout.close()
        one.python.wait()


def test_blocks_are_of_languages_that_run():
    assert [language for language, _ in blocks()].count("toml") == 1
    assert {language for language, _ in blocks()} == {"sh", "python", "toml"}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_readme_runs_from_top_to_bottom(reader):
    types = {"sh": reader.sh, "toml": reader.toml, "python": reader.py}
    for language, text in blocks():
        began = time.perf_counter()
        types[language](text)
        print(f"{language} {time.perf_counter() - began:.0f} s: {text.splitlines()[0]}")
    made = {path.name for path in reader.folder.iterdir()}
    assert {"map.tif", "maps.zarr", "houses.gpkg", "cells.parquet", "houses.html", "roofs", "roofs.onnx"} <= made
    assert {"again.tif", "again.parquet", "again.html", "quick", "roofs.json", "probability.tif"} <= made
    assert (reader.folder / "scores/index.html").stat().st_size > 1000
