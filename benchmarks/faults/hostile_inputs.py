"""Inputs made to read, ask or write what they must not, each in a folder of its own."""

import json
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TRAPS = ("127.0.0.1:80", "169.254.169.254:80", "10.1.2.3:80", "93.184.216.34:80")
SITE = "127.0.0.1:8080"  # a server that the user names: files below the folder, and `/to/URL` sends on to it
SIDE = 64


@dataclass(frozen=True)
class Place:
    """Where an input is made: its folder, and one with files that nobody may touch."""

    folder: Path
    outside: Path

    @property
    def secret(self) -> Path:
        """A raster that the user has elsewhere."""
        return self.outside / "secret.tif"

    def write(self, name: str, content: str | bytes) -> Path:
        """Write a file into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def link(self, name: str, to: Path) -> Path:
        """Write a link into the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(to)
        return path

    def scene(self, name: str = "scene.tif", **tags: str) -> Path:
        """Write a harmless raster; `tags` say which file holds its overviews."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raster(path, 3, **tags)
        return path


Make = Callable[[Place], "str | Path | list[str | Path]"]


def raster(path: Path, bands: int, **tags: str) -> None:
    """Write a small GeoTIFF."""
    import rasterio
    from affine import Affine

    values = np.random.default_rng(1).integers(1, 200, (bands, SIDE, SIDE)).astype("u1")
    profile = {"driver": "GTiff", "count": bands, "height": SIDE, "width": SIDE, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=Affine(0.1, 0, 5e5, 0, -0.1, 5e6), **profile) as file:
        file.write(values)
        if tags:
            file.update_tags(ns="OVERVIEWS", **tags)


class Payload:
    """What a pickle runs as it is read: it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


def payload(place: Place) -> bytes:
    """Return a pickle that runs code."""
    return pickle.dumps(Payload(place.outside / "ran"))


def vrt(name: object, relative: int = 0, source: str = "SimpleSource", kind: str = "", more: str = "") -> str:
    """Return a virtual raster of three bands that draws on one file."""
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{n}"{kind}><{source}><SourceFilename relativeToVRT="{relative}">{name}'
        f"</SourceFilename><SourceBand>1</SourceBand></{source}>{more}</VRTRasterBand>"
        for n in (1, 2, 3)
    )
    return f'<VRTDataset rasterXSize="{SIDE}" rasterYSize="{SIDE}">{bands}</VRTDataset>'


RAW = ' subClass="VRTRawRasterBand"'
DERIVED = ' subClass="VRTDerivedRasterBand"'
WARPED = (
    '<VRTDataset rasterXSize="64" rasterYSize="64" subClass="VRTWarpedDataset"><VRTRasterBand dataType="Byte" band="1" '
    'subClass="VRTWarpedRasterBand"/><GDALWarpOptions><SourceDataset relativeToVRT="0">{}</SourceDataset>'
    "</GDALWarpOptions></VRTDataset>"
)
PROCESSED = '<VRTDataset subClass="VRTProcessedDataset"><Input><SourceFilename>{}</SourceFilename></Input></VRTDataset>'
WMS = (
    '<GDAL_WMS><Service name="TMS"><ServerUrl>http://{}/${{z}}/${{x}}/${{y}}.png</ServerUrl></Service><DataWindow>'
    "<UpperLeftX>0</UpperLeftX><UpperLeftY>64</UpperLeftY><LowerRightX>64</LowerRightX><LowerRightY>0</LowerRightY>"
    "<SizeX>64</SizeX><SizeY>64</SizeY></DataWindow><BandsCount>3</BandsCount></GDAL_WMS>"
)
MRF = (
    "<MRF_META><CachedSource><Source>{source}</Source></CachedSource><Raster><Size x='64' y='64' c='3'/><PageSize "
    "x='64' y='64' c='3'/><Compression>NONE</Compression><DataFile>{data}</DataFile><IndexFile>{index}</IndexFile>"
    "</Raster></MRF_META>"
)
PAM = "<PAMDataset><Metadata domain='{}'><MDI key='{}'>{}</MDI></Metadata></PAMDataset>"


