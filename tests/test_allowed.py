"""What may be opened, and where files that name others may lead: a table of inputs, each let in or not."""

import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import zarr as zarrs
from click.testing import CliRunner
from helpers import pixels, write_raster
from indexing import item_of
from rasterio.enums import Resampling

from models import SwatheError
from pipeline import allowing, build_index, open_mosaic, open_scene
from pipeline.cli.app import cli
from pipeline.io.places import allowed_places, is_private, reach

BAND = (
    '<VRTRasterBand dataType="Byte" band="1"{kind}><{source}><SourceFilename relativeToVRT="{relative}">{name}'
    "</SourceFilename><SourceBand>1</SourceBand></{source}>{more}</VRTRasterBand>"
)


WARPED = (
    '<VRTDataset rasterXSize="32" rasterYSize="32"><SRS>EPSG:32736</SRS><GeoTransform>0,1,0,0,0,-1</GeoTransform>'
    '<VRTRasterBand dataType="Byte" band="1"><ComplexSource><SourceFilename>{}</SourceFilename></ComplexSource>'
    "</VRTRasterBand></VRTDataset>"
)


def vrt(name: object, *, relative: int = 0, source: str = "SimpleSource", kind: str = "", more: str = "") -> str:
    band = BAND.format(name=name, relative=relative, source=source, kind=kind, more=more)
    return f'<VRTDataset rasterXSize="32" rasterYSize="32">{band}</VRTDataset>'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a scene, beside one with another scene that nobody named."""
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        write_raster(tmp_path / name / "scene.tif", pixels((1, 32, 32), "uint8"), photometric="minisblack")
    return tmp_path / "own"


def made(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def tagged(place: Path) -> Path:
    with rasterio.open(place / "scene.tif", "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(place.parent / "other/scene.tif"))
    return place / "scene.tif"


def beside(ending: str, text: str) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        made(place / f"scene.tif{ending}", text.format(other=place.parent / "other/scene.tif"))
        return place / "scene.tif"

    return write


def linked(ending: str) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        (place / f"scene.tif{ending}").symlink_to(place.parent / "other/scene.tif")
        return place / "scene.tif"

    return write


def hdf5(link: str) -> Callable[[Path], Path]:
    def write(place: Path) -> Path:
        with h5py.File(place / "scene.h5", "w") as file:
            grid = np.ones((32, 32), "u1")
            if link == "link":
                file["v"] = h5py.ExternalLink(str(place.parent / "other/x.h5"), "/v")
            elif link == "external":
                file.create_dataset("v", (32, 32), "u1", external=[(str(place.parent / "other/scene.tif"), 0, 1024)])
            elif link == "virtual":
                layout = h5py.VirtualLayout((32, 32), "u1")
                layout[:] = h5py.VirtualSource(str(place.parent / "other/x.h5"), "v", (32, 32))
                file.create_virtual_dataset("v", layout)
            else:
                file["v"] = grid
                file["same"] = h5py.SoftLink("/v")
        return place / "scene.h5"

    return write


AUX = "<PAMDataset><Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>{other}</MDI></Metadata></PAMDataset>"
STATISTICS = (
    "<PAMDataset><PAMRasterBand band='1'><Metadata><MDI key='STATISTICS_MEAN'>1</MDI></Metadata></PAMRasterBand>"
    "</PAMDataset>"
)
METADATA = "<Metadata domain='OVERVIEWS'><MDI key='overview_file'>x</MDI></Metadata></VRTDataset>"
OTHER = "/../other/scene.tif"
REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a virtual raster in .tif": (lambda p: made(p / "a.tif", vrt("scene.tif", relative=1)), "virtual raster"),
    "an MRF in .tif": (lambda p: made(p / "a.tif", "<MRF_META><Raster/></MRF_META>"), "not recognized"),
    "a web map service in .tif": (lambda p: made(p / "a.tif", "<GDAL_WMS/>"), "not recognized"),
    "an index of tiles in .tif": (lambda p: made(p / "a.tif", "<GDALTileIndexDataset/>"), "not recognized"),
    "a STAC Item in .tif": (lambda p: made(p / "a.tif", '{"type": "Feature"}'), "not recognized"),
    "nothing in .tif": (lambda p: made(p / "a.tif", ""), "not recognized"),
    "DIMAP in .tif": (lambda p: made(p / "a.tif", "<Dimap_Document/>"), "DIMAP"),
    "tags of overviews elsewhere": (tagged, "OVERVIEW_FILE"),
    "tags beside": (beside(".aux.xml", AUX), "OVERVIEW_FILE"),
    "overviews that are a virtual raster": (beside(".ovr", vrt("{other}")), "virtual raster"),
    "a mask that is a virtual raster": (beside(".msk", vrt("{other}")), "virtual raster"),
    "a mask in capitals": (beside(".MSK", vrt("{other}")), "virtual raster"),
    "overviews that are a link": (linked(".ovr"), "link to elsewhere"),
    "a mask that is a link": (linked(".msk"), "link to elsewhere"),
    "metadata that are a link": (linked(".aux.xml"), "link to elsewhere"),
    "a part elsewhere": (lambda p: made(p / "a.vrt", vrt(p.parent / "other/scene.tif")), "--allow"),
    "a part by ..": (lambda p: made(p / "a.vrt", vrt("../other/scene.tif", relative=1)), "--allow"),
    "a part on a server": (lambda p: made(p / "a.vrt", vrt("/vsicurl/http://h.example/a.tif")), "--allow h.example"),
    "a part in a bucket": (lambda p: made(p / "a.vrt", vrt("/vsis3/bucket/a.tif")), "--allow s3://bucket"),
    "a chain": (lambda p: made(p / "a.vrt", vrt("/vsizip//vsicurl/http://h.example/a.zip/a.tif")), "no file or URL"),
    "a chain in a chain": (lambda p: made(p / "a.vrt", vrt("/vsicurl/vsicurl/http://h.example/a")), "no file or URL"),
    "a part by vrt://": (lambda p: made(p / "a.vrt", vrt(f"vrt://{p}/scene.tif")), "no file or URL"),
    "a part as XML": (lambda p: made(p / "a.vrt", vrt("&lt;VRTDataset/&gt;")), "no file or URL"),
    "a service": (lambda p: made(p / "a.vrt", vrt("WMS:http://h.example/")), "no file or URL"),
    "raw bytes": (lambda p: made(p / "a.vrt", vrt("/etc/passwd", kind=' subClass="VRTRawRasterBand"')), "VRTRaw"),
    "Python": (
        lambda p: made(p / "a.vrt", vrt("scene.tif", relative=1, more="<PixelFunctionLanguage>Python"
                                        "</PixelFunctionLanguage>")), "other languages"),
    "code": (lambda p: made(p / "a.vrt", vrt("scene.tif", more="<PixelFunctionCode>x</PixelFunctionCode>")), "Code"),
    "an element in other case": (
        lambda p: made(p / "a.vrt", vrt("scene.tif", relative=1).replace("SourceFilename", "sourcefilename")),
        "sourcefilename"),
    "an attribute for an element": (
        lambda p: made(p / "a.vrt", vrt("scene.tif").replace("<SimpleSource>", '<SimpleSource SourceFilename="/x">')),
        "has SourceFilename"),
    "options of a driver": (
        lambda p: made(p / "a.vrt", vrt("scene.tif").replace("</SimpleSource>", "<OpenOptions/></SimpleSource>")),
        "OpenOptions"),
    "overviews of a virtual raster": (
        lambda p: made(p / "a.vrt", vrt("scene.tif", relative=1).replace("</VRTDataset>", METADATA)), "overview_file"),
    "entities": (lambda p: made(p / "a.vrt", '<!DOCTYPE a [<!ENTITY x "y">]>' + vrt("&x;")), "document type"),
    "a part that is a disguise": (
        lambda p: made(p / "b.vrt", vrt(made(p / "b.tif", vrt("/etc/passwd")).name, relative=1)), "virtual raster"),
    "a part with a mask elsewhere": (
        lambda p: made(p / "b.vrt", vrt(linked(".msk")(p).name, relative=1)), "link to elsewhere"),
    "a virtual raster below that leads out": (
        lambda p: made(p / "b.vrt", vrt(made(p / "c.vrt", vrt(f"{p}{OTHER}")).name, relative=1)), "--allow"),
    "a virtual raster of itself": (lambda p: made(p / "a.vrt", vrt("a.vrt", relative=1)), "too deep"),
    "a disguise by vrt://": (lambda p: Path(f"vrt://{made(p / 'b.tif', vrt('/etc/passwd'))}"), "virtual raster"),
    "a link out of HDF5": (hdf5("link"), "link to another file"),
    "data outside of HDF5": (hdf5("external"), "lie in other files"),
    "virtual data in HDF5": (hdf5("virtual"), "lie in other files"),
}  # fmt: skip
LET_IN: dict[str, Callable[[Path], Path]] = {
    "a virtual raster": lambda p: made(p / "a.vrt", vrt("scene.tif", relative=1)),
    "by its full name": lambda p: made(p / "a.vrt", vrt(p / "scene.tif")),
    "of a virtual raster": lambda p: made(p / "b.vrt", vrt(made(p / "a.vrt", vrt(p / "scene.tif")))),
    "a function of GDAL's": lambda p: made(
        p / "a.vrt",
        vrt("scene.tif", relative=1, kind=' subClass="VRTDerivedRasterBand"',
            more="<PixelFunctionType>inv</PixelFunctionType>"),
    ),
    "statistics beside": beside(".aux.xml", STATISTICS),
    "HDF5": hdf5("own"),
    "a TIFF of another name": lambda p: (p / "scene.tif").rename(p / "scene.dat"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_leads_elsewhere_is_refused_in_a_line(place: Path, what: str) -> None:
    make, why = REFUSED[what]
    with pytest.raises(SwatheError, match=why) as told:
        open_scene(str(make(place)).replace("vrt:/", "vrt:///", 1))
    assert str(told.value).count("\n") == 0


@pytest.mark.parametrize("what", LET_IN)
def test_what_stays_below_its_folder_is_read(place: Path, what: str) -> None:
    assert open_scene(LET_IN[what](place)).shape == (1, 32, 32)


def test_overviews_and_masks_that_are_tiffs_are_read(place: Path) -> None:
    path = place / "scene.tif"
    with rasterio.Env(TIFF_USE_OVR=True, GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.eye(32, dtype=bool))
        file.build_overviews([2], Resampling.nearest)
    assert {name.name for name in place.iterdir()} >= {"scene.tif", "scene.tif.ovr", "scene.tif.msk"}
    assert open_scene(path).valid.values.sum() == 32


def test_a_place_that_the_user_names_is_let_in(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = made(place / "a.vrt", vrt("../other/scene.tif", relative=1)), place.parent / "other"
    for allowed in (other, other / "scene.tif", f"{other}/", place.parent):
        with allowing(allowed):
            assert open_scene(path).shape == (1, 32, 32)
    monkeypatch.chdir(place)
    with allowing("../other"):
        open_scene(path)
    with allowing("../oth"), pytest.raises(SwatheError, match=f"pass --allow {other} "):
        open_scene(path)


@pytest.mark.parametrize(
    ("name", "origin", "allowed", "right"),
    [
        ("https://h.example/b/x.tif", "https://h.example/a/i.json", "", True),
        ("https://H.example/x.tif", "https://h.example/i.json", "", True),
        ("/vsicurl/https://h.example/x.tif", "https://h.example/i.json", "", True),
        ("https://h.example:81/x.tif", "https://h.example/i.json", "", False),
        ("https://h.example.evil/x.tif", "https://h.example/i.json", "", False),
        ("https://h.example@evil/x.tif", "https://h.example/i.json", "", False),
        ("https://evil/?u=https://h.example/", "https://h.example/i.json", "", False),
        ("https://evil/x.tif", "https://h.example/i.json", "evil", True),
        ("http://127.0.0.1:80/x.tif", "https://h.example/i.json", "", False),
        ("http://127.0.0.1:80/x.tif", "https://h.example/i.json", "127.0.0.1:80", True),
        ("http://127.0.0.1:81/x.tif", "https://h.example/i.json", "127.0.0.1:80", False),
        ("http://127.0.0.1:81/x.tif", "https://h.example/i.json", "127.0.0.1", True),
        ("s3://bucket/b.tif", "s3://bucket/a/i.json", "", True),
        ("s3://other/b.tif", "s3://bucket/a/i.json", "", False),
        ("s3://other/b/x.tif", "s3://bucket/a/i.json", "s3://other/b", True),
        ("s3://other/b/../x.tif", "s3://bucket/a/i.json", "s3://other/b", False),
        ("s3://other/bc/x.tif", "s3://bucket/a/i.json", "s3://other/b", False),
        ("s3://other/x.tif", "s3://bucket/a/i.json", "other", True),
        ("/etc/passwd", "https://h.example/i.json", "", False),
        ("/etc/passwd", "https://h.example/i.json", "/etc", True),
        ("file:///etc/passwd", "/etc/i.json", "", False),
        ("file:///etc/passwd", "https://h.example/i.json", "", False),
        ("file:///etc/passwd", "/etc/i.json", "/etc", True),
        ("file://localhost/etc/pass%77d", "/etc/i.json", "/etc", True),
        ("file:///etc/../root/x", "/etc/i.json", "/etc", False),
        ("file://h.example/etc/passwd", "/etc/i.json", "/etc", False),
        ("/etc/passwd", "/etc/i.json", "", True),
        ("/etc/../root/x", "/etc/i.json", "", False),
        ("/etcetera", "/etc/i.json", "", False),
        ("/vsistdin/", "/etc/i.json", "/", False),
        ("/vsicurl?url=http://h.example/x", "http://h.example/i.json", "", False),
        ("/vsizip//etc/a.zip/x.tif", "/etc/i.json", "", False),
        ("/vsizip//data/a.zip/x.tif", "/vsizip//data/a.zip/i.vrt", "", True),
        ("/vsizip//data/a.zip/../x.tif", "/vsizip//data/a.zip/i.vrt", "", False),
        ("gopher://h.example/x", "http://h.example/i.json", "", False),
        ("", "/etc/i.json", "", False),
        ("a\nb", "/etc/i.json", "", False),
    ],
)  # fmt: skip
def test_where_names_may_lead(name: str, origin: str, allowed: str, right: bool) -> None:
    with allowing(allowed or []):
        if right:
            reach(name, origin)
        else:
            with pytest.raises(SwatheError):
                reach(name, origin)


def test_an_item_does_not_name_files_of_this_machine_by_address(place: Path) -> None:
    for href, right in (("scene.tif", True), (f"{place}/scene.tif", True), (f"file://{place}/scene.tif", False)):
        path = made(place / "item.json", json.dumps(item_of("a", {"data": href})))
        if right:
            assert open_scene(path).shape == (1, 32, 32)
            continue
        with pytest.raises(SwatheError, match=f"item.json leads to {href}, a file of this machine: .*--allow {place} "):
            open_scene(path)
        with pytest.raises(SwatheError, match="a file of this machine"):
            build_index([path], place / "index.parquet", show=False)
        with allowing(place):
            assert open_scene(path).shape == (1, 32, 32)
            assert build_index([path], place / "index.parquet", show=False).added == 1


@pytest.mark.parametrize(
    ("host", "private"),
    [("127.0.0.1", True), ("169.254.169.254", True), ("10.1.2.3", True), ("::1", True), ("0.0.0.0", True),
     ("2130706433", True), ("localhost", True), ("192.168.0.1", True), ("fe80::1", True), ("8.8.8.8", False)],
)  # fmt: skip
def test_private_addresses_are_known(host: str, private: bool) -> None:
    assert is_private(host) is private


# --- Zarr, indexes, servers, the command ------------------------------------------------------------------------------


def zarr(folder: Path) -> Path:
    group = zarrs.open_group(folder / "scene.zarr", mode="w", zarr_format=2)
    made_ = group.create_array("v", shape=(1, 32, 32), chunks=(1, 32, 32), dtype="u1", compressors=None)
    made_[:] = 7
    made_.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    return folder / "scene.zarr"


class Payload:
    """What a pickle does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder / "ran"),)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_zarr_of_links_references_or_pickles_is_refused(place: Path) -> None:
    path = zarr(place)
    assert open_scene(path).values.max() == 7
    about = {"zarr_format": 2, "shape": [1], "chunks": [1], "dtype": "<i8", "fill_value": 0, "order": "C",
             "compressor": {"id": "pickle", "protocol": 5}, "filters": None}  # fmt: skip
    (path / "band").mkdir()
    made(path / "band/.zarray", json.dumps(about))
    made(path / "band/.zattrs", json.dumps({"_ARRAY_DIMENSIONS": ["band"]}))
    made(path / "band/0", pickle.dumps(Payload(place)))
    with pytest.raises(SwatheError, match="pickle"):
        open_scene(path)
    assert not (place / "ran").exists()
    (path / "link").symlink_to(place.parent / "other/scene.tif")
    with pytest.raises(SwatheError, match="--allow"):
        open_scene(path)
    with pytest.raises(SwatheError, match="references and archives"):
        open_scene(made(place / "r.zarr", "{}"))


