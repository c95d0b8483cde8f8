"""What `--scheduler` names: read, refused where it is wrong, and with certificates that fit."""

import os
import re
import socket
import ssl
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import distributed
import psutil
import pytest
from click.testing import CliRunner
from distributed import Client, LocalCluster
from helpers import pixels, write_raster

from models.errors import ClusterError
from pipeline import Cluster
from pipeline.cli.app import cli
from pipeline.cluster import check, first_look, probe, profiles, workers
from pipeline.cluster.certificates import write_certificates
from pipeline.cluster.connect import check_client, dask_client
from pipeline.cluster.launch import local_part
from pipeline.cluster.options import options_of, seconds_of
from pipeline.cluster.processes import LocalProcesses
from pipeline.cluster.profiles import LAUNCHERS, Launcher, read_profile, template
from pipeline.cluster.tls import security_in, security_of
from pipeline.cluster.workers import queue_words
from pipeline.inference import doctor
from pipeline.inference.run import run

FOLDER = Path(profiles.__file__).parent / "launchers"
THERE = [kind for kind, launcher in LAUNCHERS.items() if (FOLDER / f"{launcher.module}.py").exists()]
HERE = {
    "n_workers": 1, "threads_per_worker": 1, "processes": False, "memory_limit": 0, "host": "127.0.0.1",
    "dashboard_address": "127.0.0.1:0", "worker_dashboard_address": "127.0.0.1:0", "silence_logs": 60,
}  # fmt: skip


@dataclass(frozen=True)
class ToyProfile:
    """A cluster of this process.

    Parameters
    ----------
    queue
        Where jobs wait.
    hosts
        Where they run.
    workers
        How many.
    environment
        Variables of the workers.
    """

    queue: str = field(metadata={"example": "normal"})
    hosts: tuple[str, ...] = field(default=(), metadata={"example": ("node-1", "node-2")})
    workers: int = 2
    environment: dict[str, str] = field(default_factory=dict, metadata={"example": {"A": 'say "b"'}})
    path: str = ""


@pytest.fixture
def toy(monkeypatch):
    """A kind of cluster whose launcher is this file."""
    module: Any = ModuleType("pipeline.cluster.launchers.toy")
    module.ToyProfile, module.start = ToyProfile, _start
    monkeypatch.setitem(sys.modules, "pipeline.cluster.launchers", ModuleType("pipeline.cluster.launchers"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(profiles, "LAUNCHERS", LAUNCHERS)
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "ToyProfile", "distributed"))
    return module


def _start(profile: ToyProfile, options: Cluster) -> LocalCluster:
    security = security_of(options)
    made = LocalCluster(**HERE, security=security, protocol="tls://" if security else "tcp://")
    made.waiting_for = lambda: f"1 job pending in {profile.queue}"
    return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory) -> Path:
    return write_certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def plain() -> Iterator[str]:
    with LocalCluster(**HERE, protocol="tcp://") as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def private(certificates) -> Iterator[str]:
    with LocalCluster(**HERE, protocol="tls://", security=security_in(certificates)) as cluster:
        yield cluster.scheduler_address


def refused(client: Any) -> str:
    """What is said where a cluster cannot be used, in a line."""
    with pytest.raises(ClusterError) as caught:
        dask_client(client, 1).__enter__()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# names


@pytest.mark.parametrize(
    ("name", "processes"),
    [("local:4", LocalProcesses(4)), ("local:4x2", LocalProcesses(4, 2)), ("tcp://h:1", None), ("ssh:a,b", None)],
)
def test_processes_of_this_machine_by_name(name, processes):
    assert local_part(name) == local_part(Cluster(name)) == processes


def test_threads_that_are_asked_for_are_each_process_s_share():
    assert [LocalProcesses(4).share(6), LocalProcesses(4, 2).share(6)] == [2, 2]
    assert LocalProcesses(1, 3).share(16) == 3
    assert local_part("local").count >= 1