def mrf(place: Place, source: str) -> str:
    """Return an MRF that writes what it reads to a file of the user's."""
    return MRF.format(source=source, data=place.outside / "written", index=place.outside / "index")


def item(*hrefs: object, name: str = "x") -> str:
    """Return a STAC Item of files."""
    return json.dumps(feature(*hrefs, name=name))


def feature(*hrefs: object, name: str = "x", **more: Any) -> dict[str, Any]:
    """Return a STAC Item of files, as JSON has it."""
    assets = {
        f"b{n}": {"href": str(href), "type": "image/tiff; application=geotiff", "roles": ["data"], **more}
        for n, href in enumerate(hrefs)
    }
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "links": [], "assets": assets,
        "geometry": {"type": "Point", "coordinates": [15, 45]}, "bbox": [15, 45, 15, 45],
        "properties": {"datetime": "2024-05-01T00:00:00Z"},
    }  # fmt: skip


def tiles(place: Place, location: object, name: str = "tiles.gti.gpkg") -> Path:
    """Write an index of tiles that names one."""
    import geopandas
    from shapely import box

    frame = geopandas.GeoDataFrame({"location": [str(location)]}, geometry=[box(5e5, 5e6 - 32, 5e5 + 32, 5e6)])
    frame.set_crs(32633).to_file(place.folder / name, driver="GPKG", engine="pyogrio")
    return place.folder / name


def zarr(place: Place) -> Path:
    """Write a harmless Zarr group of version 2."""
    import zarr as library

    group = library.open_group(place.folder / "scene.zarr", mode="w", zarr_format=2)
    made = group.create_array("v", shape=(3, SIDE, SIDE), chunks=(1, SIDE, SIDE), dtype="u1", compressors=None)
    made[:] = 7
    made.attrs["_ARRAY_DIMENSIONS"] = ["band", "y", "x"]
    return place.folder / "scene.zarr"


def linked_zarr(place: Place) -> Path:
    """Write a Zarr group of which a chunk is a link to a file of the user's."""
    path = zarr(place)
    (path / "v/1.0.0").unlink()
    (path / "v/1.0.0").symlink_to(place.outside / "secret.txt")
    return path


