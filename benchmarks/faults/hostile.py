"""Inputs that want to be let in, given to the real command in a network namespace, with a trap and watched files.

    python -m benchmarks.faults --only hostile

The namespace has no network but its loopback, on which a trap listens at this machine's address, a link-local, a
private and a public one. Files that nobody may touch lie in a folder that the kernel watches (inotify): a file that is
opened, written or made there is seen, whichever process did it. As root.
"""

import ctypes
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .hostile_inputs import IGNORED, INPUTS, SITE, TRAPS, Place, raster
from .trial import Skipped, Trial, swathe

PART = "hostile"
QUICK = 14  # inputs of the quick mode
SECONDS, MEMORY, LATEST = 10.0, 2 << 30, 90.0  # of processor time; of memory; on the clock, of a busy machine
DASK = "ip route add 8.8.8.8/32 dev lo"  # by which Dask looks for its own address; it sends nothing
TOUCHED = 0x2 | 0x20 | 0x100  # of inotify: written, opened, made


def run(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    """Try the inputs in a namespace of its own."""
    if subprocess.run(["unshare", "-n", "ip", "link"], capture_output=True, check=False).returncode:
        raise Skipped("no network namespace without root and iproute2")
    words = [sys.executable, "-m", "benchmarks.faults.hostile", str(seed), str(int(quick)), str(folder)]
    with subprocess.Popen(["unshare", "-n", *words], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            yield Trial(**json.loads(line))
    if child.returncode:
        yield Trial(PART, "the part", False, f"its process ended with {child.returncode}")


class Trap:
    """Servers at addresses that nobody may ask; `asked` are those who did."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        for host in TRAPS:
            address, port = host.split(":")
            listening = socket.create_server((address, int(port)))
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        while True:
            asking, _ = listening.accept()
            self.asked.append(listening.getsockname()[0])
            asking.close()


class Site(BaseHTTPRequestHandler):
    """A server that users name: files of the folder, and `/to/URL`, which sends on."""

    folder: Path

    def do_HEAD(self) -> None:
        """Answer without content."""
        self._answer()

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def _answer(self) -> None:
        if self.path.startswith("/to/"):
            return self._send(302, b"", Location=self.path.removeprefix("/to/"))
        file = self.folder / self.path.strip("/")
        self._send(200, file.read_bytes()) if file.is_file() else self._send(404, b"")

    def _send(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Watch:
    """What happens to the files of a folder, by inotify."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.file = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.file < 0 or libc.inotify_add_watch(self.file, os.fsencode(folder), TOUCHED) < 0:
            raise OSError(ctypes.get_errno(), "inotify")

    def seen(self) -> list[str]:
        """Return the names of the files that were touched since the last call."""
        names = list[str]()
        try:
            events = os.read(self.file, 1 << 16)
        except BlockingIOError:
            return names
        while events:
            _, _, _, length = struct.unpack_from("iIII", events)
            names.append(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return [name for name in names if name]


def _inside(seed: int, quick: bool, folder: Path) -> Iterator[Trial]:
    for command in ("ip link set lo up", DASK, *(f"ip addr add {host.split(':')[0]}/32 dev lo" for host in TRAPS[1:])):
        subprocess.run(command.split(), check=True)
    outside = folder / "outside"
    outside.mkdir()
    raster(outside / "secret.tif", 3)
    for name in ("secret.txt", "secret.gpkg", "secret.h5", "written"):
        (outside / name).write_bytes(b"SECRET" * 2000)
    Site.folder = folder
    served = ThreadingHTTPServer((SITE.split(":")[0], int(SITE.split(":")[1])), Site)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    trap, watch = Trap(), Watch(outside)
    yield _is_awake(trap, watch, outside)
    names = random.Random(seed).sample(sorted(INPUTS), QUICK) if quick else list(INPUTS)
    for number, name in enumerate(names):
        place = Place(folder / f"{number:03}", outside)
        place.folder.mkdir()
        yield _try(name, place, trap, watch)


def _is_awake(trap: Trap, watch: Watch, outside: Path) -> Trial:
    """Whether trap and watch see what they are for: else nothing that follows means anything."""
    for host in TRAPS:
        asking = http.client.HTTPConnection(host, timeout=5)
        try:
            asking.request("GET", "/")
            asking.getresponse()
        except (OSError, http.client.HTTPException):  # it answers nothing
            asking.close()
    (outside / "secret.txt").read_bytes()
    (outside / "probe").mkdir()
    (outside / "probe").rmdir()
    seen, asked = set(watch.seen()), set(trap.asked)
    trap.asked.clear()
    right = {"secret.txt", "probe"} <= seen and len(asked) == len(TRAPS)
    return Trial(PART, "trap and watch see who comes", right, f"{sorted(seen)}, {sorted(asked)}")


def _try(name: str, place: Place, trap: Trap, watch: Watch) -> Trial:
    made = INPUTS[name](place)
    words = made if isinstance(made, list) else ["segment", made, "-m", "buildings", "-o", place.folder / "o.zarr"]
    trap.asked.clear()
    watch.seen()
    before = os.times()
    done = swathe(*words, seconds=LATEST, folder=place.folder)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    touched = sorted({*watch.seen()})
    wrong = [
        f"asked {sorted(set(trap.asked))}" if trap.asked else "",
        f"touched {touched}" if touched else "",
        f"took {seconds:.1f} s of processor time" if seconds > SECONDS else "",
        f"held {done.memory >> 20} MB" if done.memory > MEMORY else "",
        ""
        if done.is_clear and (_is_refused(done.code, done.said) or name in IGNORED)
        else f"ended with {done.code}: {done.said[-300:]}",
        "the secret is in what it said" if "SECRET" in done.said + done.printed else "",
    ]
    return Trial(PART, name, not any(wrong), "; ".join(filter(None, wrong)) or done.last)


def _is_refused(code: int, said: str) -> bool:
    """Whether a command has refused its input in a line or two."""
    errors = said.partition("error: ")[2].strip().splitlines()
    return code == 1 and 0 < len(errors) <= 2 and "internal error" not in said


if __name__ == "__main__":
    for trial in _inside(int(sys.argv[1]), sys.argv[2] == "1", Path(sys.argv[3])):
        print(json.dumps({name: getattr(trial, name) for name in ("part", "what", "right", "detail")}), flush=True)
    os._exit(0)