@pytest.mark.parametrize("name", ["local:", "local:0", "local:2x0", "local:x2", "local:2x", "local:-1", "local:2 x 2"])
def test_what_is_no_number_of_processes(name):
    assert "as local:4x2" in refused(name)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("slurn:cluster.toml", "did you mean slurm:cluster.toml?"),
        ("locale:4", "did you mean local:4?"),
        ("host:8786", "give one as tcp://host:8786"),
        ("tcp://127.0.0.1", "give one as tcp://host:8786"),
        ("http://127.0.0.1:8787", "give one as tcp://host:8786"),
        ("", "give one as tcp://host:8786"),
    ],
)
def test_what_names_no_cluster(name, said):
    assert said in refused(name)
    assert said in refused(Cluster(name))


def test_times():
    assert [seconds_of(text) for text in ("600", "90s", "10m", "1.5 h")] == [600, 90, 600, 5400]
    for text in ("abc", "", "-1", "0", "5 parsecs", "1e3"):
        with pytest.raises(ClusterError, match="as 90s, 10m, 2h"):
            seconds_of(text)


@pytest.mark.parametrize("patience", [0, -1, "10m", True, None, float("nan")])
def test_patience_in_python_is_a_number(patience):
    with pytest.raises(ClusterError, match="patience is a number of seconds above 0; received"):
        Cluster("tcp://h:1", patience=patience)


# profiles


def profile(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queue = 'a'\nworker = 3", "unknown key 'worker'; did you mean 'workers'?"),
        ("workers = 3", "queue is missing"),
        ("queue = 3", "queue is 3; it must be text"),
        ("queue = 'a'\nworkers = true", "workers is True; it must be a whole number"),
        ("queue = 'a'\npath = 'b'", "unknown key 'path'"),
        ("queue: a", "is not TOML"),
    ],
)
def test_a_profile_that_is_wrong(toy, tmp_path, text, said):
    path = profile(tmp_path, text)
    assert said in refused(f"toy:{path}")
    assert str(path) in refused(Cluster(f"toy:{path}", insecure=True))


def test_no_profile_at_all(toy, tmp_path):
    assert "cannot be read: No such file" in refused(f"toy:{tmp_path / 'none.toml'}")
    assert "give toy:FILE.toml, see `swathe cluster template toy`" in refused("toy:")


def test_a_launcher_that_is_not_there(toy, monkeypatch):
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("none", "ToyProfile", "distributed"))
    assert "toy: this version of Swathe starts no such cluster; start it, and give its address" in refused("toy:a.toml")


def test_a_package_that_is_missing(toy, monkeypatch):
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "ToyProfile", "not_there"))
    assert refused("toy:x.toml") == "toy needs not-there: pip install 'swathe[cluster]'"


def test_a_template_is_accepted_as_it_is_and_with_every_line_in_use(toy, tmp_path):
    text = template("toy")
    assert read_profile("toy", str(profile(tmp_path, text))) == ToyProfile("normal", path=f"{tmp_path}/cluster.toml")
    assert "# Where jobs wait.\nqueue = " in text
    lines = [line.removeprefix("# ") if "=" in line or "[" in line else line for line in text.split("\n")]
    read = read_profile("toy", str(profile(tmp_path, "\n".join(lines))))
    assert (read.hosts, read.workers, read.environment) == (("node-1", "node-2"), 2, {"A": 'say "b"'})


@pytest.mark.parametrize("kind", THERE)
def test_each_kind_accepts_its_own_template(kind, tmp_path):
    pytest.importorskip(LAUNCHERS[kind].library)
    read_profile(kind, str(profile(tmp_path, template(kind))))


def test_what_may_stand_in_place_of_a_file(toy, tmp_path, monkeypatch):
    for name, text, value in (("queue", "https://host/x", "https://host/x"), ("hosts", "a, b", ("a", "b"))):
        monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "Named", "distributed", name))
        toy.Named = make_dataclass("Named", [(name, ToyProfile.__annotations__[name])], frozen=True)
        assert getattr(read_profile("toy", text), name) == value
    assert "give toy:HOSTS or toy:FILE.toml" in refused("toy:")


def test_secrets_of_a_url_are_not_shown(toy, monkeypatch):
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "ToyProfile", "distributed", "workers"))
    said = refused("toy:https://u:secret@h/x?token=secret")
    assert said.startswith("toy:https://h/x: ")
    assert said.count("secret") == 0


# what is started


