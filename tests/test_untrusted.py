"""Scenes and bundles decoded apart: the same pixels, one folder, no network; a process that dies, hangs or lies."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from clusters import processes
from distributed import Client
from helpers import metadata, pixels, save, write_raster

import pipeline
from models.errors import ArgumentError, BundleError, PlanError, SceneError
from pipeline.catalog.build import build_index
from pipeline.grid.geobox import Window
from pipeline.io import untrusted
from pipeline.io.confine import EVERYTHING
from pipeline.io.frames import ANSWER, FAILED, PIXELS, frame
from pipeline.io.scene import open_scene, open_source
from pipeline.io.untrusted import Child, Facts, end_children
from pipeline.store.store import read_metadata

BANDS = ("red", "green", "blue")
EMPTY = frame(ANSWER, b'""')
HELLO = f"import sys, os, time; out = sys.stdout.buffer; out.write({EMPTY!r}); out.flush(); "


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A scene whose decoding process most tests share: one takes two seconds to start."""
    folder = tmp_path_factory.mktemp("in")
    yield str(write_raster(folder / "scene.tif", pixels((3, 96, 130)), descriptions=BANDS, nodata=3))
    end_children()


@pytest.fixture
def pretending(monkeypatch):
    """Let decoding processes run another script."""

    def pretend(script: str) -> None:
        end_children()
        monkeypatch.setattr(untrusted, "MAIN", script.replace("{", "{{").replace("}", "}}"))

    yield pretend
    end_children()


def test_a_scene_is_the_same_apart(scene):
    apart, here, window = open_source(scene, untrusted=True), open_source(scene), Window(5, 90, 7, 120)
    for one, other in ((apart, here), (apart.select(["blue", "1"]), here.select(["blue", "1"]))):
        got, wanted = one.read(window), other.read(window)
        assert got.data.dtype == wanted.data.dtype
        np.testing.assert_array_equal(got.data, wanted.data)
        np.testing.assert_array_equal(got.valid, wanted.valid)
        for name in ("geobox", "bands", "dtype", "nodata", "radiometry", "paths", "all_names", "numbers"):
            assert getattr(one, name) == getattr(other, name), name
        assert one.identity() == other.identity()
    np.testing.assert_array_equal(open_scene(scene, untrusted=True), open_scene(scene))
    with pytest.raises(SceneError, match="no band 'nir'; it has 3: red, green, blue"):
        apart.select("nir")
    with pytest.raises(SceneError, match="no such file"):
        open_source(scene + "x", untrusted=True)


def test_facts_that_no_scene_has_are_refused(scene):
    facts = open_source(scene, untrusted=True).facts
    for change in (
        {"height": -1}, {"width": 2**70}, {"bands": ()}, {"nodata": ()}, {"dtype": "object"}, {"dtype": "V9999999"},
        {"transform": (1.0,)}, {"all_names": ((), (), ())}, {"numbers": (1,)},
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError, SceneError)):
            Facts(**{**{name: getattr(facts, name) for name in Facts.__slots__}, **change}).check()


def test_a_read_that_kills_its_process_can_be_tried_again_a_few_times(scene, monkeypatch):
    source, window = open_source(scene, untrusted=True), Window(0, 8, 0, 8)
    wanted = source.read(window).data
    (child,) = untrusted._children(source.folders).idle
    child.process.kill()
    child.process.wait()
    with pytest.raises(SceneError, match="was ended: it died"):
        source.read(window)
    np.testing.assert_array_equal(source.read(window).data, wanted)
    monkeypatch.setattr(untrusted._children(source.folders), "deaths", untrusted.MOST_DEATHS)
    with pytest.raises(SceneError, match=f"ended {untrusted.MOST_DEATHS} times"):
        source.read(window)


@pytest.mark.slow
def test_zarr_and_several_files_are_the_same_apart(tmp_path):
    values = xr.Dataset({name: (("y", "x"), np.arange(2000.0).reshape(40, 50)) for name in BANDS})
    values.to_zarr(tmp_path / "s.zarr", consolidated=False)
    one = [str(write_raster(tmp_path / f"b_{name}.tif", pixels((1, 40, 50)))) for name in BANDS]
    for scene in (str(tmp_path / "s.zarr"), one, str(tmp_path / "b_*.tif")):
        apart, here = open_source(scene, untrusted=True), open_source(scene)
        np.testing.assert_array_equal(apart.read(Window.of((40, 50))).data, here.read(Window.of((40, 50))).data)
        assert (apart.bands, apart.geobox, apart.identity()) == (here.bands, here.geobox, here.identity())


