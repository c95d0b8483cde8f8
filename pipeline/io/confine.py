"""How a process shuts itself in before it decodes what nobody trusts: namespaces where there are any, and limits.

Linux lets a process without rights give up network, other processes and most files, unless the machine forbids it, as
some containers do. What could not be given up is returned in words. Imports nothing that is not in Python itself.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

NEW_USER, NEW_NETWORK, NEW_MOUNTS, NEW_IPC, NEW_PIDS = 0x10000000, 0x40000000, 0x20000, 0x8000000, 0x20000000
PRIVATE, BOUND, RECURSIVE, NO_SUID, NO_DEVICES = 1 << 18, 4096, 16384, 2, 4  # of mounts, of sys/mount.h
SET_MOUNT, READ_ONLY, HERE, BELOW = 442, 1, -100, 0x8000  # of mount_setattr
DIE_WITH_PARENT, DROP_RIGHT, NO_NEW_RIGHTS = 1, 24, 38  # of prctl
RIGHTS = 0x20080522  # version of the header of capset
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")
EVERYTHING = "network and files of others (this machine forbids namespaces)"
OPEN_FILES, PROCESSES = 256, 128
VIRTUAL = 2**32  # bytes of addresses beside what is used: libraries, stacks of threads
ROOT = "/tmp"


def confine(folders: Sequence[str], memory: int) -> str:
    """Give up what decoding does not need: in a forked process, of which this one becomes the keeper.

    Parameters
    ----------
    folders
        What is read: all that stays visible beside Python and the system's libraries, and nothing can be written.
    memory
        Bytes that this process may have.

    Returns
    -------
    str
        What could not be given up; empty: nothing.
    """
    left = EVERYTHING
    try:
        _own_namespaces()
    except (OSError, AttributeError):  # not Linux, or forbidden
        _die_with_parent()
    else:
        _fork()
        left = ""
        try:
            _hide_files([*SYSTEM, *_of_python(), *folders])
        except (OSError, AttributeError):
            left = "files of others (this machine forbids mounts)"
    _limit(memory, namespace=left != EVERYTHING)
    with suppress(OSError, AttributeError):
        _drop_rights()
    return left


def _call(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _own_namespaces() -> None:
    user, group, others = os.geteuid(), os.getegid(), NEW_NETWORK | NEW_MOUNTS | NEW_IPC | NEW_PIDS
    try:
        _call("unshare", NEW_USER | others)
    except OSError:
        if user:
            raise
        _call("unshare", others)  # root may where users may not
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _die_with_parent() -> None:
    with suppress(OSError, AttributeError):
        _call("prctl", DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)


def _fork() -> None:
    """Go on in a forked process, the first of its namespace: with it, all that it has started end."""
    if child := os.fork():
        _die_with_parent()
        os.closerange(0, 3)
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
    _die_with_parent()


def _of_python() -> list[str]:
    named = [os.environ.get(name, "") for name in ("GDAL_DATA", "PROJ_DATA", "PROJ_LIB")]
    return [path for path in (sys.prefix, sys.base_prefix, *sys.path, *named) if os.path.isabs(path)]


def _hide_files(visible: Sequence[str]) -> None:
    """Make a root in which there is only what is visible, and all of it can only be read."""
    found = sorted({*map(os.path.abspath, visible), *map(os.path.realpath, visible)})
    held = {path: os.open(path, os.O_PATH) for path in found if os.path.exists(path)}
    _call("mount", b"none", b"/", None, RECURSIVE | PRIVATE, None)
    _call("mount", b"tmpfs", ROOT.encode(), b"tmpfs", NO_SUID | NO_DEVICES, b"size=1m,mode=755")
    for path, handle in held.items():
        place = f"{ROOT}{path}"
        if not os.path.exists(place):  # else it lies in a folder that is there already
            _make(place, f"/proc/self/fd/{handle}")
            _call("mount", f"/proc/self/fd/{handle}".encode(), place.encode(), None, BOUND | RECURSIVE, None)
        os.close(handle)
    os.mkdir(f"{ROOT}/proc")
    with suppress(OSError):  # in a container whose own hides something
        _call("mount", b"proc", f"{ROOT}/proc".encode(), b"proc", NO_SUID | NO_DEVICES, None)
    attributes = (ctypes.c_uint64 * 4)(READ_ONLY, 0, 0, 0)
    _call("syscall", SET_MOUNT, HERE, ROOT.encode(), BELOW, attributes, ctypes.sizeof(attributes))
    os.chroot(ROOT)
    os.chdir("/")


def _make(place: str, source: str) -> None:
    """Make the folder or file over which another is laid."""
    if os.path.isdir(source):
        os.makedirs(place)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "w").close()


def _limit(memory: int, *, namespace: bool) -> None:
    limits = {"RLIMIT_DATA": memory, "RLIMIT_AS": memory + VIRTUAL, "RLIMIT_NOFILE": OPEN_FILES}
    limits |= {"RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    if namespace:  # else others of this user count too
        limits["RLIMIT_NPROC"] = PROCESSES
    for name, most in limits.items():
        with suppress(OSError, ValueError, AttributeError):
            resource.setrlimit(getattr(resource, name), (most, most))


def _drop_rights() -> None:
    with suppress(OSError):
        for right in range(64):
            _call("prctl", DROP_RIGHT, right, 0, 0, 0)
    _call("capset", (ctypes.c_uint32 * 2)(RIGHTS, 0), (ctypes.c_uint32 * 6)())
    _call("prctl", NO_NEW_RIGHTS, 1, 0, 0, 0)