def test_nothing_is_started_that_others_could_speak_to_unless_that_is_asked_for(toy, tmp_path):
    path = profile(tmp_path, "queue = 'a'")
    assert refused(f"toy:{path}").startswith("toy would listen to other machines without TLS: give --tls FOLDER")
    assert "give one of them" in refused(Cluster(f"toy:{path}", tls="new", insecure=True))
    assert "listen to it alone" in refused(Cluster("local:2", tls="new"))


def test_certificates_for_a_client_that_is_connected_are_refused(client, tmp_path):
    assert "connected already" in refused(Cluster(client, tls=tmp_path))


def test_what_a_profile_gives_to_workers_is_hidden(toy, tmp_path, monkeypatch):
    toy.Named = make_dataclass("Named", [("env", dict)], frozen=True)
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "Named", "distributed"))
    path = profile(tmp_path, "[env]\nMY_TOKEN = 'abc123def456'")
    refused(f"toy:{path}")
    assert str(ClusterError("sbatch: got abc123def456")) == "sbatch: got ***"


def test_what_nobody_else_can_speak_to_needs_no_certificates(toy, tmp_path, monkeypatch):
    path = profile(tmp_path, "queue = 'a'")
    monkeypatch.setattr(ToyProfile, "on_this_machine", True, raising=False)
    check_client(f"toy:{path}")
    monkeypatch.setattr(ToyProfile, "on_this_machine", False)
    assert "without TLS" in refused(f"toy:{path}")
    monkeypatch.setitem(LAUNCHERS, "toy", Launcher("toy", "ToyProfile", "distributed", private=True))
    check_client(f"toy:{path}")


@pytest.mark.parametrize("how", [{"insecure": True}, {"tls": "new"}, {"tls": "folder"}])
def test_a_cluster_is_started_and_ends_with_the_run(toy, tmp_path, certificates, how):
    how = {name: certificates if value == "folder" else value for name, value in how.items()}
    path = profile(tmp_path, "queue = 'slow'")
    options = Cluster(f"toy:{path}", **how, patience=7)
    with dask_client(options, 1) as client:
        assert client.submit(abs, -3).result() == 3
        assert client.scheduler.address.startswith("tcp://" if "insecure" in how else "tls://")
        assert queue_words(client) == "1 job pending in slow"
        assert options_of(client).patience == 7
        cluster = client.cluster
    assert str(cluster.status) == "Status.closed"


def test_what_a_launcher_s_library_raises_is_said_in_a_line(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "start", lambda *_: {}["sbatch"])
    path = profile(tmp_path, "queue = 'a'")
    assert refused(Cluster(f"toy:{path}", insecure=True)) == f"toy:{path} could not be started: KeyError: 'sbatch'"


def test_a_profile_is_read_before_anything_is_written(toy, scene_of_nothing, bundle_of, tmp_path):
    path = profile(tmp_path, "queue = 'a'")
    with pytest.raises(ClusterError, match="without TLS"):
        run(scene_of_nothing, bundle_of(), tmp_path / "o.zarr", client=f"toy:{path}")
    assert not (tmp_path / "o.zarr").exists()


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "s.tif"
    return write_raster(path, pixels((3, 64, 64)), descriptions=("red", "green", "blue"))


@pytest.fixture
def scene_of_nothing(tmp_path) -> Path:
    """A path that nobody comes to open."""
    return tmp_path / "none.tif"


def test_processes_with_threads_of_their_own(capfd):
    with dask_client("local:2x3", 4) as client:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        assert [worker["nthreads"] for worker in workers.values()] == [3, 3]
        pids = [client.submit(os.getpid, workers=[address], pure=False).result() for address in workers]
        heard = [c.laddr.ip for pid in (os.getpid(), *pids) for c in psutil.Process(pid).net_connections("inet")
                 if c.status == psutil.CONN_LISTEN]  # fmt: skip
    assert set(heard) == {"127.0.0.1"}
    assert capfd.readouterr().err == ""


# TLS


