"""CPU count, allocator settings, and the cache folder of this computer."""

import ctypes
import os
import re
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import platformdirs

# of glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
STATUS = Path("/proc/self/status")


def usable_cpus() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Let this process keep freed memory for the next array; only glibc's allocator can be told so.

    By default each large array is given back to the kernel when it is freed, and the next one comes zeroed anew, page
    by page, though blocks need the same sizes again and again. The peak stays as it is.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        library.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def peak_bytes() -> int:
    """Return the most memory that this process has had, since `forget_peak` where that is possible.

    Raises
    ------
    OSError
        The operating system does not tell.
    """
    if STATUS.exists():  # getrusage's peak is also that of the process that has started this one
        return int(re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())[1]) * 1024  # type: ignore[index]
    try:
        import resource
    except ImportError as error:
        raise OSError("peak memory is not known on this operating system") from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def forget_peak() -> int:
    """Give freed memory back, and let the peak begin anew with what this process has now; returns that.

    Only Linux can do so; elsewhere the peak stays as it is.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def package_version(package: str) -> str:
    """Return the version of an installed package; "": it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def bundles_folder() -> Path:
    """Return the folder of this user's own bundles, which are found by their names; it may not be there yet."""
    return platformdirs.user_data_path("swathe", appauthor=False) / "bundles"


def cache_folder(purpose: str) -> Path:
    """Make the folder for downloaded bundles or converted networks. Losing what is in it costs time, never data.

    It lies under `$SWATHE_CACHE`, else in the user's cache folder; where neither can be written, a temporary folder of
    this user serves.
    """
    own, roots = os.environ.get("SWATHE_CACHE"), list[Path]()
    with suppress(RuntimeError, KeyError):  # an account without a home
        roots.append(Path(own) / "swathe" if own else platformdirs.user_cache_path("swathe", appauthor=False))
    for candidate in (*roots, Path(tempfile.gettempdir()) / f"swathe-{os.getuid()}"):
        folder = candidate / purpose
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return Path(tempfile.mkdtemp(prefix="swathe-"))
