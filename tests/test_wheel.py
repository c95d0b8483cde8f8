"""The wheel in an environment of its own, used in a folder with a user's own models.py, train.py and pipeline/."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
THEIRS = "raise SystemExit('a file of the user was imported')"
SETTINGS = """
name = "roofs"
bands = ["red", "green", "blue"]
classes = [{ name = "ground", color = "000000" }, { name = "roof", color = "E4572E" }]
data = [{ root = "demo", image = "{name}.tif", label = "{name}.geojson", burn = "roof", train = ["zanzibar_b"] }]
network = { architecture = "unet", options = { widths = [4, 8, 8] } }
chips = { size = 64, batch = 2, workers = 1 }
loop = { steps = 2, check_every = 2 }
"""
IN_PYTHON = """
import swathe
maps = swathe.segment("demo/zanzibar_b.tif", "roofs", halo=0)
assert maps.class_map[:64, :64].compute().shape == (64, 64)
assert swathe.run("demo/zanzibar_b.tif", "roofs", "p.zarr", halo=0, show=False).resumed == 0
assert "site-packages" in swathe.__file__, swathe.__file__
import models, pipeline, train
assert all("site-packages" in package.__file__ for package in (models, pipeline, train))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """The folder of programs of an environment that holds the wheel alone, and sees the libraries of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        ROOT,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("swathe-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv/bin/python"
    (packages,) = (folder / "venv").glob("lib/python3*/site-packages")
    # a path that a .pth file adds has its own .pth files left unread: an editable Swathe there is not seen
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", wheel]
    subprocess.run(install, check=True, capture_output=True)
    return python.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("theirs")
    for name in ("models.py", "train.py", "config.py", "utils.py"):
        (folder / name).write_text(THEIRS)
    (folder / "pipeline").mkdir()
    (folder / "pipeline/__init__.py").write_text(THEIRS)
    (folder / "settings.toml").write_text(SETTINGS)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", [None, "."])
def test_demo_segment_and_train_beside_files_of_the_user(environment, folder, path):
    hostile = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    hostile |= {"PYTHONPATH": path} if path else {}

    def run(program: str, *words: str) -> str:
        done = subprocess.run([environment / program, *words], cwd=folder, env=hostile, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    if path:  # the same with a path that the user asked for; what takes minutes is not done twice
        assert "buildings" in run("swathe", "bundles")
        assert "tiny" not in run("python", "-m", "swathe", "plan", "demo/zanzibar_b.tif", "-m", "roofs", "--halo", "0")
        run("python", "-c", IN_PYTHON.replace("p.zarr", "q.zarr"))
        return
    run("swathe", "demo", "-o", "demo")
    run("swathe", "train", "settings.toml", "-o", "roofs", "-q")
    run("swathe", "segment", "demo/zanzibar_b.tif", "-m", "roofs", "-o", "map.tif", "--halo", "0", "-q")
    assert "wrote" in run("swathe", "train", "settings.toml", "--check", "-o", "check.png", "-q")
    run("python", "-c", IN_PYTHON)
    (folder / "script.py").write_text(IN_PYTHON.replace("p.zarr", "s.zarr"))
    run("python", "script.py")
