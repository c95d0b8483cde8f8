"""The installed command where little is to be had: no home, no name, a full disk for what it prints, early signals."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SWATHE = Path(sys.executable).with_name("swathe")
STRANGER = ["setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups"]


def start(*words: str, **how: object) -> "subprocess.Popen[str]":
    return subprocess.Popen([str(SWATHE), *words], stderr=-1, text=True, **{"stdout": -1, **how})  # type: ignore[call-overload,no-any-return]


def test_what_is_printed_onto_a_full_disk_is_told_and_ends_with_74():
    with open("/dev/full", "w") as full:
        child = start("--version", stdout=full)
        said = child.communicate()[1]
    assert (child.returncode, said.count("\n")) == (74, 1)
    assert said.startswith("error: what is printed could not be written: No space left on device")
    with open("/dev/full", "w") as full:
        done = subprocess.run([SWATHE, "--version"], stderr=full, stdout=-1, text=True, check=True)
    assert "swathe" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_command_is_imported_ends_it_in_a_line(number, tmp_path):
    """From when it is ours: what Python does before that, in some hundredths of a second, is Python's."""
    (tmp_path / "sitecustomize.py").write_text("import os\nos.write(1, b'here')")
    for delay in (0.0, 0.05, 0.15, 0.3):
        child = start(
            "train", "--help", env=os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
        )
        assert child.stdout is not None
        assert child.stdout.read(4) == "here"
        wait_for_handler(child.pid, number)
        time.sleep(delay)
        child.send_signal(number)
        said = child.communicate(timeout=60)[1]
        if child.returncode:  # else it was quicker
            assert (child.returncode, said.startswith("stopped"), said.count("\n")) == (128 + number, True, 1), said


def wait_for_handler(pid: int, number: int) -> None:
    """Wait until a process handles SIGHUP itself, which is ours to set; or has ended."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        status = Path(f"/proc/{pid}/status").read_text()
        caught = status.partition("SigCgt:")[2].split()
        if not caught or int(caught[0], 16) >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can be somebody else")
def test_an_account_without_home_name_and_writable_folder():
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("HOME", "XDG", "SWATHE", "USER"))}
    with tempfile.TemporaryDirectory() as name:  # pytest's own are root's alone
        folder, inside = Path(name), Path(name, "open")
        folder.chmod(0o755)
        inside.mkdir()
        inside.chmod(0o777)
        (folder / "closed").mkdir(mode=0o700)

        def run(output: object, **more: str) -> "subprocess.CompletedProcess[str]":
            line = [*STRANGER, SWATHE, "export-model", "buildings", "-o", str(output), "-q"]
            return subprocess.run(line, cwd=folder, env=bare | more, capture_output=True, text=True, check=False)

        done = run(inside / "b.pt2")
        assert (done.returncode, done.stderr) == (0, "")
        for refused in (run("b.pt2", HOME="/root"), run("closed/b.pt2")):
            assert (refused.returncode, refused.stderr.count("\n")) == (1, 1), refused.stderr
            assert "ermission" in refused.stderr.removeprefix("error: ")
