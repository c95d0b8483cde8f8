"""The command `swathe`: its group of verbs, exit codes, and how Ctrl-C and SIGTERM end it.

A user's error ends as one or two lines with exit code 1, wrong usage with 2, what `verify` finds damaged with 4.
"""

import errno
import os
import select
import signal
import sys
import threading
import traceback
from typing import NoReturn

import click

from models.errors import SwatheError
from models.redact import redact, redact_logs, shown

from ..jobs.json_log import asks_for_json, json_log, start_json_log
from ..jobs.kept import is_anything_kept
from .cluster import cluster
from .commands import VERBS
from .imports import import_model
from .index import index
from .models import bundles, quantise
from .options import note
from .publish import publish
from .streams import heedless_stream, shown_stream
from .verify import verify

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
RESUMES = ("segment", "publish", "verify", "clean", "objects", "vectorise", "train", "evaluate")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG, errno.EROFS)
EX_IOERR = 74  # of sysexits.h: what is printed could not be written
_DEFECT = "internal error: {}: {}\nThis is a defect of Swathe: --debug shows where"
GRACE = 1.5  # seconds to unwind after a signal


def main() -> None:
    """Run the command; the process ends here."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; the next file that is opened would be taken for it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    redact_logs()
    sys.stdout, sys.stderr = shown_stream(sys.stdout, shown), shown_stream(heedless_stream(sys.stderr), redact)
    if asks_for_json(sys.argv):
        start_json_log()
    stopping = Stopping()
    try:
        code = cli.main(prog_name="swathe", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        stopping.leave()
    except click.ClickException as error:
        code = error.exit_code
        if json_log() is None:
            error.show(shown_stream(sys.stderr, shown))
        else:
            _say(f"error: {error.format_message()}", code)
    except SwatheError as error:
        code = _say(f"error: {error}", 1)
    except MemoryError:
        code = _say("error: memory is exhausted; use a smaller --tile and --block", 1)
    except BrokenPipeError:
        code = 1
    except OSError as error:
        code = _say(*_unwritten(error))
    except SystemExit as end:  # what click makes of a broken pipe
        code = end.code
    except Exception as error:
        code = _say(_DEFECT.format(type(error).__name__, error), 1)
    _leave(code if isinstance(code, int) else 0)


def _unwritten(error: OSError) -> tuple[str, int]:
    """Return what to say of a disk that took no more, and the exit code; it may be that which standard output is on."""
    if isinstance(error, PermissionError) and error.filename:
        return f"error: {error.filename}: {error.strerror}", 1
    if error.errno not in NO_ROOM:
        return _DEFECT.format(type(error).__name__, error), 1
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    printing = click.echo.__code__ in frames or frames[-1] is _leave.__code__
    where = "what is printed" if printing else error.filename or "a file"
    return f"error: {where} could not be written: {error.strerror}; make room, and run the same command again", EX_IOERR


class Stopping:
    """Ctrl-C, SIGTERM and SIGHUP: the main thread unwinds; where that takes long, or at a second one, we leave at once.

    GDAL may be writing a large file, and Python tells the main thread of a signal only after that. A thread of our own
    hears of it at once, by the file descriptor that the interpreter writes signals to.
    """

    def __init__(self) -> None:
        self.number = signal.SIGINT
        self.numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
            self.numbers.append(signal.SIGHUP)
        self.lock = threading.Lock()
        hears, told = os.pipe()
        os.set_blocking(told, False)
        for number in self.numbers:
            signal.signal(number, self._unwind)
        signal.set_wakeup_fd(told, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(hears,), daemon=True).start()

    def _unwind(self, number: int, _: object) -> None:
        self.number = signal.Signals(number)
        for other in self.numbers:
            signal.signal(other, lambda *_: None)
        raise KeyboardInterrupt

    def _watch(self, hears: int) -> None:
        while (number := os.read(hears, 1)[0]) not in self.numbers:
            continue
        self.number = signal.Signals(number)
        select.select([hears], [], [], GRACE)
        self.leave()

    def leave(self) -> NoReturn:
        """Say how to go on, once, and end."""
        with self.lock:  # never released: the other thread waits for the end
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the cursor, which a progress bar hides
            verb = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
            _leave(_say(f"stopped{_how_to_go_on(verb)}", 128 + self.number))


def _how_to_go_on(verb: str) -> str:
    """Return what the same command would do, where it would not begin anew as a matter of course.

    This process may not know yet what one before has finished, or its workers just now: then nothing is said of that.
    """
    if verb not in RESUMES:
        return ""
    if is_anything_kept():
        return "; what is finished is kept, run the same command again to continue"
    return "; what was finished before, if anything, is kept: run the same command again"


def _say(text: str, code: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    if (log := json_log()) is None:
        print(shown(text), file=sys.stderr)
    else:
        log.write("stopped" if code > 128 else "error", text=text.removeprefix("error: "), code=code)
    return code


def _leave(code: int) -> NoReturn:
    """End at once: a worker in this process may still compute a block, which nobody waits for any more."""
    if (log := json_log()) is not None:
        log.end()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (BrokenPipeError, ValueError):
            continue
        except OSError as error:
            code = code or _say(*_unwritten(error))
    os._exit(code)


class Verbs(click.Group):
    """The verbs in the order of a first use, not of the alphabet."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which verbs are added."""
        return list(self.commands)


@click.group(
    cls=Verbs,
    context_settings=CONTEXT,
    epilog="\b\nBegin with:\n  swathe demo\n  swathe segment scene.tif -m buildings -o buildings.tif\n\n"
    '\b\nCompletion in bash, zsh or fish:\n  eval "$(_SWATHE_COMPLETE=bash_source swathe)"',
)
@click.version_option(package_name="swathe")
@click.option("--debug", is_flag=True, help="Show where an error comes from.")
def cli(debug: bool) -> None:
    """Segment whole satellite scenes with U-Nets."""


@click.command(epilog="Example: swathe demo -o demo-output")
@click.option("-o", "--output", default="demo-output", show_default=True, metavar="FOLDER", help="Where results go.")
def demo(output: str) -> None:
    """Segment a real scene that comes with Swathe, find its buildings, and make a report. Takes seconds."""
    from .demo import run_demo

    note("swathe: segmenting buildings of Zanzibar in the scene that comes with Swathe", False)
    for line in run_demo(output):
        click.echo(line)


for verb in (*VERBS, index, publish, verify, cluster, demo, bundles, import_model, quantise):
    cli.add_command(verb)