def test_certificates_are_made_whole_for_their_owner_and_never_replaced(certificates, tmp_path):
    assert sorted(path.name for path in certificates.iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert stat.S_IMODE((certificates / "key.pem").stat().st_mode) == 0o600
    assert [path.name for path in certificates.parent.iterdir()] == ["ours"]
    (tmp_path / "dangling").symlink_to("nowhere")
    for there in (certificates, certificates / "ca.pem", tmp_path / "dangling"):
        with pytest.raises(ClusterError, match="exists, and certificates are not replaced"):
            write_certificates(there)
    with pytest.raises(ClusterError, match="is a file"):
        write_certificates(certificates / "ca.pem" / "more")


def test_a_cluster_is_reached_by_its_certificates(private, certificates):
    with dask_client(Cluster(private, tls=certificates), 1) as client:
        assert client.submit(abs, -3).result() == 3


def test_by_those_of_dask_s_configuration(private, certificates):
    files = {"ca-file": "ca.pem", "client.cert": "cert.pem", "client.key": "key.pem"}
    tls = {f"distributed.comm.tls.{name}": f"{certificates}/{file}" for name, file in files.items()}
    with dask.config.set(tls), dask_client(private, 1) as client:
        assert client.submit(abs, -3).result() == 3


def test_the_wrong_side_of_tls(private, plain, certificates):
    bare, encrypted = (address.partition("://")[2] for address in (plain, private))
    assert refused(private) == f"{private} needs certificates: give --tls FOLDER, or name them in Dask's configuration"
    assert f"does not speak TLS; is it tcp://{bare}?" in refused(Cluster(f"tls://{bare}", tls=certificates))
    assert f"speaks TLS: give tls://{encrypted} with --tls FOLDER" in refused(f"tcp://{encrypted}")
    assert "--tls asks for it; give a tls:// address" in refused(Cluster(plain, tls=certificates))
    assert "give the folder that" in refused(Cluster(private, tls="new"))


def test_certificates_that_do_not_fit(private, certificates, tmp_path, monkeypatch):
    other = write_certificates(tmp_path / "other")
    assert "it is of another authority" in refused(Cluster(private, tls=other))
    for name, of in (("ca.pem", certificates), ("cert.pem", other), ("key.pem", other)):
        (tmp_path / name).write_bytes((of / name).read_bytes())
    assert "does not accept our certificate" in refused(Cluster(private, tls=tmp_path))
    (tmp_path / "key.pem").write_bytes((certificates / "key.pem").read_bytes())
    assert "are not an authority, its certificate and that one's key" in refused(Cluster(private, tls=tmp_path))
    (tmp_path / "cert.pem").write_text("nonsense")
    assert "are not an authority, its certificate and that one's key" in refused(Cluster(private, tls=tmp_path))
    (tmp_path / "key.pem").unlink()
    assert "key.pem cannot be read (No such file or directory)" in refused(Cluster(private, tls=tmp_path))
    assert "ca.pem cannot be read" in refused(Cluster(private, tls=tmp_path / "none"))


def test_certificates_that_have_expired(tmp_path):
    old = write_certificates(tmp_path / "old", days=0)
    context = security_in(old).get_listen_args("scheduler")["ssl_context"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = threading.Thread(target=_shake_hands, args=(server, context))
        answers.start()
        said = refused(Cluster(f"tls://127.0.0.1:{server.getsockname()[1]}", tls=old))
        answers.join()
    assert "certificate has expired; make new ones with `swathe cluster certificates`" in said


def _shake_hands(server: socket.socket, context: ssl.SSLContext) -> None:
    with server.accept()[0] as plain, suppress(OSError), context.wrap_socket(plain, server_side=True):
        pass


# versions


@pytest.mark.parametrize(("what", "version"), [("Dask", "2025.1.0"), ("Python", "3.9.1")])
def test_a_scheduler_of_another_dask_or_python(plain, monkeypatch, what, version):
    theirs = probe.OURS[what]
    monkeypatch.setitem(probe.OURS, what, version)
    assert f"is of {what} {theirs}" in refused(plain)
    assert f"this process of {version}; install the same on both" in refused(plain)


def test_options_of_a_client_that_is_given(plain):
    with Client(plain, set_as_default=False) as client:
        check_client(Cluster(client))
        with dask_client(Cluster(client, patience=5), 1) as same:
            assert same is client
            assert options_of(same).patience == 5


# the verbs


@pytest.fixture
def swathe(tmp_path, monkeypatch):
    """Run `swathe cluster` in this process."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(cli, ["cluster", *map(str, words)])


def test_verbs_make_certificates_and_print_templates(swathe, toy, tmp_path):
    made = swathe("certificates", "tls", "--days", "9")
    assert (made.exit_code, made.output.splitlines()[0]) == (
        0,
        "wrote tls: ca.pem, cert.pem, key.pem (secret), for 9 days",
    )
    assert isinstance(security_in(tmp_path / "tls").get_connection_args("client"), dict)
    assert isinstance(swathe("certificates", "tls").exception, ClusterError)
    assert "usage: " in swathe("template", "slurn").output.lower()


def test_the_doctor_shows_workers_and_what_they_are(swathe, private, certificates, scene, bundle_of):
    bundle = bundle_of().path
    done = swathe(
        "doctor", "--scheduler", private, "--tls", certificates, "-m", bundle, "--scene", scene, "-o", "o.zarr"
    )
    assert done.exit_code == 0, done.output
    row = next(line for line in done.output.splitlines() if line.startswith("tls://"))
    for words in ("127.0.0.1", "unbounded", distributed.__version__, "openvino on cpu", " ms", " s ", " fit"):
        assert words in row
    assert "1 of 1 workers fit\n" in done.output
    assert re.search(r"^[\d,]+ empty tasks a second$", done.output, re.MULTILINE)
    assert not list(Path().iterdir())  # what is written beside the output is gone


def test_the_doctor_says_why_no_worker_is_fit(swathe, plain, monkeypatch):
    version = first_look.version_here
    monkeypatch.setattr(check, "_versions_here", check._versions_here.__wrapped__)  # they are looked for once
    monkeypatch.setattr(first_look, "version_here", lambda name: "1.2" if name == "cloudpickle" else version(name))
    done = swathe("doctor", "--scheduler", plain, "-q")
    assert done.exit_code == 1
    assert re.search(
        r"^tcp://127\.0\.0\.1:\d+ is unfit: cloudpickle \d\S* there, 1\.2 here$", done.output, re.MULTILINE
    )
    assert "0 of 1 workers fit\n" in done.output
    assert "empty tasks" not in done.output


def test_the_doctor_waits_for_a_cluster_that_it_starts_and_says_what_for(swathe, toy, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "SETTLED", 0.2)
    path = profile(tmp_path, "queue = 'slow'")
    done = swathe("doctor", "--scheduler", f"toy:{path}", "--insecure")
    assert done.exit_code == 0
    assert "1 of 1 workers fit; 1 job pending in slow\n" in done.output
    monkeypatch.setitem(HERE, "n_workers", 0)
    monkeypatch.setattr(workers, "SAY_EVERY", 0.1)
    done = swathe("doctor", "--scheduler", f"toy:{path}", "--insecure", "--patience", "1")
    assert re.search(r"waiting: no workers after \d s; 1 job pending in slow", done.output)
    assert "no worker for 1 s" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--scheduler", "local", "--patience", "abc"], "'abc' is no time above 0; give seconds, or as 90s, 10m, 2h"),
        (["--tls", "folder"], "--tls is of a cluster: give --scheduler"),
        (["--insecure"], "--insecure is of a cluster: give --scheduler"),
        (["--patience", "10m"], "--patience is of a cluster: give --scheduler"),
    ],
)
def test_options_of_a_cluster_that_make_no_sense(words, said):
    done = CliRunner().invoke(cli, ["clean", "maps.zarr", "-o", "clean.zarr", *words])
    assert done.exit_code == 2
    assert said in done.output


def test_verbs_give_one_cluster(monkeypatch):
    given = []
    monkeypatch.setattr(
        "pipeline.stats.stats.compute_statistics", lambda *_, client, **__: given.append(client) or 1 / 0
    )
    monkeypatch.setattr("pipeline.cli.commands.say_skipped", lambda store: None)
    options = ["--scheduler", "tls://h:1", "--tls", "folder", "--insecure", "--patience", "2h"]
    CliRunner().invoke(cli, ["stats", "maps.zarr", *options])
    CliRunner().invoke(cli, ["stats", "maps.zarr"])
    assert given == [Cluster("tls://h:1", "folder", insecure=True, patience=7200), None]


def test_the_doctor_needs_a_cluster(swathe):
    assert swathe("doctor").exit_code == 2
    assert "give --scheduler" in swathe("doctor", "-q").output
