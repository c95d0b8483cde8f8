"""What queues and ssh are handed: job scripts, arguments; and workers that a real sshd starts."""

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from models.errors import ClusterError
from pipeline import Cluster
from pipeline.cluster.certificates import write_certificates
from pipeline.cluster.connect import connected
from pipeline.cluster.launchers import jobqueue, ssh

PROFILE = {
    "interface": "lo", "cores": 2, "memory": "4GB", "walltime": "00:20:00", "queue": "long", "account": "land",
    "directives": ("-X extra",), "environment": ("module load gdal",), "python": "/shared/python",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A land", "#SBATCH --cpus-per-task=2", "#SBATCH -t 00:20:00"]),
        ("pbs", ["#PBS -q long", "#PBS -A land", "#PBS -l walltime=00:20:00"]),
        ("lsf", ["#BSUB -q long", '#BSUB -P "land"', "#BSUB -W 00:20"]),
        ("sge", ["#$ -q long", "#$ -P land", "#$ -l h_rt=00:20:00"]),
    ],
)
def test_the_script_of_a_job(kind, lines):
    library = getattr(pytest.importorskip("dask_jobqueue"), jobqueue.LIBRARY[kind])
    arguments = jobqueue.arguments(kind, jobqueue.QueueProfile(**PROFILE), Cluster(f"{kind}:x"))
    with library(**arguments) as cluster:
        script = cluster.job_script().splitlines()
        assert cluster.scheduler_address.startswith("tcp://127.0.0.1:")
    assert [line for line in lines if line not in script] == []
    assert any(line.endswith("-X extra") for line in script)
    assert "module load gdal" in script
    command = script[-1]
    assert command.startswith("/shared/python -m distributed.cli.dask_worker tcp://127.0.0.1:")
    assert "--interface lo" in command
    assert "--death-timeout 300" in command
    assert "--lifetime 900s --lifetime-stagger 75s" in command  # 1200 s of wall time


def test_gpus_of_a_slurm_job():
    made = jobqueue.arguments("slurm", jobqueue.QueueProfile(**PROFILE, gpus=2), Cluster("slurm:x"))
    assert made["job_extra_directives"] == ["-X extra", "--gres=gpu:2", "-o /dev/null"]
    with pytest.raises(ClusterError, match="gpus is for Slurm"):
        jobqueue.arguments("pbs", jobqueue.QueueProfile(**PROFILE, gpus=2), Cluster("pbs:x"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"walltime": "soon"}, "walltime is 'soon'"),
        ({"walltime": "00:00:59"}, "walltime is '00:00:59'"),
        ({"walltime": "01:30"}, "walltime is '01:30'"),
        ({"memory": "much"}, "memory is 'much'"),
        ({"cores": 0}, "cores, jobs and processes"),
        ({"jobs": 3, "maximum_jobs": 2}, "maximum_jobs is 2"),
    ],
)
def test_profiles_that_make_no_sense(changes, said):
    with pytest.raises(ClusterError, match=said):
        jobqueue.QueueProfile(**(PROFILE | changes))


def test_an_interface_that_is_not_there():
    profile = jobqueue.QueueProfile(**(PROFILE | {"interface": "nope0"}))
    with pytest.raises(ClusterError, match="interface 'nope0'"):
        jobqueue.arguments("slurm", profile, Cluster("slurm:x"))


def _answers(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def sshd(tmp_path):
    """A server of ssh on loopback with keys of its own; its port."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.skip("no sshd here")
    Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": tmp_path / "host", "StrictModes": "no",
        "AuthorizedKeysFile": tmp_path / "user.pub", "PidFile": "none", "PermitRootLogin": "yes", "UsePAM": "no",
    }  # fmt: skip
    given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    key = (tmp_path / "host.pub").read_text()
    (tmp_path / "known").write_text(f"[127.0.0.1]:{port} {key}")
    with subprocess.Popen([program, "-D", "-f", "/dev/null", *given], stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 30
        while time.monotonic() < end and not _answers(port):
            time.sleep(0.1)
        yield port
        process.terminate()


def profile_of_ssh(folder, port):
    lines = ["hosts = ['127.0.0.1', '127.0.0.1']", f"port = {port}", f"key = '{folder}/user'",
             f"known_hosts = '{folder}/known'", f"python = '{sys.executable}'"]  # fmt: skip
    path = folder / "ssh.toml"
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("private", [False, True])
def test_workers_that_ssh_starts_and_that_end_with_it(sshd, tmp_path, private):
    tls = write_certificates(tmp_path / "tls") if private else None
    with connected(Cluster(f"ssh:{profile_of_ssh(tmp_path, sshd)}", tls=tls), 1) as client:
        client.wait_for_workers(2, timeout=60)
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
        addresses = [client.scheduler.address, *client.scheduler_info()["workers"]]
        assert {address.rpartition(":")[0] for address in addresses} == {f"{'tls' if private else 'tcp'}://127.0.0.1"}
        pids = [*client.run(os.getpid).values(), *client.run(os.getppid).values(), client.run_on_scheduler(os.getpid)]
        processes = [psutil.Process(pid) for pid in pids]
        assert os.getpid() not in pids
        there = [one for process in processes for one in process.net_connections("inet")]
        assert {one.laddr.ip for one in there if one.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
    _, left = psutil.wait_procs(processes, timeout=60)
    assert left == []


@pytest.mark.slow
def test_a_host_that_is_not_known(sshd, tmp_path):
    (tmp_path / "known").write_text("")
    with pytest.raises(ClusterError, match=r"could not be started: .*[Hh]ost key"):
        connected(Cluster(f"ssh:{profile_of_ssh(tmp_path, sshd)}"), 1).__enter__()


def test_certificates_of_one_run_do_not_reach_other_hosts():
    with pytest.raises(ClusterError, match="same path on all hosts"):
        ssh.arguments(ssh.SshProfile(("a",)), Cluster("ssh:a", tls="new"))
