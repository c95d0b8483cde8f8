"""The project's own promises: imports one way, environment.yml in step with pyproject, what ships small and whole."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "pipeline", "train", "swathe")
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_environment_is_in_step_with_pyproject():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    project, wanted = _project(), []
    extras = project["optional-dependencies"]
    for requirement in [*project["dependencies"], *extras["train"], *extras["s3"], *extras["int8"]]:
        name, bound = re.fullmatch(r"([a-z0-9-]+)(.*)", requirement).groups()
        wanted.append(CONDA_NAMES.get(name, name) + bound)
    assert sorted(listed) == sorted([*wanted, "python>=3.11,<3.14", "pip"])


def test_imports_go_one_way():
    done = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_file_says_what_it_holds():
    for path in (*ROOT.glob("models/*.py"), *ROOT.glob("pipeline/*.py"), *ROOT.glob("train/*.py")):
        assert path.read_text().startswith('"""'), path


def test_importing_the_packages_imports_nothing_heavy():
    code = (
        "import sys, models, pipeline, pipeline.cli.app; "
        "heavy = {'torch', 'dask', 'rasterio', 'xarray', 'zarr', 'openvino'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there():
    import models
    import pipeline

    for package in (models, pipeline):
        for name in package.__all__:
            assert getattr(package, name).__doc__, name


def test_shipped_bundles_are_small_and_whole():
    from models import shipped_bundles

    bundles = shipped_bundles()
    assert "buildings" in [bundle.metadata.name for bundle in bundles]
    for bundle in bundles:
        assert sum(file.stat().st_size for file in bundle.path.iterdir()) < 8 * 2**20
        assert bundle.segmenter() is not None
        assert bundle.metadata.provenance
        assert bundle.metadata.metrics


def test_the_wheel_holds_every_file_of_the_packages():
    held = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    there = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.*")}
    assert there - held == {name for name in there if "__pycache__" in name or (ROOT / name).is_dir()}
    examples = ("models/bundles/buildings/weights.safetensors", "pipeline/cli/scenes/zanzibar_b.tif",
                "pipeline/viz/report_page/script.js", "train/configs/buildings.toml",
                "train/evaluation/score_page/style.css")  # fmt: skip
    for needed in (*examples, *(f"{package}/__init__.pyi" for package in PACKAGES)):
        assert needed in held


def test_readme_commands_exist():
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make ([a-z-]+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
