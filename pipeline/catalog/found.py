"""What is known of a scene before it is opened: its files, or its STAC Item."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["files", "bands", "product", "item"]


@dataclass(frozen=True, slots=True)
class FoundScene:
    """A scene that was found and not opened yet.

    Parameters
    ----------
    key
        What tells it from others, and is the same when it is found again: a path, or an Item's collection and id.
    id
        What it is to be called.
    kind
        `files`: `paths` are one scene. `bands`: they are one scene if they hold one band each, of the same place and
        day, else a scene each. `product`: they are files of a product in `folder`. `item`: it is a STAC Item.
    paths
        What is opened; of a product, relative to its folder.
    folder
        Of a product.
    item
        JSON of a STAC Item in which all addresses are in full, and without secrets.
    """

    key: str
    id: str
    kind: Kind = "files"
    paths: tuple[str, ...] = ()
    folder: str = ""
    item: str = ""

    @property
    def digest(self) -> str:
        """Of all that is known of it: what was found with other files, or changed as an Item, has another."""
        facts = (self.key, self.id, self.kind, self.paths, self.folder, self.item)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    @property
    def named(self) -> str:
        """All addresses that it was found with, as one text."""
        return "\n".join((*self.paths, self.folder, self.item))

    @property
    def described(self) -> dict[str, Any] | None:
        """What `again` takes; None of an Item, which is too large to be kept twice."""
        if self.kind == "item":
            return None
        return {"key": self.key, "id": self.id, "kind": self.kind, "paths": self.paths, "folder": self.folder}

    @staticmethod
    def again(described: Mapping[str, Any]) -> "FoundScene":
        """Return the scene that was described."""
        return FoundScene(**{**described, "paths": tuple(described["paths"])})


def found_file(path: str) -> FoundScene:
    """Return the scene that one file is."""
    return FoundScene(path, stem(path), paths=(path,))


def stem(path: str) -> str:
    """Return a file's name without folders, endings and what follows `?`."""
    name = os.path.basename(path.partition("?")[0].rstrip("/"))
    for ending in (".zip", ".tar"):
        name = name.removesuffix(ending)
    return os.path.splitext(name)[0] or "scene"
