"""The package `swathe`: the public names of the other three, and a user's own files by the names of these."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import jedi
import pytest

import models
import pipeline
import swathe
import train
from swathe.own_packages import HERE, OWN, find_own_packages

ROOT = Path(__file__).parent.parent
ON_A_CLUSTER = """
import sys, swathe
from dask.distributed import Client, LocalCluster
page = "127.0.0.1:0"
with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=page) as cluster, Client(cluster) as client:
    if sys.argv[1] == "late":
        swathe.run(*sys.argv[2:4], "first.tif", client=client, show=False)
        client.restart()
    swathe.run(*sys.argv[2:4], "o.tif", client=client, show=False)
"""


@pytest.fixture
def theirs(tmp_path):
    """A folder with a user's own files, by all names that could be taken for ours, and one of a library."""
    (tmp_path / "models.py").write_text("raise SystemExit('the models of the user')")
    (tmp_path / "train.py").write_text("raise SystemExit('the training of the user')")
    (tmp_path / "click.py").write_text("raise SystemExit('the click of the user')")
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/__init__.py").write_text("raise SystemExit('the pipeline of the user')")
    return tmp_path


def python(folder: Path, *words: object, path: str = "."):
    """Run Python in a folder, with a PYTHONPATH that has ours after it."""
    environment = {**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": ""}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize(
    "path", [".", *(pytest.param(one, marks=pytest.mark.slow) for one in ("", "/nowhere"))]
)  # an empty entry is the working directory too
def test_the_command_beside_files_of_the_user(theirs, path):
    for words in (["bundles"], ["train", "--help"], ["segment", "--help"]):
        done = python(theirs, "-m", "swathe", *words, path=path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert "of the user" not in done.stdout


def test_the_import_beside_files_of_the_user(theirs):
    (theirs / "click.py").unlink()  # a script has its own folder first on its path, for libraries too
    code = "import swathe; swathe.segment, swathe.Bundle, swathe.read_settings; import train; train.gather"
    done = python(theirs, "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    (theirs / "models.py").unlink()
    (theirs / "models").mkdir()  # of weights, say: a package without a file
    assert python(theirs, "-c", "import models, swathe; swathe.load_bundle('buildings')").returncode == 0


def test_another_module_imported_before_is_named_in_one_line(theirs):
    (theirs / "models.py").write_text("")
    done = python(theirs, "-c", "import models, swathe")
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("ImportError")]
    assert "package 'models'" in said
    assert str(theirs / "models.py") in said
    assert "Give that another name" in said


@pytest.mark.parametrize("name", OWN)
def test_what_is_ours_and_what_is_not(monkeypatch, name):
    find_own_packages()
    other = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, other)
    with pytest.raises(ImportError, match=f"package '{name}'"):
        find_own_packages()
    other.__path__ = ["/data/weights"]
    with pytest.raises(ImportError, match="/data/weights"):
        find_own_packages()
    other.__path__ = [str(HERE / "swathe" / ".." / name)]
    find_own_packages()


def test_public_names_are_those_of_the_three_packages():
    together = [name for package in (models, pipeline, train) for name in package.__all__]
    assert swathe.__all__ == sorted(together)
    assert len(set(together)) == len(together)
    assert swathe.segment is pipeline.segment
    assert swathe.train is train.train
    assert set(swathe.__all__) <= set(dir(swathe))
    assert swathe.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = swathe.nothing
    offered = {found.name for found in jedi.Script("import swathe\nswathe.").complete()}
    assert set(swathe.__all__) <= offered  # as editors see it, by its stub


def test_shells_complete_verbs_and_options(tmp_path):
    def asked(words: str) -> list[str]:
        environment = {**os.environ, "_SWATHE_COMPLETE": "bash_complete", "COMP_WORDS": words, "PYTHONPATH": str(ROOT)}
        environment["COMP_CWORD"] = str(len(words.split()) - 1)
        done = subprocess.run([sys.executable, "-m", "swathe"], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert asked("swathe ev") == ["evaluate"]
    assert "--allow-mismatch" in asked("swathe segment --al")
    assert asked("swathe segment --engine o") == ["openvino", "onnxruntime"]


@pytest.mark.slow
@pytest.mark.parametrize("when", ["at once", "late"])
def test_workers_beside_files_of_the_user(theirs, when):
    (theirs / "click.py").unlink()
    scene = ROOT / "pipeline/cli/scenes/zanzibar_b.tif"
    done = python(theirs, "-c", ON_A_CLUSTER, when, scene, "buildings")
    assert done.returncode == 0, done.stderr
    assert (theirs / "o.tif").exists()
