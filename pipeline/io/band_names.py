"""What bands are called: the common names of STAC, and the codes that sensors give to their bands.

The same code is another band on another sensor: B2 is blue of Sentinel-2 and Landsat 8, green of Landsat 7. So a code
has a common name only where the sensor is known, or all sensors that have all codes of a scene agree on it.

Sources: common names of the STAC extension for electro-optical imagery (github.com/stac-extensions/eo, 1.1 and 2.0);
ESA, Sentinel-2 User Handbook; USGS, Landsat 4-7 and 8-9 Collection 2 Level 2 Science Product Guides; NASA, HLS User
Guide (whose L30 has Landsat's numbers in two digits); Planet, PlanetScope Product Specifications; USDA, NAIP.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

Roles = frozenset[str]
"""Common names of one band, mostly one or none; of Landsat's near infrared `nir` and `nir08`."""

COMMON = {
    name: name
    for name in ("coastal", "blue", "green", "green05", "red", "yellow", "pan", "rededge", "rededge071", "rededge075",
                 "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir", "lwir11", "lwir12")
} | {
    "coastalaerosol": "coastal", "coastalblue": "coastal", "ultrablue": "coastal", "greeni": "green05",
    "panchromatic": "pan", "rededge1": "rededge071", "rededge2": "rededge075", "rededge3": "rededge078",
    "nearinfrared": "nir", "narrownir": "nir08", "nirnarrow": "nir08", "watervapour": "nir09", "watervapor": "nir09",
    "swir1": "swir16", "swir2": "swir22", "thermal": "lwir",
}  # fmt: skip
LETTERS = {"r": "red", "g": "green", "b": "blue", "n": "nir"}  # of NAIP; only where red, green and blue are all there
PLAIN, SURFACE, TWO_DIGITS = "B2", "SR_B2", "B02"  # how codes are written

_OLI = {1: "coastal", 2: "blue", 3: "green", 4: "red", 5: "nir nir08", 6: "swir16", 7: "swir22"}
_TM = {1: "blue", 2: "green", 3: "red", 4: "nir nir08", 5: "swir16", 7: "swir22"}
SENSORS: dict[str, dict[str, str]] = {
    "Sentinel-2": {
        "1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "rededge071", "6": "rededge075", "7": "rededge078",
        "8": "nir", "8A": "nir08", "9": "nir09", "10": "cirrus", "11": "swir16", "12": "swir22",
    },
    "Landsat 8 or 9": {str(n): name for n, name in _OLI.items()}
    | {"8": "pan", "9": "cirrus", "10": "lwir11", "11": "lwir12"},
    "Landsat 4 to 7": {str(n): name for n, name in _TM.items()} | {"6": "lwir", "8": "pan"},
    "PlanetScope of 4 bands": {"1": "blue", "2": "green", "3": "red", "4": "nir"},
    "PlanetScope of 8 bands": {
        "1": "coastal", "2": "blue", "3": "green05", "4": "green", "5": "yellow", "6": "red", "7": "rededge",
        "8": "nir",
    },
}  # fmt: skip
STYLES: dict[str, dict[str, set[str]]] = {  # which codes a sensor writes in which way, where it is not known otherwise
    PLAIN: {sensor: set(codes) for sensor, codes in SENSORS.items()},
    SURFACE: {
        "Landsat 8 or 9": {"1", "2", "3", "4", "5", "6", "7", "ST10"},
        "Landsat 4 to 7": {"1", "2", "3", "4", "5", "7", "ST6"},
    },
    TWO_DIGITS: {
        "Sentinel-2": set(SENSORS["Sentinel-2"]),
        "Landsat 8 or 9": {"1", "2", "3", "4", "5", "6", "7", "9", "10", "11"},
    },
}
COUNTED = {str(number) for number in range(1, 13)}
RGB_NAMES = (("red", "green", "blue"), ("b04", "b03", "b02"), ("b4", "b3", "b2"))  # the second: Sentinel-2
_START = r"(?:^|[^A-Z0-9])"
PRODUCTS = {  # what names of files and folders, platforms and constellations tell
    "Sentinel-2": rf"{_START}(?:S2[A-D](?![A-Z0-9])|T\d\d[A-Z]{{3}}_\d{{8}}T|HLS\.S30|SENTINEL[-_ ]?2[A-D]?(?!\d))",
    "Landsat 8 or 9": rf"{_START}(?:L[COT]0?[89](?:_|\d{{7}})|HLS\.L30|LANDSAT[-_ ]?[89](?!\d))",
    "Landsat 4 to 7": rf"{_START}(?:L[ET]0?[457](?:_|\d{{7}})|LANDSAT[-_ ]?[457](?!\d))",
    "Landsat MSS": rf"{_START}(?:LM0?[1-5](?:_|\d{{7}})|LANDSAT[-_ ]?[123](?!\d))",
    "PlanetScope of 8 bands": r"ANALYTICMS(?:_SR)?_8B|PSB\.SD",
    "PlanetScope of 4 bands": r"ANALYTICMS(?:_SR)?(?:_HARMONIZED)?(?:_CLIP)?(?:$|[^A-Z0-9_])",
}
_CODE = re.compile(r"(?:(SR|ST|TOA)_(?:BAND(?=\d)|B)|B)(\d\d?[A-Z]?)(?:_\d\dM)?(?=$|[ ,(])", re.IGNORECASE)
_CODE_IN_PRODUCT = re.compile(r"(?:^|.*_)(?:(SR|ST|TOA)_)?B(\d\d?[A-Z]?)(?:_\d\dM)?$", re.IGNORECASE)
_AFTER_NUMBER = re.compile(r"^band\s*\d+\s*[-:,(]?\s*(?=[a-z])", re.IGNORECASE)


