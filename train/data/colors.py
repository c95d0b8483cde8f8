"""Colours as text: six hex digits, and the tables that sets of masks are published with. No pixels, no classes."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import TrainingError


def read_colors(path: str | Path) -> dict[str, str]:
    """Read a table of colours, as published with the Massachusetts sets and CamVid: columns `name,r,g,b`, 0 to 255.

    Returns
    -------
    dict
        Colour as six hex digits to name, in the file's order.

    Raises
    ------
    TrainingError
        It cannot be read, lacks a column, or has a name or a colour twice.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path} cannot be read as a table of colours: {error}") from error
    colors: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        name, color = _row({str(key).strip().lower(): value for key, value in row.items()}, path, number)
        if name in colors.values() or color in colors:
            twice = f"colour {color}" if color in colors else f"name {name!r}"
            raise TrainingError(f"{path}, line {number}: the {twice} is there twice; give each once")
        colors[color] = name
    if not colors:
        raise TrainingError(f"{path} has no rows; give one per class, as: building,255,255,255")
    return colors


def _row(row: Mapping[str, Any], path: str | Path, number: int) -> tuple[str, str]:
    try:
        name, parts = str(row["name"]).strip(), [int(row[key]) for key in ("r", "g", "b")]
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"{path}, line {number}: give name,r,g,b with whole numbers from 0 to 255") from error
    if not name or not all(0 <= part <= 255 for part in parts):
        raise TrainingError(f"{path}, line {number}: give name,r,g,b with whole numbers from 0 to 255")
    return name, bytes(parts).hex().upper()


def code_of(color: str) -> int:
    """Give the code of a colour of six hex digits, with or without `#`. Raises TrainingError if it is none."""
    digits = color.strip().removeprefix("#")
    if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
        raise TrainingError(
            f'{color!r} is no colour, and no name in the table; give six hex digits in quotes, "FF8800"'
        )
    return int(digits, 16)
