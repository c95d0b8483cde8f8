"""Workers on two hosts that are network namespaces, over TLS, and who is not let in. As root, where there is `ip`."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.chaos_faults import WORKERS, Stage
from benchmarks.chaos_processes import read_work
from benchmarks.chaos_scene import difference, make_reference
from benchmarks.two_hosts import two_hosts, why_not
from pipeline.cluster.certificates import write_certificates

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not())]
INTRUDER = Path(__file__).with_name("intruder.py")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    make_reference(tmp_path)
    with two_hosts() as net, Stage(tmp_path / "stage", tmp_path, net) as made:
        made.begin("o.zarr")
        yield made


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of what tests before left to collect
def test_four_workers_on_two_hosts_write_the_same_bytes_and_intruders_are_refused(stage: Stage, tmp_path: Path) -> None:
    assert stage.tls is not None
    other = write_certificates(tmp_path / "other")
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(stage.tls / "ca.pem", bare)
    command = stage.command()
    assert stage.wait_for_work(command), command.lines
    asking = [*stage.places[1].prefix, sys.executable, INTRUDER, stage.scheduler.address]
    who = ["plain", bare, other, stage.tls]
    asked = subprocess.run([*asking, *who], capture_output=True, text=True, timeout=60, check=True)
    said = dict(line.split(": ") for line in asked.stdout.splitlines())
    assert [said[str(one)].split(",")[0] for one in who] == ["refused", "refused", "refused", "4 workers"]
    assert command.end(120) == 0, command.lines
    assert difference(stage.reference, stage.output) == ""
    worked = {one.pid for one in read_work(stage.log, "o.zarr")}
    assert [len(worked & set(host.pids())) for host in stage.hosts] == [WORKERS, WORKERS]


def test_namespaces_are_gone_after_a_failure() -> None:
    names = []
    with suppress(ZeroDivisionError), two_hosts() as net:
        names.append(net.name)
        assert net.name in _namespaces()
        raise ZeroDivisionError
    assert names[0] not in _namespaces()


def _namespaces() -> str:
    return subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
