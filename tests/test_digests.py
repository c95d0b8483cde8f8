"""The digest beside a file is always of the file that is there, or is absent, wherever replacing it fails."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import metadata, network
from stores import town, write_store

from models import save_bundle
from models.errors import BundleError, StoreError
from models.files import read_digests, sha256_of
from pipeline import verify, write_cog, write_statistics, write_vectors

REAL = os.replace


def make_cog(folder: Path, number: int) -> None:
    write_cog(folder / f"{number}.zarr", folder / "out.tif", overwrite=True)


def make_bundle(folder: Path, number: int, name: str = "out") -> None:
    save_bundle(folder / name, network("simple-unet", 3, 2, number), metadata("simple-unet"), overwrite=True)


def make_zip(folder: Path, number: int) -> None:
    make_bundle(folder, number, "out.zip")


def right(side: Path) -> bool:
    """Whether what a side file says holds for all files that it names."""
    return all(sha256_of(side.parent / name) == digest for name, digest in read_digests(side.read_bytes()).items())


def failing(patch: pytest.MonkeyPatch, number: int) -> list[str]:
    """Let the nth replacing of a file in sight fail; returns their names."""
    named: list[str] = []

    def replace(part: object, target: object) -> None:
        named.append(Path(os.fspath(target)).name)  # type: ignore[call-overload]
        if len(named) == number:
            raise OSError(28, "No space left on device")
        REAL(part, target)  # type: ignore[arg-type]

    patch.setattr(os, "replace", replace)
    return named


def makes(make: Callable[[Path, int], None], folder: Path) -> str:
    """Make the second file in place of the first; return the error, if there is one."""
    try:
        make(folder, 2)
    except (StoreError, BundleError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("make", "name"), [(make_cog, "out.tif"), (make_bundle, "out"), (make_zip, "out.zip")])
def test_a_digest_is_of_the_file_that_is_there_or_absent(
    make: Callable[[Path, int], None], name: str, tmp_path: Path
) -> None:
    for number in (1, 2):
        write_store(tmp_path / f"{number}.zarr", town(200, 200)[:: 3 - 2 * number].copy())
    make(tmp_path, 1)
    side, kept = tmp_path / f"{name}.sha256", 0
    before = side.read_bytes()
    for at in range(1, 20):
        with pytest.MonkeyPatch.context() as patch:
            named = failing(patch, at)
            failed = makes(make, tmp_path)
        if not failed:
            assert len(named) < at
            break
        assert "No space left" in failed
        assert not side.exists() or right(side), (at, named)
        if side.exists() and side.read_bytes() == before:
            kept += 1
        make(tmp_path, 1)
        before = side.read_bytes()
    assert kept  # where the file itself could not be replaced
    assert side.read_bytes() != before
    assert right(side)
    assert verify(tmp_path / name, show=False).whole


@pytest.mark.parametrize(
    ("write", "name"), [(write_vectors, "o.parquet"), (write_vectors, "o.gpkg"), (write_statistics, "s.csv")]
)
def test_a_digest_that_a_kill_has_left_out_is_written_by_the_next(
    write: Callable[..., object], name: str, tmp_path: Path
) -> None:
    write_store(tmp_path / "s.zarr", town(200, 200))
    write(tmp_path / "s.zarr", tmp_path / name)
    before = {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}*")}
    side = tmp_path / f"{name}.sha256"
    assert right(side)
    side.unlink()
    write(tmp_path / "s.zarr", tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.glob(f"{name}*")} == before
