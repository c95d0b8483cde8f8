"""A real Slurm of one node on this machine's loopback, for as long as tests need it. As root, without systemd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "sinfo")
# NoInAddrAny: else all of it listens to other machines
CONF = """\
ClusterName=swathe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
SchedulerParameters=sched_interval=1,bf_interval=1
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000 State=UNKNOWN
PartitionName=main Nodes=node1 Default=YES MaxTime=INFINITE State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[None]:
    """Start munged, slurmctld and slurmd, and let Slurm's commands find them. Skips where that cannot be."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    if missing or os.geteuid() != 0 or not Path("/etc/munge/munge.key").exists():
        pytest.skip(f"no Slurm here: {', '.join(missing) or 'it takes root and the key of the package munge'}")
    conf = _prepare(folder)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("SLURM_CONF", str(conf))
        munge = [f"--{name}={folder}/munge/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
        stack.enter_context(_process(["munged", "--foreground", "--force", *munge], folder, user="munge"))
        _wait(lambda: (folder / "munge/socket").exists(), folder)
        stack.enter_context(_process(["slurmctld", "-D", "-i", "-f", conf], folder))
        stack.enter_context(_process(["slurmd", "-D", "-N", "node1", "-f", conf], folder))
        _wait(lambda: "idle" in say("sinfo", "-h", "-o", "%T"), folder)
        try:
            yield
        finally:
            say("scancel", "--user=root")
            _wait(lambda: not say("squeue", "-h"), folder)


def say(*command: str) -> str:
    """Return what a command of Slurm prints."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout


def jobs(states: str) -> list[str]:
    """Return the numbers of the jobs in some states, as RUNNING,PENDING."""
    return say("squeue", "-h", f"--states={states}", "-o", "%i").split()


def _prepare(folder: Path) -> Path:
    """Make the folders and the configuration, all where munge's own user may go."""
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir()
    shutil.chown(folder / "munge", "munge", "munge")
    for parent in [folder, *folder.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    host = socket.gethostname().split(".")[0]
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=host, folder=folder, controller=_port(), node=_port()))
    return conf


@contextmanager
def _process(command: list[Any], folder: Path, user: str | None = None) -> Iterator[None]:
    rights: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if user else {}
    program, *words = map(str, command)
    with (folder / f"{program}.out").open("wb") as out:
        process = subprocess.Popen([shutil.which(program, path=PATH), *words], stdout=out, stderr=out, **rights)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(condition: Callable[[], bool], folder: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            said = [log.read_text("utf-8", "replace")[-600:] for log in folder.glob("*.out")]
            pytest.skip(f"no Slurm here: {' '.join(said)}")
        time.sleep(0.2)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
