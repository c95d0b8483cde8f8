"""Workers that were started in another folder, and clients that wait for themselves: right results, or a word."""

import asyncio
import os
import zipfile
from functools import partial
from pathlib import Path

import geopandas
import numpy as np
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from helpers import UTM, pixels, write_item, write_raster
from shapely.geometry import box
from stores import town, write_store

from models.errors import ClusterError, SceneError
from pipeline import (
    compute_statistics,
    open_maps,
    run,
    segment,
    write_clean,
    write_objects,
    write_report,
    write_statistics,
    write_vectors,
)
from pipeline.io.gdal import absolute_name
from pipeline.io.scene import open_source
from pipeline.store.store import open_store
from train.data.classes import value_table
from train.data.labels import open_labels
from train.data.samples import Sample
from train.evaluation.evaluation import evaluate

RGB = ("red", "green", "blue")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with one scene under many names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    values = pixels((3, 64, 96))
    write_raster(Path("scene.tif"), values)
    Path("bands").mkdir()
    for band, name in zip(values, RGB, strict=True):
        write_raster(Path(f"bands/{name}.tif"), band[None])
    with zipfile.ZipFile("scene.zip", "w") as archive:
        archive.write("scene.tif", "inner/scene.tif")
    Path("scene.vrt").write_text(_vrt())
    write_item(Path("item.json"), {name: {"href": f"./bands/{name}.tif", "type": "image/tiff"} for name in RGB})
    xr.DataArray(values, dims=("band", "y", "x"), name="scene").to_zarr("scene.zarr", consolidated=False)
    xr.Dataset({"grey": (("y", "x"), values[0].astype("int16"))}).to_netcdf("scene.nc", engine="scipy")
    return tmp_path


def _vrt() -> str:
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{n}"><SimpleSource><SourceFilename relativeToVRT="1">scene.tif'
        f"</SourceFilename><SourceBand>{n}</SourceBand></SimpleSource></VRTRasterBand>"
        for n in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="96" rasterYSize="64">{bands}</VRTDataset>'


