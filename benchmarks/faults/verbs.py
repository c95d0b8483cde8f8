"""The verbs that write, as commands on one small case, and what each has written compared with an undisturbed run."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from models.hardware import cpu_gains

from ..networks import make_bundle
from ..scenes import write_scene
from .content import difference
from .trial import Done, swathe

SIZE, BLOCK = 320, 64


@dataclass(frozen=True)
class Verb:
    """A verb: its name, what is made by the line, and the words of the line after the verb.

    In the words, `{in}` is the folder of the inputs and `{out}` that of the output.
    """

    name: str
    output: str
    words: tuple[str, ...]

    def run(self, inputs: Path, out: Path, **more: float) -> Done:
        """Run the command; a second time it continues. `seconds`: after which it is killed."""
        words = [word.format(**{"in": inputs, "out": out}) for word in self.words]
        return swathe(self.name, *words, **more)  # type: ignore[arg-type]


TRAINING = """
name = "roofs"
bands = ["red", "green", "blue"]
classes = [{name = "ground", color = "000000"}, {name = "roof", color = "FF0000"}]
[[data]]
root = "samples"
train = ["a"]
validate = ["v"]
[network]
architecture = "unet"
options = { widths = [4, 6] }
[chips]
size = 32
batch = 4
[loop]
steps = 40
check_every = 5
threads = 1
"""
OWN = """
name = "own"
architecture = "simple-unet"
options = { widths = [4, 8, 8] }
bands = ["red", "green", "blue", "nir"]
dtype = "uint16"
scaling = { divisor = 10000 }
classes = [{name = "ground", color = "000000"}, {name = "roof", color = "FF0000"}]
"""
CUT = ("--block", str(BLOCK), "--engine", "torch", "--threads", "1", "-q")
VERBS = (
    Verb("segment", "maps.zarr", ("{in}/scene.tif", "-m", "{in}/simple-unet", "-o", "{out}/maps.zarr", *CUT)),
    Verb("segment", "maps.tif", ("{in}/scene.tif", "-m", "{in}/simple-unet", "-o", "{out}/maps.tif", *CUT)),
    Verb("clean", "clean.zarr", ("{in}/maps.zarr", "-o", "{out}/clean.zarr", "--min-object", "30", "-q")),
    Verb("objects", "objects.zarr", ("{in}/clean.zarr", "-o", "{out}/objects.zarr", "-q")),
    Verb("vectorise", "v.parquet", ("{in}/objects.zarr", "-o", "{out}/v.parquet", "-q")),
    Verb("vectorise", "v.gpkg", ("{in}/objects.zarr", "-o", "{out}/v.gpkg", "-q")),
    Verb("vectorise", "v/", ("{in}/objects.zarr", "-o", "{out}/v/", "-q")),
    Verb("stats", "s.csv", ("{in}/objects.zarr", "-o", "{out}/s.csv", "-q")),
    Verb("stats", "s.parquet/", ("{in}/objects.zarr", "-o", "{out}/s.parquet/", "--cell", "64 px", "-q")),
    Verb("publish", "published", ("{in}/clean.zarr", "-o", "{out}/published", "-q")),
    Verb("export", "e.tif", ("{in}/clean.zarr", "-o", "{out}/e.tif")),
    Verb("index", "index.parquet", ("{in}/scene.tif", "-o", "{out}/index.parquet", "-q")),
    Verb("report", "r.html", ("{in}/objects.zarr", "-o", "{out}/r.html")),
    Verb("train", "roofs", ("{in}/roofs.toml", "-o", "{out}/roofs", "-q")),
    *([Verb("quantise", "int8.zip", ("{in}/simple-unet", "--scenes", "{in}/scene.tif", "-o", "{out}/int8.zip",
                                     "--tolerance", "1"))] if cpu_gains("int8") else []),
    Verb("evaluate", "scores", ("{in}/roofs", "{in}/samples/v_image.tif", "{in}/samples/v_label.tif", "-o",
                                "{out}/scores", "-q")),
    Verb("import", "own", ("{in}/simple-unet/weights.safetensors", "--config", "{in}/own.toml", "-o",
                           "{out}/own", "-q")),
    Verb("export-model", "b.pt2", ("{in}/simple-unet", "-o", "{out}/b.pt2", "-q")),
    Verb("package", "item.json", ("{in}/simple-unet", "-o", "{out}/item.json", "--href", "https://host/b.zip")),
)  # fmt: skip


@dataclass
class Case:
    """A folder of inputs, each made by an undisturbed run when it is first asked for, and how long those took."""

    folder: Path
    seconds: dict[Verb, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        write_scene(self.folder / "scene.tif", SIZE)
        make_bundle(self.folder, widths=(4, 8, 8))
        for number, name in enumerate("av"):
            _write_sample(self.folder / "samples", name, number)
        (self.folder / "roofs.toml").write_text(TRAINING, encoding="utf-8")
        (self.folder / "own.toml").write_text(OWN, encoding="utf-8")

    def make(self, verb: Verb) -> float:
        """Make what a verb reads and its undisturbed output; return the seconds that the verb took."""
        if verb not in self.seconds:
            for other in VERBS:
                if f"{{in}}/{other.output}" in verb.words:
                    self.make(other)
            done = verb.run(self.folder, self.folder)
            if done.code:
                raise RuntimeError(f"{verb.name} ended with {done.code}: {done.said[-300:]}")
            self.seconds[verb] = done.seconds
        return self.seconds[verb]


def _write_sample(folder: Path, name: str, seed: int) -> None:
    """Write bright squares on a noisy ground, and where they are."""
    folder.mkdir(exist_ok=True)
    drawn = np.random.default_rng(seed)
    label = np.kron(drawn.integers(0, 2, (8, 8)), np.ones((12, 12))).astype(np.uint8)
    pixels = (80 + 70 * label + drawn.normal(0, 12, (3, *label.shape))).clip(0, 255).astype(np.uint8)
    for what, values in (("image", pixels), ("label", label[None])):
        with rasterio.open(folder / f"{name}_{what}.tif", "w", driver="GTiff", height=96, width=96, count=len(values),
                           dtype="uint8", crs="EPSG:32736",
                           transform=Affine(1, 0, 500_000 + 1000 * seed, 0, -1, 9_000_000)) as file:  # fmt: skip
            file.write(values)


def other_than(verb: Verb, inputs: Path, out: Path) -> str:
    """Return where the output of a verb is not as that of the undisturbed run; times aside."""
    return difference(inputs / verb.output, out / verb.output)
