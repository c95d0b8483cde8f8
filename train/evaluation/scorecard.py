"""An evaluation written down: `scores.json`, `scores.md` and the page `index.html`, all three or none."""

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from models.encoding import describe_decision
from models.errors import StoreError
from models.files import make_parent, put_in_place, refuse_existing
from pipeline.viz.page import render_page
from pipeline.viz.report_sections import format_setting

from .counts import SampleStores, ScoredSquare
from .pictures import ERROR_COLORS, confusion_rows, draw, reliability_chart, threshold_chart
from .results import Evaluation, as_markdown, format_score, interval, notes, tables

PAGE = Path(__file__).parent / "score_page"
JSON, MARKDOWN, HTML = "scores.json", "scores.md", "index.html"
SHOWN = 4  # best squares, and worst ones
LISTED = 50  # squares of each kind in the JSON


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
    make_parent(target)
    return target


def settings_in(output: str | os.PathLike[str]) -> str:
    """Return the digest of what decided the scores in a folder; nothing where there are none, or not whole."""
    try:
        files = [(Path(output) / name).read_text(encoding="utf-8") for name in (JSON, MARKDOWN, HTML)]
        said = json.loads(files[0])
    except (OSError, ValueError):
        return ""
    return str(said.get("settings", "")) if isinstance(said, dict) else ""


def write_scorecard(found: Evaluation, stores: Mapping[str, SampleStores], target: Path) -> None:
    """Write the three files into a folder that appears whole; one that is there is replaced.

    Parameters
    ----------
    found
        The results.
    stores
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
        HTML: render_page(PAGE, _context(found, stores)),
    }
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        part.mkdir()
        for name, text in files.items():
            (part / name).write_text(text, encoding="utf-8")
        put_in_place(part, target)
    except OSError as error:
        raise StoreError(f"{target} could not be written: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)


def as_dict(found: Evaluation) -> dict[str, Any]:
    """Return all of an evaluation as JSON values."""
    bundle, best, worst = found.bundle, *best_and_worst(found.squares, LISTED)
    return {
        "made by": f"swathe {version('swathe')}",
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "bundle": {"name": bundle.metadata.name, "digest": bundle.digest, "architecture": bundle.metadata.architecture},
        "engine": found.engine,
        "classes": [{"value": n, "name": info.name, "color": info.color} for n, info in enumerate(found.classes)],
        "samples": {sample.name: [Path(path).name for path in sample.paths] for sample in found.samples},
        "thresholds": {"by class": found.thresholds, "from": found.network.threshold_from},
        "scores": found.network.pooled.as_dict(),
        "by sample": {name: scores.as_dict() for name, scores in found.network.samples.items()},
        "references": [
            {
                "name": one.name,
                "facts": dict(one.metadata),
                "scores": one.pooled.as_dict(),
                "by sample": {name: scores.as_dict() for name, scores in one.samples.items()},
            }
            for one in found.baselines
        ],
        "areas": {
            "side": found.side,
            "best": [_square(square) for square in best],
            "worst": [_square(square) for square in worst],
        },
        "notes": notes(found),
        "settings": found.settings,
    }


def _square(square: ScoredSquare) -> dict[str, Any]:
    window = square.window
    rows, columns = [window.top, window.bottom], [window.left, window.right]
    return {"sample": square.sample, "rows": rows, "columns": columns, "iou": round(square.iou, 4)}


def best_and_worst(squares: Sequence[ScoredSquare], most: int) -> tuple[list[ScoredSquare], list[ScoredSquare]]:
    """Return the first and the last of ranked squares, the last one first; none is in both."""
    half = min(most, -(-len(squares) // 2))
    return list(squares[:half]), list(reversed(squares[half:][-most:]))


def _context(found: Evaluation, stores: Mapping[str, SampleStores]) -> dict[str, Any]:
    """Return what the template takes."""
    best, worst = best_and_worst(found.squares, SHOWN)
    strips = draw([*worst, *best], found.samples, stores, found.classes, found.network.pooled.background)
    halves = (("Worst squares", strips[: len(worst)]), ("Best squares", strips[len(worst) :]))
    pooled, now = found.network.pooled, datetime.now(UTC)
    counts, one = pooled.counts, pooled.foreground
    reliability = counts.top if one is None else counts.foreground
    first, *errors = ((name, f"rgb({r} {g} {b})") for name, (r, g, b) in ERROR_COLORS.items())
    return {
        "title": found.bundle.metadata.name,
        "summary": page_summary(found),
        "tables": tables(found),
        "notes": notes(found),
        "names": pooled.names,
        "confusion": confusion_rows(counts.confusion),
        "reliability": None if reliability is None else reliability_chart(reliability),
        "of": "probability of the likeliest class" if one is None else f"probability of {pooled.names[one]}",
        "thresholds": _threshold_charts(found),
        "strips": [(name, part) for name, part in halves if part],
        "classes": [(i.name, f"#{i.color}") for value, i in enumerate(found.classes) if value != pooled.background],
        "errors": [*(errors if one is None else errors[:-1]), first],  # no other class, of two
        "side": found.side,
        "facts": _origin(found),
        "made": f"{now.day} {now:%B %Y, %H:%M} UTC",
    }


def _threshold_charts(found: Evaluation) -> list[tuple[str, dict[str, Any]]]:
    """Return a chart for each class but the background that is in the labels, with its name."""
    pooled, charts, curves = found.network.pooled, [], found.network.pooled.counts.thresholds
    for value, name in enumerate(pooled.names):
        chart = threshold_chart(curves.of(value), found.thresholds.get(name)) if curves else None
        charts += [(name, chart)] if chart is not None and value != pooled.background else []
    return charts


def page_summary(found: Evaluation) -> str:
    """Return the page's first line."""
    pooled = found.network.pooled
    counts, names, one = pooled.counts.confusion, pooled.names, pooled.foreground
    if one is not None:
        score = f"IoU of {names[one]} {format_score(counts.iou[one])}{interval(pooled, 'iou', one)}"
    else:
        score = f"Mean IoU {format_score(counts.mean_iou)}{interval(pooled, 'mean_iou')}"
    where = found.samples[0].name if len(found.samples) == 1 else f"{len(found.samples):,} samples"
    return f"{score}, on {where}: {counts.pixels:,} labelled pixels."


def _origin(found: Evaluation) -> list[tuple[str, str]]:
    """Return what was scored, on what and how, as terms and descriptions."""
    bundle, thresholds = found.bundle, found.network.thresholds
    how = describe_decision(thresholds, bundle.metadata.class_names)
    decided = how if thresholds is None else f"{how}; {found.network.threshold_from}"
    names = [sample.name for sample in found.samples]
    lines = [
        ("bundle", found.network.label),
        ("digest", bundle.digest),
        ("architecture", bundle.metadata.architecture),
        ("decision", decided),
        ("engine", found.engine),
        ("samples", ", ".join(names[:20]) + (f" and {len(names) - 20:,} more" if len(names) > 20 else "")),
        ("squares", f"{found.side} × {found.side} pixels, for intervals and pictures"),
        ("boundary", f"{found.distance} pixels wide"),
        ("swathe", version("swathe")),
        *((str(name), format_setting(value)) for name, value in bundle.metadata.about.get("provenance", {}).items()),
    ]
    return [(name, value) for name, value in lines if value]