def test_a_run_is_the_same_apart_and_goes_on_where_the_other_stopped(scene, tmp_path):
    bundle = save(tmp_path / "bundle.zip", metadata())
    for name, told in (("here", False), ("apart", True)):
        pipeline.run(scene, bundle.path, tmp_path / f"{name}.zarr", block=64, show=False, untrusted=told)
    maps = [pipeline.open_maps(tmp_path / f"{name}.zarr").class_map.values for name in ("here", "apart")]
    np.testing.assert_array_equal(*maps)
    assert read_metadata(str(tmp_path / "here.zarr")).identity == read_metadata(str(tmp_path / "apart.zarr")).identity
    page = pipeline.write_report(tmp_path / "apart.zarr", tmp_path / "page.html")
    assert Path(page).exists()


@pytest.mark.slow
def test_workers_decode_apart_each_for_itself(scene, tmp_path):
    bundle = save(tmp_path / "bundle.zip", metadata())
    with processes(2) as cluster, Client(cluster) as client:
        pipeline.run(scene, bundle.path, tmp_path / "o.zarr", block=64, show=False, untrusted=True, client=client)
    pipeline.run(scene, bundle.path, tmp_path / "p.zarr", block=64, show=False)
    maps = [pipeline.open_maps(tmp_path / f"{name}.zarr").class_map.values for name in ("o", "p")]
    np.testing.assert_array_equal(*maps)


def test_what_cannot_be_read_apart_is_refused_in_words(scene, tmp_path):
    bundle = save(tmp_path / "bundle.zip", metadata())
    index = tmp_path / "scenes.parquet"
    build_index([scene], index)
    for given, error, words in (
        ("https://localhost:9/a.tif", SceneError, "download it"),
        (open_scene(scene), ArgumentError, "are files"),
        (index, PlanError, "leave --untrusted out"),
    ):
        with pytest.raises(error, match=words):
            pipeline.plan(given, bundle, untrusted=True)


PROBES = """
import json, os, socket, sys
from pathlib import Path
from pipeline.io.confine import confine
answers = os.dup(1)
left = confine([sys.argv[1]], 2**31)
def tried(action):
    try:
        return repr(action())
    except BaseException as error:
        return type(error).__name__
found = {
    "left": left,
    "scene": tried(lambda: len(Path(sys.argv[1], "scene.tif").read_bytes()) > 0),
    "connect": tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 2)),
    "secret": tried(lambda: Path(sys.argv[2]).read_text()),
    "write": tried(lambda: Path(sys.argv[1], "made").write_text("x")),
    "remove": tried(lambda: Path(sys.argv[1], "scene.tif").unlink()),
    "memory": tried(lambda: len(bytearray(2**32))),
    "files": tried(lambda: len([open(sys.argv[1] + "/scene.tif") for _ in range(1000)])),
    "others": tried(lambda: os.kill(int(sys.argv[4]), 0)),
}
os.write(answers, json.dumps(found).encode())
"""


def test_nothing_but_the_folder_is_seen_and_nothing_written_or_reached(scene, tmp_path):
    import socket

    (tmp_path / "secret.txt").write_text("secret")
    root = str(Path(pipeline.__file__).parents[1])
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = [str(Path(scene).parent), tmp_path / "secret.txt", server.getsockname()[1], os.getpid()]
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n" + PROBES, *map(str, arguments)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60).stdout)
    assert found["scene"] == "True"
    assert found["memory"] == "MemoryError"
    assert found["files"] == "OSError"
    if found["left"] == EVERYTHING:
        pytest.skip("this machine forbids namespaces")
    assert found["connect"] in ("OSError", "ConnectionRefusedError")
    assert found["others"] == "ProcessLookupError"
    if not found["left"]:
        assert (found["secret"], found["write"], found["remove"]) == ("FileNotFoundError", "OSError", "OSError")
        assert Path(scene).exists()


