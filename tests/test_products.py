"""Sentinel-2 and Landsat as they are delivered: which bands, under which names, on which grid, with which meaning."""

import shutil
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import metadata, save
from products import GROUPS, TILE, UTM_33, metadata_xml, mtl, write, write_landsat, write_safe

from models import SwatheError
from models.metadata import Radiometry
from pipeline import open_maps, open_scene, plan, run
from pipeline.cli.app import cli
from pipeline.io.scene import open_source

REFLECTANCE = Radiometry(1e-4, -0.1, "reflectance")
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


@pytest.fixture(scope="module")
def safe(tmp_path_factory):
    return write_safe(tmp_path_factory.mktemp("s2"))


def zipped(folder: Path, path: Path, *, beside: tuple[Path, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for root in (folder, *beside):
            for file in sorted(root.rglob("*")):
                archive.write(file, f"{root.name}/{file.relative_to(root)}")
    return path


def test_a_safe_folder_its_zip_its_metadata_and_parts_of_it(safe, tmp_path):
    root = safe["path"]
    images = next((root / "GRANULE").iterdir()) / "IMG_DATA"
    shutil.copytree(images / "R20m", tmp_path / "only")
    for path in (root, f"{root}/", root / "MTD_MSIL2A.xml", images, zipped(root, tmp_path / "p.zip"), images.parent):
        source = open_source(path)
        assert source.bands == L2A
        assert source.geobox.shape == (60, 60)
        assert set(source.nodata) == {0}
        assert set(source.radiometry) == {REFLECTANCE}
        found = source.read(source.geobox.whole).data
        for band in ("B02", "B08"):
            np.testing.assert_array_equal(found[L2A.index(band)], safe[band])
        np.testing.assert_array_equal(found[L2A.index("B11")], np.kron(safe["B11"], np.ones((2, 2))))
        np.testing.assert_array_equal(found[L2A.index("B01")], np.kron(safe["B01"], np.ones((6, 6))))
    fine = open_source(images / "R10m" / "*.jp2", ["red", "nir"])
    assert set(fine.radiometry) == {REFLECTANCE}
    np.testing.assert_array_equal(fine.read(fine.geobox.whole).data, [safe["B04"], safe["B08"]])
    alone = open_source(tmp_path / "only")
    assert alone.geobox.shape == (30, 30)
    assert set(alone.radiometry) == {None}
    assert any("scale and offset of their numbers are unknown" in note for note in alone.notes)
    assert set(open_source(images / "R20m").radiometry) == {REFLECTANCE}


def test_bands_by_common_name_open_the_grid_that_they_need(safe):
    source = open_source(safe["path"], ["red", "green", "blue"])
    assert source.bands == ("red", "green", "blue")
    assert [Path(path).name for path in source.paths] == [f"{TILE}_{b}_10m.jp2" for b in ("B04", "B03", "B02")]
    coarse = open_source(safe["path"], ["swir16", "nir08", "SCL", "MSK_CLDPRB"])
    assert coarse.geobox.shape == (30, 30)
    np.testing.assert_array_equal(coarse.read(coarse.geobox.whole).data[2:], [safe["SCL"], safe["MSK_CLDPRB"]])
    smooth = open_source(safe["path"], ["red", "SCL"], "bilinear")
    np.testing.assert_array_equal(smooth.read(smooth.geobox.whole).data[1], np.kron(safe["SCL"], np.ones((2, 2))))
    assert open_source(safe["path"], [2]).bands == ("B02",)
    with pytest.raises(SwatheError, match="no band 'B10'; it has"):
        open_source(safe["path"], ["B10"])


def test_names_that_say_the_band_alone_as_on_aws(safe, tmp_path):
    for file in safe["path"].rglob("*.jp2"):
        if file.parent.name.startswith("R"):
            folder = tmp_path / "33/U/UP/2023/1/15/0" / file.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder / f"{file.name.split('_')[2]}.jp2")
    source = open_source(tmp_path / "33/U/UP")
    assert (source.bands, source.geobox.shape) == (L2A, (60, 60))
    found = open_scene(tmp_path / "33/U/UP", ["red", "B11"])
    np.testing.assert_array_equal(found, [safe["B04"], np.kron(safe["B11"], np.ones((2, 2)))])
    shutil.copytree(tmp_path / "33/U/UP/2023/1/15/0", tmp_path / "33/U/UP/2023/1/18/0")
    with pytest.raises(SwatheError, match="holds 2 scenes: 2023/1/15/0, 2023/1/18/0"):
        open_scene(tmp_path / "33/U/UP")


@pytest.mark.parametrize(("xml", "meaning"), [
    ({}, REFLECTANCE),
    ({"offset": None}, Radiometry(1e-4, 0.0, "reflectance")),  # before baseline 04.00
])  # fmt: skip
def test_level_1c_and_products_of_before_2022(tmp_path, xml, meaning):
    bands = write_safe(tmp_path, "L1C", **xml)
    source = open_source(bands["path"])
    assert source.bands == (*L2A[:10], "B10", "B11", "B12")
    assert set(source.radiometry) == {meaning}
    np.testing.assert_array_equal(open_scene(bands["path"], ["cirrus"])[0], bands["B10"])


def test_a_network_gets_its_bands_and_the_map_is_that_of_the_stacked_bands(safe, tmp_path):
    bundle = save(tmp_path / "bundle", metadata(bands=3, resolution=(10.0, 10.0)))
    planned = plan(safe["path"], bundle)
    assert planned.source.bands == ("red", "green", "blue")
    run(safe["path"], bundle, tmp_path / "safe.zarr", show=False)
    run(zipped(safe["path"], tmp_path / "p.zip"), bundle, tmp_path / "zip.zarr", show=False)
    maps = [open_maps(tmp_path / f"{name}.zarr") for name in ("safe", "zip")]
    np.testing.assert_array_equal(maps[0].class_map, maps[1].class_map)
    assert maps[0].rio.crs.to_epsg() == 32633
    told = CliRunner().invoke(cli, ["info", str(safe["path"])])
    assert "12: B01, B02" in told.output
    assert "resampled to the grid of 10 m, nearest: B01 (60 m)" in told.output


def test_products_of_before_and_since_2022_give_the_same_map(tmp_path):
    """Since baseline 04.00 all numbers are larger by 1000, and the metadata say so."""
    described = metadata(bands=3, resolution=(10.0, 10.0))
    known = tuple(replace(band, radiometry=Radiometry(1e-4, 0.0, "reflectance")) for band in described.bands)
    bundle = save(tmp_path / "bundle", replace(described, bands=known))
    before = write_safe(tmp_path / "a", ending="tif", offset=None, least=1)["path"]
    since = write_safe(tmp_path / "b", ending="tif", offset=-1000, least=1, more=1000)["path"]
    for name, path in (("a", before), ("b", since)):
        run(path, bundle, tmp_path / f"{name}.zarr", show=False)
    np.testing.assert_array_equal(*(open_maps(tmp_path / f"{name}.zarr").class_map for name in "ab"))


# --- Landsat ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["txt", "json", "xml"])
def test_landsat_level_2_with_any_form_of_its_metadata(tmp_path, form):
    scene = write_landsat(tmp_path / "l", form=form)
    mtl_path = next((tmp_path / "l").glob("*_MTL.*"))
    with tarfile.open(tmp_path / "l.tar", "w") as archive:
        for file in sorted((tmp_path / "l").iterdir()):
            archive.add(file, file.name)
    for path in (scene["path"], mtl_path, tmp_path / "l.tar", zipped(scene["path"], tmp_path / "l.zip")):
        source = open_source(path)
        assert source.bands == ("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7", "ST_B10")
        assert set(source.radiometry[:7]) == {Radiometry(2.75e-05, -0.2, "reflectance")}
        assert source.radiometry[7] == Radiometry(0.00341802, 149.0, "K")
        assert set(source.nodata) == {0}
        picked = open_source(path, ["red", "nir", "qa_pixel"])
        expected = [scene[band] for band in ("SR_B4", "SR_B5", "QA_PIXEL")]
        np.testing.assert_array_equal(picked.read(picked.geobox.whole).data, expected)
    told = open_source(sorted(scene["path"].glob("*_SR_B[234].TIF")))
    assert told.bands == ("SR_B2", "SR_B3", "SR_B4")
    assert set(told.radiometry) == {Radiometry(2.75e-05, -0.2, "reflectance")}


def test_landsat_level_1_with_its_panchromatic_band(tmp_path):
    bands = tuple(f"B{n}" for n in range(1, 12))
    scene = write_landsat(tmp_path, "LC09_L1TP_197022_20230101_20230101_02_T1", bands=bands)
    assert open_source(tmp_path).geobox.shape == (119, 119)
    source = open_source(tmp_path, ["red", "pan", "lwir11"])
    assert source.geobox.shape == (119, 119)
    assert source.radiometry == (Radiometry(2e-05, -0.1, "reflectance"), Radiometry(2e-05, -0.1, "reflectance"),
                                 Radiometry(3.342e-04, 0.1, "radiance"))  # fmt: skip
    found = source.read(source.geobox.whole).data
    np.testing.assert_array_equal(found[1], scene["B8"])
    places = (np.arange(119) + 1) // 2  # pan pixels lie half on each of two
    np.testing.assert_array_equal(found[0], scene["B4"][np.ix_(places, places)])
    assert open_source(tmp_path, ["red", "nir"]).geobox.shape == (60, 60)


@pytest.mark.parametrize(("scene", "band", "name"), [
    ("LT05_L2SP_197022_19950101_20200823_02_T1", "SR_B4", "nir"),
    ("LE07_L2SP_197022_20020101_20200823_02_T1", "SR_B3", "red"),
    ("LE07_L1TP_197022_20020101_20200823_02_T1", "B6_VCID_1", "lwir"),
    ("LC08_L2SP_197022_20200101_20200823_02_T1", "SR_B5", "nir"),
    ("LM02_L1TP_197022_19780101_20200823_02_T2", "B5", "red"),
    ("LC81970222013109LGN00", "B4", "red"),
])  # fmt: skip
def test_names_are_those_of_the_mission(tmp_path, scene, band, name):
    values = write_landsat(tmp_path, scene, bands=(band,))
    np.testing.assert_array_equal(open_scene(tmp_path, [name])[0], values[band])


# --- what is refused --------------------------------------------------------------------------------------------------

BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><x>&b;</x>'


def damaged(kind: str, folder: Path) -> Path:
    """Make a product with something wrong."""
    if kind.startswith("landsat"):
        write_landsat(folder)
        file = next(folder.glob("*_MTL.txt"))
        huge = {"REFLECTANCE_MULT_BAND_1": "1e300", "REFLECTANCE_ADD_BAND_1": "0"}
        groups = {**GROUPS, "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": huge}
        file.write_text({"landsat huge": mtl("txt", groups), "landsat cut": mtl("txt")[:60]}[kind])
        return folder
    root = write_safe(folder, ending="tif")["path"]
    xml = root / "MTD_MSIL2A.xml"
    if kind == "two products":
        other = write_safe(folder / "b", tile="T33UUQ_20230115T100319", ending="tif")["path"]
        return zipped(root, folder / "two.zip", beside=(other,))
    if kind == "no images":
        shutil.rmtree(root / "GRANULE")
    if kind == "cut zip":
        whole = zipped(root, folder / "p.zip").read_bytes()
        (folder / "p.zip").write_bytes(whole[: len(whole) // 2])
        return folder / "p.zip"
    zero, words = (metadata_xml("L2A", quantification=text) for text in ("0", "ten"))
    texts = {"cut xml": metadata_xml("L2A")[:400], "bomb": BOMB, "zero": zero, "other xml": "<a/>", "words": words}
    text = {**texts, "binary": "\x00\x01"}.get(kind)
    if text:
        xml.write_text(text)
    return root


@pytest.mark.parametrize(("kind", "words"), [
    ("two products", "holds 2 scenes"), ("no images", "without its images"),
    ("cut zip", "cannot be read as an archive"),
    ("cut xml", "is damaged XML"), ("bomb", "declares a document type"), ("zero", "QUANTIFICATION_VALUE = 0"),
    ("other xml", "has no QUANTIFICATION_VALUE"), ("words", "QUANTIFICATION_VALUE = ten"), ("binary", "is damaged XML"),
    ("landsat huge", "REFLECTANCE_MULT_BAND_1 = 1e300"), ("landsat cut", "none of the groups of an MTL"),
])  # fmt: skip
def test_products_that_are_refused_in_words(tmp_path, kind, words):
    path = damaged(kind, tmp_path)
    with pytest.raises(SwatheError, match=words) as error:
        open_scene(path)
    assert len(str(error.value).splitlines()) <= 2
    told = CliRunner().invoke(cli, ["info", str(path)])
    assert isinstance(told.exception, SwatheError)


def test_a_product_is_a_scene_by_itself(safe, tmp_path):
    archive = zipped(safe["path"], tmp_path / "p.zip")
    for several in ([archive, archive], [safe["path"] / "MTD_MSIL2A.xml", archive], [safe["path"], archive]):
        with pytest.raises(SwatheError, match="a scene is one"):
            open_scene(several)
    with pytest.raises(SwatheError, match="no such file"):
        open_scene(tmp_path / "none.zip")


def test_names_in_an_archive_do_not_lead_out_of_it(tmp_path):
    outside = write(tmp_path / f"{TILE}_B04.tif", 10)
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / f"{TILE}_B04.tif", f"x/../../{TILE}_B04.tif")
    with pytest.raises(SwatheError, match="is empty"):
        open_scene(tmp_path / "p.zip")
    assert outside.size


def test_compressed_tars_and_archives_on_servers_are_refused(tmp_path):
    write_landsat(tmp_path / "l")
    with tarfile.open(tmp_path / "l.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "l", "l")
    with pytest.raises(SwatheError, match="unpack it"):
        open_scene(tmp_path / "l.tar.gz")
    with pytest.raises(SwatheError, match="download it"):
        open_scene("https://example.org/S2A.SAFE.zip")
    with pytest.raises(SwatheError, match="web servers list nothing"):
        open_scene("https://example.org/S2A.SAFE/")


def test_the_identity_is_that_of_files_and_meaning_not_of_where_they_lie(safe, tmp_path, monkeypatch):
    shutil.copytree(safe["path"], tmp_path / safe["path"].name)
    monkeypatch.chdir(tmp_path)
    here, there = open_source(safe["path"].name, ["red"]), open_source(safe["path"], ["B04"])
    assert here.identity() == there.identity()
    assert UTM_33.split(":")[1] in there.identity()["grid"]
    assert open_source(safe["path"], ["B03"]).identity() != there.identity()
