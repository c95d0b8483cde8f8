"""The command `python -m train SETTINGS.toml -o BUNDLE`, and with `--test` the one look at the test scenes.

Testing is a step of its own, so that trying settings never shows the test's score. Knows files, no loop.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.bundle import Bundle, load_bundle, save_bundle
from models.errors import SwatheError

from .datasets import LabelledScene, read_scene
from .evaluate import foreground, score
from .fit import fit, save
from .settings import Settings, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; give its exit status."""
    given = _parser().parse_args(arguments)
    try:
        settings = read_settings(given.settings)
        if given.test:
            print(test(settings, given.output))
        else:
            train(settings, given.output, {"settings": given.settings.name, "command": _command(given)})
    except SwatheError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def train(settings: Settings, output: Path, provenance: Mapping[str, Any]) -> Bundle:
    """Read the scenes and fit, without a look at the test scenes. Every better network is saved at once."""
    began = time.monotonic()
    for fitted in fit(settings, _read(settings, settings.train), _read(settings, settings.validate), _say):
        facts = {
            "trained on": list(settings.train),
            "chosen on": list(settings.validate),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "minutes": round((time.monotonic() - began) / 60, 1),
            "torch": torch.__version__,
        }
        bundle = save(output, settings, fitted, {**provenance, **facts})
    return bundle


def test(settings: Settings, path: Path) -> dict[str, Any]:
    """Score a bundle on the test scenes at its threshold and at one half; write that into its metrics."""
    bundle = load_bundle(path)
    facts, scenes = bundle.facts, _read(settings, settings.test)
    mean = np.array([band.mean for band in facts.bands])
    found = [foreground(bundle.segmenter(), scene, mean, facts.footprint) for scene in scenes]
    news = {
        "test": score(found, scenes, float(facts.metrics["threshold"])).rounded(),
        "test at 0.5": score(found, scenes).rounded(),
        "tested on": list(settings.test),
    }
    save_bundle(path, bundle.network(), replace(facts, metrics={**facts.metrics, **news}), overwrite=True)
    return news


def _read(settings: Settings, names: Sequence[str]) -> list[LabelledScene]:
    folder, bands, classes = Path(settings.data), len(settings.bands), len(settings.classes)
    return [
        read_scene(
            folder / f"{name}{settings.image_suffix}",
            folder / f"{name}{settings.label_suffix}",
            bands,
            classes,
        )
        for name in names
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train", description="Train a network and save it as a bundle.")
    parser.add_argument("settings", type=Path, help="a TOML file as train/configs/buildings.toml")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the bundle: a folder, or a .zip")
    parser.add_argument("--test", action="store_true", help="train nothing; score the bundle on the test scenes")
    return parser


def _command(given: argparse.Namespace) -> str:
    return f"python -m train {given.settings} -o {given.output}"


def _say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
