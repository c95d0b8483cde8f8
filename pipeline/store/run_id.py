"""What decides the pixels of a run, to tell whether two runs may share an output. Facts only, no files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

from ..grid.encoding import Encoding

SOURCES = {
    "source": "another source, or one that has changed",
    "cleaned from": "another store was cleaned, or it has changed",
    "objects of": "objects of another store, or it has changed",
}
RENAMED = {"footprint": "element"}  # settings that stores of before 0.1.0 keep under another name


@dataclass(frozen=True, slots=True)
class Identity:
    """What decides the pixels of a run, and nothing else: two runs of one identity may share a store."""

    source: Mapping[str, Any]
    bundle: str
    engine: str
    precision: str
    compile: bool
    halo: int
    cut: Mapping[str, int]  # tile and block where they change pixels: under the exact halo they do not, and it is empty
    encoding: Encoding
    shape: tuple[int, int]
    overviews: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, for the store and for messages."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


def fingerprint(identity: Mapping[str, Any]) -> str:
    """Give the digest of an identity's facts, for files that cannot hold them all."""
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Name the settings in which two identities differ, with both values."""
    found, theirs = [], {RENAMED.get(key, key): value for key, value in theirs.items()}
    for key in {**mine, **theirs}:  # of some settings only what is not as by default is kept
        here, there = mine.get(key), theirs.get(key)
        if here == there:
            continue
        if key in SOURCES:
            found.append(SOURCES[key])
        elif isinstance(here, dict) and isinstance(there, dict):
            found += differences(here, there)
        else:
            found.append(f"{key} {_short(here)}, there {_short(there)}")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 24 else text[:12]
