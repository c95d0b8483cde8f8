"""An evaluation written down: `scores.json`, `scores.md` and the page `index.html`, all three or none.

Says in which form; what is said in tables, charts and pictures, `table`, `charts` and `pictures` know.
"""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import StoreError
from models.files import put_in_place, refuse_existing
from pipeline.viz.report import PAGE as REPORT

from .charts import confusion_rows, reliability_chart, sweep_chart
from .counts import Kept
from .pictures import ALARM, CONFUSED, MISSED, QUIET, RIGHT, Strip, draw
from .table import as_markdown, interval, label, notes, say, tables
from .worst_areas import Area

if TYPE_CHECKING:
    from .result import Evaluation
    from .runner import Scored

PAGE = Path(__file__).parent / "score_page"
JSON, MARKDOWN, HTML = "scores.json", "scores.md", "index.html"
SHOWN = 4  # best areas, and worst ones
LISTED = 50  # areas of each kind in the JSON


def check_folder(output: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Refuse a folder that exists, or a place where none can be, before any work is done for it.

    Raises
    ------
    StoreError
        It is a URL or a file; it exists, or holds what is not ours; or its folder cannot be written to.
    """
    text = os.fspath(output)
    if "://" in text:
        raise StoreError(f"{text} is not a local path; write to a local folder, and copy that")
    target = Path(os.path.abspath(text))
    if target.exists() and not target.is_dir():
        raise StoreError(f"{target} is a file; give the name of a folder")
    held = sorted(path.name for path in target.iterdir()) if target.exists() else []
    foreign = set(held) - {JSON, MARKDOWN, HTML}
    if foreign:
        raise StoreError(f"{target} also holds {', '.join(sorted(foreign)[:5])}; choose another folder")
    if held and not overwrite:
        refuse_existing(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{target} cannot be written: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK):
        raise StoreError(f"{target} cannot be written: no permission in {target.parent}")
    return target


def write_scorecard(found: "Evaluation", kept: Mapping[str, Kept], target: Path) -> None:
    """Write the three files into a folder that appears whole; one that is there is replaced.

    Parameters
    ----------
    found
        What is told.
    kept
        The stores of each sample, by its name, for the pictures.
    target
        See `check_folder`.

    Raises
    ------
    StoreError
        The disk refuses; what was there before is as it was.
    """
    files = {
        JSON: json.dumps(as_dict(found), indent=1, ensure_ascii=False) + "\n",
        MARKDOWN: as_markdown(found),
        HTML: _page(found, kept),
    }
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        part.mkdir()
        for name, text in files.items():
            with open(part / name, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        put_in_place(part, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)


def as_dict(found: "Evaluation") -> dict[str, Any]:
    """Give all of an evaluation as JSON values."""
    bundle, best, worst = found.bundle, *best_and_worst(found.areas, LISTED)
    return {
        "made by": f"swathe {version('swathe')}",
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle": {"name": bundle.metadata.name, "digest": bundle.digest, "architecture": bundle.metadata.architecture},
        "engine": found.engine,
        "classes": [{"value": n, "name": info.name, "color": info.color} for n, info in enumerate(found.classes)],
        "samples": {sample.name: [Path(path).name for path in sample.paths] for sample in found.samples},
        "threshold": {"value": found.network.threshold, "from": found.network.threshold_from},
        "scores": found.network.pooled.as_dict(),
        "by sample": {name: scores.as_dict() for name, scores in found.network.samples.items()},
        "references": [_reference(one) for one in found.references],
        "areas": {
            "side": found.side,
            "best": [_area(area) for area in best],
            "worst": [_area(area) for area in worst],
        },
        "notes": notes(found),
    }


def _reference(scored: "Scored") -> dict[str, Any]:
    return {
        "name": scored.name,
        "facts": dict(scored.metadata),
        "scores": scored.pooled.as_dict(),
        "by sample": {name: scores.as_dict() for name, scores in scored.samples.items()},
    }


def _area(area: Area) -> dict[str, Any]:
    window = area.window
    rows, columns = [window.top, window.bottom], [window.left, window.right]
    return {"sample": area.sample, "rows": rows, "columns": columns, "iou": round(area.iou, 4)}


def best_and_worst(areas: Sequence[Area], most: int) -> tuple[list[Area], list[Area]]:
    """Give the first and the last of areas, the last one first; none is in both."""
    half = min(most, -(-len(areas) // 2))
    return list(areas[:half]), list(reversed(areas[half:][-most:]))


def _page(found: "Evaluation", kept: Mapping[str, Kept]) -> str:
    best, worst = best_and_worst(found.areas, SHOWN)
    strips = draw([*worst, *best], found.samples, kept, found.classes)
    return _render(_context(found, strips[: len(worst)], strips[len(worst) :]))


def _context(found: "Evaluation", worst: list[Strip], best: list[Strip]) -> dict[str, Any]:
    """Give what the template takes."""
    pooled, now = found.network.pooled, datetime.now(UTC)
    two = len(found.classes) == 2
    reliability = pooled.counts.foreground if two else pooled.counts.top
    return {
        "title": found.bundle.metadata.name,
        "summary": summary(found),
        "tables": tables(found),
        "notes": notes(found),
        "names": pooled.names,
        "confusion": confusion_rows(pooled.counts.confusion),
        "reliability": None if reliability is None else reliability_chart(reliability),
        "of": f"probability of {pooled.names[1]}" if two else "probability of the likeliest class",
        "sweep": None if pooled.counts.thresholds is None else sweep_chart(pooled.counts.thresholds, found.threshold),
        "strips": [(name, part) for name, part in (("Worst areas", worst), ("Best areas", best)) if part],
        "classes": [(info.name, f"#{info.color}") for info in found.classes[1:]],
        "errors": _legend(two),
        "side": found.side,
        "facts": _facts(found),
        "made": f"{now.day} {now:%B %Y, %H:%M} UTC",
    }


def summary(found: "Evaluation") -> str:
    """Give the page's first line."""
    pooled = found.network.pooled
    counts, names = pooled.counts.confusion, pooled.names
    if len(names) == 2:
        score = f"IoU of {names[1]} {say(counts.iou[1])}{interval(pooled, 'iou', 1)}"
    else:
        score = f"Mean IoU {say(counts.mean_iou)}{interval(pooled, 'mean_iou')}"
    where = found.samples[0].name if len(found.samples) == 1 else f"{len(found.samples):,} samples"
    return f"{score}, on {where}: {counts.pixels:,} pixels judged."


def _legend(two: bool) -> list[tuple[str, str]]:
    shown = [("right", RIGHT), ("false alarm", ALARM), ("missed", MISSED)]
    shown += [] if two else [("another class", CONFUSED)]
    return [(name, f"rgb({r} {g} {b})") for name, (r, g, b) in [*shown, ("right, first class", QUIET)]]


def _facts(found: "Evaluation") -> list[tuple[str, str]]:
    """Say what was scored, on what and how."""
    bundle, threshold = found.bundle, found.network.threshold
    decided = "the likeliest class" if threshold is None else f"{threshold:g}, {found.network.threshold_from}"
    names = [sample.name for sample in found.samples]
    told = [
        ("bundle", f"{label(found.network)}"),
        ("digest", bundle.digest),
        ("architecture", bundle.metadata.architecture),
        ("threshold", decided),
        ("engine", found.engine),
        ("samples", ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")),
        ("squares", f"{found.side} × {found.side} pixels, for intervals and areas"),
        ("boundary", f"{found.distance} pixels wide"),
        ("swathe", version("swathe")),
    ]
    return [(name, value) for name, value in told if value]


def _render(context: Mapping[str, Any]) -> str:
    """Fill the template, in the style of `pipeline.viz.report`'s; what comes from data is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = Markup("\n".join((folder / "style.css").read_text(encoding="utf-8") for folder in (REPORT, PAGE)))
    return environment.get_template("template.html.j2").render(style=style, **context)