def common_names(bands: Sequence[Sequence[str]], hints: Iterable[str] = ()) -> list[Roles]:
    """Return the common names of a scene's bands; none where they are not known, or several bands would have them.

    Parameters
    ----------
    bands
        All names of each band.
    hints
        What may tell the sensor: paths, a platform, a constellation.
    """
    sensors = _candidates(bands, hints)
    roles = [_agreed(names, sensors) for names in bands]
    spoken = _spoken(bands)
    if sensors and all("Landsat" in sensor for sensor in sensors):  # its near infrared is called nir08 by STAC
        spoken = [role | {"nir", "nir08"} if role & {"nir", "nir08"} else role for role in spoken]
    found = [word or role for word, role in zip(spoken, roles, strict=True)]
    uses = Counter(role for of_band in found for role in of_band)
    return [frozenset(role for role in of_band if uses[role] == 1) for of_band in found]


def readings(bands: Sequence[Sequence[str]], hints: Iterable[str] = ()) -> dict[str, list[Roles]]:
    """Return the common names of a scene's bands for each sensor that may have made it."""
    return {sensor: common_names(bands, (*hints, sensor)) for sensor in _candidates(bands, hints)}


def contradicts(bands: Sequence[Sequence[str]], wanted: Sequence[str], hints: Sequence[str] = ()) -> bool:
    """Whether bands that stand for others in their order have names that say otherwise, for any sensor of the scene."""
    meant = common_names([(name,) for name in wanted])
    ways = list(readings(bands, hints).values()) or [common_names(bands, hints)]
    return all(_disagree(there, meant) for there in ways)


def _disagree(there: Sequence[Roles], meant: Sequence[Roles]) -> bool:
    """Whether a band is known for another one than is meant, or what is meant for it is another band."""
    wrong = any(own and roles and not own & roles for own, roles in zip(there, meant, strict=False))
    elsewhere = any(
        roles & own for place, roles in enumerate(meant) for other, own in enumerate(there) if place != other
    )
    return wrong or elsewhere


def places_of(there: Sequence[Roles], wanted: Sequence[Roles]) -> list[int] | None:
    """Return where wanted common names are; None unless each is at exactly one place, and another."""
    places = [[place for place, own in enumerate(there) if own & roles] for roles in wanted]
    if any(len(found) != 1 for found in places):
        return None
    found = [place for (place,) in places]
    return found if len(set(found)) == len(found) else None


