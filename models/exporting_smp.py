"""A bundle as a folder that segmentation-models-pytorch opens: what its `save_pretrained` writes, and a card.

The network there is what smp knows, without scaling and activation: the card says these in words and in Python, and
`swathe.json` as settings that `swathe import` takes.
"""

import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from .build import SMP
from .bundle import Bundle
from .errors import BundleError, NetworkError, require_extra
from .files import local_path, make_parent, put_in_place, refuse_existing
from .imports.own import settings_of
from .metadata import some_of
from .tracing import Exported, converting, difference, refuse_graph

CARD, SETTINGS = "README.md", "swathe.json"
FILES = {"config.json", "model.safetensors", CARD, SETTINGS}
NOTES = ("scaling and activation are not in smp's network: README.md says them, swathe.json is for swathe import",)


def export_smp(bundle: Bundle, path: str | os.PathLike[str], *, overwrite: bool = False) -> Exported:
    """Write a bundle as a folder for `segmentation_models_pytorch.from_pretrained`.

    Parameters
    ----------
    bundle
        Its architecture is one of smp's, `smp:...`.
    path
        Of the folder. Appears only when it is whole, and was opened with smp and compared with the bundle.
    overwrite
        Replace such a folder. Otherwise one that is there is refused, unless it is the very one that would be written.

    Raises
    ------
    NetworkError
        The architecture is not smp's, or smp is missing, or opens another network.
    BundleError
        The path is taken.
    """
    target = _check(local_path(path, error=BundleError), bundle)
    with _beside(target) as folder, converting(bundle, "segmentation-models-pytorch"):
        whole = folder / target.name
        _write(bundle, whole)
        found = _compare(bundle, whole)
        if target.exists() and not overwrite:
            if not _is_same(whole, target):
                refuse_existing(target, error=BundleError)
            return Exported(target, found, NOTES)
        put_in_place(whole, target)
    return Exported(target, found, NOTES)


def _check(target: Path, bundle: Bundle) -> Path:
    """Refuse what is no network of smp, and to replace what is no such folder."""
    require_extra("train", "a folder of smp", "segmentation_models_pytorch", error=NetworkError)
    refuse_graph(bundle)
    architecture = bundle.metadata.architecture
    if not architecture.startswith(SMP):
        raise NetworkError(
            f"{bundle.metadata.name} is {architecture}, which segmentation-models-pytorch does not have: "
            "export it to .onnx or .pt2"
        )
    make_parent(target, error=BundleError)
    if target.is_file():
        raise BundleError(f"{target} is a file; give the name of a folder")
    foreign = sorted({path.name for path in target.iterdir()} - FILES) if target.is_dir() else []
    if foreign:
        raise BundleError(f"{target} also holds {some_of(foreign, 5)}; only a folder of smp is replaced")
    return target


@contextlib.contextmanager
def _beside(target: Path) -> Any:
    """Yield a temporary folder on the target's disk."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.absolute().parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror or error}") from error


def _write(bundle: Bundle, folder: Path) -> None:
    folder.mkdir()
    settings = json.dumps(settings_of(bundle.metadata), indent=1)
    (folder / SETTINGS).write_text(settings + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(bundle), encoding="utf-8")  # before smp, whose card gives weights its own licence
    network: Any = bundle.network()
    network.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # the library makes it private


def _compare(bundle: Bundle, folder: Path) -> float:
    """Open a folder with smp, put scaling and activation around its network, and compare."""
    import segmentation_models_pytorch as smp

    from .segmenter import Segmenter

    with contextlib.redirect_stdout(io.StringIO()):  # it says from where it loads
        network = smp.from_pretrained(str(folder))
    return difference(bundle, Segmenter(network, bundle.metadata.scaling, bundle.metadata.activation).eval())


def _is_same(made: Path, there: Path) -> bool:
    """Whether two folders hold the same files."""
    names = {path.name for path in made.iterdir()}
    return names == {path.name for path in there.iterdir()} and all(
        (made / name).read_bytes() == (there / name).read_bytes() for name in names
    )


def _card(bundle: Bundle) -> str:
    """Describe a bundle as a card of the Hugging Face Hub, with the Python that applies it."""
    metadata = bundle.metadata
    activation = "softmax(dim=1)" if metadata.activation == "softmax" else "sigmoid()"
    resolution = " to ".join(f"{side:g}" for side in sorted(set(metadata.resolution or ())))
    facts = {
        "Bands": ", ".join(metadata.band_names) + f" ({metadata.dtype})",
        "Classes": ", ".join(metadata.class_names),
        "Background": metadata.background or "none",
        "Thresholds": ", ".join(f"{name} {value:g}" for name, value in metadata.thresholds.items()),
        "Metres per pixel": resolution,
        "Sides": f"multiples of {metadata.receptive_field.stride} pixels",
        **{key: str(value) for key, value in metadata.about.get("provenance", {}).items()},
    }
    lines = [f"- {key}: {' '.join(value.split())}" for key, value in facts.items() if value]
    return f"""---
library_name: segmentation-models-pytorch
pipeline_tag: image-segmentation
tags:
- segmentation-models-pytorch
- semantic-segmentation
- pytorch
---
# {metadata.name}

{metadata.description}

{chr(10).join(lines)}

```python
import segmentation_models_pytorch as smp
import torch

network = smp.from_pretrained("THIS FOLDER").eval()
offset = torch.tensor({list(metadata.scaling.offset)})[:, None, None]
divisor = torch.tensor({list(metadata.scaling.divisor)})[:, None, None]
probabilities = network((pixels - offset) / divisor).{activation}  # of raw pixels (n, band, y, x), float32
```

`swathe import FOLDER -o bundle.zip` makes this bundle again: {SETTINGS} holds what smp does not.
"""