def changed(path: Path, old: str, new: str, *columns: str) -> Path:
    table = pq.read_table(path)
    for name in columns:
        column = pa.array([text.replace(old, new) for text in table[name].to_pylist()])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path)
    return path


def test_an_index_is_believed_of_the_files_alone_that_it_has_stamps_of(place: Path) -> None:
    own, other, index = str(place / "scene.tif"), str(place.parent / "other/scene.tif"), place / "i.parquet"
    build_index(own, index, show=False)
    assert open_mosaic(index).geobox.shape == (32, 32)
    with pytest.raises(SwatheError, match="of which it has no size and time"):
        open_mosaic(changed(index, own, other, "swathe:source"))
    with pytest.raises(SwatheError, match=r"--allow h\.example "):
        open_mosaic(changed(index, other, "https://h.example/a.tif", "swathe:source"))
    for odd in (f"vrt://{other}", f"/vsizip//vsicurl/http://h/{other}", f"GTI:{other}"):
        build_index(own, index, show=False, overwrite=True)
        with pytest.raises(SwatheError, match=r"of which it has no size and time|missing since indexed"):
            open_mosaic(changed(index, own, odd, "swathe:source", "swathe:stamps"))
    vrt_of_own = made(place / "a.vrt", WARPED.format(own))
    build_index(vrt_of_own, index, show=False, overwrite=True)
    vrt_of_own.write_text(WARPED.format(other))
    with pytest.raises(SwatheError, match="--allow"):
        open_mosaic(index)