LIES = {
    "dies at once": ("raise SystemExit(3)", "it died"),
    "dies later": (HELLO + "sys.stdin.readline()", "it died"),
    "says nothing": (HELLO + "time.sleep(60)", "no answer in 1 s"),
    "another beginning": (HELLO + "out.write(b'x' * 100); out.flush(); time.sleep(60)", "nonsense"),
    "pixels for facts": (HELLO + f"out.write({frame(PIXELS, b'x')!r}); out.flush(); time.sleep(60)", "nonsense"),
    "an endless answer": (HELLO + f"out.write({frame(ANSWER, length=2**62)!r}); out.flush(); time.sleep(60)", "nonsen"),
    "a length without bytes": (HELLO + f"out.write({frame(ANSWER, length=99)!r}); out.flush(); time.sleep(60)", "1 s"),
    "no JSON": (HELLO + f"out.write({frame(ANSWER, b'[' * 5000)!r}); out.flush(); time.sleep(60)", "nonsense"),
    "other facts": (HELLO + f"out.write({frame(ANSWER, b'{}')!r}); out.flush(); time.sleep(60)", "nonsense"),
    "a long error": (HELLO + f"out.write({frame(FAILED, b'E' * 9999)!r}); out.flush(); time.sleep(60)", "EEE"),
    "control characters": (HELLO + f"out.write({frame(FAILED, b'a' + bytes([27]) + b'[2J')!r}); out.flush(); "
                           "time.sleep(60)", "cannot be decoded: a "),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_process_that_dies_hangs_or_lies_is_one_clear_line(name, scene, pretending, monkeypatch):
    script, words = LIES[name]
    pretending(script)
    monkeypatch.setattr(untrusted, "SECONDS", 1.0 if "1 s" in words else 30.0)
    with pytest.raises(SceneError, match=words) as caught:
        open_source(scene, untrusted=True)
    text = str(caught.value)
    assert text.startswith(scene)
    assert len(text) < 1000
    assert text.isprintable()


def test_it_ends_with_the_process_that_started_it(scene):
    root = str(Path(pipeline.__file__).parents[1])
    code = (f"import sys, os, signal; sys.path.insert(0, {root!r})\nfrom pipeline.io import untrusted\n"
            f"child = untrusted._starter.submit(untrusted.Child, ({os.path.dirname(scene)!r},)).result()\n"
            "print(child.process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    pid, until = int(done.stdout), time.monotonic() + 60
    while _alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(pid)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_without_namespaces_it_says_so_and_limits_hold(scene, monkeypatch):
    end_children()
    forbidden = "from pipeline.io import confine; confine._own_namespaces = lambda: os.stat('/nowhere'); main()"
    monkeypatch.setattr(untrusted, "MAIN", untrusted.MAIN.replace("main()", f"import os; {forbidden}"))
    source = open_source(scene, untrusted=True)
    assert source.read(Window(0, 8, 0, 8)).data.shape == (3, 8, 8)
    assert source.notes == (f"decoded apart, but not shut off from {EVERYTHING}",)


def test_bundles_are_read_apart_first(scene, tmp_path, pretending, monkeypatch):
    bundle = save(tmp_path / "bundle", metadata())
    assert untrusted.checked_bundle(bundle.path) == bundle
    (bundle.path / "weights.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    monkeypatch.setattr("models.bundle._read_weights", None)  # nothing is read here
    for path in (bundle.path, shutil.make_archive(str(tmp_path / "packed"), "zip", bundle.path)):
        with pytest.raises(BundleError, match="cannot be read as a bundle: Error while deserializing") as caught:
            pipeline.plan(scene, path, untrusted=True)
        assert str(caught.value).count("\n") == 0
    pretending(HELLO + f"out.write({frame(ANSWER, b'[]')!r}); out.flush(); time.sleep(60)")
    with pytest.raises(BundleError, match="another bundle"):
        untrusted.checked_bundle(bundle.path)


def test_a_child_has_no_secrets_in_its_environment(scene, pretending, monkeypatch):
    pretending(HELLO + "time.sleep(60)")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    child = untrusted._starter.submit(Child, (os.path.dirname(scene),)).result()
    try:
        assert b"secret" not in Path(f"/proc/{child.process.pid}/environ").read_bytes()
    finally:
        child.end()
