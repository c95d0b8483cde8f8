"""Small inputs of each kind that Swathe reads, and mutations of their bytes that a seed alone decides."""

import json
import random
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pystac
import rasterio
import shapely
import xarray as xr
from affine import Affine

from pipeline import build_index

from ..networks import make_bundle

TRANSFORM = Affine(10, 0, 500_000, 0, -10, 9_000_000)
FORMS = {
    "plain.tif": {"driver": "GTiff"},
    "strips.tif": {"driver": "GTiff", "compress": "deflate", "nodata": 7, "blockysize": 16},
    "tiles.tif": {"driver": "GTiff", "compress": "lzw", "predictor": 2, "tiled": True, "blockxsize": 64,
                  "blockysize": 64, "interleave": "pixel"},
    "big.tif": {"driver": "GTiff", "compress": "zstd", "bigtiff": "YES", "tiled": True, "blockxsize": 64,
                "blockysize": 64},
    "floats.tif": {"driver": "GTiff", "compress": "deflate", "predictor": 3, "dtype": "float32", "nodata": -9999.0},
    "jpeg.tif": {"driver": "GTiff", "compress": "jpeg", "dtype": "uint8", "photometric": "ycbcr",
                 "interleave": "pixel"},
    "alpha.tif": {"driver": "GTiff", "count": 4, "dtype": "uint8", "alpha": "YES", "photometric": "RGB"},
    "cog.tif": {"driver": "COG", "compress": "deflate", "blocksize": 64},
    "scene.jp2": {"driver": "JP2OpenJPEG", "dtype": "uint8"},
    "scene.png": {"driver": "PNG", "dtype": "uint8"},
    "scene.jpg": {"driver": "JPEG", "dtype": "uint8"},
}  # fmt: skip
PROFILE = {"width": 130, "height": 90, "count": 3, "dtype": "uint16", "crs": "EPSG:32736", "transform": TRANSFORM}
RASTERS = tuple(FORMS)
FOLDERS = ("three.zarr", "two.zarr", "bundle")
OTHERS = ("scene.nc", "bundle.zip", "area.gpkg", "area.geojson", "area.parquet", "scenes.parquet", "item.json",
          "train.toml", "prices.toml", "import.json", "parts.vrt")  # fmt: skip
KINDS = (*RASTERS, *FOLDERS, *OTHERS)
EXTREMES = (0, 1, 2**7 - 1, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**60, 2**63 - 1, 2**64 - 1)
WORDS = (b"0", b"-1", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"9" * 400, b"[" * 2000,
         b'{"a":' * 2000, b'"\\u0000\\u001b[2J"', b'"' + b"x" * 9000 + b'"', b"18446744073709551616", b"1.5",
         b'"../../etc/passwd"')  # fmt: skip
