"""Small products of Sentinel-2 and Landsat: the folders, names and metadata elements of the real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from helpers import pixels, write_raster

UTM_33 = "EPSG:32633"
SIDE = 60  # pixels of 10 m, or of 30 m
TILE = "T33UUP_20230115T100319"
METRES = {"B01": 60, "B02": 10, "B03": 10, "B04": 10, "B05": 20, "B06": 20, "B07": 20, "B08": 10, "B8A": 20, "B09": 60,
          "B10": 60, "B11": 20, "B12": 20}  # fmt: skip
PHYSICAL = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")

LANDSAT = "LC08_L2SP_197022_20200101_20200823_02_T1"
LEVEL_2 = (*(f"SR_B{n}" for n in range(1, 8)), "ST_B10")


def write(path: Path, metres: float, seed: int = 0, *, side: int | None = None, **profile: Any) -> np.ndarray:
    """Write a band and return its values; JPEG 2000 without loss."""
    side = side or int(SIDE * 10 / metres)
    values = profile.pop("values", pixels((1, side, side), seed=seed))
    place = Affine(metres, 0, 300_000, 0, -metres, 5_800_000)
    if path.suffix == ".jp2":
        profile |= {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "yes"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_raster(path, values, **{"crs": UTM_33, "transform": place, **profile})
    return values[0]


def metadata_xml(level: str, *, offset: int | None = -1000, quantification: str = "10000") -> str:
    """The parts of MTD_MSIL1C.xml and MTD_MSIL2A.xml that matter, as baseline 04.00 and later write them."""
    l2a = level == "L2A"
    kind, prefix = ("Level-2A_User_Product", "BOA_") if l2a else ("Level-1C_User_Product", "")
    add = "BOA_ADD_OFFSET" if l2a else "RADIO_ADD_OFFSET"
    listed = "BOA_ADD_OFFSET_VALUES_LIST" if l2a else "Radiometric_Offset_List"
    values = f'<{prefix}QUANTIFICATION_VALUE unit="none">{quantification}</{prefix}QUANTIFICATION_VALUE>'
    if l2a:
        values = (f'<QUANTIFICATION_VALUES_LIST>{values}<AOT_QUANTIFICATION_VALUE unit="none">1000.0'
                  '</AOT_QUANTIFICATION_VALUE><WVP_QUANTIFICATION_VALUE unit="cm">1000.0</WVP_QUANTIFICATION_VALUE>'
                  "</QUANTIFICATION_VALUES_LIST>")  # fmt: skip
    offsets = "".join(f'<{add} band_id="{n}">{offset}</{add}>' for n in range(13))
    spectral = "".join(f'<Spectral_Information bandId="{n}" physicalBand="{name}"/>' for n, name in enumerate(PHYSICAL))
    return (
        f'<?xml version="1.0" encoding="UTF-8" standalone="no"?><n1:{kind} xmlns:n1="https://psd-14.sentinel2.eo.esa.int'
        '/PSD/User_Product_Level-2A.xsd"><n1:General_Info><Product_Info><PROCESSING_BASELINE>05.09</PROCESSING_BASELINE>'
        "</Product_Info><Product_Image_Characteristics><Special_Values><SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>"
        f"<SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX></Special_Values>{values}"
        f"{f'<{listed}>{offsets}</{listed}>' if offset is not None else ''}"
        f"<Spectral_Information_List>{spectral}</Spectral_Information_List></Product_Image_Characteristics>"
        f"</n1:General_Info></n1:{kind}>"
    )


def write_safe(
    folder: Path,
    level: str = "L2A",
    *,
    tile: str = TILE,
    ending: str = "jp2",
    least: int = 0,
    more: int = 0,
    **xml: Any,
) -> dict[str, Any]:
    """Write a SAFE folder; return the values of each band at its best resolution, `least` or larger, plus `more`."""

    def write_band(path: Path, metres: float, seed: int = 0, values: Any = None) -> np.ndarray:
        side = int(SIDE * 10 / metres)
        made = pixels((1, side, side), seed=seed).clip(least) + np.uint16(more) if values is None else values
        return write(path, metres, values=made)

    name = f"S2A_MSI{level}_20230115T100319_N0509_R122_{tile[:6]}_20230115T115000.SAFE"
    root = folder / name
    images = root / "GRANULE" / f"{level}_{tile[:6]}_A039555_20230115T100318" / "IMG_DATA"
    bands: dict[str, Any] = {"path": root}
    for seed, (band, metres) in enumerate(METRES.items()):
        if level == "L1C":
            bands[band] = write_band(images / f"{tile}_{band}.{ending}", metres, seed)
        elif band != "B10":
            if metres < 60:  # ESA resamples finer bands to the coarser ones' resolutions too
                write_band(images / "R60m" / f"{tile}_{band}_60m.{ending}", 60, 100 + seed)
            bands[band] = write_band(images / f"R{metres}m" / f"{tile}_{band}_{metres}m.{ending}", metres, seed)
    if level == "L2A":
        classes = pixels((1, 30, 30), "uint8") % 12
        bands["SCL"] = write_band(images / "R20m" / f"{tile}_SCL_20m.{ending}", 20, values=classes)
        write_band(images / "R10m" / f"{tile}_TCI_10m.{ending}", 10, values=pixels((3, SIDE, SIDE), "uint8"))
    clouds = root / "GRANULE" / images.parent.name / "QI_DATA" / "MSK_CLDPRB_20m.jp2"
    bands["MSK_CLDPRB"] = write_band(clouds, 20, values=pixels((1, 30, 30), "uint8", seed=7))
    (root / f"MTD_MSI{level}.xml").write_text(metadata_xml(level, **xml))
    (root / "manifest.safe").write_text("<xfdu/>")
    return bands


GROUPS = {
    "PRODUCT_CONTENTS": {"LANDSAT_PRODUCT_ID": '"LC08_L2SP_197022_20200101_20200823_02_T1"'},
    "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": {
        **{f"REFLECTANCE_MULT_BAND_{n}": "2.75e-05" for n in range(1, 8)},
        **{f"REFLECTANCE_ADD_BAND_{n}": "-0.2" for n in range(1, 8)},
    },
    "LEVEL2_SURFACE_TEMPERATURE_PARAMETERS": {
        "TEMPERATURE_MULT_BAND_ST_B10": "0.00341802", "TEMPERATURE_ADD_BAND_ST_B10": "149.0",
    },
    "LEVEL1_RADIOMETRIC_RESCALING": {
        **{f"REFLECTANCE_MULT_BAND_{n}": "2.0000E-05" for n in range(1, 10)},
        **{f"REFLECTANCE_ADD_BAND_{n}": "-0.100000" for n in range(1, 10)},
        **{f"RADIANCE_MULT_BAND_{n}": "3.3420E-04" for n in (10, 11)},
        **{f"RADIANCE_ADD_BAND_{n}": "0.10000" for n in (10, 11)},
    },
}  # fmt: skip


def mtl(form: str, groups: dict[str, dict[str, str]] = GROUPS) -> str:
    """An MTL as the USGS writes it in its three forms."""
    if form == "json":
        return json.dumps(
            {"LANDSAT_METADATA_FILE": {k: {a: b.strip('"') for a, b in v.items()} for k, v in groups.items()}}
        )
    if form == "xml":
        inside = "".join(f"<{k}>{''.join(f'<{a}>{b}</{a}>' for a, b in v.items())}</{k}>" for k, v in groups.items())
        return f'<?xml version="1.0" encoding="UTF-8"?><LANDSAT_METADATA_FILE>{inside}</LANDSAT_METADATA_FILE>'
    lines = ["GROUP = LANDSAT_METADATA_FILE"]
    for name, values in groups.items():
        lines += [f"  GROUP = {name}", *(f"    {k} = {v}" for k, v in values.items()), f"  END_GROUP = {name}"]
    return "\n".join([*lines, "END_GROUP = LANDSAT_METADATA_FILE", "END", ""])


def write_landsat(folder: Path, scene: str = LANDSAT, *, form: str = "txt", bands: tuple[str, ...] = LEVEL_2) -> Any:
    """Write a folder of Landsat's files; return the values of each band."""
    values: dict[str, Any] = {"path": folder}
    for seed, band in enumerate((*bands, "QA_PIXEL")):
        pan = band == "B8"
        place = Affine(15, 0, 300_007.5, 0, -15, 5_799_992.5) if pan else Affine(30, 0, 300_000, 0, -30, 5_800_000)
        side = 2 * SIDE - 1 if pan else SIDE
        values[band] = write(folder / f"{scene}_{band}.TIF", 30, seed, side=side, transform=place)
    (folder / f"{scene}_MTL.{form}").write_text(mtl(form))
    (folder / f"{scene}_ANG.txt").write_text("GROUP = FILE_HEADER\n")
    return values