NAMES = [
    "scene.tif", "./bands/../scene.tif", "~/scene.tif", "scene.vrt", "bands/*.tif", "item.json", "scene.zarr",
    ["bands/red.tif", "bands/green.tif", "~/bands/blue.tif"], "/vsizip/scene.zip/inner/scene.tif",
    "zip://scene.zip!inner/scene.tif", "vrt://scene.tif?bands=3,2,1", "NETCDF:scene.nc:grey", 'NETCDF:"scene.nc":grey',
    Path("scene.tif"), "file://{}/scene.tif", "/vsizip/{{scene.zip}}/inner/scene.tif",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_scene_opened_here_is_the_same_from_any_folder(folder, monkeypatch, name):
    source = open_source(name.format(folder) if isinstance(name, str) else name)
    here = source.read(source.geobox.whole).data
    assert all(str(folder) in path for path in source.paths)
    monkeypatch.chdir("/")
    for path in source.paths:
        source = open_source(path) if len(source.paths) == 1 else source
    np.testing.assert_array_equal(source.read(source.geobox.whole).data, here)


def test_names_that_are_no_local_files_stay(folder):
    for name in (
        "https://host/scene.tif", "s3://bucket/scene.tif", "/vsicurl/https://host/scene.tif", "/vsimem/scene.tif",
        "/vsizip//vsicurl/https://host/scene.zip/scene.tif", "nothing.tif", "NETCDF:nothing.nc:grey",
    ):  # fmt: skip
        assert absolute_name(name) == name
    assert absolute_name(f"/vsizip/{folder}/scene.zip/a.tif") == f"/vsizip/{folder}/scene.zip/a.tif"


def test_where_the_scene_lay_is_found_from_any_folder(folder, monkeypatch, bundle_of):
    run("scene.tif", bundle_of(), "maps.zarr", show=False)
    assert open_store("maps.zarr")[1].source["path"] == [str(folder / "scene.tif")]
    (folder / "pages").mkdir()
    monkeypatch.chdir(folder / "pages")
    page = write_report("../maps.zarr", "~/report.html")
    assert page == folder / "report.html"
    assert "no longer where" not in page.read_text()


def _labelled(label: str, bundle_classes) -> Sample:
    source = open_source("scene.tif")
    labels = open_labels(label, source.geobox, value_table(bundle_classes))
    return Sample("scene", source, labels, (source.geobox.whole,))


@pytest.mark.slow
def test_every_verb_with_workers_in_another_folder(folder, monkeypatch, bundle_of):
    bundle = bundle_of()
    write_raster(Path("label.tif"), (pixels((1, 64, 96)) > 3000).astype("uint8"))
    left, top = (lambda t: (t.c, t.f))(open_source("scene.tif").geobox.affine)
    zones = geopandas.GeoDataFrame({"n": [1]}, geometry=[box(left, top - 400, left + 400, top)], crs=UTM)
    zones.to_file("zones.gpkg")
    monkeypatch.chdir("/")
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        monkeypatch.chdir(folder)
        assert client.submit(os.getcwd).result() == "/"
        more = {"client": client, "show": False}
        for number, name in enumerate(("scene.tif", "scene.vrt", "bands/*.tif", "scene.zarr", "item.json")):
            run(name, bundle, f"maps{number}.zarr", **more)
        run("scene.tif", bundle, "map.tif", **more)
        right = segment("scene.tif", bundle).class_map.values
        for number in range(5):
            np.testing.assert_array_equal(open_maps(f"maps{number}.zarr").class_map.values, right)
        write_clean("maps0.zarr", "clean.zarr", min_object="3", **more)
        write_objects("clean.zarr", "objects.zarr", **more)
        write_vectors("objects.zarr", "objects.gpkg", **more)
        write_vectors("clean.zarr", "again.parquet", **more)
        frame = write_statistics("objects.zarr", "stats.csv", zones="zones.gpkg", **more)
        assert frame.area_m2[0] == pytest.approx(400**2, rel=0.01)
        write_report("clean.zarr", "report.html", client=client, scene="scene.tif", objects="objects.zarr")
        here = compute_statistics("maps0.zarr", show=False)
        assert compute_statistics("maps0.zarr", **more).area_m2[0] == here.area_m2[0]
        for label in ("label.tif", "zones.gpkg"):
            samples = [_labelled(label, bundle.metadata.classes)]
            there, here = evaluate(bundle, samples, f"scores-{label}", **more), evaluate(bundle, samples, show=False)
            assert there.network.pooled.as_dict() == here.network.pooled.as_dict()


@pytest.mark.slow
def test_an_error_says_on_which_worker_it_was(folder, bundle_of):
    bundle = bundle_of()
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        source = open_source("scene.tif")
        address = next(iter(client.scheduler_info()["workers"]))
        maps = segment("scene.tif", bundle)
        Path("scene.tif").rename("moved.tif")
        with pytest.raises(SceneError, match=rf"{source.paths[0]}.*cannot be read.*\n.*on the Dask worker {address}"):
            maps.class_map.compute()


# clients


def _refused(call) -> str:
    with pytest.raises(ClusterError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _calls(folder: Path, bundle, client) -> dict[str, partial]:
    maps = write_store(folder / "town.zarr", town())
    more = {"client": client, "show": False}
    return {
        "run": partial(run, "scene.tif", bundle, "maps.zarr", **more),
        "clean": partial(write_clean, maps, "clean.zarr", min_object="3", **more),
        "objects": partial(write_objects, maps, "objects.zarr", **more),
        "vectorise": partial(write_vectors, maps, "objects.gpkg", **more),
        "statistics": partial(compute_statistics, maps, **more),
        "write_statistics": partial(write_statistics, maps, "stats.csv", **more),
        "report": partial(write_report, maps, "report.html", client=client),
        "evaluate": partial(evaluate, bundle, [], "scores", **more),
    }


@pytest.mark.slow
def test_an_asynchronous_client_is_refused_in_its_loop_and_served_beside_it(folder, bundle_of):
    async def work():
        async with Client(processes=False, asynchronous=True, dashboard_address="127.0.0.1:0") as client:
            calls = _calls(folder, bundle_of(), client)
            before = sorted(folder.iterdir())
            for call in calls.values():
                assert "asyncio.to_thread" in _refused(call)
            assert sorted(folder.iterdir()) == before
            for name in ("run", "clean", "objects", "vectorise", "write_statistics", "report"):
                await asyncio.wait_for(asyncio.to_thread(calls[name]), 60)

    asyncio.run(work())
    assert open_store("maps.zarr")[1].state == "complete"


def test_what_is_no_client_or_was_closed_is_refused(folder, bundle_of):
    with LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        client = Client(cluster)
        client.close()
        for call in _calls(folder, bundle_of(), client).values():
            assert "client is closed; give one that is connected" in _refused(call)
        assert "received LocalCluster: give Client(it)" in _refused(
            partial(run, "a.tif", bundle_of(), "b", client=cluster)
        )
    assert "received int" in _refused(partial(compute_statistics, folder, client=8786))