TOKEN = re.compile(rb'-?\d[\d.eE+-]*|"(?:[^"\\]|\\.)*"|\w+')
TEXTS = (".json", ".toml", ".geojson", ".vrt", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def make_inputs(folder: Path) -> None:
    """Write one input of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    random_ = np.random.default_rng(0)
    for name, form in FORMS.items():
        profile = {**PROFILE, **form}
        values = random_.integers(0, 250, (profile["count"], 90, 130)).astype(profile["dtype"])
        with rasterio.open(folder / name, "w", **profile) as file:
            file.write(values)
    bands = {name: (("y", "x"), random_.random((40, 50)).astype("f4")) for name in ("red", "green", "blue")}
    scene = xr.Dataset(bands, {"y": np.arange(40.0)[::-1] * 10, "x": np.arange(50.0) * 10})
    scene.to_netcdf(folder / "scene.nc", engine="scipy")
    for name, version in (("three.zarr", 3), ("two.zarr", 2)):
        scene.chunk({"y": 20, "x": 25}).to_zarr(folder / name, zarr_format=version, consolidated=version == 2)
    _write_texts(folder)
    bundle = make_bundle(folder, widths=(4, 4, 4))
    bundle.path.rename(folder / "bundle")
    with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
        for path in (folder / "bundle").iterdir():
            archive.write(path, path.name)


def _write_texts(folder: Path) -> None:
    area = gpd.GeoDataFrame({"name": ["a", "b"]}, geometry=[shapely.box(500_100, 8_999_200, 500_900, 8_999_900)] * 2,
                            crs="EPSG:32736")  # fmt: skip
    for name in ("area.gpkg", "area.geojson"):
        area.to_file(folder / name)
    area.to_parquet(folder / "area.parquet")
    build_index([str(folder / "tiles.tif"), str(folder / "strips.tif")], folder / "scenes.parquet", show=False)
    item = pystac.Item("scene", None, None, None, {"start_datetime": "2020-01-01T00:00:00Z",
                                                   "end_datetime": "2020-01-02T00:00:00Z"})  # fmt: skip
    item.add_asset("data", pystac.Asset("tiles.tif", media_type=pystac.MediaType.COG, roles=["data"]))
    (folder / "item.json").write_text(json.dumps(item.to_dict(include_self_link=False)))
    root = Path(__file__).parents[2]
    (folder / "train.toml").write_text((root / "train/configs/buildings.toml").read_text())
    (folder / "prices.toml").write_text('currency = "EUR"\ncpu_hour = 0.04\ngb_month = 0.02\n')
    settings = {"name": "a", "architecture": "unet", "bands": ["red"], "classes": ["a", "b"]}
    (folder / "import.json").write_text(json.dumps(settings))
    with rasterio.open(folder / "tiles.tif") as file:
        from rasterio.shutil import copy

        copy(file, folder / "parts.vrt", driver="VRT")


def mutated(content: bytes, name: str, rng: random.Random) -> tuple[str, bytes]:
    """Return what was done to the bytes of a file, and the bytes."""
    changes = [_flip, _cut, _splice, _extreme]
    if name.endswith(TEXTS):
        changes += [_word, _word, _word]
    done = rng.choice(changes)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        content = done(content, rng) if content else content
    return done.__name__.strip("_"), content


def _place(content: bytes, rng: random.Random) -> int:
    """Return a place in a file, half of the time near its beginning or end, where its structure is told."""
    near = min(len(content), 600)
    choices: list[Callable[[], int]] = [
        lambda: rng.randrange(len(content)),
        lambda: rng.randrange(len(content)),
        lambda: rng.randrange(near),
        lambda: len(content) - 1 - rng.randrange(near),
    ]
    return rng.choice(choices)()


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed, place = bytearray(content), _place(content, rng)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _splice(content: bytes, rng: random.Random) -> bytes:
    """Put a piece of the file, or of noise, at another place, over what is there or between."""
    size = rng.choice((1, 4, 16, 100, 1000))
    start, place = _place(content, rng), _place(content, rng)
    piece = rng.choice((content[start : start + size], rng.randbytes(size), bytes(size)))
    return content[:place] + piece + content[place + rng.choice((0, len(piece))) :]


def _extreme(content: bytes, rng: random.Random) -> bytes:
    """Set a whole number, of any width and order of bytes, to one of those that are often not thought of."""
    width, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    value = rng.choice(EXTREMES) % 2 ** (8 * width)
    place = _place(content, rng) // 2 * 2
    return content[:place] + value.to_bytes(width, order) + content[place + width :]  # type: ignore[arg-type]


def _word(content: bytes, rng: random.Random) -> bytes:
    """Put another value in the place of one of a text."""
    found = list(TOKEN.finditer(content))
    if not found:
        return content
    one = rng.choice(found)
    return content[: one.start()] + rng.choice(WORDS) + content[one.end() :]


def write_mutated(inputs: Path, kind: str, number: int, seed: int, folder: Path) -> tuple[Path, str]:
    """Write the mutation of a kind that a number and a seed decide; returns its path and what was done."""
    rng = random.Random(f"{seed} {kind} {number}")
    source, target = inputs / kind, folder / f"{number}-{kind}"
    if source.is_file():
        done, content = mutated(source.read_bytes(), kind, rng)
        target.write_bytes(content)
        return target, done
    files = sorted(_files(source))
    chosen = rng.choice(files)
    for path in files:
        (place := target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    done, content = mutated(chosen.read_bytes(), chosen.name, rng)
    (target / chosen.relative_to(source)).write_bytes(content)
    return target, f"{done} of {chosen.relative_to(source)}"


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
