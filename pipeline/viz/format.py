"""Numbers as people read them: areas, counts, shares, durations, places. Text only."""

import math
from collections.abc import Mapping
from typing import Any

MINUS = "\N{MINUS SIGN}"
NARROW = "\N{NARROW NO-BREAK SPACE}"


def say_number(value: float, digits: int = 3) -> str:
    """Give a number to some significant digits, without an exponent, thousands apart: 12,300 or 0.0123."""
    if not math.isfinite(value):
        return "unknown"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}".replace("-", MINUS)


def say_area(square_metres: float, digits: int = 3) -> str:
    """Give an area in whole m² or to some digits, in km² from a tenth of one on."""
    if square_metres >= 1e5:
        return f"{say_number(square_metres / 1e6, digits)}{NARROW}km²"
    return f"{say_number(square_metres, digits) if square_metres < 1000 else f'{square_metres:,.0f}'}{NARROW}m²"


def say_share(share: float) -> str:
    """Give a share of 0..1 in per cent; one that is not 0 never looks like it."""
    percent = 100 * share
    if 0 < percent < 0.01:
        return f"<{NARROW}0.01{NARROW}%"
    return f"{percent:.{1 if percent >= 10 else 2}f}{NARROW}%"


def say_seconds(seconds: float) -> str:
    """Give a duration: 3.2 s, 4 min 5 s, 2 h 3 min."""
    if seconds < 60:
        return f"{say_number(seconds, 2 if seconds < 10 else 3)}{NARROW}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NARROW}min {rest}{NARROW}s"
    return f"{minutes // 60:,}{NARROW}h {minutes % 60}{NARROW}min"


def say_place(longitude: float, latitude: float) -> str:
    """Give a place on the Earth to 0.0001 degrees."""
    north, east = "N" if latitude >= 0 else "S", "E" if longitude >= 0 else "W"
    return f"{abs(latitude):.4f}°{NARROW}{north}, {abs(longitude):.4f}°{NARROW}{east}"


def say_setting(value: Any) -> str:
    """Give a setting of any JSON kind in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {say_setting(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(say_setting(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def say_title(stem: str) -> str:
    """Give a file's stem as a title: blanks for underscores, a capital at the front."""
    words = stem.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
