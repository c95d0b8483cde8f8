"""Scenes, stores and bundles over the network, against real servers on this machine: HTTP with ranges, and S3."""

import contextlib
import io
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
import xarray as xr
from affine import Affine
from distributed import Client
from helpers import GRID, metadata, pixels, save, write_item, write_raster
from moto.server import ThreadedMotoServer
from products import write_safe
from stores import town, write_store

from models import Bundle, SwatheError, fetching, load_bundle
from models.errors import BundleError, StoreError
from models.metadata import Radiometry
from pipeline import allowing, open_scene, plan, publish, run, verify, write_cog, write_report
from pipeline.io.content_id import folder_identity, url_identity
from pipeline.io.raster import raster_identity
from pipeline.io.scene import open_source
from pipeline.store.check import Problem

LONGEST = 30  # seconds until a server that does not answer is given up

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning:zarr"),
    pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning"),  # in moto and botocore
    pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not:zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # sockets of moto's server
]


class Files(BaseHTTPRequestHandler):
    """A web server over a folder, with byte ranges; `/status/N/...` answers N, `/whole/...` knows no ranges."""

    folder: Path
    log: list[tuple[str, str, str]]
    cut = 0  # bytes that are promised and do not come

    def do_HEAD(self) -> None:
        self.answer(b"HEAD")

    def do_GET(self) -> None:
        self.answer(b"GET")

    def answer(self, method: bytes) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        self.log.append((method.decode(), self.path, self.headers.get("Range", "")))
        if parts[0] == "status":
            return self.send(int(parts[1]), b"", {}, method)
        path = self.folder.joinpath(*(parts[1:] if parts[0] == "whole" else parts))
        if not path.is_file():
            return self.send(404, b"", {}, method)
        content = path.read_bytes()
        asked = self.headers.get("Range", "")
        headers = {"ETag": f'"{hash(content):x}"'}
        if parts[0] == "whole" or not asked.startswith("bytes="):
            return self.send(
                200, content, headers if parts[0] == "whole" else headers | {"Accept-Ranges": "bytes"}, method
            )
        first, last = asked.removeprefix("bytes=").split("-")
        start, stop = int(first), min(int(last or len(content) - 1) + 1, len(content))
        headers |= {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self.send(206 if start < stop else 416, content[start:stop], headers, method)

    def send(self, status: int, content: bytes, headers: dict[str, str], method: bytes) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if method == b"GET":
            with contextlib.suppress(ConnectionError):  # who asked has seen enough
                self.wfile.write(content[: len(content) - self.cut])
        self.close_connection |= self.cut > 0

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Web:
    """The running server: its address, its folder, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log: list[tuple[str, str, str]] = []
        handler = type("Handler", (Files,), {"folder": folder, "log": self.log})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    made = Web(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the server, with a bucket `scenes`; what a user sets is set: keys and `AWS_ENDPOINT_URL`."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="scenes")
    return client


def put(s3: Any, path: Path, key: str) -> str:
    s3.upload_file(str(path), "scenes", key)
    return f"s3://scenes/{key}"


# --- what works -------------------------------------------------------------------------------------------------------


def test_a_cog_over_http_is_read_in_ranges(tmp_path: Path, web: Web) -> None:
    values = pixels((3, 1500, 1500))
    path = write_raster(tmp_path / "scene.tif", values, tiled=True, blockxsize=256, blockysize=256, nodata=7)
    scene = open_scene(f"{web.url}/scene.tif", chunk=256)
    np.testing.assert_array_equal(scene[:, 300:400, 500:600].values, values[:, 300:400, 500:600])
    assert scene.rio.transform() == open_scene(path).rio.transform()
    assert scene.rio.nodata == 7
    ranges = [asked.removeprefix("bytes=").split("-") for method, _, asked in web.log if method == "GET"]
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < path.stat().st_size / 4
    assert {name for _, name, _ in web.log} == {"/scene.tif"}  # no search for sidecars


def test_files_of_one_band_each_over_http_with_signed_urls(tmp_path: Path, web: Web) -> None:
    for number in (2, 3):
        write_raster(tmp_path / f"x_B{number}.tif", np.full((1, 20, 20), number, np.uint16))
    scene = open_scene([f"{web.url}/x_B{number}.tif?token=abc*[1]" for number in (2, 3)])
    assert scene.band.values.tolist() == ["B2", "B3"]
    assert scene.values[:, 0, 0].tolist() == [2, 3]


def test_stac_items_over_http_and_s3_with_files_beside_them(tmp_path: Path, web: Web, s3: Any) -> None:
    values = pixels((2, 20, 30))
    for name, band in zip(("B03", "B04"), values, strict=True):
        write_raster(tmp_path / f"{name}.tif", band[None])
        put(s3, tmp_path / f"{name}.tif", f"item/{name}.tif")
    bands = {"B03": "green", "B04": "red"}
    assets = {key: {"href": f"./{key}.tif", "roles": ["data"], "bands": [{"eo:common_name": name}]}
              for key, name in bands.items()}  # fmt: skip
    write_item(tmp_path / "item.json", assets, "1.1.0")
    for place in (f"{web.url}/item.json?token=abc", put(s3, tmp_path / "item.json", "item/item.json")):
        scene = open_scene(place, bands=["red", "green"])
        assert scene.band.values.tolist() == ["red", "green"]
        np.testing.assert_array_equal(scene.values, values[::-1])
    with pytest.raises(SwatheError, match=r"none\.json"):
        open_scene(f"{web.url}/none.json")
    for asset in assets.values():
        asset["href"] = f"{web.url}/{asset['href'][2:]}?sig=secret"
    write_item(tmp_path / "items/x", assets, "1.1.0")  # as STAC APIs have them, with signed addresses
    report = run(f"{web.url}/items/x", save(tmp_path / "two", metadata(bands=2, dtype="uint16")), tmp_path / "o.zarr",
                 bands=["red", "green"], show=False, engine="torch")  # fmt: skip
    assert report.blocks == 1
    assert not any(b"secret" in path.read_bytes() for path in (tmp_path / "o.zarr").rglob("*") if path.is_file())


def test_a_vrt_of_remote_files(tmp_path: Path, web: Web) -> None:
    from rasterio.shutil import copy as copy_raster

    values = pixels((1, 20, 30))
    copy_raster(write_raster(tmp_path / "scene.tif", values), tmp_path / "scene.vrt", driver="VRT")
    text = (tmp_path / "scene.vrt").read_text()
    text = text.replace('relativeToVRT="1"', 'relativeToVRT="0"').replace(
        ">scene.tif<", f">/vsicurl/{web.url}/scene.tif<"
    )
    (tmp_path / "scene.vrt").write_text(text)
    with pytest.raises(SwatheError, match=f"--allow {web.url.removeprefix('http://')} "):
        open_scene(tmp_path / "scene.vrt")
    assert not web.log
    with allowing(web.url):
        np.testing.assert_array_equal(open_scene(tmp_path / "scene.vrt").values, values)
    assert any(name == "/scene.tif" for _, name, _ in web.log)


def test_a_zarr_group_over_http(tmp_path: Path, web: Web) -> None:
    values = pixels((2, 40, 50))
    array = xr.DataArray(values, dims=("band", "y", "x"), name="scene").rio.write_crs(32736)
    array.to_dataset().to_zarr(tmp_path / "scene.zarr", consolidated=True)
    scene = open_scene(f"{web.url}/scene.zarr")
    np.testing.assert_array_equal(scene.values, values)
    assert scene.rio.crs == 32736
    assert open_source(f"{web.url}/scene.zarr").identity() == open_source(f"{web.url}/scene.zarr").identity()


def test_scenes_on_s3(tmp_path: Path, s3: Any) -> None:
    values = pixels((2, 300, 200))
    url = put(s3, write_raster(tmp_path / "scene.tif", values, tiled=True), "a/scene.tif")
    np.testing.assert_array_equal(open_scene(url, [2]).values, values[[1]])
    for number in (1, 10, 2):
        put(s3, write_raster(tmp_path / "b.tif", np.full((1, 9, 9), number, np.uint8)), f"bands/x_B{number}.tif")
    scene = open_scene("s3://scenes/bands/*.tif")
    assert scene.band.values.tolist() == ["B1", "B2", "B10"]
    assert scene.values[:, 0, 0].tolist() == [1, 2, 10]


def test_folders_on_s3(tmp_path: Path, s3: Any) -> None:
    safe = write_safe(tmp_path, ending="tif")
    for file in safe["path"].rglob("*"):
        if file.is_file():
            put(s3, file, f"p/{file.relative_to(tmp_path)}")
    values = pixels((3, 20, 40))
    for left in (0, 20):
        place = GRID * Affine.translation(left, 0)
        tile = write_raster(tmp_path / f"{left}.tif", values[..., left : left + 20], transform=place)
        put(s3, tile, f"tiles/{left}.tif")
    fsspec.filesystem("s3").invalidate_cache()
    np.testing.assert_array_equal(open_scene(f"s3://scenes/p/{safe['path'].name}", ["red"])[0], safe["B04"])
    source = open_source(f"s3://scenes/p/{safe['path'].name}/", ["swir16"])
    assert source.radiometry[0] == Radiometry(1e-4, -0.1, "reflectance")
    np.testing.assert_array_equal(open_scene("s3://scenes/tiles/").values, values)
    with pytest.raises(SwatheError, match="no files under"):
        open_scene("s3://scenes/nothing/")


def test_a_zarr_group_on_s3(s3: Any) -> None:
    values = pixels((2, 40, 50))
    array = xr.DataArray(values, dims=("band", "y", "x"), name="scene")
    array.to_dataset().to_zarr("s3://scenes/scene.zarr", consolidated=False)
    source = open_source("s3://scenes/scene.zarr")
    before = source.identity()
    np.testing.assert_array_equal(open_scene("s3://scenes/scene.zarr").values, values)
    (array + 1).to_dataset(name="scene").to_zarr("s3://scenes/scene.zarr", mode="w", consolidated=False)
    fsspec.filesystem("s3").invalidate_cache()
    assert open_source("s3://scenes/scene.zarr").identity() != before


def test_a_remote_file_that_changes_is_noticed_and_secrets_are_not_kept(tmp_path: Path, web: Web, s3: Any) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((1, 20, 20)))
    url = put(s3, path, "changing.tif")
    signed = f"{web.url.replace('//', '//user:pass@')}/scene.tif?signature=secret"
    before = raster_identity(url), raster_identity(signed)
    assert (raster_identity(url), raster_identity(signed.replace("=secret", "=other"))) == before
    assert not any(word in repr(before) for word in ("secret", "pass", "user"))
    write_raster(path, pixels((1, 20, 20), seed=1))
    put(s3, path, "changing.tif")
    fsspec.filesystem("s3").invalidate_cache()
    after = raster_identity(url), raster_identity(signed)
    assert after[0] != before[0]
    assert after[1] != before[1]


def test_a_bundle_over_http(tmp_path: Path, web: Web) -> None:
    save(tmp_path / "tiny.zip", metadata())
    loaded = load_bundle(f"{web.url}/tiny.zip")
    assert loaded.digest == load_bundle(tmp_path / "tiny.zip").digest
    with pytest.raises(SwatheError, match="could not be fetched"):
        load_bundle(f"{web.url}/none.zip")


def test_a_bundle_that_is_cut_changes_or_is_pinned(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(fetching.logger, "warning", lambda text, *given: told.append(text % given))
    monkeypatch.setenv("SWATHE_CACHE", str(tmp_path / "cache"))
    cache, url, file = tmp_path / "cache/swathe/bundles", f"{web.url}/moving.zip", tmp_path / "moving.zip"
    first = save(tmp_path / "first.zip", metadata()).digest
    second = save(tmp_path / "second.zip", metadata(name="another")).digest
    content = (tmp_path / "first.zip").read_bytes()
    file.write_bytes(content[: len(content) // 2])  # whole for all that the server says
    with pytest.raises(BundleError, match=r"moving\.zip came damaged"):
        load_bundle(url)
    assert not list(cache.iterdir())
    file.write_bytes(content)
    with monkeypatch.context() as cut:
        cut.setattr(Files, "cut", 10)
        with pytest.raises(BundleError, match=r"moving\.zip could not be fetched"):
            load_bundle(url)
    assert not list(cache.iterdir())
    assert load_bundle(url).digest == first
    asked = len(web.log)
    assert load_bundle(f"{url}@sha256:{first}").digest == first
    assert len(web.log) == asked
    with pytest.raises(BundleError, match=f"has the digest {first}, and {second} is asked for"):
        load_bundle(f"{url}@sha256:{second}")
    kept = load_bundle(url).path
    kept.write_bytes(content[:-1] + b"?")  # a damaged copy is fetched again
    assert load_bundle(url).digest == first
    shutil.copy(tmp_path / "second.zip", file)
    assert load_bundle(url).digest == second
    assert kept.exists()  # a run may use it still
    assert f"has changed: its digest was {first[:12]}, now {second[:12]}" in told[-1]
    file.unlink()
    assert load_bundle(url).digest == second  # as it was
    assert "does not answer: the copy of before is used" in told[-1]
    with pytest.raises(BundleError, match="is no digest: 64 hexadecimal digits"):
        load_bundle("buildings@sha256:abc")
    shipped = load_bundle("buildings")
    assert load_bundle(f"buildings@sha256:{shipped.digest}").path == shipped.path
    with pytest.raises(BundleError, match=f"has the digest {shipped.digest}"):
        load_bundle(f"buildings@sha256:{first}")


def test_a_run_into_s3_continues_there(
    tmp_path: Path, s3: Any, bundle_of: Callable[..., Bundle], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, output = bundle_of(), "s3://scenes/maps/out.zarr"
    scene = put(s3, write_raster(tmp_path / "scene.tif", pixels((3, 300, 260))), "scene.tif")
    keywords: dict[str, Any] = {"client": client, "show": False, "engine": "torch", "block": 128, "overviews": False}
    keywords["bands"] = [1, 2, 3]
    run(tmp_path / "scene.tif", bundle, tmp_path / "local.zarr", **keywords)

    from pipeline.jobs import job as filling

    done: list[Any] = []
    real = filling._run_block

    def failing(*args: Any) -> Any:
        if len(done) >= 4:
            raise SwatheError("the power is cut")
        done.append(args)
        return real(*args)

    monkeypatch.setattr(filling, "_run_block", failing)
    with pytest.raises(SwatheError, match="power is cut"):
        run(scene, bundle, output, **keywords)
    monkeypatch.setattr(filling, "_run_block", real)
    report = run(scene, bundle, output, **keywords)
    assert report.blocks == 9
    assert 1 <= report.resumed < 9
    with xr.open_zarr(output) as there, xr.open_zarr(tmp_path / "local.zarr") as here:
        np.testing.assert_array_equal(there.class_map.values, here.class_map.values)
        np.testing.assert_array_equal(there.probability.values, here.probability.values)
        assert there.rio.crs == here.rio.crs
    assert run(scene, bundle, output, **keywords).resumed == 9


# --- what does not ----------------------------------------------------------------------------------------------------


def refused(scene: Any, *words: str) -> None:
    started = time.monotonic()
    with pytest.raises(SwatheError) as error:
        open_scene(scene)
    assert time.monotonic() - started < LONGEST
    text = str(error.value)
    assert len(text.splitlines()) <= 2
    for word in words:
        assert word in text, text


@pytest.mark.parametrize("status", [404, 403, 500, pytest.param(503, marks=pytest.mark.slow)])
def test_statuses_of_http(web: Web, status: int) -> None:
    refused(f"{web.url}/status/{status}/scene.tif", f"/status/{status}/scene.tif", str(status))


def test_a_server_without_ranges(tmp_path: Path, web: Web) -> None:
    write_raster(tmp_path / "scene.tif", pixels((3, 2000, 2000)))
    refused(f"{web.url}/whole/scene.tif", "Range", "Download the file")


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    refused(f"http://127.0.0.1:{port}/scene.tif", "connect")
    refused(f"http://127.0.0.1:{port}/scene.zarr", "cannot be opened as Zarr")


def test_a_name_that_is_not_known() -> None:
    refused("https://swathe.invalid/scene.tif", "swathe.invalid")


@pytest.mark.parametrize("name", ["scene.tif", pytest.param("scene.zarr", marks=pytest.mark.slow)])
def test_a_server_that_never_answers(name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(f"http://127.0.0.1:{silent.getsockname()[1]}/{name}", name)


def test_what_is_not_on_s3(tmp_path: Path, s3: Any) -> None:
    refused("s3://nobody/scene.tif", "s3://nobody/scene.tif")
    refused("s3://scenes/none.tif", "s3://scenes/none.tif")
    refused("s3://scenes/none/*.tif", "no file matches")
    refused("s3://nobody/*.tif", "s3://nobody/*.tif")
    refused("s3://scenes/none.zarr", "none.zarr cannot be opened as Zarr")


def test_a_remote_scene_is_planned_without_reading_pixels(
    tmp_path: Path, web: Web, bundle_of: Callable[..., Bundle]
) -> None:
    path = write_raster(tmp_path / "scene.tif", pixels((3, 2000, 2000)), tiled=True)
    plan(f"{web.url}/scene.tif", bundle_of(), bands=[1, 2, 3])
    ranges = [asked.removeprefix("bytes=").split("-") for method, _, asked in web.log if method == "GET"]
    assert sum(int(last) - int(first) + 1 for first, last in ranges) < path.stat().st_size / 50


# --- files that are written there ------------------------------------------------------------------------------------


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    return write_store(tmp_path / "maps.zarr", town(700, 900), block=256)


def keys(s3: Any, prefix: str) -> set[str]:
    """The keys below a prefix, and no upload that was begun and left."""
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="scenes")
    return {entry["Key"] for entry in s3.list_objects_v2(Bucket="scenes", Prefix=prefix).get("Contents", [])}


def body(s3: Any, key: str) -> bytes:
    return bytes(s3.get_object(Bucket="scenes", Key=key)["Body"].read())


def test_a_cog_in_s3_is_the_one_on_a_disk(tmp_path: Path, s3: Any, maps: Path) -> None:
    here, there = write_cog(maps, tmp_path / "map.tif"), write_cog(maps, "s3://scenes/cog/map.tif")
    assert there == "s3://scenes/cog/map.tif"
    assert keys(s3, "cog/") == {"cog/map.tif", "cog/map.tif.aux.xml", "cog/map.tif.sha256"}
    assert body(s3, "cog/map.tif") == Path(here).read_bytes()
    assert body(s3, "cog/map.tif.aux.xml") == Path(f"{here}.aux.xml").read_bytes()
    with pytest.raises(StoreError, match=r"map\.tif exists; choose another output, or pass --overwrite"):
        write_cog(maps, there, opaque_background=True)
    assert write_cog(maps, there) == there  # complete already
    write_cog(maps, there, opaque_background=True, overwrite=True)
    assert body(s3, "cog/map.tif.aux.xml") != Path(f"{here}.aux.xml").read_bytes()


def test_an_upload_that_arrives_otherwise_is_not_left(s3: Any, maps: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filesystem, _ = fsspec.core.url_to_fs("s3://scenes/spoilt/map.tif")
    real = filesystem.put_file

    def spoilt(local: str, url: str, **more: Any) -> None:
        content = Path(local).read_bytes()
        Path(local).write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        real(local, url, **more)
        Path(local).write_bytes(content)

    monkeypatch.setattr(filesystem, "put_file", spoilt)
    with pytest.raises(StoreError, match="does not read back as it was written"):
        write_cog(maps, "s3://scenes/spoilt/map.tif", array="class_map")
    assert keys(s3, "spoilt/") == set()


def test_what_cannot_be_written_there_is_said(maps: Path, s3: Any) -> None:
    with pytest.raises(StoreError, match=r"s3://nobody/map\.tif"):
        write_cog(maps, "s3://nobody/map.tif")
    with pytest.raises(StoreError, match="is a folder"):
        write_cog(maps, "s3://scenes/map/")
    with pytest.raises(StoreError, match="nothing can be written to https"):
        write_report(maps, "https://example.com/page.html")


def test_a_page_in_s3(s3: Any, maps: Path) -> None:
    write_report(maps, "s3://scenes/pages/page.html")
    assert body(s3, "pages/page.html").startswith(b"<!DOCTYPE html>")
    assert write_report(maps, "s3://scenes/pages/page.html") == "s3://scenes/pages/page.html"  # complete already
    with pytest.raises(StoreError, match="exists"):
        write_report(maps, "s3://scenes/pages/page.html", title="Another")


def test_a_run_into_a_geotiff_in_s3(tmp_path: Path, s3: Any, bundle_of: Callable[..., Bundle], client: Client) -> None:
    scene, keywords = write_raster(tmp_path / "scene.tif", pixels((3, 200, 260))), {"client": client, "show": False}
    local, there = tmp_path / "map.tif", "s3://scenes/runs/map.tif"
    run(scene, bundle_of(), local, **keywords)
    assert run(scene, bundle_of(), there, **keywords).resumed == 0
    assert keys(s3, "runs/") == {"runs/map.tif", "runs/map.tif.aux.xml", "runs/map.tif.sha256"}
    assert body(s3, "runs/map.tif") == local.read_bytes()
    again = run(scene, bundle_of(), there, opaque_background=True, **keywords)
    assert again.resumed == again.blocks
    assert b'c4="0"' not in body(s3, "runs/map.tif.aux.xml")


def test_what_is_in_s3_is_verified_and_mended(s3: Any, maps: Path) -> None:
    for path in maps.rglob("*"):
        if path.is_file():
            s3.upload_file(str(path), "scenes", f"whole/m.zarr/{path.relative_to(maps).as_posix()}")
    there = "s3://scenes/whole/m.zarr"
    assert verify(there, show=False).whole
    assert verify(there, quick=True, show=False).whole
    names = [f"whole/m.zarr/{name}" for name in ("zarr.json", "overviews/1/class_map/c/0/0", "manifest.npz")]
    before = [body(s3, name) for name in names]
    for name, content in zip(names, before, strict=True):
        s3.put_object(Bucket="scenes", Key=name, Body=content[:9] + bytes([content[9] ^ 4]) + content[10:])
    assert verify(there, quick=True, show=False).damaged == (Problem("manifest.npz", "damaged"),)
    found = verify(there, repair=True, show=False)
    assert found.whole
    assert len(found.repaired) == 3
    assert [body(s3, name) for name in names] == before


def test_a_publication_in_s3_continues_there(
    tmp_path: Path, s3: Any, maps: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.publishing import publish as publishing

    there, keywords = "s3://scenes/published", {"side": 512, "dates": "2024-01-01T00:00:00Z", "show": False}
    local = publish(maps, tmp_path / "published", **keywords)
    real, count = publishing.write_piece, iter(range(99))
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "write_piece", lambda *a, **more: real(*a, **more) if next(count) < 3 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(maps, there, **keywords)
    before = {key for key in keys(s3, "published/") if key.endswith(".tif")}
    assert 1 <= len(before) <= 3
    assert "published/collection.json" not in keys(s3, "published/")
    made = publish(maps, there, **keywords)
    assert made.resumed == len(before)
    assert (made.files, made.size) == (local.files, local.size)
    names = {str(path.relative_to(tmp_path)) for path in (tmp_path / "published").rglob("*") if path.is_file()}
    assert keys(s3, "published/") == names
    same = (".tif", ".xml", ".vrt", ".qml")
    for name in (name for name in names if name.endswith(same)):
        assert body(s3, name) == (tmp_path / name).read_bytes(), name
    assert publish(maps, there, **keywords).already_complete
    hrefs = pq.read_table(io.BytesIO(body(s3, "published/items.parquet")))["assets"].to_pylist()
    assert all(asset["class_map"]["href"].startswith(f"{there}/class_map_R") for asset in hrefs)
    with pytest.raises(StoreError, match="holds another publication"):
        publish(maps, there, **{**keywords, "side": 1024})
    other = publish(maps, there, overwrite=True, **{**keywords, "side": 1024})
    assert len([key for key in keys(s3, "published/") if key.endswith(".tif")]) == other.files
    put(s3, write_raster(tmp_path / "mine.tif", pixels((1, 9, 9))), "mine/mine.tif")
    with pytest.raises(StoreError, match=r"holds mine\.tif, which `swathe publish` did not write"):
        publish(maps, "s3://scenes/mine", side=512, show=False)


@pytest.mark.parametrize("failure", [FileNotFoundError("404"), OSError("reset")])
def test_a_failure_that_passes_changes_no_identity(failure, monkeypatch):
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe("/identity/a.zarr/c/0", b"content")
    file, folder = "memory://identity/a.zarr/c/0", "memory://identity/a.zarr"
    before = url_identity(file), folder_identity(folder)
    assert "size" in before[0]
    assert before[1]["files"] == 1
    for name in ("info", "find"):
        monkeypatch.setattr(type(filesystem), name, failing_at_first(getattr(type(filesystem), name), failure))
    assert (url_identity(file), folder_identity(folder)) == before
    monkeypatch.setattr(type(filesystem), "info", failing_at_first(type(filesystem).info, PermissionError("403")))
    assert url_identity(file) == {"url": file}  # which does not pass
    filesystem.rm("/identity", recursive=True)


def failing_at_first(real: Callable[..., Any], failure: Exception) -> Callable[..., Any]:
    """Return a method that fails when it is first called."""
    left = [failure]

    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        if left:
            raise left.pop()
        return real(self, *args, **kwargs)

    return method
