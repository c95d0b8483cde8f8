"""What a look at the data found, and how it is told. Words only: knows no samples."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
MOST_NAMES = 4
MOST_ALIKE = 20  # findings of one kind in a text


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Parameters
    ----------
    level
        `error`: training on this is wrong or fails. `warning`: it may be. `note`: good to know.
    kind
        In a word, for sorting: `reading`, `labels`, `classes`, `bands`, `size`, `leakage`, `radiometry`, `parts`.
    text
        One or two lines: what, where, and what to do.
    """

    level: Level
    kind: str
    text: str


def describe(findings: Iterable[Finding]) -> str:
    """Give findings as text, errors first, and a last line with how many there are of each level."""
    found = list(findings)
    lines = []
    for level in LEVELS:
        of_level = [finding for finding in found if finding.level == level]
        for kind in dict.fromkeys(finding.kind for finding in of_level):
            alike = [finding.text for finding in of_level if finding.kind == kind]
            lines += [_indented(f"{level:7}  {text}") for text in alike[:MOST_ALIKE]]
            if len(alike) > MOST_ALIKE:
                lines.append(f"{level:7}  and {len(alike) - MOST_ALIKE} more about {kind}")
    counts = [(level, sum(finding.level == level for finding in found)) for level in LEVELS]
    told = ", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in counts if count)
    return "\n".join([*lines, told or "nothing found"])


def _indented(text: str) -> str:
    return text.replace("\n", "\n" + " " * 9)


def names(these: Sequence[str]) -> str:
    """List some names, the rest by their number."""
    rest = len(these) - MOST_NAMES
    return ", ".join(these[:MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")