def pickled_zarr(place: Place) -> Path:
    """Write a Zarr group whose coordinate is a pickle."""
    path = zarr(place)
    about = {"zarr_format": 2, "shape": [3], "chunks": [3], "dtype": "<i8", "fill_value": 0, "order": "C",
             "compressor": {"id": "pickle", "protocol": 5}, "filters": None}  # fmt: skip
    (path / "band").mkdir()
    (path / "band/.zarray").write_text(json.dumps(about))
    (path / "band/.zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["band"]}))
    (path / "band/0").write_bytes(payload(place))
    return path


def hdf5(place: Place, how: str, name: str) -> Path:
    """Write an HDF5 file whose data lie elsewhere."""
    import h5py

    with h5py.File(place.folder / name, "w") as file:
        if how == "link":
            file["v"] = h5py.ExternalLink(str(place.outside / "secret.h5"), "/v")
        elif how == "external":
            file.create_dataset("v", (SIDE, SIDE), "u1", external=[(str(place.outside / "secret.txt"), 0, SIDE**2)])
        else:
            layout = h5py.VirtualLayout((SIDE, SIDE), "u1")
            layout[:] = h5py.VirtualSource(str(place.outside / "secret.h5"), "v", (SIDE, SIDE))
            file.create_virtual_dataset("v", layout)
    return place.folder / name


def archive(place: Place, name: str, members: dict[str, str | bytes], links: dict[str, str] | None = None) -> Path:
    """Write a zip or a tar of members by name, which may lead out of it; and, into a tar, of links."""
    path = place.folder / name
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as made:
            for inside, content in members.items():
                made.writestr(inside, content)
        return path
    with tarfile.open(path, "w") as tar:
        for inside, content in members.items():
            tar.add(place.write("member", content), inside)
        for inside, to in (links or {}).items():
            info = tarfile.TarInfo(inside)
            info.type, info.linkname = tarfile.SYMTYPE, to
            tar.addfile(info)
    return path


def index(place: Place, to: str, *, stamped: bool) -> Path:
    """Write an index of scenes, and change what it says of where the scene lies; and, with `stamped`, its stamps."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.catalog.build import build_index

    own = str(place.scene())
    build_index(own, place.folder / "scenes.parquet", show=False, workers=None)
    table = pq.read_table(place.folder / "scenes.parquet")
    for name in ("swathe:source", *(["swathe:stamps"] if stamped else [])):
        column = pa.array([text.replace(own, to) for text in table[name].to_pylist()])
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, place.folder / "scenes.parquet")
    return place.folder / "scenes.parquet"


def beside(ending: str, content: Callable[[Place], str]) -> Make:
    """Return what writes a scene and a file beside it."""

    def make(place: Place) -> Path:
        place.write(f"scene.tif{ending}", content(place))
        return place.scene()

    return make


def linked(ending: str) -> Make:
    """Return what writes a scene and a link beside it."""

    def make(place: Place) -> Path:
        place.link(f"scene.tif{ending}", place.secret)
        return place.scene()

    return make


def text(name: str, content: Callable[[Place], str]) -> Make:
    """Return what writes one file."""
    return lambda place: place.write(name, content(place))


def below(name: str, content: Callable[[Place], str], outer: str = "outer.vrt") -> Make:
    """Return what writes a file, and a virtual raster that draws on it."""

    def make(place: Place) -> Path:
        place.write(name, content(place))
        return place.write(outer, vrt(name, relative=1))

    return make


IGNORED = {"a zip with a mask beside"}  # inputs that are read without what is wrong with them
LOCAL, LINK_LOCAL, PRIVATE, FAR = (f"http://{host.removesuffix(':80')}" for host in TRAPS)
INPUTS: dict[str, Make] = {
    # files under another ending
    "VRT in .tif, of a file elsewhere": text("a.tif", lambda p: vrt(p.secret)),
    "VRT in .tif, of raw bytes": text("a.tif", lambda p: vrt(p.outside / "secret.txt", kind=RAW)),
    "VRT in .tif, of a server": text("a.tif", lambda _: vrt(f"/vsicurl/{LOCAL}/a.tif")),
    "VRT in .png": text("a.png", lambda p: vrt(p.secret)),
    "VRT in .jp2": text("a.jp2", lambda p: vrt(p.secret)),
    "VRT in .img": text("a.img", lambda p: vrt(p.secret)),
    "VRT in .nc": text("a.nc", lambda p: vrt(p.secret)),
    "WMS in .tif": text("a.tif", lambda _: WMS.format(TRAPS[0][:-3])),
    "WMS in .vrt": text("a.vrt", lambda _: WMS.format(TRAPS[0][:-3])),
    "WMTS in .tif": text("a.tif", lambda _: f"<GDAL_WMTS><GetCapabilitiesUrl>{LOCAL}/c"
                                            "</GetCapabilitiesUrl></GDAL_WMTS>"),
    "WCS in .tif": text("a.tif", lambda _: f"<WCS_GDAL><ServiceURL>{LOCAL}/?</ServiceURL></WCS_GDAL>"),
    "MRF in .tif, which writes": text("a.tif", lambda p: mrf(p, str(p.scene("b.tif")))),
    "MRF in .jp2, of a file elsewhere": text("a.jp2", lambda p: mrf(p, str(p.secret))),
    "MRF in .tif, of a server": text("a.tif", lambda p: mrf(p, f"/vsicurl/{LOCAL}/a.tif")),
    "MRF in .mrf": text("a.mrf", lambda p: mrf(p, str(p.secret))),
    "GTI in .tif": text("a.tif", lambda p: f"<GDALTileIndexDataset><IndexDataset>{p.outside}/secret.gpkg</IndexDataset>"
                                           "</GDALTileIndexDataset>"),
    "STAC in .tif": text("a.tif", lambda _: json.dumps(
        {"type": "FeatureCollection", "features": [feature(f"{LOCAL}/a.tif")]})),
    "OGR VRT in .tif": text("a.tif", lambda _: f"<OGRVRTDataSource><OGRVRTLayer name='a'><SrcDataSource>{LOCAL}/a"
                                               "</SrcDataSource></OGRVRTLayer></OGRVRTDataSource>"),
    "DIMAP in .tif": text("a.tif", lambda p: f"<Dimap_Document><Data_File><DATA_FILE_PATH href='{p.secret}'/>"
                                             "</Data_File></Dimap_Document>"),
    "DIMAP in .xml": text("a.xml", lambda p: "<Dimap_Document><Raster_Dimensions><NROWS>64</NROWS><NCOLS>64</NCOLS>"
                          "<NBANDS>1</NBANDS></Raster_Dimensions><Data_Access><Data_File><DATA_FILE_PATH href="
                          f"'{p.secret}'/></Data_File></Data_Access></Dimap_Document>"),
    "references of Zarr in .tif": text("a.tif", lambda _: json.dumps({"version": 1, "refs": {"v/0": [LOCAL]}})),
    # files beside
    "overviews that are a VRT": beside(".ovr", lambda p: vrt(p.secret)),
    "overviews that are an MRF": beside(".ovr", lambda p: mrf(p, str(p.secret))),
    "a mask that is a VRT": beside(".msk", lambda p: vrt(p.secret)),
    "a mask that is a VRT of a server": beside(".msk", lambda _: vrt(f"/vsicurl/{LOCAL}/a.tif")),
    "a mask that is a WMS": beside(".msk", lambda _: WMS.format(TRAPS[0][:-3])),
    "a mask in capitals": beside(".MSK", lambda p: vrt(p.secret)),
    "overviews by .aux.xml": beside(".aux.xml", lambda p: PAM.format("OVERVIEWS", "OVERVIEW_FILE", p.secret)),
    "overviews on a server by .aux.xml": beside(
        ".aux.xml", lambda _: PAM.format("OVERVIEWS", "OVERVIEW_FILE", f"/vsicurl/{LINK_LOCAL}/a.tif")),
    "geolocation by .aux.xml": beside(".aux.xml", lambda p: PAM.format("GEOLOCATION", "X_DATASET", p.secret)),
    "overviews by a tag": lambda p: p.scene(OVERVIEW_FILE=str(p.secret)),
    "overviews on a server by a tag": lambda p: p.scene(OVERVIEW_FILE=f"/vsicurl/{LOCAL}/a.tif"),
    "overviews that are a link": linked(".ovr"),
    "a mask that is a link": linked(".msk"),
    "metadata that are a link": linked(".aux.xml"),
    "overviews of a mask that are a VRT": lambda p: (
        p.scene("scene.tif.msk"), p.write("scene.tif.msk.ovr", vrt(p.secret)), p.scene())[-1],
    # virtual rasters
    "VRT of a file elsewhere": text("a.vrt", lambda p: vrt(p.secret)),
    "VRT by ..": text("a.vrt", lambda p: vrt(os.path.relpath(p.secret, p.folder), relative=1)),
    "VRT of this machine": text("a.vrt", lambda _: vrt(f"/vsicurl/{LOCAL}/a.tif")),
    "VRT of a link-local address": text("a.vrt", lambda _: vrt(f"{LINK_LOCAL}/latest/meta-data")),
    "VRT of a private address": text("a.vrt", lambda _: vrt(f"/vsicurl/{PRIVATE}/a.tif")),
    "VRT of any server": text("a.vrt", lambda _: vrt(f"/vsicurl/{FAR}/a.tif")),
    "VRT of an archive on a server": text("a.vrt", lambda _: vrt(f"/vsizip//vsicurl/{LOCAL}/a.zip/a.tif")),
    "VRT of a bucket": text("a.vrt", lambda _: vrt("/vsis3/bucket/a.tif")),
    "VRT by vrt://": text("a.vrt", lambda p: vrt(f"vrt://{p.secret}")),
    "VRT by file://": text("a.vrt", lambda p: vrt(f"file://{p.secret}")),
    "VRT of raw bytes": text("a.vrt", lambda p: vrt(p.outside / "secret.txt", kind=RAW)),
    "VRT with Python": text("a.vrt", lambda p: vrt("scene.tif", 1, kind=DERIVED, more="<PixelFunctionType>os.getpid"
                            "</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>")),
    "VRT with an attribute for an element": text(
        "a.vrt", lambda p: vrt("a.tif", 1).replace("<SimpleSource>", f'<SimpleSource SourceFilename="{p.secret}">')),
    "VRT in another case": text("a.vrt", lambda p: vrt(p.secret).replace("SourceFilename", "sourceFILENAME")),
    "warped VRT": text("a.vrt", lambda p: WARPED.format(p.secret)),
    "processed VRT": text("a.vrt", lambda p: PROCESSED.format(p.secret)),
    "VRT with overviews elsewhere": text("a.vrt", lambda p: vrt(p.scene().name, 1).replace(
        "</VRTDataset>", "<Metadata domain='OVERVIEWS'>"
        f"<MDI key='OVERVIEW_FILE'>{p.secret}</MDI></Metadata></VRTDataset>")),
    "VRT of a VRT in .tif": below("b.tif", lambda p: vrt(p.secret)),
    "VRT of an MRF in .tif": below("b.tif", lambda p: mrf(p, str(p.secret))),
    "VRT of a VRT": below("b.vrt", lambda p: vrt(p.secret)),
    "VRT of a scene with a mask elsewhere": lambda p: (linked(".msk")(p), p.write("a.vrt", vrt("scene.tif", 1)))[-1],
    "VRT of a link": lambda p: (p.link("b.tif", p.secret), p.write("a.vrt", vrt("b.tif", 1)))[-1],
    "VRT with entities": text(
        "a.vrt", lambda p: f'<!DOCTYPE a [<!ENTITY x SYSTEM "{p.outside}/secret.txt">]>{vrt("&x;")}'),
    "a disguise by vrt://": lambda p: f"vrt://{p.write('b.tif', vrt(p.secret))}",
    # lists
    "tiles elsewhere": lambda p: tiles(p, p.secret),
    "tiles on a server": lambda p: tiles(p, f"/vsicurl/{LOCAL}/a.tif"),
    "tiles by GTI:": lambda p: f"GTI:{tiles(p, p.secret, 'tiles.gpkg')}",
    "Item of a file elsewhere": text("i.json", lambda p: item(p.secret)),
    "Item by ..": text("i.json", lambda p: item(os.path.relpath(p.secret, p.folder))),
    "Item by file://": text("i.json", lambda p: item(f"file://{p.secret}")),
    "Item of this machine": text("i.json", lambda _: item(f"{LOCAL}/a.tif")),
    "Item of a link-local address": text("i.json", lambda _: item(f"{LINK_LOCAL}/a.tif")),
    "Item of a number as an address": text("i.json", lambda _: item("http://2130706433/a.tif")),
    "Item by /vsicurl": text("i.json", lambda _: item(f"/vsicurl/{LOCAL}/a.tif")),
    "Item by /vsicurl?": text("i.json", lambda _: item(f"/vsicurl?url={LOCAL}/a.tif")),
    "Item by vrt://": text("i.json", lambda p: item(f"vrt://{p.secret}")),
    "Item by NETCDF:": text("i.json", lambda p: item(f"NETCDF:{p.outside}/secret.h5:v")),
    "Item of a VRT that leads out": lambda p: (p.write("a.vrt", vrt(p.secret)), p.write("i.json", item("a.vrt")))[-1],
    "Item with an alternate elsewhere": text("i.json", lambda p: json.dumps(
        feature("gone.tif", alternate={"a": {"href": f"{LOCAL}/a.tif"}, "b": {"href": str(p.secret)}}))),
    "Items with a further page": lambda p: ["index", p.write("s.json", json.dumps(
        {"type": "FeatureCollection", "features": [], "links": [{"rel": "next", "href": f"{LOCAL}/page"}]})),
        "-o", p.folder / "o.parquet"],
    "Items for an index": lambda p: ["index", p.write("i.json", item(p.secret)), "-o", p.folder / "o.parquet"],
    "VRT for an index": lambda p: ["index", p.write("a.vrt", vrt(p.secret)), "-o", p.folder / "o.parquet"],
    "an index of other files than it has stamps of": lambda p: index(p, str(p.secret), stamped=False),
    "an index of a server": lambda p: index(p, f"{LOCAL}/a.tif", stamped=False),
    "an index by vrt://": lambda p: index(p, f"vrt://{p.secret}", stamped=True),
    # servers
    "a server that sends on to this machine": lambda _: f"http://{SITE}/to/{LOCAL}/a.tif",
    "a server that sends on to a link-local address": lambda _: f"http://{SITE}/to/{LINK_LOCAL}/a.tif",
    "an Item's server that sends on": lambda _: f"http://{SITE}/to/{PRIVATE}/i.json",
    "a Zarr group's server that sends on": lambda _: f"http://{SITE}/to/{LINK_LOCAL}/a.zarr",
    "an Item on a server, of a file here": lambda p: (
        p.write("i.json", item(f"file://{p.secret}", p.secret)), f"http://{SITE}/{p.folder.name}/i.json")[-1],
    "a VRT on a server, of a file here": lambda p: (
        p.write("a.vrt", vrt(p.secret)), f"http://{SITE}/{p.folder.name}/a.vrt")[-1],
    # folders and archives
    "a folder with a link": lambda p: (p.scene("t/a.tif"), p.link("t/b.tif", p.secret), p.folder / "t")[-1],
    "a folder with a VRT that leads out": lambda p: (p.write("t/a.vrt", vrt(p.secret)), p.folder / "t")[-1],
    "a SAFE with a link": lambda p: (
        p.link("S2A.SAFE/GRANULE/L/IMG_DATA/T33UXP_20240501T100000_B04.jp2", p.secret), p.folder / "S2A.SAFE")[-1],
    "a zip with a VRT that leads out": lambda p: archive(p, "t.zip", {"a.vrt": vrt(p.secret)}),
    "a zip with a VRT in .tif": lambda p: archive(p, "t.zip", {"a.tif": vrt(p.secret)}),
    "a zip with names that lead out": lambda p: archive(
        p, "t.zip", {f"../../{p.outside.name}/ran.tif": p.scene().read_bytes()}),
    "a zip with a mask beside": lambda p: archive(
        p, "t.zip", {"a.tif": p.scene().read_bytes(), "a.tif.msk": vrt(p.secret)}),
    "a tar with a link": lambda p: archive(
        p, "t.tar", {}, {"LC08_L1TP_170078_20200101_20200101_02_T1_B4.TIF": str(p.secret)}),
    # arrays
    "Zarr with a chunk that is a link": linked_zarr,
    "Zarr with pickles": pickled_zarr,
    "Zarr that is a list of references": text("a.zarr", lambda _: json.dumps({"version": 1, "refs": {"v/0": [LOCAL]}})),
    "HDF5 with a link": lambda p: hdf5(p, "link", "a.h5"),
    "HDF5 of data elsewhere": lambda p: hdf5(p, "external", "a.h5"),
    "virtual HDF5": lambda p: hdf5(p, "virtual", "a.h5"),
    "NetCDF with a link": lambda p: hdf5(p, "link", "a.nc"),
    "NetCDF of data elsewhere, by name": lambda p: f"NETCDF:{hdf5(p, 'external', 'a.nc')}:v",
    # networks
    "weights that are a pickle": lambda p: ["import", p.write("w.pth", payload(p)), "--config",
        p.write("c.toml", 'name = "x"\narchitecture = "simple-unet"\n'), "-o", p.folder / "b.zip"],
    "a bundle whose weights are a link": lambda p: ["segment", p.scene(), "-m", bundle(p), "-o", p.folder / "o.zarr"],
    "a bundle with names that lead out": lambda p: ["segment", p.scene(), "-m", archive(
        p, "b.zip", {"../../ran": b"x", "bundle.json": "{}"}), "-o", p.folder / "o.zarr"],
    "a bundle of pickles": lambda p: ["segment", p.scene(), "-m", archive(
        p, "b.zip", {"bundle.json": "{}", "weights.pt": payload(p), "weights.safetensors": payload(p)}), "-o",
        p.folder / "o.zarr"],
}  # fmt: skip


def bundle(place: Place) -> Path:
    """Return a folder that looks like a bundle, of which each file is a link to one of the user's."""
    for name in ("bundle.json", "metadata.json", "weights.safetensors", "model.safetensors"):
        place.link(f"b/{name}", place.outside / "secret.txt")
    return place.folder / "b"