def rgb_places(bands: Sequence[str]) -> list[int]:
    """Return the places of red, green and blue by their names, else of the first three bands, else of the first."""
    names = [name.lower() for name in bands]
    for wanted in RGB_NAMES:
        if all(names.count(name) == 1 for name in wanted):
            return [names.index(name) for name in wanted]
    found = places_of(common_names([(name,) for name in bands]), common_names([("red",), ("green",), ("blue",)]))
    if found is not None:
        return found
    return [0] if len(names) in (1, 2) else [0, 1, 2]  # without names: of as many as there are


def _spoken(bands: Sequence[Sequence[str]]) -> list[Roles]:
    """Return the common name that a band's names say in words, the first that does."""
    own = {names[0].lower() for names in bands if names}
    letters: Mapping[str, str] = LETTERS if {"r", "g", "b"} <= own else {}
    found = []
    for names in bands:
        words = [_word(name, letters) for name in names]
        found.append(frozenset([next(filter(None, words), "")]) - {""})
    return found


def _word(name: str, letters: Mapping[str, str]) -> str:
    text = _AFTER_NUMBER.sub("", name.strip().lower()).partition("(")[0].rstrip(") ")
    word = re.sub(r"[^a-z0-9]", "", text)
    return letters.get(word) or COMMON.get(word, "")


def _codes(bands: Sequence[Sequence[str]]) -> list[tuple[str, str] | None]:
    """Return of each band the way in which its code is written, and the code without zeros before it."""
    return [next(filter(None, map(_code, names)), None) for names in bands]


def _code(name: str) -> tuple[str, str] | None:
    match = _CODE.match(name.strip())
    if match is None and _sensors_named([name]):  # a whole product's name, as LC08_..._SR_B4
        match = _CODE_IN_PRODUCT.match(name.strip().rpartition(".")[0] or name.strip())
        match = match or _CODE_IN_PRODUCT.match(name.strip())
    if match is None:
        return None
    prefix, code = (match[1] or "").upper(), match[2].upper()
    style = SURFACE if prefix in ("SR", "ST") else TWO_DIGITS if code.startswith("0") else PLAIN
    return style, ("ST" if prefix == "ST" else "") + code.lstrip("0")


def _candidates(bands: Sequence[Sequence[str]], hints: Iterable[str]) -> list[str]:
    """Return the sensors that a scene may be of: those that are named, else those that have all of its codes."""
    codes = [code for code in _codes(bands) if code]
    if not codes:
        return [sensor for sensor in _sensors_named(hints) if sensor in SENSORS]
    own = {code for _, code in codes}
    if own == COUNTED:  # Sentinel-2 has B8A between: somebody's twelve bands, counted
        return []
    named = _sensors_named((*hints, *(name for names in bands for name in names)))
    if named:
        plain = {code.removeprefix("ST") for code in own}
        return [sensor for sensor in named if plain <= set(SENSORS.get(sensor, ()))] if len(named) == 1 else []
    written = {style for style, _ in codes}
    style = next(way for way in (SURFACE, TWO_DIGITS, PLAIN) if way in written)
    return [sensor for sensor, theirs in STYLES[style].items() if own <= theirs]


def _sensors_named(hints: Iterable[str]) -> list[str]:
    """Return the sensors that texts name, each once; of a path its last three parts count."""
    texts = ["/".join(hint.replace("\\", "/").split("/")[-3:]).upper() for hint in hints]
    found = [sensor for sensor, known in PRODUCTS.items() if any(re.search(known, text) for text in texts)]
    return found + [sensor for sensor in SENSORS if sensor.upper() in texts and sensor not in found]


def _agreed(names: Sequence[str], sensors: Sequence[str]) -> Roles:
    """Return what a band's code is called by all sensors that may be meant."""
    code = next(filter(None, map(_code, names)), None)
    if code is None or not sensors:
        return frozenset()
    return frozenset.intersection(
        *(frozenset(SENSORS[sensor].get(code[1].removeprefix("ST"), "").split()) for sensor in sensors)
    )
