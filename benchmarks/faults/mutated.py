"""Inputs with random changes: flips, cuts, splices, whole numbers set to extremes, other values in texts.

Each is opened and read in a process with 2 GB that goes on to the next. Right: the pixels that rasterio itself reads,
or a clear error; within 10 s. The process must not die.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .mutated_inputs import KINDS, make_inputs
from .trial import Trial

PART = "mutated"
TRIALS, QUICK = 5000, 250
SECONDS, STARTING = 10.0, 300.0  # the machine may be busy while a process imports everything


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try mutations of each kind in turn."""
    make_inputs(inputs := folder / "inputs")
    (made := folder / "made").mkdir()
    child = Child(inputs, made, seed)
    try:
        for number in range(QUICK if quick else TRIALS):
            kind = KINDS[number % len(KINDS)]
            came, done, detail = child.read(number, kind)
            yield Trial(PART, f"{kind} {number}, {done}", came != "wrong", detail)
    finally:
        child.end()


class Child:
    """The process that reads, started anew where it died or hung."""

    def __init__(self, inputs: Path, made: Path, seed: int) -> None:
        self.arguments = [str(inputs), str(made), str(seed)]
        self.process: subprocess.Popen[bytes] | None = None

    def read(self, number: int, kind: str) -> tuple[str, str, str]:
        """Let it read one mutation; returns `read`, `refused` or `wrong`, what was done, and in words what came."""
        process = self._started()
        assert process.stdin is not None
        process.stdin.write(f"{number} {kind}\n".encode())
        process.stdin.flush()
        line = self._line(process, SECONDS)
        if line is None:
            self.end()
            return "wrong", "", f"it took longer than {SECONDS:g} s"
        if not line:
            code = process.wait()
            self.end()
            return "wrong", "", f"the process ended with {code}"
        came, done, detail = json.loads(line)
        return came, done, detail

    def _started(self) -> "subprocess.Popen[bytes]":
        if self.process is None:
            command = [sys.executable, "-m", "benchmarks.faults.mutated_child", *self.arguments]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
                cwd=Path(__file__).parents[2],
            )  # fmt: skip
            if self._line(self.process, STARTING) != b"ready\n":
                raise RuntimeError("the process that reads mutated inputs did not start")
        return self.process

    def _line(self, process: "subprocess.Popen[bytes]", seconds: float) -> bytes | None:
        """Return a line; empty where the process ended, None where it took too long."""
        assert process.stdout is not None
        line, until = b"", time.monotonic() + seconds
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                return None
            part = process.stdout.read(1 << 16)
            if not part:
                return b""
            line += part
        return line

    def end(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe is not None:
                    pipe.close()
            self.process.wait()
            self.process = None