class Server(BaseHTTPRequestHandler):
    """Sends on to where `to` says, else has one scene; `asked` are all paths."""

    to, asked, scene = "", list[str](), b""

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.asked.append(self.path)
        self.send_response(302 if self.to else 200)
        if self.to:
            self.send_header("Location", f"{self.to}{self.path}")
        self.send_header("Content-Length", str(0 if self.to else len(self.scene)))
        self.end_headers()
        if not self.to and self.command == "GET":
            self.wfile.write(self.scene)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served(**facts: object) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    handler = type("Handler", (Server,), {**facts, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("name", ["scene.tif", "item.json", "scene.zarr", "all.vrt"])
def test_servers_do_not_send_on_into_private_networks(place: Path, name: str) -> None:
    with served(scene=(place / "scene.tif").read_bytes()) as (inner, asked), served(to=inner) as (outer, _):
        with pytest.raises(SwatheError, match="private network") as told:
            open_scene(f"{outer}/{name}")
        assert not asked
        assert "--allow 127.0.0.1:" in str(told.value)
        if name == "scene.tif":
            with allowing(inner):
                assert open_scene(f"{outer}/{name}").shape == (1, 32, 32)


def test_the_command_takes_more_places(place: Path) -> None:
    path, other = made(place / "a.vrt", vrt("../other/scene.tif", relative=1)), place.parent / "other"
    refused = CliRunner().invoke(cli, ["info", str(path)])
    assert refused.exit_code == 1
    assert f"--allow {other}" in str(refused.exception)
    done = CliRunner().invoke(cli, ["info", str(path), "--allow", "h.example", "--allow", str(other)])
    assert done.exit_code == 0, done.output
    assert allowed_places() == ()
